package postgres

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger/pgtest"
	"github.com/tidegate/tidegate/gateway/postgres/backing"
)

// namesPlan knows users, cards and orders; notes is at the target, and unknown.
var namesPlan = backing.Backing{
	Role: "r", Database: "d", SearchPath: []string{"m", "public", "sales"},
	Masked: []backing.MaskedTable{{Schema: "public", Table: "users", MaskSchema: "m", Columns: []backing.MaskedColumn{{Name: "ssn"}}}},
	Tables: []backing.Table{
		{Schema: "public", Name: "users", Columns: []string{"id", "name", "ssn"}},
		{Schema: "public", Name: "cards", Columns: []string{"id", "owner", "number"}},
		{Schema: "sales", Name: "orders", Columns: []string{"id", "owner", "total"}},
	},
}

const namesSchema = `create schema sales; create table users (id int, name text, ssn text); create table cards (id int, owner int, number text);
	create table sales.orders (id int, owner int, total int); create table notes (id int, body text); create type pair as (a int, b text)`

func TestNamesResolve(t *testing.T) {
	for _, c := range []struct{ sql, tables, columns string }{
		{"select id from users", "public.users", "public.users.id"},
		{"select u.ssn from users u", "public.users", "public.users.ssn"},
		{"select * from public.users", "public.users", "public.users.id public.users.name public.users.ssn"},
		{"select * from m.users", "public.users", "public.users.id public.users.name public.users.ssn"},
		{"select count(*) from users", "public.users", ""},
		{"select total from orders", "public.orders sales.orders", "public.orders.total sales.orders.total"},
		{"select number from users, cards", "public.cards public.users", "public.cards.number"},
		{"select body from users, notes", "public.notes public.users sales.notes", "public.notes.body public.users.body sales.notes.body"},
		{"select u from users u", "public.users", "public.users.id public.users.name public.users.ssn"},
		{"select c from users u(a, b, c)", "public.users", "public.users.id public.users.name public.users.ssn"},
		{"with users as (select 1 as ssn) select ssn from users", "", ""},
		{"with users as (select ssn from users) select * from users", "public.users", "public.users.ssn"},
		{"with x as (delete from users returning ssn) select * from x", "public.users", "public.users.ssn"},
		{"with users as (select 1) delete from users where ssn = ''", "public.users", "public.users.ssn"},
		{"select j.ssn from (users join cards using (id)) as j", "public.cards public.users", "public.cards.id public.cards.ssn public.users.id public.users.ssn"},
		{"select 1 from pg_class", "pg_catalog.pg_class", ""},
		{"insert into users (ssn) values ('1')", "public.users", "public.users.ssn"},
		{"insert into cards select * from cards", "public.cards", "public.cards.id public.cards.number public.cards.owner"},
		{"select c.oid, c.name from pg_catalog.pg_class c", "pg_catalog.pg_class", "pg_catalog.pg_class.name pg_catalog.pg_class.oid"}, // no whole row: rules on a column's name alone would bite on psql's \d
		{"insert into users (id) values (1) on conflict (id) do update set name = excluded.ssn", "public.users", "public.users.id public.users.name public.users.ssn"},
		{"update users set ssn = '' where id = 1", "public.users", "public.users.id public.users.ssn"},
		{"update users as u set name = c.number from cards c where u.id = c.owner", "public.cards public.users", "public.cards.number public.cards.owner public.users.id public.users.name"},
		{"delete from users using cards c where c.owner = users.id", "public.cards public.users", "public.cards.owner public.users.id"},
		{"copy users (ssn) to stdout", "public.users", "public.users.ssn"},
		{"copy users to stdout", "public.users", "public.users.id public.users.name public.users.ssn"},
		{"drop table sales.orders, users", "public.users sales.orders", "public.users.id public.users.name public.users.ssn sales.orders.id sales.orders.owner sales.orders.total"},
		{"truncate users", "public.users", ""},
		{"explain select ssn from users", "public.users", "public.users.ssn"},
		{"select id from users for update of users", "public.users", "public.users.id"},
		{"select public.users.ssn from public.users", "public.users", "public.users.ssn"},
		{"select x.ssn from nothing", "public.nothing sales.nothing", "*.ssn"},
		{"select (select ssn from (select 1) ssn) from users", "public.users", "public.users.ssn"}, // a column further out comes before a row
		{"select (select c from cards c) from users", "public.cards public.users", "public.cards.id public.cards.number public.cards.owner"},
		{`select system_user from users as "system_user"`, "public.users", "public.users.id public.users.name public.users.ssn"}, // a name before PostgreSQL 16
		{"select u.to_json from users u", "public.users", "public.users.id public.users.name public.users.ssn public.users.to_json"},
		{"select public.users.to_json from public.users", "public.users", "public.users.id public.users.name public.users.ssn public.users.to_json"},
		{"select n.to_json, n.body from public.notes n", "public.notes", "public.notes.* public.notes.body public.notes.to_json"},
		{"select u.ctid, u.id from users u", "public.users", "public.users.ctid public.users.id"},
		{"delete from cards c where c.quote_literal like '%4000%'", "public.cards", "public.cards.id public.cards.number public.cards.owner public.cards.quote_literal"},
	} {
		stmts, err := classify(c.sql, newCatalog(namesPlan))
		if err != nil {
			t.Errorf("%s: %v", c.sql, err)
			continue
		}
		f := stmts[0].op.Facts
		got := [2]string{strings.Join(f["tables"].([]string), " "), strings.Join(f["columns"].([]string), " ")}
		if diff := cmp.Diff([2]string{c.tables, c.columns}, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.sql, diff)
		}
	}
}

// Whatever PostgreSQL says that a query reads, the room finds.
// Where the search path is the server's own, a name without a schema may be of
// any that it usually leads to.
func TestNamesOnTheServersOwnPath(t *testing.T) {
	c := newCatalog(backing.Backing{Role: "tg_1", Acts: "app_owner"})
	for sql, want := range map[string]string{
		"delete from users":                    "app_owner.users public.users users",
		"drop table public.users":              "public.users",
		"select 1 from pg_class":               "pg_catalog.pg_class",
		"with users as (select 1) table users": "",
	} {
		found, err := classify(sql, c)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(found[0].op.Facts["tables"].([]string), " "); got != want {
			t.Errorf("%s: got %q, want %q", sql, got, want)
		}
	}
}

func TestNamesResolveAsPostgreSQLResolvesThem(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{})
	c, err := pgx.Connect(t.Context(), s.NewDatabase(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	if _, err := c.Exec(t.Context(), namesSchema+"; set search_path = public, sales"); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		"select ssn from users",
		"select u.ssn as x from users u order by x",
		"select (select ssn from users x where x.id = c.owner) as s from cards c",
		"select (select ssn limit 1) as s from cards c, users",
		"select q.s from (select ssn as s from users) q",
		"select l.s from cards c, lateral (select ssn as s from users where id = c.owner) l",
		"select o.id from sales.orders o where exists (select from users u, cards where u.id = o.owner and ssn = number)",
		"with a as (select * from users), b as (select ssn from a) select * from b",
		"with recursive t(n, s) as (select 1, ssn from users union all select n+1, s from t where n < 3) select s from t",
		"with users as (select ssn from public.users) select u.ssn from users u join cards on true",
		"with orders as (select 1 as id) select (with orders as (select * from sales.orders) select max(total) from orders) as m from orders",
		"select a.c from (users u(x, y, c) cross join cards) as a",
		"select z.c from (users cross join cards) as z(a, b, c, d, e, f)",
		"select id from users natural join cards",
		"select count(*) as n from users join cards using (id) where owner = 1",
		"select w.number from users u left join lateral (select number from cards where owner = u.id) w on true",
		"select (u).ssn as s from users u",
		"select ssn(u) as s from users u",
		"select (select u from users u limit 1) as r",
		"select row_to_json(users) as j from users",
		"select array(select ssn from users) as a",
		"select case when ssn like '1%' then 1 end as c from users",
		"select sum(total) filter (where owner = 1) over (partition by orders.id) as s from sales.orders",
		"select id from users union select owner from orders order by 1",
		"select u.id from users u tablesample system (10)",
		"select x.id from users u, unnest(array[u.id]) x(id)",
		"select g.id from generate_series(1, (select max(id) from users)) g(id)",
		"select u.id from users u where (u.name, u.ssn) in (select number, number from cards)",
		"select u.id from users u where u.id = any (select owner from cards group by owner having count(number) > 1)",
		"select body from notes, users where notes.id = users.id",
		"select u.* from users u, cards",
		"select (select o.total from cards u join orders o on u.owner = o.owner limit 1) as t, u.ssn from users u",
		// u of the outer query: the inner u is hidden by the join's alias, or not LATERAL
		"select (select u.ssn from (cards u cross join orders) as j limit 1) as s from users u",
		"select (select q.s from cards u, (select u.ssn as s) q limit 1) as s from users u",
		"select (select 1 from cards u, (cards a join cards b on u.ssn = a.number) limit 1) as s from users u",
		"select (select ssn from (select 1) ssn) as s from users",
		"select (select ssn from cards ssn limit 1) as s from users",
		`select system_user from users as "system_user"`,
		"select xmin::text as x from users",
		"table users",
		"values ((select ssn from users limit 1))",
		"select distinct on (ssn) id from users",
		"select coalesce(nullif(ssn, ''), name) as c from users",
		"select e.i from users, lateral (values (ssn)) e(i)",
		"select jt.a from users, json_to_record(to_json(users)) jt(a text)",
		"select id from users group by grouping sets ((id, ssn), (id))",
		"select first_value(id) over w as f from users window w as (order by ssn)",
		"select (select count(*) from users u2 where u2.id = u.id) as n from users u",
		"select name, number, total from (users join cards using (id)) join orders using (id)",
		"select x.* from (select u.*, c.number from users u, cards c) x",
	} {
		compareWithServer(t, c, sql)
	}
}

// compareWithServer makes a view of the query: then pg_depend holds every
// column that it reads, as the server resolved it.
func compareWithServer(t *testing.T, c *pgx.Conn, sql string) {
	t.Helper()
	if _, err := c.Exec(t.Context(), "create or replace temp view depends as "+sql); err != nil {
		t.Errorf("%s: the server says %v", sql, err)
		return
	}
	rows, _ := c.Query(t.Context(), `select distinct n.nspname||'.'||c.relname||case when d.refobjsubid > 0 then '.'||a.attname else '' end
		from pg_rewrite w join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid and d.refclassid = 'pg_class'::regclass
		join pg_class c on c.oid = d.refobjid join pg_namespace n on n.oid = c.relnamespace
		left join pg_attribute a on a.attrelid = c.oid and a.attnum = d.refobjsubid
		where w.ev_class = 'depends'::regclass and c.oid <> w.ev_class order by 1`)
	want, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(want) == 0 {
		t.Fatalf("%s: %v, %v", sql, want, err)
	}
	stmts, err := classify(sql, newCatalog(namesPlan))
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	f := stmts[0].op.Facts
	got := append(slices.Clone(f["tables"].([]string)), f["columns"].([]string)...)
	for _, w := range want {
		of := w[:strings.LastIndex(w, ".")]
		if !slices.Contains(got, w) && !slices.Contains(got, of+".*") {
			t.Errorf("%s: the server reads %s, found are %q", sql, w, got)
		}
	}
	if _, err := c.Exec(t.Context(), "drop view depends"); err != nil {
		t.Fatal(err)
	}
}

// A rule sees the real name, whatever the statement calls it.
func TestRulesSeeRealNames(t *testing.T) {
	r := newRig(t, Config{})
	r.door.judge = func(op access.Operation) access.Verdict {
		if columns, _ := op.Facts["columns"].([]string); slices.Contains(columns, "public.t.v") || slices.Contains(columns, "public.t.*") {
			return access.Deny
		}
		return access.Allow
	}
	for mode, exec := range protocols {
		c := r.connect()
		for sql, want := range map[string]string{
			"select x.id from t x":                          "",
			"select x.v from t x":                           "42501",
			"with t as (select 1 as v) select v from t":     "",
			"with q as (select * from t) select 1 from q":   "42501",
			"select a.b from public.t as a(x, b)":           "42501",
			"set search_path = pg_catalog":                  "42501",
			"select set_config('search_path', 'x', false)":  "42501",
			"reset search_path":                             "",
			"select (select t from t limit 1) is not null":  "42501",
			"update t set id = id where id = 1":             "",
			"update t set id = id where id = 1 returning *": "42501",
		} {
			if _, err := exec(t.Context(), c, sql); codeOf(err) != want {
				t.Errorf("%s: %s: got %v, want %q", mode, sql, err, want)
			}
		}
	}
}

// A rule about a table sees it behind a view and a partition that the role was
// given.
func TestResolvesWhatIsBehind(t *testing.T) {
	c := newCatalog(backing.Backing{Role: "r", Database: "d", SearchPath: []string{"public"}, Tables: []backing.Table{
		{Schema: "public", Name: "listed", Columns: []string{"id", "s"}, Behind: []backing.Source{{Schema: "public", Name: "users", Columns: []string{"id", "ssn"}}}},
		{Schema: "public", Name: "users_1", Columns: []string{"id", "ssn"}, Behind: []backing.Source{{Schema: "public", Name: "users", Part: true}}},
		{Schema: "public", Name: "users", Columns: []string{"id", "ssn"}, Behind: []backing.Source{{Schema: "public", Name: "users_1", Part: true}}},
	}})
	for sql, want := range map[string]string{
		"select id from listed":                  "public.listed public.users / public.listed.id public.users.id public.users.ssn",
		"select l.id from listed l":              "public.listed public.users / public.listed.id public.users.id public.users.ssn",
		"select id from users_1":                 "public.users public.users_1 / public.users.id public.users_1.id",
		"select * from users_1":                  "public.users public.users_1 / public.users.id public.users.ssn public.users_1.id public.users_1.ssn",
		"update users set id = 1 where id = 2":   "public.users public.users_1 / public.users.id public.users_1.id",
		"copy users_1 (ssn) to stdout":           "public.users public.users_1 / public.users.ssn public.users_1.ssn",
		"with listed as (select 1) table listed": " / ",
	} {
		stmts, err := classify(sql, c)
		if err != nil {
			t.Fatal(err)
		}
		f := stmts[0].op.Facts
		if got := strings.Join(f["tables"].([]string), " ") + " / " + strings.Join(f["columns"].([]string), " "); got != want {
			t.Errorf("%s: got %q, want %q", sql, got, want)
		}
	}
}
