package mint

import (
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
)

func TestYieldLetsAMigrationThrough(t *testing.T) {
	for name, migration := range map[string]string{
		"alter type": "alter table users alter column email type varchar(300)", "drop column": "alter table users drop column email", "drop table": "drop table users cascade",
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, shop)
			g := b.ask(t, readonly(), masks()...)
			if got := strings.Join(g.Plan.Expansion.Summary, "\n"); !strings.Contains(got, "hinder ALTER TYPE, DROP COLUMN and DROP TABLE, unless under `tidegate yield`, of public.users") {
				t.Errorf("the plan says\n%s", got)
			}
			b.mint(t, &g)
			hindered := strings.TrimSuffix(migration, " cascade")
			if hindered == "drop table users" {
				b.must(t, "alter table orders drop constraint orders_user_id_fkey")
			}
			if _, err := say(t, b.super, hindered); err == nil {
				t.Fatalf("%s works beside a view: this test proves nothing", hindered)
			}
			if err := b.Yield(t.Context(), b.target, time.Minute); err != nil {
				t.Fatal(err)
			}
			if err := b.Revoke(t.Context(), g); err != nil {
				t.Fatal(err)
			}
			b.must(t, hindered)
			g.Generation++
			if _, err := b.Mint(t.Context(), g); name != "drop table" && access.CodeOf(err) != access.CodeUnavailable {
				t.Errorf("minted while the target yields: %v", err)
			}
			plain := b.ask(t, access.Role{Name: "plain", Read: []string{"public.orders"}})
			b.mint(t, &plain) // no views: in nobody's way
			if err := b.Yield(t.Context(), b.target, 0); err != nil {
				t.Fatal(err)
			}
			b.mint(t, &g)
			c := b.session(t, g)
			if _, err := say(t, c, "select total from orders"); err != nil {
				t.Error(err)
			}
			got, err := say(t, c, "select name from users where id = 1")
			if gone := name == "drop table"; (err != nil) != gone || !gone && got != "ann\n" {
				t.Errorf("users afterwards: %q, %v", got, err)
			}
			if got, err := say(t, c, "select email from users"); err == nil {
				t.Errorf("what changed since it was approved is shown: %q", got)
			}
			b.end(t, plain)
			b.end(t, g)
		})
	}
}

// TestYieldEndsByItself: nobody came to end it.
func TestYieldEndsByItself(t *testing.T) {
	b := newBench(t, shop)
	g := b.ask(t, readonly(), masks()...)
	if err := b.Yield(t.Context(), b.target, time.Millisecond); err != nil {
		t.Fatal(err)
	}
	b.must(t, "select pg_sleep(0.01)")
	b.mint(t, &g)
	b.end(t, g)
	for _, most := range []time.Duration{-1, MaxYield + 1} {
		if err := b.Yield(t.Context(), b.target, most); access.CodeOf(err) != access.CodeInvalid {
			t.Errorf("yield for %s: %v, want a refusal", most, err)
		}
	}
}

func TestLeaseSaysThatTheTargetYields(t *testing.T) {
	b := newBench(t, shop)
	g := b.ask(t, readonly())
	g.State, g.Yields = access.StateActive, time.Now().Add(time.Minute)
	if _, err := b.Lease(t.Context(), g, "s"); access.CodeOf(err) != access.CodeUnavailable || !strings.Contains(err.Error(), "makes room for a migration") {
		t.Errorf("got %v, want a sentence to try again by", err)
	}
}
