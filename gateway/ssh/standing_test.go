package ssh

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/gatewaytest"
)

// TestRulesThatComeLater: what is open when a rule comes that denies it goes on
// no longer than to its next byte, says why, and leaves the rest alone.
func TestRulesThatComeLater(t *testing.T) {
	f := newFolders(t)
	file := f.put(t, "write/file", "hello\n")
	echo := echoes(t)
	h := newHouse(t, houseOptions{
		role: map[string]string{"shell": "true", "exec": "true", "forward": "127.0.0.1:*"},
		read: []string{f.write}, write: []string{f.write},
	})
	rule := func(name, of string) { h.gate.Rules(access.Rule{Name: name, Deny: of, Say: "Not since this morning."}) }
	h.gate.Rules(access.Rule{Name: "held", Hold: "anything", Say: "Two people."})

	k := h.terminal()
	if err := k.Shell(); err != nil {
		t.Fatal(err)
	}
	k.run(t, "true")
	c := h.mustDial()
	cat, out, errOut := begin(t, c, "cat")
	tunnel, err := c.Dial("tcp", echo)
	if err != nil {
		t.Fatal(err)
	}
	goesOn(t, "the tunnel", tunnel, tunnel)
	goesOn(t, "cat", cat, out)
	r := h.rawSFTP(t)
	handle := r.open(file, openRead)

	rule("unrelated", "another")
	k.run(t, "true")
	goesOn(t, "cat", cat, out)
	goesOn(t, "the tunnel", tunnel, tunnel)

	rule("no-cat", "cat")
	_, _ = io.WriteString(cat, "more")
	said, _ := io.ReadAll(errOut)
	left, _ := io.ReadAll(out)
	if len(left) > 0 || !strings.Contains(string(said), "Not since this morning.") {
		t.Errorf("cat: %q, and %q on stderr", left, said)
	}
	goesOn(t, "the tunnel", tunnel, tunnel)

	rule("no-shells", "a shell")
	_, _ = io.WriteString(k.in, "echo on\n")
	eventually(t, "the shell is told why it ends", func() bool { return strings.Contains(k.err.String(), "Not since this morning.") })

	rule("no-tunnels", strings.TrimPrefix(echo, "127.0.0.1"))
	_, _ = io.WriteString(tunnel, "more")
	if got, _ := io.ReadAll(tunnel); len(got) > 0 {
		t.Errorf("the tunnel brought %q", got)
	}

	rule("no-file", "read "+file)
	if code := statusCode(r.ask(r.message(fxRead).text(handle).uint32(0).uint32(0).uint32(100))); code != fxDenied {
		t.Errorf("the file: code %d", code)
	}
	rule("no-files", "sftp")
	if p, err := r.answer(r.message(fxLstat).text(file)); err == nil {
		t.Errorf("sftp answers with packet %d", p.kind)
	}
	for _, want := range []string{`exec "cat" deny`, `shell "a shell" deny`, `file "read ` + file + `" deny`, `sftp "sftp" deny`} {
		if !strings.Contains(h.events(), want) {
			t.Errorf("the recording has no %q:\n%s", want, h.events())
		}
	}
}

// TestPortsOfRulesThatCame: the host listens for the client, until a rule comes
// that denies it.
func TestPortsOfRulesThatCame(t *testing.T) {
	h := newHouse(t, houseOptions{role: map[string]string{"listen": "localhost:*"}})
	l, err := h.mustDial().Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	arrived := make(chan error, 1)
	go func() {
		for {
			conn, err := l.Accept()
			if err == nil {
				_ = conn.Close()
			}
			arrived <- err
			if err != nil {
				return
			}
		}
	}()
	address := fmt.Sprintf("127.0.0.1:%d", l.Addr().(*net.TCPAddr).Port)
	visit := func() {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
	}
	if visit(); <-arrived != nil {
		t.Fatal("nobody came")
	}
	h.gate.Rules(access.Rule{Name: "no-ports", Deny: "localhost:0", Say: "Not since this morning."})
	visit()
	select {
	case err := <-arrived:
		t.Errorf("somebody came: %v", err)
	default:
	}
	if !strings.Contains(h.events(), `listen "localhost:0" deny`) {
		t.Errorf("the recording has:\n%s", h.events())
	}
}

// TestRulesOnCommandsEndShells: a rule on commands takes away also the shell
// that is open.
func TestRulesOnCommandsEndShells(t *testing.T) {
	var denies atomic.Bool
	h := newHouse(t, houseOptions{role: map[string]string{"shell": "true"}, gate: gatewaytest.Options{
		Judge: func(op access.Operation) access.Decision {
			if _, known := op.Facts["name"]; denies.Load() && !known {
				return access.Decision{Verdict: access.Hold, Rule: "two", Say: "Two people."}
			}
			return access.Decision{Verdict: access.Allow}
		},
	}})
	k := h.terminal()
	if err := k.Shell(); err != nil {
		t.Fatal(err)
	}
	k.run(t, "true")
	denies.Store(true)
	h.gate.Rules(access.Rule{Name: "another"})
	_, _ = io.WriteString(k.in, "echo on\n")
	eventually(t, "the shell is told why it ends", func() bool { return strings.Contains(k.err.String(), "Rules on commands apply here") })
}

// echoes is a server on loopback that says everything again.
func echoes(t *testing.T) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(conn, conn); _ = conn.Close() }()
		}
	}()
	return l.Addr().String()
}

// begin runs a command whose ends are held open.
func begin(t *testing.T, c *gossh.Client, command string) (in io.Writer, out, errOut io.Reader) {
	t.Helper()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	in, _ = s.StdinPipe()
	out, _ = s.StdoutPipe()
	errOut, _ = s.StderrPipe()
	if err := s.Start(command); err != nil {
		t.Fatal(err)
	}
	return in, out, errOut
}

func goesOn(t *testing.T, what string, in io.Writer, out io.Reader) {
	t.Helper()
	got := make([]byte, 4)
	_, err := io.WriteString(in, "ping")
	if err == nil {
		_, err = io.ReadFull(out, got)
	}
	if err != nil || string(got) != "ping" {
		t.Fatalf("%s: %q, %v", what, got, err)
	}
}
