package postgres

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/tidegate/tidegate/access"
)

// SQLSTATEs that the room itself says.
const (
	stateDenied        = "42501"
	stateSyntax        = "42601"
	stateNoStatement   = "26000"
	stateNoPortal      = "34000"
	stateDuplicate     = "42P05"
	stateCancelled     = "57014"
	stateEnded         = "57P01"
	stateUnavailable   = "57P03"
	stateAuthorization = "28000"
	stateNoDatabase    = "3D000"
	stateViolation     = "08P01"
	stateTooLarge      = "54000"
	stateInternal      = "XX000"
)

// unparsable goes to the target in the place of what was refused: an error
// that aborts what must be aborted, and runs nothing.
const unparsable = "tidegate: refused"

// fatal ends a connection with a sentence for the client.
type fatal struct {
	code, message string
	cause         error // for the log
}

func (f *fatal) Error() string {
	if f.cause != nil {
		return f.message + " " + f.cause.Error()
	}
	return f.message
}

func (f *fatal) Unwrap() error { return f.cause }

func violation(format string, args ...any) *fatal {
	return &fatal{code: stateViolation, message: fmt.Sprintf(format, args...)}
}

// doorError turns a door's refusal into the protocol's.
func doorError(err error) *fatal {
	code := stateAuthorization
	switch access.CodeOf(err) {
	case access.CodeUnavailable, access.CodeInternal, access.CodeConflict:
		code = stateUnavailable
	}
	return &fatal{code: code, message: access.Message(err), cause: errors.Unwrap(err)}
}

// stateOf is the SQLSTATE of a statement's refusal.
func stateOf(err error) string {
	switch access.CodeOf(err) {
	case access.CodeDenied:
		return stateDenied
	case access.CodeInvalid:
		return stateSyntax
	case access.CodeTooLarge:
		return stateTooLarge
	case access.CodeCancelled:
		return stateCancelled
	case access.CodeEnded:
		return stateEnded
	case access.CodeUnavailable:
		return stateUnavailable
	case access.CodeNotFound:
		return stateNoStatement
	case access.CodeConflict:
		return stateDuplicate
	}
	return stateInternal
}

// refusal is the ErrorResponse for a statement that was not sent.
func refusal(err error) []byte {
	r := report{severity: "ERROR", code: stateOf(err), message: access.Message(err)}
	if e := (*access.Error)(nil); errors.As(err, &e) && e.Rule != "" {
		r.detail = "Rule: " + e.Rule + "."
	}
	return r.bytes('E')
}

// report is an ErrorResponse or a NoticeResponse.
type report struct{ severity, code, message, detail string }

func (r report) bytes(kind byte) []byte {
	var body []byte
	for _, f := range []struct {
		field byte
		value string
	}{{'S', r.severity}, {'V', r.severity}, {'C', r.code}, {'M', r.message}, {'D', r.detail}} {
		if f.value != "" {
			body = append(append(append(body, f.field), f.value...), 0)
		}
	}
	return message(kind, append(body, 0))
}

// reportFields reads severity and SQLSTATE out of an ErrorResponse.
func reportFields(body []byte) (severity, code string) {
	for len(body) > 1 {
		value, rest, ok := cutString(body[1:])
		if !ok {
			break
		}
		switch body[0] {
		case 'V':
			severity = value
		case 'C':
			code = value
		}
		body = rest
	}
	return severity, code
}

// reject tells a client that has no session yet why it gets none.
func reject(conn net.Conn, err error) error {
	f := (*fatal)(nil)
	if !errors.As(err, &f) {
		return err
	}
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	if _, werr := conn.Write(report{"FATAL", f.code, f.message, ""}.bytes('E')); werr == nil {
		linger(conn)
	}
	return err
}

// linger reads what is on its way: closing over unread bytes would reset the
// connection, and the client would lose the last words.
func linger(conn net.Conn) {
	if c, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
	_ = conn.SetReadDeadline(time.Now().Add(time.Second))
	_, _ = io.CopyN(io.Discard, conn, 1<<20)
}
