package mint

import (
	"fmt"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger/pgtest"
)

// TestReadsGrowWithTables: on a server that has no statistics of its catalogs,
// as after a burst of grants, and on one that has, a table more is some rows
// more to read, however many tables there are.
func TestReadsGrowWithTables(t *testing.T) {
	const few, many, each = 100, 300, 100 // a join made row by row reads some 230 for each
	on(t, pgtest.Options{Config: map[string]string{"autovacuum": "off"}})
	for _, analyze := range []bool{false, true} {
		t.Run(fmt.Sprintf("statistics %v", analyze), func(t *testing.T) {
			less, more := readsOver(t, few, analyze), readsOver(t, many, analyze)
			for i, what := range []string{"mint", "look", "revoke"} {
				if grown := (more[i] - less[i]) / (many - few); grown > each || less[i] < few {
					t.Errorf("a %s over %d tables reads %d rows of the catalogs, over %d tables %d: %d for each more, want at most %d", what, few, less[i], many, more[i], grown, each)
				}
			}
		})
	}
}

// readsOver counts the rows that a mint, a look and a revoke read.
func readsOver(t *testing.T, n int, analyze bool) (reads [3]int64) {
	b := newBench(t, tables(n))
	role := access.Role{Name: "r", Read: []string{"public.*"}, Write: []string{"public.t1"}}
	other := b.ask(t, access.Role{Name: "r", Read: []string{"public.t1", "public.t2"}}, emails) // whose views stay
	b.mint(t, &other)
	g := b.ask(t, role, emails)
	reads[0] = b.rowsRead(t, func() { b.mint(t, &g) })
	if analyze {
		b.must(t, "analyze")
	}
	reads[1] = b.rowsRead(t, func() {
		if got, err := b.Broken(t.Context(), g); err != nil || got != "" {
			t.Errorf("broken: %q, %v", got, err)
		}
	})
	reads[2] = b.rowsRead(t, func() { b.end(t, g) })
	b.end(t, other)
	return reads
}

// rowsRead counts the rows that the minter's sessions read of catalogs.
func (b *bench) rowsRead(t *testing.T, do func()) int64 {
	t.Helper()
	count := func() (n int64) {
		b.Close() // a session tells of all that it read when it ends
		for until := time.Now().Add(10 * time.Second); ; {
			var open int
			if err := b.super.QueryRow(t.Context(), "select count(*) from pg_stat_activity where application_name = 'tidegate-mint' and datname = current_database()").Scan(&open); err != nil || time.Now().After(until) {
				t.Fatalf("%d sessions of the minter are open, %v", open, err)
			}
			if open == 0 {
				break
			}
		}
		err := b.super.QueryRow(t.Context(), `select sum(pg_stat_get_tuples_returned(c) + pg_stat_get_tuples_fetched(c))::bigint from unnest(array['pg_class',
			'pg_attribute', 'pg_depend', 'pg_shdepend', 'pg_rewrite', 'pg_namespace', 'pg_authid', 'pg_proc']::regclass[]) c`).Scan(&n)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := count()
	do()
	return count() - before
}
