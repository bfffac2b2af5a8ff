package ssh

import (
	"context"
	"errors"
	"io"
	"strings"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
)

// words is a refusal as a person reads it on stderr.
func words(err error) string {
	text := "tidegate: " + access.Message(err)
	if e := (*access.Error)(nil); errors.As(err, &e) && e.Rule != "" {
		text += " (rule " + e.Rule + ")"
	}
	return text
}

// say writes a line to the person. On a raw terminal a line ends with a
// carriage return, too; elsewhere it does no harm on stderr.
func say(ch gossh.Channel, text string) error {
	_, err := io.WriteString(ch.Stderr(), strings.ReplaceAll(text, "\n", "\r\n")+"\r\n")
	return err
}

// refuseChannel ends a channel in which nothing ran.
func refuseChannel(ch gossh.Channel, err error) {
	_ = say(ch, words(err)) // the client may be gone
	_, _ = ch.SendRequest("exit-status", false, exitStatus(1))
	_ = ch.Close()
}

// reason is why a connection ended, for the recording.
func reason(cause error) string {
	switch {
	case errors.Is(cause, errLeft):
		return "The client left."
	case errors.Is(cause, errTargetLeft):
		return "The target ended the connection."
	case errors.Is(cause, context.Canceled):
		return "The gateway is shutting down. Connect again in a moment."
	}
	return access.Message(cause)
}

func worthLogging(cause error) error {
	if errors.Is(cause, errLeft) || errors.Is(cause, errTargetLeft) || errors.Is(cause, context.Canceled) || access.CodeOf(cause) == access.CodeEnded {
		return nil
	}
	return cause
}
