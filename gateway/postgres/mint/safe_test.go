package mint

import (
	"strings"
	"testing"

	"github.com/tidegate/tidegate/access"
)

// TestNames: whatever a table, a column or a schema is called, it is given,
// masked, used and taken away under that name, and nothing else happens.
func TestNames(t *testing.T) {
	long := strings.Repeat("ü", 31) + "x" // 63 bytes, the most that there are
	names := []string{`"; DROP TABLE orders; --`, `it's`, `back\slash`, `a.b`, `"`, ` `, `SELECT`, `%I%s$1`, `日本語`, `Ünï`, long}
	in := func(name string) string { return "s" + name[:min(len(name), 60)] } // a schema's
	sql := shop
	for _, name := range names {
		sql += "create schema " + ident(in(name)) + ";"
		for _, schema := range []string{"public", in(name)} {
			table := ident(schema, name)
			if name == names[0] && schema == "public" {
				sql += "drop table " + table + ";" // the shop has one
			}
			sql += "create table " + table + " (id int, " + ident(name) + " text); insert into " + table + " values (1, '" + canary + "');"
		}
	}
	schemas := []string{}
	role := access.Role{Name: "r", Read: []string{"public.*"}, Write: []string{"public.orders"}}
	mask := access.Mask{Name: "m", With: access.MaskWith{Kind: access.MaskPartial, Keep: 4}}
	for _, name := range names {
		schemas = append(schemas, in(name))
		role.Read = append(role.Read, ident(in(name))+".*")
		role.Write = append(role.Write, ident(in(name), name))
		mask.Columns = append(mask.Columns, "*."+ident(name))
	}
	b := newBench(t, sql, schemas...)
	g := b.ask(t, role, mask)
	b.mint(t, &g)
	c := b.session(t, g)
	for _, name := range names {
		if got, err := say(t, c, "select "+ident(name)+" from "+ident(name)); err != nil || got != "****mple\n" {
			t.Errorf("%q: %q, %v", name, got, err)
		}
		for _, schema := range []string{"public", in(name)} {
			if got, err := say(t, c, "select "+ident(name)+" from "+ident(schema, name)); err == nil {
				t.Errorf("%q in %q: the table itself gave %q", name, schema, got)
			}
		}
		own := ident(in(name), name)
		if _, err := say(t, c, "update "+own+" set "+ident(name)+" = 'new' where id = 1"); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	if got, err := say(t, c, "select count(*) from orders"); err != nil || got != "1\n" {
		t.Errorf("orders: %q, %v", got, err)
	}
	b.end(t, g)
}

// TestRowLevelSecurityHolds: a table with policies and without masks is given,
// and the role sees the rows that the policies say.
func TestRowLevelSecurityHolds(t *testing.T) {
	b := newBench(t, shop+`create table docs (id int, owner text); insert into docs values (1, 'open'), (2, 'closed');
		alter table docs enable row level security; create policy p on docs using (owner = 'open')`)
	g := b.ask(t, access.Role{Read: []string{"public.docs"}}, masks()...)
	b.mint(t, &g)
	if got, err := say(t, b.session(t, g), "select id from docs"); err != nil || got != "1\n" {
		t.Errorf("got %q, %v, want the row of the policy", got, err)
	}
	b.end(t, g)
}

// TestDblinkReachesNothing: an extension that dials runs with the role's own
// rights, and a role that is no superuser must bring a password of its own.
func TestDblinkReachesNothing(t *testing.T) {
	b := newBench(t, shop+"create extension dblink")
	g := b.ask(t, readonly(), masks()...)
	b.mint(t, &g)
	for _, to := range []string{"", "dbname=postgres user=postgres", "host=127.0.0.1 port=" + strings.Split(strings.Split(b.target.Address, ":")[1], "/")[0] + " user=postgres dbname=postgres"} {
		got := b.wire(t, g, "select * from dblink('"+to+"', 'select email from public.users') as t(x text)")
		if raw(got) || !strings.Contains(got, "2F003") && !strings.Contains(got, "08001") {
			t.Errorf("dblink(%q): %q", to, got)
		}
	}
	b.end(t, g)
}
