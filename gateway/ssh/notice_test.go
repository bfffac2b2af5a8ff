package ssh

import (
	"io"
	"strings"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/gatewaytest"
)

// terminal is a shell at a terminal, with what it shows.
type terminal struct {
	*gossh.Session
	in       io.Writer
	out, err *heard
}

func (h *house) terminal() *terminal {
	h.t.Helper()
	s, err := h.mustDial().NewSession()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := s.RequestPty("xterm", 24, 80, gossh.TerminalModes{gossh.ECHO: 0}); err != nil {
		h.t.Fatal(err)
	}
	k := &terminal{Session: s, out: &heard{}, err: &heard{}}
	s.Stdout = k.out
	if k.in, err = s.StdinPipe(); err != nil {
		h.t.Fatal(err)
	}
	errOut, err := s.StderrPipe() // read at once: what is said while a person decides comes before the shell
	if err != nil {
		h.t.Fatal(err)
	}
	go func() { _, _ = io.Copy(k.err, errOut) }() // ends with the connection
	return k
}

// run types a line and waits until the shell has done it.
func (k *terminal) run(t *testing.T, line string) {
	t.Helper()
	before := strings.Count(k.out.String(), "did 42")
	if _, err := io.WriteString(k.in, line+"; echo did $((40+2))\n"); err != nil {
		t.Fatal(err)
	}
	eventually(t, line, func() bool { return strings.Count(k.out.String(), "did 42") > before })
}

// TestNoticeWaitsForTheScreen: a program that has the whole screen is not
// drawn over; the sentence comes when it gives the screen back. The end says
// why, and where to ask again, on the ordinary screen.
func TestNoticeWaitsForTheScreen(t *testing.T) {
	h := newHouse(t, houseOptions{role: map[string]string{"shell": "true"}})
	k := h.terminal()
	if err := k.Shell(); err != nil {
		t.Fatal(err)
	}
	warned := func() bool { return strings.Contains(k.err.String(), "ends in 5 minutes") }
	noticed := func() (n int) {
		for _, e := range h.gate.Tape.Events("") {
			if e.Type == access.EventNotice && strings.Contains(e.Text, "ends in 5 minutes") {
				n++
			}
		}
		return n
	}
	k.run(t, `printf '\033[?10'; printf '49h'`)
	h.gate.Change("inc-1", func(g *access.Grant) { g.NotAfter = time.Now().Add(5*time.Minute + 100*time.Millisecond) })
	eventually(t, "the warning is due", func() bool { return noticed() == 1 })
	k.run(t, "true")
	if warned() {
		t.Errorf("a program with the whole screen was drawn over: %q", k.err)
	}
	k.run(t, `printf '\033[?1049l'`)
	eventually(t, "the warning is shown", warned)
	h.gate.Change("inc-1", func(g *access.Grant) { g.NotAfter = time.Now().Add(time.Minute + 100*time.Millisecond) })
	eventually(t, "the last warning is shown", func() bool { return strings.Contains(k.err.String(), "ends in 1 minute,") })
	k.run(t, `printf '\033[?1049h'`)
	h.gate.Revoke("inc-1", "The incident is over.")
	_ = k.Wait() // what it shows tells how it ended
	eventually(t, "its last words are shown", func() bool {
		said := k.err.String()
		return strings.Contains(said, "The incident is over.") && strings.Contains(said, "https://forge.test/pull/1")
	})
	if !strings.HasSuffix(k.out.String(), "\x1b[?1049l") {
		t.Errorf("the screen was not given back: %q", k.out)
	}
}

// TestScriptsGetNoNotice: the stderr of a command without a terminal may be
// somebody's data.
func TestScriptsGetNoNotice(t *testing.T) {
	h := newHouse(t, houseOptions{role: map[string]string{"exec": "true"}})
	s, err := h.mustDial().NewSession()
	if err != nil {
		t.Fatal(err)
	}
	errOut := &heard{}
	s.Stderr = errOut
	in, _ := s.StdinPipe()
	out, _ := s.StdoutPipe()
	if err := s.Start("echo begun; read line; exit 0"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("begun\n"))); err != nil {
		t.Fatal(err)
	}
	h.gate.Change("inc-1", func(g *access.Grant) { g.NotAfter = time.Now().Add(5*time.Minute + 100*time.Millisecond) })
	eventually(t, "the warning is due", func() bool { return strings.Contains(h.events(), string(access.EventNotice)) })
	if _, err := io.WriteString(in, "\n"); err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(); err != nil || errOut.String() != "" {
		t.Errorf("ended with %v, stderr %q", err, errOut)
	}
}

// TestShellIsHeld: a rule may ask for a second person before a shell opens.
func TestShellIsHeld(t *testing.T) {
	h := newHouse(t, houseOptions{role: map[string]string{"shell": "true"}, gate: gatewaytest.Options{
		Judge: func(op access.Operation) access.Decision {
			if op.Kind != kindShell {
				return access.Decision{Verdict: access.Allow}
			}
			return access.Decision{Verdict: access.Hold, Rule: "two", Say: "Two people.", Ask: []access.Party{gatewaytest.Team("ops", "bob")}}
		},
	}})
	for _, approve := range []bool{false, true} {
		k := h.terminal()
		started := make(chan error, 1)
		go func() { started <- k.Shell() }()
		held := h.gate.NextHeld()
		eventually(t, "the person is told", func() bool { return strings.Contains(k.err.String(), "Held as "+held.Name()) })
		h.gate.Answer(held, gatewaytest.Reply{By: gatewaytest.User("bob"), Approve: approve})
		if err := <-started; err != nil {
			t.Fatal(err)
		}
		if approve {
			k.run(t, "true")
			continue
		}
		_ = k.Wait() // what it shows tells how it ended
		eventually(t, "the person is told why not", func() bool { return strings.Contains(k.err.String(), "bob said no") })
	}
}

// TestDisplayIsLent: X11 where the role gives it. The client's side of the
// display is this test; the host's is a program that connects to it.
func TestDisplayIsLent(t *testing.T) {
	for given, role := range map[bool]map[string]string{true: {"exec": "true", "x11": "true"}, false: {"exec": "true"}} {
		h := newHouse(t, houseOptions{role: role})
		c := h.mustDial()
		display := c.HandleChannelOpen("x11")
		s, err := c.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		ok, err := s.SendRequest("x11-req", true, gossh.Marshal(struct {
			Single         bool
			Protocol, Auth string
			Screen         uint32
		}{false, "MIT-MAGIC-COOKIE-1", strings.Repeat("ab", 16), 0}))
		if err != nil || ok != given {
			t.Fatalf("given %v: got %v, %v", given, ok, err)
		}
		if !given {
			continue
		}
		go func() {
			for in := range display {
				ch, requests, err := in.Accept()
				if err != nil {
					return
				}
				go gossh.DiscardRequests(requests)
				_, _ = io.Copy(ch, ch)
				_ = ch.Close()
			}
		}()
		out, err := s.Output(`n=${DISPLAY#*:}; n=${n%.*}; exec bash -c "exec 3<>/dev/tcp/127.0.0.1/$((6000+n)); echo ping >&3; read line <&3; echo \$line"`)
		if err != nil || string(out) != "ping\n" {
			t.Errorf("got %q, %v\n%s", out, err, h.host.LogText())
		}
		if !strings.Contains(h.events(), string(access.EventOpen)+" x11") {
			t.Errorf("its use is not recorded:\n%s", h.events())
		}
	}
}
