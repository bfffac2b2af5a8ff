package mint

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger/pgtest"
)

// on lets the test's benches stand on a server of their own.
func on(t *testing.T, o pgtest.Options) {
	t.Helper()
	o.SSL = true
	if o.Config == nil {
		o.Config = map[string]string{"log_statement": "all"}
	}
	was := server
	server = pgtest.Start(t, o)
	t.Cleanup(func() { server = was })
}

// TestVersions mints, uses, revokes and proves on each version, as the login
// that the setup makes; and once more where the minter has to make by itself
// what all grants share.
func TestVersions(t *testing.T) {
	for _, version := range []string{"15", "17", "18"} {
		t.Run(version, func(t *testing.T) {
			on(t, pgtest.Options{Version: version})
			b := newBench(t, shop)
			b.viewsEach = 1
			b.lives(t)
			b.finds(t, nil, "it is PostgreSQL "+version, "has the rights that it mints with")
			if before16 := "can take every role that is no superuser"; version == "15" {
				b.finds(t, nil, "warn", before16)
			} else {
				for _, f := range b.Diagnose(t.Context(), b.target, nil) {
					if strings.Contains(f.Say, before16) {
						t.Errorf("%s is told on %s", f.Say, version)
					}
				}
			}
			bare := newBench(t, shop)
			bare.must(t, "drop schema "+bare.names.lock()+" cascade; drop role "+bare.names.masks())
			bare.lives(t)
		})
	}
}

// TestVersionsOfRoles has what a role can say (rows, call, owner), migrations
// and yields on newer servers than the other tests run on. From 16 on a member
// needs the options INHERIT and SET to do what membership alone gave before.
func TestVersionsOfRoles(t *testing.T) {
	for _, version := range []string{"17", "18"} {
		t.Run(version, func(t *testing.T) {
			on(t, pgtest.Options{Version: version})
			if version == "18" {
				t.Run("migrations", TestMigrationsBreakAndAreMended)
			}
			for name, test := range map[string]func(*testing.T){
				"rows": TestRowsAreLimited, "rows, barrier": TestRowsOfBarrier, "rows, conflicts": TestRowsAreNotTakenByConflicts,
				"call": TestCallGivesWhatItNames, "call, trust": TestCallTrusts, "call, migration": TestCallSurvivesAMigration,
				"owner": TestOwnerCreatesAndAlters, "owner, left": TestOwnerInheritsWhatTheRoleOwns, "owner, plan": TestOwnerRefusesAtPlan, "owner, reach": TestOwnerThatReachesFurther,
				"yield": TestYieldLetsAMigrationThrough, "yield's end": TestYieldEndsByItself,
			} {
				t.Run(name, test)
			}
		})
	}
}

// lives takes a grant with masks and writes from mint to proof.
func (b *bench) lives(t *testing.T) {
	t.Helper()
	role := access.Role{Name: "w", Read: []string{"public.*"}, Write: []string{"public.orders"}}
	g := b.ask(t, role, masks()...)
	b.mint(t, &g)
	c := b.session(t, g)
	for sql, want := range map[string]string{
		"select name, email, ssn, born from users where id = 1":                     "ann|****mple||1900-01-01\n",
		"insert into orders (total) values (2) returning total":                     "2.00\n",
		"select count(*) from pg_auth_members where member = current_user::regrole": "0\n",
	} {
		if got, err := say(t, c, sql); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", sql, got, err, want)
		}
	}
	if got, err := say(t, c, "select email from public.users"); err == nil || raw(got) {
		t.Errorf("the table itself gave %q, %v", got, err)
	}
	b.must(t, "create schema if not exists work; grant all on schema work to public")
	if _, err := say(t, c, "create table work.kept as select id from orders"); err != nil {
		t.Error(err)
	}
	g.NotAfter = g.NotAfter.Add(time.Second)
	b.mint(t, &g)
	other := b.ask(t, role, masks()...)
	b.mint(t, &other)
	b.end(t, g)
	if _, err := b.login(t, g); err == nil {
		t.Error("the credential works after revoke")
	}
	b.end(t, other)
	if got, err := say(t, b.super, "select tableowner from pg_tables where tablename = 'kept'; drop table work.kept"); err != nil || got != "minter_"+b.cfg.Installation+"\n" {
		t.Errorf("the role's own table belongs to %q, %v", got, err)
	}
}

// TestHBA: with the lines that the setup prints (and, before 16, the guide's),
// minted roles come from the gateway's address to the database of their grants
// alone, and others come as before.
func TestHBA(t *testing.T) {
	for _, version := range []string{"15", "17"} {
		t.Run(version, func(t *testing.T) {
			on(t, pgtest.Options{Version: version})
			b := newBench(t, shop)
			_, database, _ := strings.Cut(b.target.Address, "/")
			lines := strings.Join([]string{
				"host all postgres,minter_" + b.cfg.Installation + " 127.0.0.0/8 scram-sha-256",
				"hostssl " + database + " all 127.0.0.1/32 scram-sha-256",
				"host all all all reject\n"}, "\n")
			if version != "15" {
				_, printed, _ := strings.Cut(SetupSQL(Options{Installation: b.cfg.Installation, Admin: "x", Database: database}), "later):\n")
				lines = strings.NewReplacer("-- ", "", "GATEWAY", "127.0.0.1").Replace(printed) + "host all all 127.0.0.0/8 scram-sha-256\n"
			}
			if err := os.WriteFile(filepath.Join(server.Dir, "data", "pg_hba.conf"), []byte(lines), 0o600); err != nil {
				t.Fatal(err)
			}
			b.must(t, "select pg_reload_conf()")
			if wrong, err := say(t, b.super, "select error from pg_hba_file_rules where error is not null"); err != nil || wrong != "" {
				t.Fatalf("%q, %v in\n%s", wrong, err, lines)
			}
			g := b.ask(t, readonly(), masks()...)
			b.mint(t, &g)
			b.session(t, g)
			lease, err := b.Lease(t.Context(), g, "s-1")
			if err != nil {
				t.Fatal(err)
			}
			from := func(ip, database, user, password string) error {
				cfg := b.super.Config().Copy()
				cfg.Database, cfg.User, cfg.Password = database, user, password
				cfg.DialFunc = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}).DialContext
				c, err := pgx.ConnectConfig(t.Context(), cfg)
				if err == nil {
					c.Close(t.Context())
				}
				return err
			}
			password := lease.Password.Reveal()
			for until := time.Now().Add(20 * time.Second); from("127.0.0.2", database, lease.User, password) == nil && time.Now().Before(until); {
				// the server reads the file when it gets to it
			}
			for name, err := range map[string]error{
				"from another address": from("127.0.0.2", database, lease.User, password),
				"to another database":  from("127.0.0.1", "postgres", lease.User, password),
			} {
				if err == nil || !strings.Contains(err.Error(), "28000") {
					t.Errorf("%s: %v, want a rejection by pg_hba.conf", name, err)
				}
			}
			if err := from("127.0.0.2", database, "postgres", b.super.Config().Password); err != nil {
				t.Errorf("others are kept out: %v", err)
			}
			b.end(t, g)
		})
	}
}
