package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tidegate/tidegate/access"
)

// TestUsage: what was typed wrong, what was wanted, what to do, in the words in
// which people type it.
func TestUsage(t *testing.T) {
	long := strings.Repeat("x", access.MaxWhy+1)
	for _, c := range []struct {
		args  string
		code  int
		words string
	}{
		{"help check", exitOK, "usage: tidegate check [--json] [DIR]\nloads an access repository"},
		{"help check", exitOK, "--json\n        print the results as JSON"},
		{"help gateway close", exitOK, "--grant ID\n"},
		{"help setup ledger", exitOK, "flags of tidegate setup ledger:\n  --database DATABASE\n"},
		{"help dev pr", exitOK, "--as LOGIN\n"},
		{"help nosuch", exitUsage, `there is no "nosuch"`},
		{"--help", exitOK, "tidegate help VERB"},
		{"--version", exitOK, "tidegate "},
		{"replay -h", exitOK, "usage: tidegate replay"},
		{"ls --jsn", exitUsage, "there is no flag --jsn; `tidegate ls -h` lists those that there are"},
		{"ls now and then", exitUsage, `got "now" "and" "then", want flags alone`},
		{"ls --dir", exitUsage, "got --dir without a value, want FOLDER behind it"},
		{"replay --from soon x", exitUsage, `got --from "soon", want a time such as 90s`},
		{"replay --speed fast x", exitUsage, `got --speed "fast", want a number`},
		{"replay --op first x", exitUsage, `got --op "first", want a whole number`},
		{"replay --follow=perhaps x", exitUsage, `got --follow "perhaps", want true or false`},
		{"replay --asciicast 4 x", exitUsage, "got --asciicast 4, want 2 or 3"},
		{"sessions --since yesterday", exitUsage, `--since: got "yesterday", want a time such as`},
		{"replay", exitUsage, "got nothing, want a session id or a file"},
		{"replay a b", exitUsage, `got "a" "b", want a session id or a file`},
		{"revoke", exitUsage, "got nothing, want one grant's id"},
		{"revoke inc-1 --why " + long, exitUsage, "got --why of 501 bytes, want 1 to 500"},
		{"adopt --why " + long, exitUsage, "got --why of 501 bytes, want 1 to 500"},
		{"yield orders", exitUsage, "got no command, want one behind --"},
		{"yield orders --at-most 5h -- true", exitUsage, "got --at-most 5h0m0s, want 1s to 4h0m0s"},
		{"yield orders -- nosuchprogram", exitFailed, `find the command: exec: "nosuchprogram"`},
		{"connect orders-prod", exitUsage, `got --as "", want on a dev one of alice, bob`},
		{"connect --as alice", exitUsage, "got nothing, want one target"},
		{"dev pr", exitUsage, "got nothing, want open FILE, approve N"},
		{"dev pr merge 1", exitUsage, `got --as "", want one of alice`},
		{"dev --access-repo /nowhere/at/all", exitUsage, "got --access-repo /nowhere/at/all, want a folder"},
		{"setup postgres --installation A --database orders", exitUsage, `got --installation "A"`},
		{"setup postgres --installation acme1 --database a$b", exitUsage, "names without a $"},
		{"setup", exitUsage, "`tidegate help setup` says what else there is"},
		{"setup ledger --database tidegate", exitUsage, `--gateway "", want`},
		{"serve", exitUsage, "got no --config"},
		{"login --login-dir " + t.TempDir() + " --issuer http://idp.acme.test --client-id c --gateway gate:22 --host-ca " + hostCAOf(t), exitFailed, `got "http://idp.acme.test", want https`},
		{"check /nowhere/at/all", exitFailed, "got /nowhere/at/all, want the folder that holds grants/ and policies/"},
		{"plan --dir /nowhere/at/all", exitFailed, "run this in a clone of it, or name one with --dir"},
	} {
		t.Run(c.args[:min(len(c.args), 40)], func(t *testing.T) {
			code, out := call(t, "", strings.Fields(c.args)...)
			if code != c.code || !strings.Contains(out, c.words) {
				t.Errorf("code %d, want %d; want %q in\n%s", code, c.code, c.words, out)
			}
		})
	}
}

// hostCAOf is a file with a public key.
func hostCAOf(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "host-ca.pub")
	text := "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMeWrGK0JSTRE8XSsAE3MzpAOT5skWIXUjBGeZ0kzv5h\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestEveryVerbExplainsItself: -h prints how a verb is called, and does nothing.
func TestEveryVerbExplainsItself(t *testing.T) {
	for _, v := range verbs() {
		if code, out := call(t, "", "help", v.name); code != exitOK || !strings.HasPrefix(out, v.usage()+"\n") {
			t.Errorf("help %s: code %d, want 0 and %q first:\n%s", v.name, code, v.usage(), out)
		}
	}
}

// TestLowPort: who may not listen is told what is missing; who listens where
// somebody else does is not.
func TestLowPort(t *testing.T) {
	l, err := listenSomewhere()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, inUse := net.Listen("tcp", l.Addr().String())
	denied := &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", syscall.EACCES)}
	if said := lowPort(denied); !strings.Contains(said, "CAP_NET_BIND_SERVICE") {
		t.Errorf("got %q for %v", said, denied)
	}
	if said := lowPort(inUse); said != "" {
		t.Errorf("got %q for %v", said, inUse)
	}
}
