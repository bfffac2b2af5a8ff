package ssh

import (
	"bytes"
	"crypto/rand"
	"os"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/gatewaytest"
)

// TestTerminal: a command has a terminal where the role says so, or where a
// shell would open as well; the host's own sshd keeps to that, too.
func TestTerminal(t *testing.T) {
	noRemoval := func(op access.Operation) access.Decision {
		if name, known := op.Facts["name"]; !known || name == "rm" {
			return access.Decision{Verdict: access.Deny, Rule: "no-rm", Say: "Nothing is removed."}
		}
		return access.Decision{Verdict: access.Allow}
	}
	for _, c := range []struct {
		name  string
		role  map[string]string
		judge func(access.Operation) access.Decision
		given bool
	}{
		{"exec", map[string]string{"exec": "true"}, nil, false},
		{"commands", map[string]string{"commands": "tty"}, nil, false},
		{"exec with a terminal", map[string]string{"exec": "true", "terminal": "true"}, nil, true},
		{"commands with a terminal", map[string]string{"commands": "tty", "terminal": "true"}, nil, true},
		{"a shell", map[string]string{"shell": "true", "exec": "true"}, nil, true},
		{"a shell that rules take away", map[string]string{"shell": "true", "exec": "true"}, noRemoval, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t, houseOptions{role: c.role, gate: gatewaytest.Options{Judge: c.judge}})
			r := h.run(h.client("alice", "ssh", "-tt", "web-1@127.0.0.1", "tty"))
			if c.given && (r.code != 0 || !strings.HasPrefix(r.out, "/dev/pts/")) {
				t.Errorf("got %+v", r)
			}
			if !c.given && (r.code != 1 || !strings.Contains(r.err, "gives commands no terminal") || !strings.Contains(h.events(), `op.open exec "tty" deny`)) {
				t.Errorf("got %+v\n%s", r, h.events())
			}
			if r := h.ssh("tty"); r.out != "not a tty\n" {
				t.Errorf("without a terminal: %+v", r)
			}
		})
	}
}

// TestHeldFilesBesideATerminal: packets of an sftp session are no keys: one in
// which byte 3 stands, which is Ctrl-C, cancels nothing, and none is lost while
// a person decides. A terminal that the client asked for is left out.
func TestHeldFilesBesideATerminal(t *testing.T) {
	f := newFolders(t)
	h := newHouse(t, houseOptions{
		role: map[string]string{"exec": "true", "terminal": "true"}, read: []string{f.write}, write: []string{f.write},
		gate: gatewaytest.Options{Judge: func(op access.Operation) access.Decision {
			if op.Kind == kindSession || op.Kind == kindFile && op.Facts["writes"] == true {
				return access.Decision{Verdict: access.Hold, Rule: "two", Say: "Two people.", Ask: []access.Party{gatewaytest.Team("ops", "bob")}}
			}
			return access.Decision{Verdict: access.Allow}
		}},
	})
	s, err := h.mustDial().NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RequestPty("xterm", 24, 80, nil); err != nil {
		t.Fatal(err)
	}
	in, _ := s.StdinPipe()
	out, _ := s.StdoutPipe()
	started := make(chan error, 1)
	go func() { started <- s.RequestSubsystem("sftp") }()
	sftp := &rawSFTP{t: t, in: in, out: out}
	yes := func() {
		h.gate.Answer(h.gate.NextHeld(), gatewaytest.Reply{By: gatewaytest.User("bob"), Approve: true})
	}
	if _, err := in.Write(newMessage(fxInit, fileVersion).sealed()); err != nil {
		t.Fatal(err)
	}
	yes()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	if p, err := readPacket(out, new([]byte)); err != nil || p.kind != fxVersion {
		t.Fatalf("got packet %d, %v", p.kind, err)
	}
	text := make([]byte, 30_000)
	_, _ = rand.Read(text)
	path := f.write + "/held"
	ask := sftp.message(fxOpen).text(path).uint32(openWrite &^ 0x24).uint32(0) // neither to append nor exclusively
	go yes()
	handle := handleIn(t, sftp.ask(ask))
	for i := range 20 { // with all that stands in the way of a terminal
		at := uint32(i * len(text))
		if code := statusCode(sftp.ask(sftp.message(fxWrite).text(handle).uint32(0).uint32(at).text(string(text)))); code != fxOK {
			t.Fatalf("write %d: code %d", i, code)
		}
	}
	sftp.ask(sftp.message(fxClose).text(handle))
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, bytes.Repeat(text, 20)) {
		t.Errorf("%d bytes of %d arrived, %v", len(got), 20*len(text), err)
	}
}

func handleIn(t *testing.T, p packet) string {
	t.Helper()
	handle, ok := handleOf(p)
	if !ok {
		t.Fatalf("packet %d, %q; want a handle", p.kind, p.body)
	}
	return handle
}
