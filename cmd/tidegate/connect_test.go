package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
)

// TestConnectAndRevoke walks both verbs on a whole house.
func TestConnectAndRevoke(t *testing.T) {
	ctx, p := playHouse(t)
	p.open(ctx, t, asked{"inc-1", "readonly", "10m"})
	p.open(ctx, t, asked{"inc-2", "readonly", "10m"})
	connect := []string{"connect", "postgres.orders-prod", "--dir", p.dir, "--as", "alice"}
	t.Run("psql reads, masked", func(t *testing.T) {
		args := append(slices.Clone(connect), "--choice", "inc-1", "--", "psql", "-XAt")
		code, out := call(t, "SELECT id, email FROM users ORDER BY id LIMIT 1;\n", args...)
		if code != exitOK || !strings.HasPrefix(out, "1|") || strings.Contains(out, canary) {
			t.Errorf("code %d, want a masked row:\n%s", code, out)
		}
	})
	t.Run("the command's exit code is ours", func(t *testing.T) {
		if code, out := call(t, "", append(slices.Clone(connect), "--", "sh", "-c", "exit 7")...); code != 7 {
			t.Errorf("code %d, want 7: %s", code, out)
		}
	})
	t.Run("two grants want a choice", func(t *testing.T) {
		code, out := call(t, "", append(slices.Clone(connect), "--", "psql", "-XAtc", "SELECT 1")...)
		if code != 2 || !strings.Contains(out, "inc-1") || !strings.Contains(out, "inc-2") {
			t.Errorf("code %d, want psql's 2 and both grants named:\n%s", code, out)
		}
	})
	t.Run("files alone, and they go", func(t *testing.T) { filesAlone(t, p, connect) })
	t.Run("revoke cuts at once", func(t *testing.T) { p.revokes(ctx, t) })
}

// filesAlone looks at what a command is given: paths in its environment,
// tight files behind them, and nothing once it ended.
func filesAlone(t *testing.T, p played, connect []string) {
	t.Setenv("PGPASSWORD", "not-this")
	t.Setenv("PGHOSTADDR", "192.0.2.1")
	show := `env; stat -c '%a' "$(dirname "$PGPASSFILE")" "$PGPASSFILE" "$PGSERVICEFILE"; cat "$PGSERVICEFILE"`
	code, out := call(t, "", append(slices.Clone(connect), "--", "sh", "-c", show)...)
	if code != exitOK || !strings.Contains(out, "\n700\n600\n600\n") || !strings.Contains(out, "sslmode=verify-full") {
		t.Errorf("code %d, want a 0700 folder, two 0600 files and verify-full:\n%s", code, out)
	}
	for _, bad := range []string{"not-this", "192.0.2.1", "eyJ", p.house.Tokens["alice"]} {
		if strings.Contains(out, bad) {
			t.Errorf("want no %.8s… outside the password file", bad)
		}
	}
	for line := range strings.SplitSeq(out, "\n") {
		if path, ok := strings.CutPrefix(line, "PGPASSFILE="); ok {
			if _, err := os.Stat(filepath.Dir(path)); !os.IsNotExist(err) {
				t.Errorf("want %s gone, got %v", filepath.Dir(path), err)
			}
		}
	}
}

// revokes ends a grant under an open session from the command line.
func (p played) revokes(ctx context.Context, t *testing.T) {
	done := p.session(ctx, t, "inc-2", "SELECT pg_sleep(30);")
	begun := time.Now()
	if code, out := call(t, "", "revoke", "inc-2", "--dir", p.dir, "--why", "The job is done."); code != exitOK || out != "inc-2 is revoked\n" {
		t.Fatalf("code %d: %s", code, out)
	}
	if e := wait(t, done); e.at.Sub(begun) > 2*time.Second || !strings.Contains(e.out, "57P01") {
		t.Errorf("cut after %s, want within 2 s and with 57P01:\n%s", e.at.Sub(begun), e.out)
	}
	g, err := p.grant(ctx, "inc-2")
	if err != nil || g.State != access.StateRevoked || g.Why != "The job is done." {
		t.Errorf("want it revoked with the reason, got %s %q, %v", g.State, g.Why, err)
	}
	if err := p.dev.ledger.VerifyAudit(ctx); err != nil {
		t.Errorf("the audit log: %v", err)
	}
	if code, out := call(t, "", "revoke", "inc-2", "--dir", p.dir); code != exitOK {
		t.Errorf("a second time: code %d, %s", code, out)
	}
	if code, out := call(t, "", "revoke", "inc-9", "--dir", p.dir); code != exitFailed || !strings.Contains(out, "no grant") {
		t.Errorf("an unknown grant: code %d, %s", code, out)
	}
	if code, _ := call(t, "", "connect", "orders-prod", "--choice", "inc-2", "--dir", p.dir, "--as", "alice", "--", "psql", "-Xc", "SELECT 1"); code != 2 {
		t.Errorf("psql under a revoked grant ended with %d, want 2", code)
	}
	p.closed(ctx, t, "inc-2", 110*time.Second)
}

func TestConnectAndRevokeRefuse(t *testing.T) {
	empty := t.TempDir()
	for _, c := range []struct {
		name  string
		args  []string
		code  int
		words string
	}{
		{"connect without a dev", []string{"connect", "x", "--as", "alice", "--dir", empty}, exitFailed, "no dev.json"},
		{"connect as nobody", []string{"connect", "x", "--as", "eve", "--dir", empty}, exitUsage, `got --as "eve"`},
		{"connect to two", []string{"connect", "x", "y", "--as", "alice"}, exitUsage, "want one target"},
		{"a setting in the target", []string{"connect", "x\nsslmode=disable", "--as", "alice"}, exitUsage, "is no name"},
		{"a setting in the choice", []string{"connect", "x", "--choice", "y z", "--as", "alice"}, exitUsage, "is no name"},
		{"no command", []string{"connect", "x", "--as", "alice", "--"}, exitUsage, "want a command"},
		{"revoke nothing", []string{"revoke"}, exitUsage, "want one grant"},
		{"revoke without a dev", []string{"revoke", "inc-1", "--dir", empty}, exitFailed, "there is no"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if code, out := call(t, "", c.args...); code != c.code || !strings.Contains(out, c.words) {
				t.Errorf("code %d, want %d and %q:\n%s", code, c.code, c.words, out)
			}
		})
	}
	if left, err := os.ReadDir(empty); err != nil || len(left) != 0 {
		t.Errorf("want an empty folder left empty, got %v, %v", left, err)
	}
}
