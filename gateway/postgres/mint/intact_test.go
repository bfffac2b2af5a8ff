package mint

import (
	"strings"
	"testing"

	"github.com/tidegate/tidegate/access"
)

// TestMigrationsBreakAndAreMended: whatever a migration does to the tables of
// a grant, a table that was not approved is never read, directly or by a view;
// the grant is found broken, and what a mint of the next generation makes is
// whole again.
func TestMigrationsBreakAndAreMended(t *testing.T) {
	for name, c := range map[string]struct {
		sql    string
		broken string
		closed []string // what must not be read before it is mended
	}{
		"nothing":                   {"select 1", "", nil},
		"another table":             {"create table other (id int)", "", []string{"select * from other"}},
		"masked table dropped":      {"drop table users cascade", "", []string{"select * from users", "select * from public.users"}},
		"masked table made again":   {"drop table users cascade; create table users (id int, name text, email text, ssn varchar(11), born date)", "public.users", []string{"select * from users", "select name from public.users"}},
		"plain table made again":    {"drop table orders; create table orders (id int, user_id int, total numeric(10,2))", "public.orders", []string{"select * from orders", "select id from public.orders"}},
		"masked table renamed":      {"alter table users rename to people", "public.people", []string{"select name from people"}},
		"plain table renamed":       {"alter table orders rename to bills", "public.bills", nil},
		"renamed and made again":    {"alter table orders rename to bills; create table orders (id int, user_id int, total numeric(10,2))", "public.bills", []string{"select id from orders"}},
		"moved to another schema":   {"create schema attic; alter table users set schema attic", "attic.users", []string{"select name from attic.users"}},
		"plain table moved":         {"create schema attic; alter table orders set schema attic", "attic.orders", []string{"select id from orders"}},
		"column dropped with views": {"alter table users drop column name cascade", "public.users", []string{"select * from users", "select id from public.users"}},
		"column made again":         {"alter table orders drop column total; alter table orders add total numeric(10,2)", "public.orders", []string{"select total from orders"}},
		"view dropped":              {"drop schema MASKS cascade", "public.users", []string{"select * from users"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, shop)
			g := b.ask(t, readonly(), masks()...)
			b.mint(t, &g)
			c1 := b.session(t, g)
			b.must(t, strings.ReplaceAll(c.sql, "MASKS", maskSchema(b.names.role(g), 1)))
			b.must(t, "grant select on all tables in schema public to minter_"+b.cfg.Installation+" with grant option")
			for _, sql := range c.closed {
				if got, err := say(t, c1, sql); err == nil {
					t.Errorf("%s: %q, want a refusal", sql, got)
				}
			}
			broken, err := b.Broken(t.Context(), g)
			if err != nil || !strings.Contains(broken, c.broken) || (c.broken == "") != (broken == "") {
				t.Errorf("broken is %q, %v, want %q", broken, err, c.broken)
			}
			g.Generation++
			if err := b.Revoke(t.Context(), g); err != nil {
				t.Fatal(err)
			}
			b.mint(t, &g)
			if broken, err := b.Broken(t.Context(), g); err != nil || broken != "" {
				t.Errorf("made again, it is still broken: %q, %v", broken, err)
			}
			if got, err := say(t, b.session(t, g), "select * from public.people; select * from public.bills; select * from attic.users"); err == nil || raw(got) {
				t.Errorf("made again, it reads %q of a table of another name", got)
			}
			b.end(t, g)
		})
	}
}

// TestRoleDroppedByHandIsBroken: somebody else may have taken the role away.
func TestRoleDroppedByHandIsBroken(t *testing.T) {
	b := newBench(t, shop)
	g := b.ask(t, access.Role{Name: "w", Read: []string{"public.orders"}, Write: []string{"public.users"}})
	b.mint(t, &g)
	role := ident(b.names.role(g))
	b.must(t, "set role minter_"+b.cfg.Installation+"; drop owned by "+role+"; drop role "+role+"; reset role")
	if broken, err := b.Broken(t.Context(), g); err != nil || broken != "public.orders, public.users" {
		t.Errorf("broken is %q, %v", broken, err)
	}
	b.mint(t, &g)
	b.session(t, g)
	b.end(t, g)
}

// TestGrantWithoutTablesIsWhole: an owner's role holds nothing itself, and one
// whose only table was dropped has nothing to miss.
func TestGrantWithoutTablesIsWhole(t *testing.T) {
	b, owner := ownedBench(t)
	acts, reads := b.ask(t, migrator(owner)), b.ask(t, access.Role{Name: "r", Read: []string{"public.users"}})
	b.mint(t, &acts)
	b.mint(t, &reads)
	b.must(t, "drop table users cascade")
	for _, g := range []access.Grant{acts, reads} {
		if broken, err := b.Broken(t.Context(), g); err != nil || broken != "" {
			t.Errorf("%s: broken is %q, %v", g.Plan.Role.Name, broken, err)
		}
		b.end(t, g)
	}
}

// TestRightsOfAnEarlierMintAreTakenAway: a role that an earlier version minted
// could update the columns that its rows are limited by. What is more than a
// mint gives today makes a grant broken, and making it again takes it away.
func TestRightsOfAnEarlierMintAreTakenAway(t *testing.T) {
	b := newBench(t, regions)
	g := b.ask(t, rowsRole("public.parcels"))
	for what, more := range map[string]string{
		"update of a condition's column": "set role OWNER; grant update (region) on MASKS.parcels to ROLE; reset role",
		"a right on the table itself":    "set role MINTER; grant select (region) on public.parcels to ROLE; reset role",
		"a whole table":                  "set role MINTER; grant select on public.parcels to ROLE; reset role",
		"a right of its own":             "set role OWNER; grant truncate on MASKS.parcels to ROLE; reset role",
	} {
		b.mint(t, &g)
		if broken, err := b.Broken(t.Context(), g); err != nil || broken != "" {
			t.Fatalf("%s: before it: broken is %q, %v", what, broken, err)
		}
		role := b.names.role(g)
		b.must(t, strings.NewReplacer("MASKS", maskSchema(role, 1), "ROLE", ident(role), "OWNER", ident(b.names.masks()), "MINTER", "minter_"+b.cfg.Installation).Replace(more))
		if broken, err := b.Broken(t.Context(), g); err != nil || !strings.Contains(broken, "parcels") {
			t.Errorf("%s: broken is %q, %v, want the table", what, broken, err)
		}
		if err := b.Revoke(t.Context(), g); err != nil {
			t.Fatal(err)
		}
		g.Generation++
	}
	b.mint(t, &g)
	c := b.session(t, g)
	if got, err := say(t, c, "insert into parcels (id, region) values (2, 'eu') on conflict (id) do update set region = 'eu' returning *"); err == nil || raw(got) || raw(err.Error()) {
		t.Errorf("made again: got %q, %v; want it refused", got, err)
	}
	if broken, err := b.Broken(t.Context(), g); err != nil || broken != "" {
		t.Errorf("made again: broken is %q, %v", broken, err)
	}
	b.end(t, g)
}

// TestWhatIsGivenIsNotExcess: each kind of role holds exactly what is expected.
func TestWhatIsGivenIsNotExcess(t *testing.T) {
	b := newBench(t, shop)
	for _, role := range []access.Role{
		readonly(), {Name: "w", Read: []string{"public.*"}, Write: []string{"public.*"}}, {Name: "blind", Write: []string{"public.users", "public.orders"}},
	} {
		g := b.ask(t, role, masks()...)
		b.mint(t, &g)
		if broken, err := b.Broken(t.Context(), g); err != nil || broken != "" {
			t.Errorf("%s: broken is %q, %v", role.Name, broken, err)
		}
		b.end(t, g)
	}
}
