package main

import (
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/ssh/sshtest"
)

// TestSSHStory: a pull request opens a shell and commands on a host, real ssh
// uses them, and its end cuts.
func TestSSHStory(t *testing.T) {
	t.Parallel()
	if _, err := sshtest.Find(); err != nil {
		t.Skip(err)
	}
	ctx, p := playHouse(t)
	p.open(ctx, t, asked{"web-1", "shell", "10m"})
	connect := func(stdin string, command ...string) (int, string) {
		t.Helper()
		return call(t, stdin, append([]string{"connect", "ssh.web-1", "--dir", p.dir, "--as", "alice", "--"}, command...)...)
	}
	if code, out := connect("", "echo hello; exit 4"); code != 4 || out != "hello\n" {
		t.Errorf("code %d, %q", code, out)
	}
	if code, out := call(t, "", "connect", "ssh.web-1", "--dir", p.dir, "--as", "mallory", "--", "id"); code != 1 || !strings.Contains(out, "no active grant") {
		t.Errorf("mallory: code %d, %q", code, out)
	}
	done := make(chan string, 1)
	go func() { _, out := connect("", "echo started; sleep 60"); done <- out }()
	g, err := p.grant(ctx, "web-1")
	if err != nil {
		t.Fatal(err)
	}
	if err := eventually(ctx, 10*time.Second, func() (bool, error) {
		open, err := p.dev.ledger.Sessions(ctx, g.Key)
		return len(open) == 2, err
	}); err != nil {
		t.Fatal(err)
	}
	if code, out := call(t, "", "revoke", "web-1", "--dir", p.dir, "--why", "The job is done."); code != exitOK {
		t.Fatalf("revoke: code %d, %s", code, out)
	}
	if out := <-done; !strings.Contains(out, "The job is done.") {
		t.Errorf("the cut session said %q", out)
	}
	if err := eventually(ctx, 110*time.Second, func() (bool, error) {
		g, err = p.grant(ctx, "web-1")
		return !g.Closed.IsZero(), err
	}); err != nil || g.State != access.StateRevoked {
		t.Errorf("want it revoked and closed, got %s: %v", g, err)
	}
}
