package mint

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger/pgtest"
)

// TestExtensionMovesTheRolesEnd: what an extension does at the target is a
// second mint with a later end.
func TestExtensionMovesTheRolesEnd(t *testing.T) {
	b := newBench(t, shop, "sales")
	g := b.ask(t, readonly(), masks()...)
	b.mint(t, &g)
	for range 2 {
		g.NotAfter = g.NotAfter.Add(3 * time.Hour).Truncate(time.Microsecond)
		b.mint(t, &g)
		var until time.Time
		if err := b.super.QueryRow(t.Context(), "select rolvaliduntil from pg_roles where rolname = $1", b.names.role(g)).Scan(&until); err != nil {
			t.Fatal(err)
		}
		if !until.Equal(g.NotAfter) {
			t.Errorf("VALID UNTIL is %s, want %s", until, g.NotAfter)
		}
	}
	b.session(t, g)
	b.end(t, g)
}

// TestViewsOwnerForgetsWithTheLastGrant: what one grant's views needed stays
// while another's need it, and goes with the last.
func TestViewsOwnerForgetsWithTheLastGrant(t *testing.T) {
	b := newBench(t, shop, "sales")
	rights := func() string {
		t.Helper()
		out, err := say(t, b.super, `select string_agg(distinct c.relname, ',') from pg_class c join pg_attribute a on a.attrelid = c.oid
			cross join lateral aclexplode(a.attacl) x join pg_roles r on r.oid = x.grantee where r.rolname = '`+b.names.masks()+`'
			union all select string_agg(n.nspname, ',') from pg_namespace n cross join lateral aclexplode(n.nspacl) x
			join pg_roles r on r.oid = x.grantee where r.rolname = '`+b.names.masks()+"'")
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(strings.TrimSpace(out), "\n", ";")
	}
	first, second := b.ask(t, readonly(), masks()...), b.ask(t, readonly(), masks()...)
	b.mint(t, &first)
	b.mint(t, &second)
	b.end(t, first)
	if got := rights(); !strings.Contains(got, "users") {
		t.Errorf("beside another grant it may read %q, want users", got)
	}
	if got, err := say(t, b.session(t, second), "select email from users limit 1"); err != nil || !strings.Contains(got, "****") {
		t.Errorf("the other grant reads %q, %v", got, err)
	}
	b.end(t, second)
	if got := rights(); got != "" {
		t.Errorf("after the last grant it still has %q", got)
	}
	third := b.ask(t, readonly(), masks()...)
	b.mint(t, &third)
	if got, err := say(t, b.session(t, third), "select email from users limit 1"); err != nil || !strings.Contains(got, "****") {
		t.Errorf("the next grant reads %q, %v", got, err)
	}
	b.end(t, third)
}

// TestTargetDownAtEachStep: a target that is down answers soon and with a code
// that says "try again"; once it is back, the same call does its work.
func TestTargetDownAtEachStep(t *testing.T) {
	own := pgtest.Start(t, pgtest.Options{SSL: true})
	was := server
	server = own
	t.Cleanup(func() { server = was })
	b := newBench(t, shop, "sales")
	g := b.ask(t, readonly(), masks()...)
	b.super.Close(t.Context())
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"mint", func(ctx context.Context) error {
			minted, err := b.Mint(ctx, g)
			g.Backing, g.State = minted.Backing, access.StateActive
			return err
		}},
		{"extend", func(ctx context.Context) error {
			g.NotAfter = g.NotAfter.Add(time.Hour)
			_, err := b.Mint(ctx, g)
			return err
		}},
		{"revoke", func(ctx context.Context) error { return b.Revoke(ctx, g) }},
		{"prove", func(ctx context.Context) error { return b.Prove(ctx, g) }},
	} {
		if err := own.Stop(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := step.do(t.Context()); access.CodeOf(err) != access.CodeUnavailable || time.Since(began) > 20*time.Second {
			t.Errorf("%s with the target down: %v after %s, want soon that it is unavailable", step.name, err, time.Since(began))
		}
		if err := own.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := step.do(t.Context()); err != nil {
			t.Errorf("%s with the target back: %v", step.name, err)
		}
	}
}

// TestFullACL: a column's rights have one page in the catalog. When it is full
// a mint says so and leaves nothing, and what has views is minted as before.
func TestFullACL(t *testing.T) {
	b := newBench(t, shop)
	full := b.ask(t, access.Role{Name: "o", Read: []string{"public.orders"}})
	viewed := b.ask(t, access.Role{Name: "u", Read: []string{"public.users"}}, masks()...)
	b.must(t, `set allow_system_table_mods = on;
		do $$ declare step int; begin
			foreach step in array array[100, 10, 1] loop
				begin loop
					begin
						update pg_attribute set attacl = attacl || (select array_agg(makeaclitem((10000000 + 1000000000 * random())::bigint::oid, 10, 'SELECT', false)) from generate_series(1, step))
							where attrelid = 'public.orders'::regclass and attname = 'id';
					exception when program_limit_exceeded then exit;
					end;
				end loop; end;
			end loop;
		end $$;
		reset allow_system_table_mods`)
	_, err := b.Mint(t.Context(), full)
	if access.CodeOf(err) != access.CodeUnavailable || !strings.Contains(access.Message(err), "as many rights on one table as PostgreSQL can keep") {
		t.Errorf("got %v, want that the table is full", err)
	}
	b.end(t, full)
	b.mint(t, &viewed)
	b.end(t, viewed)
}
