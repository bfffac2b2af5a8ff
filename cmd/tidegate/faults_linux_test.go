package main

import (
	"context"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger"
	"github.com/tidegate/tidegate/access/ledger/pgtest"
)

// faultWorld is a control side and a gateway in processes of their own, and
// around them parts that can be killed, stopped and started one by one: the
// ledger's PostgreSQL is another one than the target's.
type faultWorld struct {
	*apartWorld
	ledgerAt *pgtest.Server
	logs     []*process    // every run of control and gateway
	pace     time.Duration // from the push of the first grant until alice was in
}

func newFaultWorld(t *testing.T) *faultWorld {
	t.Helper()
	around := newServeWorld(t)
	at, err := pgtest.Run(t.Context(), pgtest.Options{SSL: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { at.Close() })
	w := &faultWorld{apartWorld: around.apart(t, at), ledgerAt: at}
	w.logs = []*process{w.control, w.gateway}
	began := time.Now()
	number := w.open(t, asked{"inc-first", "readonly", "10m"})
	w.enters(t, "inc-first")
	w.pace = time.Since(began)
	w.revoked(t, number, "inc-first")
	return w
}

// fault is what happens to a part, and what alice notices of it.
type fault struct {
	part, how string
	strike    func(*testing.T, *faultWorld)
	mend      func(*testing.T, *faultWorld)
	says      string // to who wants to open a session under an active grant; "" lets in
	cuts      bool   // open sessions end
	deaf      bool   // who may not come in hears what says tells, and not why
}

func (f fault) String() string { return f.part + " " + f.how }

// How a part fails: by SIGKILL to its process, or stopped in order.
const (
	killed  = "killed"
	stopped = "stopped"
)

// faults are all of them.
var faults = []fault{
	{"control", killed, func(_ *testing.T, w *faultWorld) { w.control.kill() }, startControlAgain, "no new session opens", false, false},
	{"gateway", killed, func(_ *testing.T, w *faultWorld) { w.gateway.kill() }, startGatewayAgain, "Connection refused", true, true},
	{"temporal", killed, func(_ *testing.T, w *faultWorld) { w.temporal.kill() }, startTemporalAgain, "", false, false},
	{"target", killed, killTarget, startTargetAgain, "FATAL", true, false},
	{"temporal", stopped, func(_ *testing.T, w *faultWorld) { w.temporal.Close() }, startTemporalAgain, "", false, false},
	{"target", stopped, stopTarget, startTargetAgain, "FATAL", true, false},
	{"hub", stopped, func(_ *testing.T, w *faultWorld) { w.behind.CloseClientConnections(); w.behind.Close() }, startHubAgain, "", false, false},
	{"ledger", stopped, stopLedger, startLedgerAgain, "The ledger does not answer", false, false},
}

func startControlAgain(_ *testing.T, w *faultWorld) {
	w.control = startProcess(w.t, w.controlConfig)
	w.logs = append(w.logs, w.control)
}

func startGatewayAgain(_ *testing.T, w *faultWorld) {
	w.gateway = startProcess(w.t, w.gatewayConfig)
	w.logs = append(w.logs, w.gateway)
}

// kill ends Temporal as a crash does.
func (c *temporalChild) kill() {
	_ = c.cmd.Process.Kill() // it may have ended by itself
	c.Close()
}

func startTemporalAgain(t *testing.T, w *faultWorld) {
	_, port, err := net.SplitHostPort(w.temporal.Address)
	if err != nil {
		t.Fatal(err)
	}
	n, err := net.LookupPort("tcp", port)
	if err != nil {
		t.Fatal(err)
	}
	log := &words{}
	if w.temporal, err = startTemporal(t.Context(), filepath.Join(w.outside, "temporal.db"), n, log); err != nil {
		t.Fatalf("start temporal again: %v\n%s", err, log)
	}
}

func killTarget(t *testing.T, w *faultWorld)       { must(t, w.target.Kill()) }
func stopTarget(t *testing.T, w *faultWorld)       { must(t, w.target.Stop()) }
func startTargetAgain(t *testing.T, w *faultWorld) { must(t, w.target.Restart(t.Context())) }
func stopLedger(t *testing.T, w *faultWorld)       { must(t, w.ledgerAt.Stop()) }
func startLedgerAgain(t *testing.T, w *faultWorld) { must(t, w.ledgerAt.Restart(t.Context())) }

func startHubAgain(t *testing.T, w *faultWorld) {
	l, err := net.Listen("tcp", strings.TrimPrefix(w.behind.URL, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	w.behind = httptest.NewUnstartedServer(w.github)
	w.behind.Listener.Close()
	w.behind.Listener = l
	w.behind.StartTLS() // with the certificate that it had
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// enters waits until alice gets in under a grant.
func (w *faultWorld) enters(t *testing.T, id string) {
	t.Helper()
	out := ""
	err := eventually(t.Context(), patience, func() (ok bool, err error) {
		out, err = w.query(t.Context(), "alice", demoTarget+"+"+id, "SELECT 'let ' || 'in';")
		return strings.Contains(out, "let in"), err
	})
	if err != nil {
		t.Fatalf("want alice let in under %s, got %q: %v", id, out, err)
	}
}

// patience bounds each wait for the story to go on. It is longer than any
// retry: what Temporal tries again, the sweeper's grace, a heartbeat missed.
const patience = 90 * time.Second

// kept opens no session under a grant: the words say why.
func (w *faultWorld) kept(t *testing.T, id, words string) {
	t.Helper()
	out, err := w.query(t.Context(), "alice", demoTarget+"+"+id, "SELECT 'let ' || 'in';")
	if err != nil || !strings.Contains(out, words) || strings.Contains(out, "let in") {
		t.Errorf("want alice kept out with %q, got %q, %v", words, out, err)
	}
}

// revoked ends a grant by a comment and waits until nothing is left.
func (w *faultWorld) revoked(t *testing.T, number int, id string) {
	t.Helper()
	must(t, w.say(t.Context(), "alice", number, "/tidegate revoke "+id))
	w.closes(t, id, access.StateRevoked)
}

// closes waits until a grant is closed with the state, and looks whether
// anything of it is left at the target.
func (w *faultWorld) closes(t *testing.T, id string, state access.State) access.Grant {
	t.Helper()
	var g access.Grant
	w.waits(t, "grant "+id+" "+string(state)+" and closed", func(l *ledger.Ledger) (ok bool, err error) {
		g, err = w.row(t.Context(), l, id)
		return g.State == state && !g.Closed.IsZero(), err
	})
	if g.Backing != nil {
		must(t, leftAt(t.Context(), w.house.admin, g))
	}
	return g
}

func (w *faultWorld) row(ctx context.Context, l *ledger.Ledger, id string) (found access.Grant, err error) {
	grants, err := l.ListGrants(ctx)
	for _, g := range grants {
		if g.Key.ID == id {
			found = g
		}
	}
	return found, err
}

// waits waits until the ledger shows something.
func (w *faultWorld) waits(t *testing.T, what string, so func(*ledger.Ledger) (bool, error)) {
	t.Helper()
	err := w.look(t.Context(), func(l *ledger.Ledger) error {
		return eventually(t.Context(), patience, func() (bool, error) { return so(l) })
	})
	if err != nil {
		t.Fatalf("want %s: %v", what, err)
	}
}

// locker holds the row at the target that each mint and each revocation locks,
// as another installation's long transaction would.
type locker struct{ conn *pgx.Conn }

func (w *faultWorld) lock(t *testing.T) *locker {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), w.house.admin)
	must(t, err)
	l := &locker{conn}
	t.Cleanup(l.release)
	_, err = conn.Exec(t.Context(), "begin; select from tidegate_serve1.lock for update")
	must(t, err)
	return l
}

func (l *locker) release() { _ = l.conn.Close(context.Background()) } // it may have died with the server

// minterWaits waits until the minter stands before the lock.
func (w *faultWorld) minterWaits(t *testing.T) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), w.house.admin)
	must(t, err)
	defer conn.Close(context.Background())
	err = eventually(t.Context(), patience, func() (waits bool, err error) {
		err = conn.QueryRow(t.Context(), `select exists (select from pg_stat_activity where application_name = 'tidegate-mint' and wait_event_type = 'Lock')`).Scan(&waits)
		return waits, err
	})
	if err != nil {
		t.Fatalf("want the minter to wait for the lock: %v", err)
	}
}

// reached counts the statements with these words that the target ran since a
// moment of its log, which keeps all.
func (w *faultWorld) reached(t *testing.T, since int64, words string) int {
	t.Helper()
	text := contents(t, w.target.Log)
	return strings.Count(string(text[min(since, int64(len(text))):]), words)
}

func (w *faultWorld) logSize(t *testing.T) int64 {
	t.Helper()
	info, err := os.Stat(w.target.Log)
	must(t, err)
	return info.Size()
}

// whole checks what must hold after every story: no session is open in the
// ledger, its audit log is whole, each recording verifies, no log tells a secret.
func (w *faultWorld) whole(t *testing.T) {
	t.Helper()
	w.allOver(t, patience)
	must(t, w.look(t.Context(), func(l *ledger.Ledger) error { return l.VerifyAudit(t.Context()) }))
	keys := filepath.Join(w.folder(), "control-state", keysDir, publicKeys)
	walk(t, filepath.Join(w.folder(), "recordings"), func(path string) {
		if !strings.HasSuffix(path, ".tgr") {
			return
		}
		if code, said := call(t, "", "verify", "--keys", keys, path); code != exitOK || !strings.Contains(said, "is whole") {
			t.Errorf("verify %s: exit code %d:\n%s", path, code, said)
		}
	})
	for _, p := range w.logs {
		w.silent(t, p.log)
	}
	w.logs = []*process{w.control, w.gateway} // the others have no more to say
}

// cell is one part that fails at one moment of a grant's story.
type cell struct {
	*faultWorld
	fault   fault
	chapter chapter
	id      string
	number  int
	grant   access.Grant
	talk    *talk
	locker  *locker
	answer  string // bob's line for what is held
	since   int64  // of the target's log
}

// playCell plays the story of a grant, with the fault at the moment.
func (w *faultWorld) playCell(t *testing.T, f fault, m chapter) {
	c := &cell{faultWorld: w, fault: f, chapter: m, id: fmt.Sprintf("inc-%s-%s-%s", m.name, f.part, f.how), since: w.logSize(t)}
	began := time.Now()
	passed := func(what string) { t.Logf("%s after %.1f s", what, time.Since(began).Seconds()) }
	m.reach(t, c)
	passed("the moment came")
	down := true
	t.Cleanup(func() {
		if down { // for the next story
			f.mend(w.t, w)
		}
	})
	f.strike(t, w)
	m.down(t, c)
	f.mend(t, w)
	down = false
	passed("it was back")
	m.rest(t, c)
	passed("the rest was played")
	c.closes(t, c.id, m.ends)
	passed("it was closed")
	w.whole(t)
	if n := w.reached(t, c.since, "statement: DROP TABLE"); n != 0 {
		t.Errorf("a refused statement reached the target %d times", n)
	}
	if n := w.reached(t, c.since, "statement: DELETE"); n != c.deletes() {
		t.Errorf("the held statement reached the target %d times, want %d", n, c.deletes())
	}
}

// deletes is how often the held statement of the moment runs in all.
func (c *cell) deletes() int {
	if c.answer != "" && !c.fault.cuts {
		return 1
	}
	return 0
}

// newSession tries to open one under the active grant while the part is down.
func (c *cell) newSession(t *testing.T) {
	t.Helper()
	if c.fault.says == "" {
		c.enters(t, c.id)
		return
	}
	c.kept(t, c.id, c.fault.says)
}

// noSession tries to open one under a grant that is not active.
func (c *cell) noSession(t *testing.T) {
	t.Helper()
	words := "has no active grant"
	if c.fault.deaf {
		words = c.fault.says
	}
	c.kept(t, c.id, words)
}

// goesOn checks the open session while the part is down: it works and judges,
// or it has ended.
func (c *cell) goesOn(t *testing.T) {
	t.Helper()
	if c.fault.cuts {
		c.cut(t)
		return
	}
	c.talk.say(t, "DROP TABLE public.orders;", "42501")
	c.talk.say(t, "SELECT 'goes ' || 'on';", "goes on")
}

// cut waits until psql knows that its session is over.
func (c *cell) cut(t *testing.T) {
	t.Helper()
	must(t, ignorePipe(c.talk.in.WriteString("SELECT 'after' || 'wards';\n")))
	err := eventually(t.Context(), 20*time.Second, func() (bool, error) {
		said := c.talk.out.String()
		return strings.Contains(said, "FATAL") || strings.Contains(said, "connection to server was lost") || strings.Contains(said, "closed the connection"), nil
	})
	if said := c.talk.out.String(); err != nil || strings.Contains(said, "afterwards") {
		t.Fatalf("want the session ended, got %v:\n%s", err, said)
	}
}

// ignorePipe: psql may have ended, and then hears nothing.
func ignorePipe(_ int, err error) error {
	if err != nil && strings.Contains(err.Error(), "broken pipe") {
		return nil
	}
	return err
}
