package ledger

import (
	"crypto/ed25519"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger/pgtest"
)

func TestSQLite(t *testing.T) {
	testLedger(t, func(t *testing.T) string { return "sqlite:" + filepath.Join(t.TempDir(), "l.db") })
}

func TestPostgres(t *testing.T) {
	server := pgtest.Start(t, pgtest.Options{})
	testLedger(t, func(t *testing.T) string { return server.NewDatabase(t) })
}

func TestPostgresComesBack(t *testing.T) {
	server := pgtest.Start(t, pgtest.Options{})
	r := newRig(t, server.NewDatabase(t))
	g := r.active(t, "a")
	c, err := r.Changed(t.Context())
	check(t, err)
	check(t, server.Stop()) // not Kill, after which its orphans serve on for a moment
	g.State = access.StateRevoked
	_, err = r.Update(t.Context(), g)
	wantCode(t, "a write to no server", err, access.CodeUnavailable)
	_, _, err = r.Snapshot(t.Context())
	wantCode(t, "a read from no server", err, access.CodeUnavailable)
	check(t, server.Restart(t.Context()))
	_, err = r.Update(t.Context(), g)
	check(t, err)
	hears(t, "the end", c)
	check(t, r.VerifyAudit(t.Context()))
}

// clock is a clock that a test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// rig is an empty ledger on a test's clock, written by control.
type rig struct {
	*Ledger
	*clock
	config  Config
	pub     ed25519.PublicKey
	gateway ed25519.PrivateKey // of the one gateway that is enrolled
}

func newRig(t *testing.T, url string) *rig {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &clock{now: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}
	known, own, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{clock: c, pub: pub, gateway: own, config: Config{URL: url, Signer: key, Now: c.Now, Installation: "test"}}
	r.config.Gateways = func(name string) (ed25519.PublicKey, error) {
		if name != "gateway-1" {
			return nil, access.Errorf(access.CodeDenied, "no gateway %q", name)
		}
		return known, nil
	}
	r.Ledger = r.again(t)
	return r
}

// again opens the same ledger once more, as another process would.
func (r *rig) again(t *testing.T) *Ledger {
	t.Helper()
	l, err := Open(t.Context(), r.config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// active creates an active grant of pull request 7.
func (r *rig) active(t *testing.T, id string) access.Grant {
	t.Helper()
	g, err := r.Create(t.Context(), access.Grant{
		Key: access.GrantKey{Repo: 1, ID: id}, State: access.StateActive, Generation: 1,
		NotBefore: r.Now(), NotAfter: r.Now().Add(time.Hour), Pull: access.Pull{Repo: 1, Number: 7},
	})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func (r *rig) hold(t *testing.T, g access.Grant, id string) access.Held {
	t.Helper()
	h, err := r.OpenHeld(t.Context(), r.signed(access.Held{
		ID: id, Grant: g.Key, Generation: 1, Session: "s1", Who: "alice", Rule: "no-delete", Digest: "d-" + id,
		Operation: access.Operation{Kind: "query", Text: "delete from t", Facts: access.Facts{"statement.rows": int64(1) << 62}},
		Opened:    r.Now(), Expires: r.Now().Add(time.Minute),
	}))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// signed is what the enrolled gateway would write.
func (r *rig) signed(h access.Held) access.Held {
	h.Gateway = "gateway-1"
	h.Signature = ed25519.Sign(r.gateway, h.SigningBytes())
	return h
}

func wantCode(t *testing.T, what string, err error, want access.Code) {
	t.Helper()
	if err == nil || access.CodeOf(err) != want {
		t.Errorf("%s: got %v, want %s", what, err, want)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

// race runs f 16 times at once, and counts how often it won; every other must
// have lost by a conflict.
func race(t *testing.T, f func() error) int {
	t.Helper()
	var wins atomic.Int32
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			switch err := f(); {
			case err == nil:
				wins.Add(1)
			case access.CodeOf(err) != access.CodeConflict:
				t.Errorf("got %v, want conflict", err)
			}
		})
	}
	wg.Wait()
	return int(wins.Load())
}

// testLedger is what every backend must do; fresh answers with the URL of an
// empty database.
func testLedger(t *testing.T, fresh func(*testing.T) string) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, *rig)
	}{
		{"grant's life", testGrant},
		{"ended is final", testFinal},
		{"rows that control did not sign", testTampered},
		{"readers write nothing", testReader},
		{"audit chain", testAudit},
		{"looks", testLooks},
		{"snapshot", testSnapshot},
		{"lists", testLists},
		{"holds", testHolds},
		{"answers", testAnswers},
		{"consume once", testConsume},
		{"forged holds", testForgedHolds},
		{"holds are bounded", testHoldBound},
		{"changes are heard", testChanged},
		{"sessions", testSessions},
		{"find sessions", testFind},
		{"diagnose", testDiagnose},
		{"heads", testHeads},
		{"adopted", testAdopted},
		{"reviews", testReviews},
		{"pushers", testPushers},
		{"once and pins", testOnce},
		{"older than seen", testOlder},
		{"seen by many", testSeenByMany},
		{"emptied", testEmptied},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, newRig(t, fresh(t))) })
	}
	t.Run("opened by many", func(t *testing.T) { testOpen(t, fresh(t)) })
	t.Run("as it is", func(t *testing.T) { testExisting(t, newRig(t, fresh(t)), fresh(t)) })
	t.Run("newer schema", func(t *testing.T) { testNewer(t, newRig(t, fresh(t))) })
}

func testGrant(t *testing.T, r *rig) {
	g, err := r.Create(t.Context(), access.Grant{Key: access.GrantKey{Repo: 1, ID: "inc-1"}, State: access.StateLanded})
	check(t, err)
	_, err = r.Create(t.Context(), g)
	wantCode(t, "second create", err, access.CodeConflict)
	_, err = r.Create(t.Context(), access.Grant{Key: access.GrantKey{Repo: 1, ID: "a\x00b"}})
	wantCode(t, "create with a NUL", err, access.CodeInvalid)
	_, err = r.Grant(t.Context(), access.GrantKey{Repo: 2, ID: "inc-1"})
	wantCode(t, "unknown grant", err, access.CodeNotFound)
	other := r.again(t)
	var turn atomic.Int32
	wins := race(t, func() error {
		n, by := g, r.Ledger
		if turn.Add(1)%2 == 0 {
			by = other
		}
		n.State = access.StateActive
		_, err := by.Update(t.Context(), n)
		return err
	})
	if wins != 1 {
		t.Errorf("got %d winners of one sequence, want 1", wins)
	}
	now, err := r.Grant(t.Context(), g.Key)
	check(t, err)
	if now.State != access.StateActive || now.Sequence <= g.Sequence {
		t.Errorf("got %s at sequence %d, want active after %d", now.State, now.Sequence, g.Sequence)
	}
}

func testFinal(t *testing.T, r *rig) {
	g := r.active(t, "a")
	for _, to := range []access.State{access.StateLanded, access.StateApproved} {
		n := g
		n.State = to
		_, err := r.Update(t.Context(), n)
		wantCode(t, "active to "+string(to), err, access.CodeConflict)
	}
	n := g
	n.Generation = 0
	_, err := r.Update(t.Context(), n)
	wantCode(t, "older generation", err, access.CodeConflict)
	g.State = access.StateExpired
	g, err = r.Update(t.Context(), g)
	check(t, err)
	for _, to := range []access.State{access.StateActive, access.StateRevoked, access.StateLanded} {
		n := g
		n.State = to
		_, err := r.Update(t.Context(), n)
		wantCode(t, "expired to "+string(to), err, access.CodeConflict)
	}
	g.Closed, g.Why = r.Now(), "Nothing is left."
	g, err = r.Update(t.Context(), g)
	check(t, err)
	g.Closed = time.Time{}
	_, err = r.Update(t.Context(), g)
	wantCode(t, "reopened", err, access.CodeConflict)
}

func testTampered(t *testing.T, r *rig) {
	g := r.active(t, "a")
	_, row, err := readGrant(t.Context(), r.db, g.Key)
	check(t, err)
	if !VerifyGrant(r.pub, row.Payload, row.Signature) || VerifyGrant(r.pub, append(row.Payload, ' '), row.Signature) {
		t.Error("the signature does not tell the payload from another")
	}
	if _, err := r.SignedGrant(t.Context(), g.Key); err != nil {
		t.Errorf("a row that control signed: %v", err)
	}
	_, err = r.db.Exec("update grants set payload=$1", []byte(strings.Replace(string(row.Payload), "2026-05-01T13", "2026-05-01T23", 1)))
	check(t, err)
	_, err = r.SignedGrant(t.Context(), g.Key)
	wantCode(t, "reading it to make access", err, access.CodeDenied)
	g, err = r.Grant(t.Context(), g.Key)
	check(t, err)
	if g.NotAfter.Hour() != 23 {
		t.Fatalf("the row was not tampered with: %v", g.NotAfter)
	}
	_, err = r.Update(t.Context(), g)
	wantCode(t, "signing a row that another wrote", err, access.CodeDenied)
	g.State = access.StateRevoked
	_, err = r.Update(t.Context(), g)
	check(t, err)
}

func testReader(t *testing.T, r *rig) {
	g := r.active(t, "a")
	h := r.hold(t, g, "h1")
	r.config.Signer = nil
	reader := r.again(t)
	_, err := reader.Update(t.Context(), g)
	wantCode(t, "update without key", err, access.CodeDenied)
	_, err = reader.Create(t.Context(), access.Grant{Key: access.GrantKey{Repo: 1, ID: "b"}})
	wantCode(t, "create without key", err, access.CodeDenied)
	wantCode(t, "answer without key", reader.AnswerHeld(t.Context(), access.Answer{Held: h.ID, Digest: h.Digest}), access.CodeDenied)
}

func testAudit(t *testing.T, r *rig) {
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			if err := r.Audit(t.Context(), "alice", "command.refused", fmt.Sprint(i), "no\x00such grant"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	r.hold(t, r.active(t, "a"), "h1")
	var n int
	check(t, r.db.QueryRow("select count(*) from audit").Scan(&n))
	if n != 18 {
		t.Errorf("got %d rows, want 18", n)
	}
	check(t, r.VerifyAudit(t.Context()))
	wantCode(t, "too long", r.Audit(t.Context(), "alice", "x", "", strings.Repeat("x", maxDetail)), access.CodeTooLarge)
	_, err := r.db.Exec("update audit set entry=$1 where seq=2", []byte("{}"))
	check(t, err)
	if err := r.VerifyAudit(t.Context()); err == nil || !strings.Contains(err.Error(), "row 2") {
		t.Errorf("tampered row 2: got %v", err)
	}
}

func testSnapshot(t *testing.T, r *rig) {
	ids := func() (got []string) {
		rows, _, err := r.Snapshot(t.Context())
		check(t, err)
		for _, row := range rows {
			var g access.Grant
			check(t, decode(row.Payload, &g))
			if !VerifyGrant(r.pub, row.Payload, row.Signature) {
				t.Errorf("%s: not signed", g.Key)
			}
			got = append(got, g.Key.ID)
		}
		return got
	}
	equal(t, "empty", ids(), []string(nil))
	r.active(t, "a")
	b := r.active(t, "b")
	b.State = access.StateRevoked
	b, err := r.Update(t.Context(), b)
	check(t, err)
	b.Closed = r.Now()
	_, err = r.Update(t.Context(), b)
	check(t, err)
	r.pass(recent - time.Second)
	equal(t, "closed a moment ago", ids(), []string{"a", "b"})
	r.pass(time.Second)
	equal(t, "closed long ago", ids(), []string{"a"})
	rules := []access.Rule{{Name: "no-delete", Hold: "true", Say: "Ask first."}}
	check(t, r.SetAdopted(t.Context(), access.Tree{Commit: "c1"}, rules, ""))
	_, got, err := r.Snapshot(t.Context())
	check(t, err)
	equal(t, "rules", got, rules)
}

func testLists(t *testing.T, r *rig) {
	ids := func(gs []access.Grant, err error) (got []string) {
		t.Helper()
		check(t, err)
		for _, g := range gs {
			got = append(got, g.Key.ID)
		}
		return got
	}
	r.active(t, "a")
	b := r.active(t, "b")
	_, err := r.Create(t.Context(), access.Grant{Key: access.GrantKey{Repo: 1, ID: "c"}, State: access.StateApproved, Pull: access.Pull{Repo: 1, Number: 8}})
	check(t, err)
	b.State = access.StateExpired
	b, err = r.Update(t.Context(), b)
	check(t, err)
	equal(t, "unclosed", ids(r.Unclosed(t.Context())), []string{"a", "b"})
	equal(t, "ending", ids(r.Ending(t.Context())), []string{"b"})
	b.Closed = r.Now()
	b, err = r.Update(t.Context(), b)
	check(t, err)
	last, err := r.Sequence(t.Context())
	check(t, err)
	equal(t, "sequence", last, b.Sequence)
	equal(t, "ending after the proof", ids(r.Ending(t.Context())), []string(nil))
	equal(t, "unclosed after the proof", ids(r.Unclosed(t.Context())), []string{"a"})
	equal(t, "of pull request 7", ids(r.GrantsOf(t.Context(), 1, 7)), []string{"a", "b"})
	equal(t, "of another repository", ids(r.GrantsOf(t.Context(), 2, 7)), []string(nil))
	equal(t, "all", ids(r.ListGrants(t.Context())), []string{"b", "c", "a"})
}

func testOpen(t *testing.T, url string) {
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			l, err := Open(t.Context(), Config{URL: url})
			if err != nil {
				t.Error(err)
				return
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func testNewer(t *testing.T, r *rig) {
	_, err := r.db.Exec("insert into goose_db_version (version_id, is_applied) values (999, true)")
	check(t, err)
	l, err := Open(t.Context(), r.config)
	if err == nil {
		l.Close()
	}
	wantCode(t, "a newer schema", err, access.CodeInvalid)
}

func TestURLNotUnderstood(t *testing.T) {
	for _, url := range []string{"", "sqlite:", "/tmp/l.db", "mysql://h/d", "postgres://u:hunter2@h:notaport/d"} {
		l, err := Open(t.Context(), Config{URL: url})
		if err == nil {
			l.Close()
		}
		wantCode(t, url, err, access.CodeInvalid)
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error holds the password: %v", err)
		}
	}
}
