package mint

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger/pgtest"
)

// nine are tables with a masked column each.
const nine = `do $$ begin for i in 1..9 loop
	execute format('create table n%s (id int, email text)', i);
	execute format('insert into n%s values (1, %L)', i, '` + canary + `');
end loop; end $$;
revoke all on schema public from public;
`

var emails = access.Mask{Name: "mail", Columns: []string{"*.email"}, With: access.MaskWith{Kind: access.MaskNull}}

// TestBatchesAreResumed: a mint or a revoke of many views takes several
// transactions. Whichever is the last that happens, the same again does the rest.
func TestBatchesAreResumed(t *testing.T) {
	b := newBench(t, nine)
	b.viewsEach = 2
	role := access.Role{Name: "r", Read: []string{"public.*"}, Write: []string{"public.n1"}}
	kill := func(at int) (steps *int) {
		steps = new(int)
		b.inject = func(s []string) []string {
			*steps = len(s)
			if at >= len(s) {
				return s
			}
			return append(append(append([]string{}, s[:at]...), "select pg_terminate_backend(pg_backend_pid())"), s[at:]...)
		}
		return steps
	}
	check := func(g access.Grant) {
		t.Helper()
		c := b.session(t, g)
		for i := range 9 {
			if got, err := say(t, c, fmt.Sprintf("select id, email from n%d", i+1)); err != nil || got != "1|\n" {
				t.Errorf("n%d: %q, %v", i+1, got, err)
			}
		}
	}
	g := b.ask(t, role, emails)
	for at, steps := 0, 1; at < steps; at += 3 {
		n := kill(at)
		if _, err := b.Mint(t.Context(), g); err == nil {
			t.Fatalf("step %d: the mint went through", at)
		}
		steps = *n
		b.inject = nil
		if at%2 == 0 {
			b.mint(t, &g)
			check(g)
		}
		n = kill(at)
		if err := b.Revoke(t.Context(), g); err == nil && at < *n {
			t.Fatalf("step %d: the revoke went through", at)
		}
		b.inject = nil
		b.end(t, g)
		g.Backing, g.State = nil, access.StateLanded
	}
	if left, err := say(t, b.super, `select count(*) from pg_attribute a, aclexplode(a.attacl) x
		where x.grantee = (select oid from pg_roles where rolname = '`+b.names.masks()+`')`); err != nil || left != "0\n" {
		t.Errorf("the views' owner still holds rights on %s columns, %v", strings.TrimSpace(left), err)
	}
}

// TestMoreViewsThanLocks: a server has places for some thousands of locks, for
// all its sessions together.
func TestMoreViewsThanLocks(t *testing.T) {
	on(t, pgtest.Options{Config: map[string]string{"max_locks_per_transaction": "10", "max_connections": "25"}}) // 64 is the default
	b := newBench(t, tables(800))
	g := b.ask(t, access.Role{Name: "r", Read: []string{"public.*"}}, emails)
	b.viewsEach = 800
	if _, err := b.Mint(t.Context(), g); access.CodeOf(err) != access.CodeUnavailable {
		t.Errorf("in one transaction it gave %v, so this test proves nothing", err)
	}
	b.viewsEach = viewsEach
	b.mint(t, &g)
	if got, err := say(t, b.session(t, g), "select count(*) from t1, t800"); err != nil || got != "0\n" {
		t.Errorf("got %q, %v", got, err)
	}
	b.end(t, g)
}

// tables makes tables of two columns.
func tables(n int) string {
	var sql strings.Builder
	for i := 1; i <= n; i += 100 { // a transaction for each hundred
		fmt.Fprintf(&sql, "begin; do $$ begin for i in %d..%d loop execute format('create table t%%s (id int, email text)', i); end loop; end $$; commit;\n", i, min(i+99, n))
	}
	return sql.String()
}

// BenchmarkMint measures what docs/reference/speed.md says of minting.
func BenchmarkMint(b *testing.B) {
	for _, masks := range [][]access.Mask{nil, {emails}} {
		b.Run(fmt.Sprintf("5000 tables, %d masks", len(masks)), func(b *testing.B) {
			s := newBench(b, tables(5000))
			var minting, ending time.Duration
			for b.Loop() {
				g := s.ask(b, access.Role{Name: "r", Read: []string{"public.*"}}, masks...)
				start := time.Now()
				s.mint(b, &g)
				minting += time.Since(start)
				start = time.Now()
				s.end(b, g)
				ending += time.Since(start)
			}
			b.ReportMetric(minting.Seconds()/float64(b.N), "s/mint")
			b.ReportMetric(ending.Seconds()/float64(b.N), "s/revoke")
		})
	}
	b.Run("100 at once", func(b *testing.B) {
		s := newBench(b, shop)
		g := s.ask(b, readonly(), masks()...)
		var minting, ending time.Duration
		for b.Loop() {
			minting += s.eachOf100(b, g, func(g access.Grant) error { _, err := s.Mint(b.Context(), g); return err })
			ending += s.eachOf100(b, g, func(g access.Grant) error { return s.Revoke(b.Context(), g) })
		}
		b.ReportMetric(minting.Seconds()*10/float64(b.N), "ms/grant-minted")
		b.ReportMetric(ending.Seconds()*10/float64(b.N), "ms/grant-revoked")
	})
}

// eachOf100 does the same with 100 grants like g, all at once.
func (b *bench) eachOf100(t testing.TB, g access.Grant, f func(access.Grant) error) time.Duration {
	t.Helper()
	start := time.Now()
	var wg sync.WaitGroup
	for i := range 100 {
		g := g
		g.Key.ID += fmt.Sprint("-", i)
		wg.Go(func() {
			if err := patiently(func() error { return f(g) }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	return time.Since(start)
}

// TestManyMintsAtOnce: each is usable, each is gone; that PostgreSQL can't do
// two GRANTs on one table at once shows nowhere.
func TestManyMintsAtOnce(t *testing.T) {
	b := newBench(t, shop)
	g := b.ask(t, readonly(), masks()...)
	t.Logf("100 mints took %s", b.eachOf100(t, g, func(g access.Grant) error { _, err := b.Mint(t.Context(), g); return err }))
	g.Backing, g.State = []byte("{}"), access.StateActive // as far as a lease asks
	var places sync.Mutex                                 // 60 connections are less than 100
	b.eachOf100(t, g, func(g access.Grant) error {
		places.Lock()
		defer places.Unlock()
		c, err := b.login(t, g)
		if err != nil {
			return err
		}
		defer c.Close(t.Context())
		if got, err := say(t, c, "select email from users where id = 1"); err != nil || got != "****mple\n" {
			return fmt.Errorf("%s: %q, %w", g.Key, got, err)
		}
		return nil
	})
	t.Logf("100 revokes took %s", b.eachOf100(t, g, func(g access.Grant) error { return b.Revoke(t.Context(), g) }))
	b.eachOf100(t, g, func(g access.Grant) error { return b.Prove(t.Context(), g) })
}

// TestSomebodyElseMintsBetweenBatches: two mints of one role may meet between
// their batches; what counts as done is whole.
func TestSomebodyElseMintsBetweenBatches(t *testing.T) {
	b := newBench(t, nine)
	b.viewsEach = 2
	g := b.ask(t, access.Role{Name: "r", Read: []string{"public.*"}}, emails)
	other, err := New(b.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	other.viewsEach = 2
	for range 5 {
		var wg sync.WaitGroup
		errs := make([]error, 2)
		wg.Go(func() { _, errs[0] = b.Mint(t.Context(), g) })
		wg.Go(func() { _, errs[1] = other.Mint(t.Context(), g) })
		wg.Wait()
		if errs[0] != nil && errs[1] != nil {
			t.Logf("neither went through: %v; %v", errs[0], errs[1])
		}
		b.mint(t, &g)
		if got, err := say(t, b.session(t, g), "select n1.id from n1, n2, n3, n4, n5, n6, n7, n8, n9"); err != nil || got != "1\n" {
			t.Errorf("got %q, %v", got, err)
		}
		b.end(t, g)
		g.Backing, g.State = nil, access.StateLanded
	}
}

// logged counts the messages that the server was sent while do ran: each is a
// round trip, or less.
func logged(t *testing.T, do func()) int { return len(loggedTexts(t, do)) }

func loggedTexts(t *testing.T, do func()) []string {
	t.Helper()
	before, err := os.ReadFile(server.Log)
	if err != nil {
		t.Fatal(err)
	}
	do()
	after, err := os.ReadFile(server.Log)
	if err != nil {
		t.Fatal(err)
	}
	all := regexp.MustCompile(`LOG:  (statement|execute)[^\n]*(\n\t[^\n]*)*`).FindAllString(string(after[len(before):]), -1)
	return slices.DeleteFunc(all, func(m string) bool { return strings.Contains(m, "-- ping") }) // the pool's, after an idle second
}

// TestRoundTripsDoNotGrowWithTables holds for a mint and for a revoke.
func TestRoundTripsDoNotGrowWithTables(t *testing.T) {
	b := newBench(t, `do $$ begin for i in 1..150 loop execute format('create table big%s (id int, email text)', i); end loop; end $$;
		create schema small; create table small.one (id int, email text)`, "small")
	count := func(pattern string) (mint, revoke int) {
		g := b.ask(t, access.Role{Name: "r", Read: []string{pattern}}, emails)
		mint = logged(t, func() { b.mint(t, &g) })
		revoke = logged(t, func() {
			if err := b.Revoke(t.Context(), g); err != nil {
				t.Fatal(err)
			}
		})
		return mint, revoke
	}
	count("small.one") // the first looks for what all share
	mintOne, revokeOne := count("small.one")
	mintMany, revokeMany := count("public.*")
	if mintMany != mintOne || revokeMany != revokeOne || mintOne > 20 || revokeOne > 20 {
		t.Errorf("1 table takes %d and %d messages, 150 take %d and %d; want the same, and few", mintOne, revokeOne, mintMany, revokeMany)
	}
}

// TestLockIsOutOfReach: what mints and revokes wait for can be held by nobody else.
func TestLockIsOutOfReach(t *testing.T) {
	b := newBench(t, shop)
	g := b.ask(t, access.Role{Name: "w", Read: []string{"public.*"}, Write: []string{"public.orders"}}, masks()...)
	b.mint(t, &g)
	c := b.session(t, g)
	lock := ident(b.names.lock(), "lock")
	for _, sql := range []string{"select from " + lock + " for update", "select from " + lock, "begin; lock table " + lock, "delete from " + lock, "alter table " + lock + " add x int"} {
		if _, err := say(t, c, sql); err == nil || !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("%s: %v, want permission denied", sql, err)
		}
		_, _ = say(t, c, "rollback")
	}
	// Every advisory lock that there is does not hold the next mint up.
	if _, err := say(t, c, "begin; select pg_advisory_lock(n) from generate_series(-100, 100) n"); err != nil {
		t.Fatal(err)
	}
	other := b.ask(t, readonly(), masks()...)
	b.mint(t, &other)
	b.end(t, other)
	b.end(t, g)
}
