package ssh

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/gatewaytest"
)

func TestHoldCancelledByLeaving(t *testing.T) {
	hold := func(op access.Operation) access.Decision {
		if op.Kind != kindExec {
			return access.Decision{Verdict: access.Allow}
		}
		return access.Decision{Verdict: access.Hold, Rule: "two", Say: "Two people.", Ask: []access.Party{gatewaytest.Team("ops", "bob")}}
	}
	f := filepath.Join(t.TempDir(), "touched")
	h := newHouse(t, houseOptions{role: map[string]string{"exec": "true"}, gate: gatewaytest.Options{Judge: hold}})
	ctx, cancel := context.WithCancel(t.Context())
	cmd := h.client("alice", "ssh", "web-1@127.0.0.1", "touch "+f)
	done := make(chan error, 1)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { done <- cmd.Wait() }()
	defer cancel()
	held := h.gate.NextHeld()
	_ = cmd.Process.Kill()
	<-done
	eventually(t, "the hold is cancelled", func() bool {
		now, err := h.gate.Ledger.Held(ctx, held.ID)
		return err == nil && now.State == access.HeldCancelled
	})
	r := make(chan result, 1)
	cmd = h.client("alice", "ssh", "web-1@127.0.0.1", "touch "+f)
	told := &heard{}
	cmd.Stderr = told
	go func() { _ = cmd.Run(); r <- result{code: cmd.ProcessState.ExitCode()} }()
	held = h.gate.NextHeld()
	eventually(t, "the client is told that it waits", func() bool { return strings.Contains(told.String(), "Held as "+held.Name()) })
	if _, err := os.Stat(f); !os.IsNotExist(err) {
		t.Fatal("it ran while it was held")
	}
	h.gate.Answer(held, gatewaytest.Reply{By: gatewaytest.User("bob"), Approve: true})
	if got := <-r; got.code != 0 {
		t.Errorf("got %+v", got)
	}
	if _, err := os.Stat(f); err != nil {
		t.Errorf("it did not run: %v", err)
	}
}

// TestHoldAtATerminal: Ctrl-C on a raw terminal ends the wait, and what was
// typed while it lasted is not lost.
func TestHoldAtATerminal(t *testing.T) {
	h := newHouse(t, houseOptions{role: map[string]string{"exec": "true", "terminal": "true"}, gate: gatewaytest.Options{
		Judge: func(access.Operation) access.Decision {
			return access.Decision{Verdict: access.Hold, Rule: "two", Say: "Two people.", Ask: []access.Party{gatewaytest.Team("ops", "bob")}}
		},
	}})
	for _, key := range []string{"\x03", "typed\n"} {
		s, err := h.mustDial().NewSession()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.RequestPty("xterm", 24, 80, gossh.TerminalModes{gossh.ECHO: 0}); err != nil {
			t.Fatal(err)
		}
		in, _ := s.StdinPipe()
		out, _ := s.StdoutPipe()
		errOut := &heard{}
		s.Stderr = errOut
		started := make(chan error, 1)
		go func() { started <- s.Start("read line; echo got $line") }()
		held := h.gate.NextHeld()
		if _, err := io.WriteString(in, key); err != nil {
			t.Fatal(err)
		}
		if key != "\x03" {
			h.gate.Answer(held, gatewaytest.Reply{By: gatewaytest.User("bob"), Approve: true})
		}
		if err := <-started; err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(out)
		err = s.Wait()
		if key == "\x03" {
			if err == nil || !strings.Contains(errOut.String(), "was cancelled before anybody answered") {
				t.Errorf("Ctrl-C: got %v, %q, %q", err, text, errOut)
			}
			continue
		}
		if err != nil || !strings.Contains(string(text), "got typed") {
			t.Errorf("typed ahead: got %q, %v", text, err)
		}
	}
}

// heard is what a program has written so far.
type heard struct {
	mu   sync.Mutex
	text strings.Builder
}

func (h *heard) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.Write(p)
}

func (h *heard) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.String()
}
