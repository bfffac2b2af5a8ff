package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
)

// sqliteLedger is the ledger's line in oneProcess.
const sqliteLedger = `url = "sqlite:@DIR@/ledger.db"`

// oneProcess runs both parts.
const oneProcess = `
installation = "serve1"
state_dir    = "@DIR@/state"
ledger { ` + sqliteLedger + ` }
metrics { listen = "@METRICS@" }
log { level = "debug" }
ssh {` + sshControl + sshGate + `}
` + worldControl + worldGateway + "}\n"

// start runs serve in this process until stop, which answers with its exit code.
func (w *serveWorld) start(t *testing.T) (log *words, stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	log, code, ended := &words{}, 0, make(chan struct{})
	go func() {
		defer close(ended)
		code = run(ctx, []string{"serve", "--config", w.config}, stdio{out: log, err: log})
	}()
	stop = func() int { cancel(); <-ended; return code }
	t.Cleanup(func() { stop() })
	err := eventually(ctx, startTimeout, func() (bool, error) {
		select {
		case <-ended:
			return false, fmt.Errorf("serve ended with %d", code)
		default:
			return strings.Contains(log.String(), "msg=ready"), nil
		}
	})
	if err != nil {
		t.Fatalf("start serve: %v\n%s", err, log)
	}
	return log, stop
}

// fails runs serve on a changed configuration; it must end by itself.
func (w *serveWorld) fails(t *testing.T, from, to, say string) {
	t.Helper()
	if !strings.Contains(oneProcess, from) {
		t.Fatalf("want %q in the configuration", from)
	}
	path := w.write(t, "changed.hcl", strings.Replace(oneProcess, from, to, 1))
	var out words
	if code := run(t.Context(), []string{"serve", "--config", path}, stdio{out: &out, err: &out}); code != exitFailed || !strings.Contains(out.String(), say) {
		t.Errorf("exit code %d, want %d and %q in:\n%s", code, exitFailed, say, &out)
	}
	w.silent(t, &out)
}

// TestServe plays short stories on both parts in one process, with a file as
// ledger, and the operator looks on.
func TestServe(t *testing.T) {
	t.Parallel()
	w := newServeWorld(t)
	t.Run("a part is down", func(t *testing.T) {
		w.fails(t, `"@GATEWAY@"`, `"203.0.113.1:5432"`, "listen for the gateway")
		w.fails(t, `"@HUB@"`, `"https://127.0.0.1:1"`, "find repository acme/access")
		w.fails(t, `"@TEMPORAL@"`, `"127.0.0.1:1"`, "reach temporal at 127.0.0.1:1")
		w.put(t, "no-ledger", "postgres://u:hunter2@127.0.0.1:1/d?sslmode=verify-full")
		w.fails(t, sqliteLedger, `url_file = "no-ledger"`, "open ledger")
	})
	log, stop := w.start(t)
	w.fails(t, "", "", "another `tidegate serve` uses the state_dir "+filepath.Dir(w.config)+"/state: stop that one")
	w.fails(t, "@DIR@/state\"\nledger { "+sqliteLedger, "@DIR@/other\"\nledger { url = \"sqlite:@DIR@/other.db\"", "another gateway writes to "+filepath.Dir(w.config)+"/recordings and holds its gateway.lock: stop that one")
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the log:\n%s", log)
		}
	})
	w.tell(t, w.operate)
	w.sshStory(t, w.turnsKeys)
	metricsOnly(t, w.ports["@METRICS@"])
	if code := stop(); code != exitOK || !strings.Contains(log.String(), "msg=stopped") {
		t.Errorf("exit code %d after SIGTERM, want %d:\n%s", code, exitOK, log)
	}
	w.silent(t, log)
}

// tell is the story of one grant: it opens, alice reads, mallory may not, and
// it ends. What is given happens while it is open.
func (w *serveWorld) tell(t *testing.T, meanwhile ...func(*testing.T)) {
	t.Helper()
	number := w.open(t, asked{"inc-1", "readonly", "10m"})
	out := ""
	err := eventually(t.Context(), 20*time.Second, func() (ok bool, err error) { // the gateway hears of it a moment after the ledger has it
		out, err = w.reads(t.Context())
		if err != nil && strings.Contains(err.Error(), "has no active grant") {
			return false, nil
		}
		return true, err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(out)
	w.refused(t, "mallory", "has no active grant")
	for _, play := range meanwhile {
		play(t)
	}
	if err := w.say(t.Context(), "alice", number, "/tidegate revoke inc-1"); err != nil {
		t.Fatal(err)
	}
	w.waitGrant(t, "inc-1", access.StateRevoked)
	w.refused(t, "alice", "has no active grant")
}
