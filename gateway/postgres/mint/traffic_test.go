package mint

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/access"
)

// patience is how long a test waits for what another one does beside it.
const patience = time.Minute

// TestMintGivesUpSoon: a customer's transaction that holds a table for long
// makes a mint fail soon: it tries a few times, and each time the server lets
// it wait for a moment alone. Between two tries whoever waits behind the mint
// gets his turn.
func TestMintGivesUpSoon(t *testing.T) {
	b := newBench(t, nine)
	g := b.ask(t, access.Role{Name: "r", Read: []string{"public.*"}}, emails)
	migration := connect(t, b.super.Config().ConnString())
	if _, err := say(t, migration, "begin; lock table n9 in access exclusive mode"); err != nil {
		t.Fatal(err)
	}
	through := takenAgain(t, connect(t, b.super.Config().ConnString()), "n1") // is read by the first of the mint's views, n9 by its last
	before, err := os.ReadFile(server.Log)
	if err != nil {
		t.Fatal(err)
	}
	inForce := "do $$ begin raise log '" + b.cfg.Installation + " waits at most %', current_setting('lock_timeout'); end $$"
	b.inject = func(statements []string) []string {
		through()
		return append([]string{inForce}, statements...)
	}
	if _, err := b.Mint(t.Context(), g); access.CodeOf(err) != access.CodeUnavailable {
		t.Errorf("beside a held table the mint gave %v, want that the target is busy", err)
	}
	through()
	after, err := os.ReadFile(server.Log)
	if err != nil {
		t.Fatal(err)
	}
	waits := regexp.MustCompile(`LOG:  `+b.cfg.Installation+` waits at most (\S+)`).FindAllStringSubmatch(string(after[len(before):]), -1)
	if n := len(waits); n < 2 || n > 10 {
		t.Errorf("the mint tried %d times, want a few", n)
	}
	for _, w := range waits {
		if most, err := time.ParseDuration(w[1]); err != nil || most <= 0 || most > time.Second {
			t.Errorf("the mint waits %s for a table, %v; want less than a second", w[1], err)
		}
	}
	b.inject = nil
	if _, err := say(t, migration, "commit"); err != nil {
		t.Fatal(err)
	}
	b.mint(t, &g)
	b.end(t, g)
}

// takenAgain takes a table for itself again and again, until the test's end.
// through waits until it was asked for and got once more.
func takenAgain(t *testing.T, c *pgx.Conn, table string) (through func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	got, ended := make(chan error), make(chan struct{})
	t.Cleanup(func() { cancel(); <-ended })
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			_, err := c.Exec(ctx, "begin; lock table "+table+" in access exclusive mode; commit")
			select {
			case got <- err:
			case <-ctx.Done():
			}
		}
	}()
	return func() {
		for range 2 { // the first may have been asked for before
			select {
			case err := <-got:
				if err != nil {
					t.Errorf("take %s: %v", table, err)
				}
			case <-time.After(patience):
				t.Errorf("nobody gets %s beside the mint", table)
			}
		}
	}
}

func pgbench(ctx context.Context, t *testing.T, c *pgx.ConnConfig, args ...string) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath("pgbench")
	if err != nil {
		path = "/usr/lib/postgresql/15/bin/pgbench"
	}
	cmd := exec.CommandContext(ctx, path, append(args, "-h", c.Host, "-p", fmt.Sprint(c.Port), "-U", c.User, c.Database)...)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+c.Password, "PGSSLMODE=verify-full", "PGSSLROOTCERT="+server.Dir+"/ca.pem", "PGAPPNAME=pgbench")
	return cmd
}

// TestOwnTrafficGoesOn: while grants over pgbench's tables come and go, none
// of its transactions fails, and none waits for the minter: all goes on also
// while a mint or a revoke has done everything but commit.
func TestOwnTrafficGoesOn(t *testing.T) {
	b := newBench(t, "")
	if out, err := pgbench(t.Context(), t, b.super.Config(), "-i", "-q", "-s", "1").CombinedOutput(); err != nil {
		t.Fatalf("pgbench: %v: %s", err, out)
	}
	b.must(t, "grant select, insert, update, delete on all tables in schema public to minter_"+b.cfg.Installation+" with grant option")
	over := traffic(t, b.super.Config())
	gate := connect(t, b.super.Config().ConnString())
	if _, err := say(t, gate, "select pg_advisory_lock(1)"); err != nil {
		t.Fatal(err)
	}
	stays := "set local lock_timeout to 0;set local statement_timeout to 0;select pg_advisory_xact_lock_shared(1)"
	b.inject = func(statements []string) []string { return append(statements, stays) }
	role := access.Role{Name: "r", Read: []string{"public.*"}, Write: []string{"public.pgbench_accounts"}}
	mask := access.Mask{Columns: []string{"*.filler"}, With: access.MaskWith{Kind: access.MaskNull}}
	for range 3 {
		g := b.ask(t, role, mask)
		beside(t, gate, "mint", func() { b.mint(t, &g) })
		beside(t, gate, "revoke", func() { b.end(t, g) })
	}
	over()
}

// beside runs what ends in a transaction that stays open until the gate lets
// it go on, and looks at pgbench's traffic meanwhile.
func beside(t *testing.T, gate *pgx.Conn, name string, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); do() }()
	ask := func(what, sql string, is func(n int) bool) {
		t.Helper()
		n, end := 0, time.Now().Add(patience)
		for ; !is(n); time.Sleep(5 * time.Millisecond) {
			if err := gate.QueryRow(t.Context(), sql).Scan(&n); err != nil {
				t.Fatal(err)
			}
			if time.Now().After(end) {
				t.Errorf("%s: not within %s: %s", name, patience, what)
				return
			}
		}
	}
	ask("it has done all but commit", "select count(*) from pg_locks where locktype = 'advisory' and not granted and database = (select oid from pg_database where datname = current_database())", func(n int) bool { return n > 0 })
	var begun int
	if err := gate.QueryRow(t.Context(), "select count(*) from pgbench_history").Scan(&begun); err != nil {
		t.Fatal(err)
	}
	ask("100 transactions of pgbench more", "select count(*) from pgbench_history", func(n int) bool { return n >= begun+100 })
	if n, err := waiting(t.Context(), gate); err != nil || n > 0 {
		t.Errorf("%s: %d sessions of pgbench wait for the minter, %v", name, n, err)
	}
	if _, err := say(t, gate, "select pg_advisory_unlock(1)"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("%s does not end", name)
	}
	if _, err := say(t, gate, "select pg_advisory_lock(1)"); err != nil {
		t.Fatal(err)
	}
}

// traffic runs pgbench again and again until over, which looks how the runs
// went.
func traffic(t *testing.T, c *pgx.ConnConfig) (over func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			said, err := pgbench(t.Context(), t, c, "-n", "-c", "3", "-t", "200").CombinedOutput()
			if err != nil || !strings.Contains(string(said), "number of failed transactions: 0 ") {
				t.Errorf("pgbench: %v: %s", err, said)
				return
			}
		}
	}()
	return func() { cancel(); <-ended }
}

// waiting counts the sessions of pgbench that the minter's block.
func waiting(ctx context.Context, c *pgx.Conn) (n int, err error) {
	err = c.QueryRow(ctx, `select count(*) from pg_stat_activity a where a.application_name = 'pgbench' and exists (
		select from unnest(pg_blocking_pids(a.pid)) p join pg_stat_activity m on m.pid = p where m.application_name = 'tidegate-mint')`).Scan(&n)
	return n, err
}
