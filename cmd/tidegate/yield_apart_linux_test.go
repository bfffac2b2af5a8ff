package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger"
)

// yields runs a migration where control and gateway are apart: the open
// session hears why it ends, and the next one opens when the command has ended.
func (w *apartWorld) yields(t *testing.T) {
	k := w.talk(t)
	began := time.Now()
	code, said := tool(t, "yield", "orders-prod", "--config", w.controlConfig, "--why", "tickets/2", "--",
		"psql", w.target.orders(), "-v", "ON_ERROR_STOP=1", "-Xqc", "ALTER TABLE users ALTER COLUMN ssn TYPE varchar(300)")
	if code != exitOK || !strings.Contains(said, "inc-1 makes room") || !strings.Contains(said, "inc-1 is open again") {
		t.Fatalf("code %d:\n%s", code, said)
	}
	t.Logf("a migration of some milliseconds took %s in all", time.Since(began))
	k.say(t, "SELECT 1;", "makes room for a migration") // psql looks when it is asked something
	w.letIn(t)
	if code, said := tool(t, "yield", "orders-prod", "--config", w.gatewayConfig, "--", "true"); code == exitOK || !strings.Contains(said, "run this where control runs") {
		t.Errorf("with the gateway's configuration: code %d:\n%s", code, said)
	}
}

// yieldKilled: nobody is left to end the yield. Sessions are told when to come
// again, and then access is back by itself.
func (w *apartWorld) yieldKilled(t *testing.T) {
	k := w.talk(t)
	p, orphan := w.yielding(t, "20s")
	k.say(t, "SELECT 1;", "makes room for a migration")
	p.kill()
	g := w.row(t, "inc-1")
	if g.Yields.IsZero() || len(g.Backing) > 0 || g.State != access.StateActive {
		t.Fatalf("after the kill the row is %v, yields %s, with %d bytes of backing", g, g.Yields, len(g.Backing))
	}
	w.refused(t, "alice", "access comes back by itself: try again")
	if err := syscall.Kill(orphan, 0); err != nil {
		t.Errorf("the command did not outlive its yield: %v", err)
	}
	w.isBack(t, 2*time.Minute)
	if now := time.Now(); now.Before(g.Yields) {
		t.Errorf("access came back at %s, before %s", now, g.Yields)
	} else {
		t.Logf("access was back %s after its moment", now.Sub(g.Yields))
	}
	if now := w.row(t, "inc-1"); !now.Yields.IsZero() || now.Generation != g.Generation {
		t.Errorf("in the end the row yields %s, generation %d after %d", now.Yields, now.Generation, g.Generation)
	}
}

// yieldTakenBack: after a kill nobody need wait for the moment.
func (w *apartWorld) yieldTakenBack(t *testing.T) {
	p, _ := w.yielding(t, "1h")
	p.kill()
	w.refused(t, "alice", "makes room for a migration")
	if code, said := tool(t, "yield", "orders-prod", "--config", w.controlConfig, "--", "true"); code != exitOK || !strings.Contains(said, "inc-1 is open again") {
		t.Errorf("code %d:\n%s", code, said)
	}
	w.isBack(t, 20*time.Second)
}

// yielding starts a yield whose command goes on, and answers when it runs.
func (w *apartWorld) yielding(t *testing.T, most string) (p *process, command int) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pid")
	p = launch(t, "yield", "yield", "orders-prod", "--config", w.controlConfig, "--at-most", most, "--",
		"sh", "-c", `exec >/dev/null 2>&1; echo $$ >"$0.new"; mv "$0.new" "$0"; exec sleep 600`, file)
	err := eventually(t.Context(), startTimeout, func() (bool, error) {
		text, err := os.ReadFile(file)
		if err != nil {
			return false, nil // not yet
		}
		command, err = strconv.Atoi(strings.TrimSpace(string(text)))
		return true, err
	})
	if err != nil {
		t.Fatalf("the command of the yield does not run: %v\n%s", err, p.log)
	}
	t.Cleanup(func() { _ = syscall.Kill(command, syscall.SIGKILL) }) // it may have ended
	return p, command
}

func (w *apartWorld) row(t *testing.T, id string) (found access.Grant) {
	t.Helper()
	err := w.look(t.Context(), func(l *ledger.Ledger) error {
		all, err := l.ListGrants(t.Context())
		for _, g := range all {
			if g.Key.ID == id {
				found = g
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// isBack waits until alice reads again.
func (w *apartWorld) isBack(t *testing.T, limit time.Duration) {
	t.Helper()
	out := ""
	err := eventually(t.Context(), limit, func() (ok bool, err error) {
		out, err = w.query(t.Context(), "alice", demoTarget, "SELECT 'users: ' || count(*) FROM users;")
		return strings.Contains(out, "users: 20"), err
	})
	if err != nil {
		t.Fatalf("access is not back after %s: %q, %v", limit, out, err)
	}
}
