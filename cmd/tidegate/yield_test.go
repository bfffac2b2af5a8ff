package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
)

// TestYield takes a grant's views out of a migration's way, and has them back
// afterwards, also where the migration fails.
func TestYield(t *testing.T) {
	t.Parallel()
	ctx, p := playHouse(t)
	super := p.dev.target.orders()
	p.open(ctx, t, asked{"inc-1", "readonly", "10m"})
	reads := func(sql string) (int, string) {
		return call(t, "", "connect", "orders-prod", "--dir", p.dir, "--as", "alice", "--", "psql", "-XAtc", sql)
	}
	if _, out := call(t, "", "doctor", "--dir", p.dir); !strings.Contains(out, "grant inc-1: its views hinder") || !strings.Contains(out, "of public.users") {
		t.Errorf("doctor does not name the table: %s", out)
	}
	open := p.session(ctx, t, "inc-1", "SELECT pg_sleep(60)")
	code, out := call(t, "", "yield", "postgres.orders-prod", "--dir", p.dir, "--why", "tickets/1", "--",
		"sh", "-c", `psql "$0" -v ON_ERROR_STOP=1 -Xqc "ALTER TABLE users DROP COLUMN ssn" && exit 7`, super)
	if code != 7 || !strings.Contains(out, "inc-1 makes room") || !strings.Contains(out, "inc-1 is open again") {
		t.Errorf("code %d, want the command's 7 and access back:\n%s", code, out)
	}
	if s := <-open; !strings.Contains(s.out, "makes room for a migration") {
		t.Errorf("the session that was open heard\n%s, %v", s.out, s.err)
	}
	if code, out := reads("SELECT count(*), max(email) FROM users"); code != exitOK || !strings.HasPrefix(out, "20|") || strings.Contains(out, canary) {
		t.Errorf("afterwards: code %d: %s", code, out)
	}
	if code, out := reads("SELECT ssn FROM users"); code == exitOK {
		t.Errorf("the dropped column is read: %s", out)
	}
	t.Run("while it runs", func(t *testing.T) {
		gate := filepath.Join(t.TempDir(), "gate") // the command waits until somebody writes into it
		if err := syscall.Mkfifo(gate, 0o600); err != nil {
			t.Fatal(err)
		}
		done := make(chan int, 1)
		go func() {
			code, _ := call(t, "", "yield", "orders-prod", "--dir", p.dir, "--at-most", "1m", "--", "cat", gate)
			done <- code
		}()
		err := eventually(ctx, 30*time.Second, func() (bool, error) {
			_, out := reads("SELECT 1")
			return strings.Contains(out, "makes room for a migration"), nil
		})
		if err != nil {
			t.Errorf("nobody is told to come again: %v", err)
		}
		if err := os.WriteFile(gate, nil, 0o600); err != nil {
			t.Error(err)
		}
		if code := <-done; code != exitOK {
			t.Errorf("code %d", code)
		}
	})
	t.Run("too long", func(t *testing.T) {
		began := time.Now()
		code, out := call(t, "", "yield", "orders-prod", "--dir", p.dir, "--at-most", "1s", "--", "sleep", "60")
		if code != exitFailed || !strings.Contains(out, "was ended") || time.Since(began) > 50*time.Second {
			t.Errorf("code %d after %s: %s", code, time.Since(began), out)
		}
	})
	g, err := p.grant(ctx, "inc-1")
	if err != nil || g.State != access.StateActive || !g.Yields.IsZero() || len(g.Backing) == 0 {
		t.Errorf("in the end the grant is %v, yields %s, %v", g, g.Yields, err)
	}
}

func TestYieldUsage(t *testing.T) {
	for _, args := range [][]string{
		{"yield"}, {"yield", "orders-prod"}, {"yield", "--", "true"}, {"yield", "a", "b", "--", "true"}, {"yield", "a", "--at-most", "5h", "--", "true"}, {"yield", "a", "--why", "", "--", "true"},
	} {
		if code, out := call(t, "", args...); code != exitUsage {
			t.Errorf("%q: code %d, want %d: %s", args, code, exitUsage, out)
		}
	}
}
