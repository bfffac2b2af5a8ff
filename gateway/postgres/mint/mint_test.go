package mint

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/postgres/backing"
)

func TestGrantLives(t *testing.T) {
	b := newBench(t, shop, "sales")
	g := b.ask(t, readonly(), masks()...)
	want := []string{
		`reads 3 tables: public."; DROP TABLE orders; --, public.orders, public.users`,
		"masks 3 columns: public.users.email (last 4 characters), public.users.ssn (nothing shown), public.users.born (always \"1900-01-01\")",
		"its views hinder ALTER TYPE, DROP COLUMN and DROP TABLE, unless under `tidegate yield`, of public.users",
	}
	if diff := cmp.Diff(want, g.Plan.Expansion.Summary); diff != "" {
		t.Errorf("summary (-want +got):\n%s", diff)
	}
	b.mint(t, &g)
	c := b.session(t, g)
	for sql, want := range map[string]string{
		"select * from users order by id":                                                                              "1|ann|****mple|\\|1900-01-01",
		"select total from public.orders":                                                                              "10.50",
		`select count(*) from """; DROP TABLE orders; --"`:                                                             "0",
		"select current_user = session_user, pg_has_role('pg_read_all_data', 'usage')":                                 "t|f",
		"select format_type(atttypid, atttypmod) from pg_attribute where attrelid='users'::regclass and attname='ssn'": "character varying(11)",
	} {
		got, err := say(t, c, sql)
		if err != nil || !strings.HasPrefix(got, strings.ReplaceAll(want, "\\", "")) {
			t.Errorf("%s: got %q, %v, want %q", sql, got, err, want)
		}
	}
	p, err := backing.Parse(g.Backing)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{p.Role + "_m_1", "public"}; !slices.Equal(p.SearchPath, want) || p.Masked[0].MaskSchema != want[0] {
		t.Errorf("backing is %+v, want search path %v", p, want)
	}
	if err := b.Prove(t.Context(), g); err == nil {
		t.Error("a living grant was proved gone")
	}
	b.end(t, g)
	if _, err := say(t, c, "select 1"); err == nil {
		t.Error("the session lives on after revoke")
	}
	if _, err := b.login(t, g); err == nil {
		t.Error("the credential works after revoke")
	}
	b.end(t, g)
}

// Known ways around column masking: whatever the answer is, the raw value is not in it.
var bypasses = []string{
	"select email as x from users", "select email::int from users", "select u from users u", "select row_to_json(u) from users u",
	"select * from public.users", "select email from public.users", "select email::int from public.users", "select u from public.users u",
	"select to_jsonb(u) from public.users u", "table public.users", "copy users to stdout", "copy public.users to stdout",
	"copy (select * from users) to stdout", "copy public.users (email) to stdout",
	"select query_to_xml('select * from public.users', true, true, '')", "select table_to_xml('public.users', true, true, '')",
	"select database_to_xml(true, true, '')", "select schema_to_xml('public', true, true, '')",
	"begin; declare c cursor for select * from public.users; fetch all from c; commit", "begin; declare c cursor for select * from users; fetch all from c; commit",
	"update public.users set email = null where id = 1 returning users", "insert into public.users (id, email) values (1, 'x')",
	"insert into public.users (email) values ('x') on conflict (id) do update set name = excluded.email || users.email returning *",
	"insert into public.users (id) values (1) on conflict (id) do update set name = users.email", "insert into public.users (id) select id from public.users order by email",
	"merge into public.users u using users v on u.id = v.id when matched then update set name = u.email",
	"update public.users set id = null where id = 1", "update public.users set id = 2 where id = 1",
	"alter table public.users add check (email <> 'x')", "create index on public.users (email)", "select currval('users_id_seq')",
	"create rule r as on select to public.users do instead select 1", "grant select on public.users to public", "analyze verbose public.users",
	"explain analyze verbose select * from public.users where email like 'canary%'", "explain verbose select * from users where email = 'x'",
	"select * from pg_stats where tablename = 'users'", "select * from pg_stats_ext", "select * from pg_statistic",
	"insert into public.users (id) values (9) returning email", "update public.users set name = name returning email", "delete from public.users returning *",
	"select id from public.users order by email", "select id from public.users where email like 'canary%'", "select 1 from public.users where email > 'a'",
	"create temp view v as select * from public.users; select * from v", "create temp table x as select * from public.users", "select * from public.users for update",
	"do $$ declare r record; begin for r in select * from public.users loop raise notice '%', r; end loop; end $$",
	"do $$ begin perform email::int from users; exception when others then raise notice '%', sqlerrm; end $$",
	"set search_path to public; select * from users", "set role postgres; select * from users", "select lo_import('/etc/passwd')", "select pg_read_file('base/1')",
	"create function pg_temp.f(text) returns bool language plpgsql cost 0.0001 as $$ begin raise notice '%', $1; return true; end $$; select * from users where pg_temp.f(email)",
	"select max(email), min(email), string_agg(email, ',') from users", "select * from users a join public.users b using (email)",
	"prepare p as select * from public.users; execute p", "notify x, 'y'; select * from public.users", "lock table public.users",
	"create temp table users (like public.users including all); select * from users", "select * from only public.users", "select ctid, * from public.users tablesample system (100)",
	"select get_raw_page('users', 0)", "select pg_get_viewdef('users'::regclass)", "create materialized view pg_temp.m as select * from public.users",
}

func TestMaskedValueComesOutByNoWay(t *testing.T) {
	b := newBench(t, shop)
	for name, role := range map[string]access.Role{
		"read":  readonly(),
		"write": {Name: "operator", Read: []string{"public.*"}, Write: []string{"public.users"}},
	} {
		t.Run(name, func(t *testing.T) {
			g := b.ask(t, role, masks()...)
			b.mint(t, &g)
			defer b.end(t, g)
			for _, sql := range bypasses {
				if got := b.wire(t, g, sql); raw(got) {
					t.Errorf("%s: the raw value came out: %q", sql, got)
				}
			}
		})
	}
	if got := b.wire(t, access.Grant{}, "copy public.users to stdout"); !raw(got) {
		t.Errorf("the superuser does not get the raw value (%q), so this test proves nothing", got)
	}
}

func raw(s string) bool { return strings.Contains(s, canary[:12]) || strings.Contains(s, "078-05") }

// wire runs SQL in a session of its own and answers with every byte that the
// server sent: rows, copies, notices, errors. No grant means the superuser.
func (b *bench) wire(t *testing.T, g access.Grant, sql string) string {
	t.Helper()
	cfg := b.super.Config().Copy()
	if g.Backing != nil {
		lease, err := b.Lease(t.Context(), g, "s-1")
		if err != nil {
			t.Fatal(err)
		}
		cfg.User, cfg.Password = lease.User, lease.Password.Reveal()
	}
	tap := &tap{}
	cfg.AfterNetConnect = func(_ context.Context, _ *pgconn.Config, c net.Conn) (net.Conn, error) {
		tap.Conn = c
		return tap, nil
	}
	c, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = say(t, c, sql) // most are refused, which is as good
	c.Close(t.Context())
	return tap.read.String()
}

// tap keeps what was read of a connection.
type tap struct {
	net.Conn
	read strings.Builder
}

func (t *tap) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	t.read.Write(p[:n])
	return n, err
}

func TestWritesBesideMasks(t *testing.T) {
	b := newBench(t, shop)
	g := b.ask(t, access.Role{Name: "operator", Read: []string{"public.*"}, Write: []string{"public.users", "public.orders"}}, masks()...)
	b.mint(t, &g)
	c := b.session(t, g)
	for sql, ok := range map[string]bool{
		"insert into public.users (name, email) values ('cy', 'new@x.example') returning id": true,
		"update public.users set email = 'other' where id = 2":                               true,
		"update public.users set email = email || 'x' where id = 2":                          false,
		"delete from public.users where id = 2":                                              true,
		"delete from public.users where email = 'x'":                                         false,
		"insert into orders (total) values (1)":                                              true,
		"truncate public.orders":                                                             false,
		"create table public.mine ()":                                                        false,
	} {
		if _, err := say(t, c, "begin; "+sql+"; rollback"); (err == nil) != ok {
			t.Errorf("%s: got %v, want it to work: %t", sql, err, ok)
		}
		_, _ = say(t, c, "rollback")
	}
	b.end(t, g)
}

func TestNewColumnIsRefusedAndMintIsIdempotent(t *testing.T) {
	b := newBench(t, shop)
	g := b.ask(t, readonly(), masks()...)
	b.mint(t, &g)
	first := g.Backing
	b.must(t, "alter table orders add secret text default '"+canary+"'; alter table users add phone text default '"+canary+"'")
	g.NotAfter = g.NotAfter.Add(time.Hour)
	b.mint(t, &g)
	if diff := cmp.Diff(string(first), string(g.Backing)); diff != "" {
		t.Errorf("second mint differs (-first +second):\n%s", diff)
	}
	c := b.session(t, g)
	for _, sql := range []string{"select secret from orders", "select * from orders", "select phone from users", "select phone from public.users"} {
		if out, err := say(t, c, sql); err == nil {
			t.Errorf("%s: got %s, want a refusal", sql, out)
		}
	}
	var until time.Time
	if err := b.super.QueryRow(t.Context(), "select rolvaliduntil from pg_roles where rolname = $1", b.names.role(g)).Scan(&until); err != nil || until.Sub(g.NotAfter).Abs() > time.Second {
		t.Errorf("the role is valid until %v, %v, want %v", until, err, g.NotAfter)
	}
	// A new plan of the same grant, approved with the new columns, in the next generation.
	next := b.ask(t, readonly(), masks()...)
	next.Key, next.Generation = g.Key, 2
	b.mint(t, &next)
	if out, err := say(t, b.session(t, next), "select secret from orders"); err != nil {
		t.Errorf("got %s, %v, want the approved column", out, err)
	}
	b.end(t, g)
}

func TestDroppedViewIsRepaired(t *testing.T) {
	b := newBench(t, shop)
	g := b.ask(t, readonly(), masks()...)
	b.mint(t, &g)
	b.must(t, "drop table users cascade; create table users (id int, name text, email text, ssn varchar(11), born date)")
	b.must(t, "grant select on users to minter_"+b.cfg.Installation+" with grant option")
	c := b.session(t, g)
	if _, err := say(t, c, "select * from users"); err == nil {
		t.Error("the new table of the old name can be read before it is minted")
	}
	b.mint(t, &g)
	if _, err := say(t, c, "select * from users"); err != nil {
		t.Errorf("after minting again: %v", err)
	}
	b.end(t, g)
}

func TestRevokeTakesEverything(t *testing.T) {
	b := newBench(t, shop+"create schema work; grant all on schema work to public;")
	g := b.ask(t, access.Role{Name: "w", Read: []string{"public.*"}}, masks()...)
	b.mint(t, &g)
	c := b.session(t, g)
	for _, sql := range []string{
		"create table work.kept as select id from users", "create temp table gone (x int)", "create view work.dep as select * from users",
		"select lo_create(0)", "begin; select * from users",
	} {
		if _, err := say(t, c, sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	var said strings.Builder
	b.cfg.Log = slog.New(slog.NewTextHandler(&said, nil))
	start := time.Now()
	b.end(t, g)
	t.Logf("revoke and prove took %s", time.Since(start))
	if !strings.Contains(said.String(), "they are handed on") || !strings.Contains(said.String(), "table work.kept") {
		t.Errorf("the log does not say what the role owned:\n%s", &said)
	}
	var n int
	if err := b.super.QueryRow(t.Context(), "select count(*) from work.kept").Scan(&n); err != nil || n != 2 {
		t.Errorf("the table that the role made has %d rows, %v; want it kept", n, err)
	}
}

func TestSessionThatAltersItsRoleCannotHoldRevokeUp(t *testing.T) {
	b := newBench(t, shop)
	g := b.ask(t, readonly(), masks()...)
	b.mint(t, &g)
	c := b.session(t, g)
	if _, err := say(t, c, "begin; alter role current_user password 'mine'; alter role current_user set work_mem to '1MB'; select pg_advisory_lock(1)"); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	b.end(t, g)
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("revoke took %s", took)
	}
}

// A minter that has rights on some columns only can give and take those.
func TestMinterWithColumnRights(t *testing.T) {
	b := newBench(t, shop)
	b.must(t, "create table narrow (a int, b int); grant select (a) on narrow to minter_"+b.cfg.Installation+" with grant option")
	g := b.ask(t, access.Role{Read: []string{"public.narrow"}}, access.Mask{Columns: []string{"narrow.b"}})
	b.mint(t, &g)
	if got, err := say(t, b.session(t, g), "select * from narrow"); err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	b.end(t, g)
	g = b.ask(t, access.Role{Read: []string{"public.narrow"}})
	g.Plan.Expansion.Body = []byte(strings.Replace(string(g.Plan.Expansion.Body), `,{"name":"b","type":"integer"}`, "", 1))
	b.mint(t, &g)
	b.end(t, g)
}

func TestMintFailsMidway(t *testing.T) {
	b := newBench(t, shop)
	g := b.ask(t, readonly(), masks()...)
	steps := 1
	for k := 0; k < steps; k++ {
		b.inject = func(s []string) []string {
			steps = len(s)
			return slices.Insert(slices.Clone(s), k, "select 1/0")
		}
		if _, err := b.Mint(t.Context(), g); err == nil {
			t.Fatalf("step %d: the mint went through a failure", k)
		}
		b.end(t, g)
	}
	if steps < 10 {
		t.Errorf("only %d steps were tried", steps)
	}
	b.inject = nil
	b.mint(t, &g)
	b.end(t, g)
}

// Whoever wins, a revoke that ends after the mint leaves nothing.
func TestRevokeBesideMint(t *testing.T) {
	b := newBench(t, shop)
	g := b.ask(t, readonly(), masks()...)
	for range 10 {
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = b.Mint(t.Context(), g) }) // may lose
		wg.Go(func() {
			if err := b.Revoke(t.Context(), g); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		b.end(t, g)
	}
}

func TestNoPasswordInServerLog(t *testing.T) {
	b := newBench(t, shop)
	g := b.ask(t, readonly(), masks()...)
	start := time.Now()
	b.mint(t, &g)
	t.Logf("first mint took %s", time.Since(start))
	b.session(t, g)
	lease, err := b.Lease(t.Context(), g, "s-1")
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.ReadFile(server.Log)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(log), lease.User) {
		t.Fatal("the log does not show the mint, so this test proves nothing")
	}
	if strings.Contains(string(log), lease.Password.Reveal()) {
		t.Error("the server's log holds the password")
	}
	b.end(t, g)
}

func TestOrphans(t *testing.T) {
	b := newBench(t, shop)
	g, lost := b.ask(t, readonly()), b.ask(t, readonly())
	b.mint(t, &g)
	b.mint(t, &lost)
	got, err := b.Orphans(t.Context(), b.target, []access.GrantKey{g.Key})
	if want := []string{b.names.role(lost)}; err != nil || !slices.Equal(got, want) {
		t.Fatalf("got orphans %v, %v, want %v", got, err, want)
	}
	if err := b.RevokeOrphan(t.Context(), b.target, got[0]); err != nil {
		t.Fatal(err)
	}
	if err := b.RevokeOrphan(t.Context(), b.target, "postgres"); err == nil {
		t.Error("a role that is not ours was revoked")
	}
	if err := b.Prove(t.Context(), lost); err != nil {
		t.Error(err)
	}
	b.end(t, g)
}

func TestExpandRefuses(t *testing.T) {
	email := access.Mask{Name: "m", Columns: []string{"*.email"}, With: access.MaskWith{Kind: access.MaskNull}}
	read := func(p ...string) access.Role { return access.Role{Name: "r", Read: p} }
	for name, c := range map[string]struct {
		sql  string
		role access.Role
		mask access.Mask
		want string
	}{
		"no table":        {"", read("public.nope"), email, `Pattern "public.nope" matches no table`},
		"no column":       {"", readonly(), access.Mask{Columns: []string{"users.nope"}}, `Mask pattern "users.nope" matches no column`},
		"bad pattern":     {"", read("users"), email, "is not understood"},
		"partial of date": {"", read("public.users"), access.Mask{Columns: []string{"users.born"}, With: access.MaskWith{Kind: access.MaskPartial, Keep: 2}}, "no part can be shown"},
		"bad constant":    {"", read("public.users"), access.Mask{Columns: []string{"users.born"}, With: access.MaskWith{Kind: access.MaskConstant, Text: "soon"}}, "it is no date"},
		"setting":         {"", access.Role{Read: []string{"public.*"}, Settings: map[string]string{"rows": "x"}}, email, `setting "rows"`},
		"public table":    {"grant select on users to public", readonly(), email, "Everybody may read public.users"},
		"public column":   {"grant select (email) on users to public", readonly(), email, "Everybody may read public.users"},
		"public view":     {"create view v as select * from users; grant select on v to public", read("public.orders"), email, "Everybody may read public.v"},
		"defaults":        {"alter default privileges grant select on tables to public", readonly(), email, "Default privileges of postgres"},
		"definer":         {"create function f() returns text language sql security definer as 'select 1::text'", readonly(), email, "Everybody may call public.f"},
		"view":            {"create view v as select id from users; create view w as select * from v", read("public.w"), email, "reads a masked table"},
		"matview":         {"create materialized view v as select id from users", read("public.v"), email, "reads a masked table"},
		"calling view":    {"create function f() returns text language sql as 'select 1::text'; create view v as select f()", read("public.v"), email, "calls functions"},
		"rls":             {"alter table users enable row level security", read("public.users"), email, "row-level security"},
		"public child":    {"create table kid () inherits (users); grant select on kid to public", read("public.orders"), access.Mask{Columns: []string{"users.ssn"}}, "Everybody may read public.kid"},
		"view on child":   {"create table kid () inherits (users); create view v as select * from kid", read("public.v"), access.Mask{Columns: []string{"users.ssn"}}, "reads a masked table"},
		"view on calling": {"create function f() returns text language sql as 'select 1::text'; create view v as select f(); create view w as select * from v", read("public.w"), email, "calls functions"},
		"child":           {"create table kid () inherits (users)", read("public.users"), email, "inheritance tree"},
		"partition":       {"create table p (id int, email text) partition by list (id); create table p1 partition of p default", read("public.p1"), access.Mask{Columns: []string{"p.email"}}, "inheritance tree"},
		"generated":       {"alter table users add low text generated always as (lower(email)) stored", read("public.users"), email, "computed from a masked one"},
		"foreign table":   {"create foreign data wrapper w; create server s foreign data wrapper w; create foreign table f (id int, email text) server s", read("public.f"), email, "is a foreign table"},
		"masked matview":  {"create materialized view m as select 'x'::text as email", read("public.m"), email, "is no plain table"},
		"rule":            {"create rule r as on insert to orders do also select * from users", access.Role{Write: []string{"public.orders"}}, email, "rewrite rules"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, shop+c.sql)
			_, err := b.Expand(t.Context(), access.Plan{Target: b.target, Role: c.role, Masks: []access.Mask{c.mask}})
			if access.CodeOf(err) != access.CodeInvalid || !strings.Contains(access.Message(err), c.want) {
				t.Errorf("got %v, want invalid with %q", err, c.want)
			}
		})
	}
}

func TestExpandLeavesOutAndIsCanonical(t *testing.T) {
	b := newBench(t, shop+"create view v as select * from users; create function f() returns int language sql security definer as 'select 1'")
	role := readonly()
	role.Settings = map[string]string{"trust_functions": "public.f"}
	g, again := b.ask(t, role, masks()...), b.ask(t, role, masks()...)
	if diff := cmp.Diff(string(g.Plan.Expansion.Body), string(again.Plan.Expansion.Body)); diff != "" {
		t.Errorf("two expansions differ: %s", diff)
	}
	var got body
	if err := json.Unmarshal(g.Plan.Expansion.Body, &got); err != nil || len(got.LeftOut) != 1 || got.LeftOut[0].Table != "public.v" {
		t.Errorf("left out %+v, %v, want public.v", got.LeftOut, err)
	}
}

func TestGrantOptionMissing(t *testing.T) {
	b := newBench(t, shop)
	b.must(t, "create table late (x int); grant select on late to minter_"+b.cfg.Installation)
	g := b.ask(t, access.Role{Read: []string{"public.late"}})
	if _, err := b.Mint(t.Context(), g); err == nil {
		t.Error("a mint that could not give the rights was called done")
	}
	b.end(t, g)
}

func TestTargetMustBeVerified(t *testing.T) {
	b := newBench(t, shop)
	for name, change := range map[string]func(*AdminLogin){
		"another name":   func(l *AdminLogin) { l.ServerName = "db.other.example" },
		"another CA":     func(l *AdminLogin) { l.ServerCA = nil },
		"wrong password": func(l *AdminLogin) { l.Password = access.NewSecret("wrong-secret") },
	} {
		login, err := b.cfg.Admin(t.Context(), b.target)
		if err != nil {
			t.Fatal(err)
		}
		change(&login)
		cfg := b.cfg
		cfg.Admin = adminOf(login)
		m, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		_, err = m.Orphans(t.Context(), b.target, nil)
		if err == nil || strings.Contains(err.Error(), "wrong-secret") || access.CodeOf(err) != access.CodeUnavailable {
			t.Errorf("%s: got %v, want an error of code unavailable without a secret", name, err)
		}
		m.Close()
	}
	link := b.target
	link.Address = "169.254.169.254:5432/x"
	if _, err := b.Orphans(t.Context(), link, nil); err == nil || !strings.Contains(err.Error(), "link-local") {
		t.Errorf("got %v, want a refusal of the link-local address", err)
	}
}
