package mint

import (
	"slices"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/postgres/backing"
)

const routinesShop = shop + `
create schema app;
create function public.refund(id int) returns text language sql as $$ select 'refunded ' || id $$;
create function public.secret_report() returns text language sql as $$ select 'report' $$;
create function app.close(x int, y text default '') returns int language sql as $$ select x $$;
create function app."Odd ""name"(x numeric(4,2)) returns int language sql as $$ select 1 $$;
create procedure app.tidy(n int) language plpgsql as $$ begin update orders set total = n; end $$;
create function app.fires() returns trigger language plpgsql as $$ begin return new; end $$;
create function public.raw_email(x int) returns text language sql security definer as $$ select email from users where users.id = x $$;
create function public.fullname(u users) returns text language sql as $$ select u.name || '!' $$;
create function public.lower(x int) returns text language sql as $$ select 'not yours' $$;
revoke execute on all routines in schema public, app from public;
revoke all on schema public, app from public;
`

func caller(call ...string) access.Role {
	return access.Role{Name: "caller", Read: []string{"public.orders"}, Write: []string{"public.orders"},
		Settings: map[string]string{"call": strings.Join(call, "\n")}}
}

func TestCallGivesWhatItNames(t *testing.T) {
	b := newBench(t, routinesShop, "app")
	g := b.ask(t, caller("public.refund(int)", "app.*"))
	summary := strings.Join(g.Plan.Expansion.Summary, "\n")
	if want := `calls 4 functions: app."Odd ""name"(numeric), app.close(integer,text), app.tidy(integer), public.refund(integer)`; !strings.Contains(summary, want) {
		t.Errorf("the plan says\n%s\nwant %s", summary, want)
	}
	b.mint(t, &g)
	c := b.session(t, g)
	for sql, want := range map[string]string{
		"select refund(3)": "refunded 3\n", "select app.close(7)": "7\n", `select "Odd ""name"(1)`: "1\n", "call app.tidy(4); select total from orders": "4.00\n",
	} {
		if got, err := say(t, c, sql); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", sql, got, err, want)
		}
	}
	for _, sql := range []string{"select secret_report()", "select public.raw_email(1)", "select lower(3)"} {
		if got, err := say(t, c, sql); err == nil || !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("%s: got %q, %v, want that PostgreSQL denies it", sql, got, err)
		}
	}
	p, err := backing.Parse(g.Backing)
	if err != nil || !slices.Contains(p.Calls, backing.Routine{Schema: "app", Name: "close"}) || len(p.Calls) != 4 || len(p.Shadows) != 0 {
		t.Errorf("the room's plan has %+v and shadows %q, %v", p.Calls, p.Shadows, err)
	}
	if !slices.Contains(p.SearchPath, "app") {
		t.Errorf("search path %q lacks the functions' schema", p.SearchPath)
	}
	b.end(t, g)
	if got, _ := say(t, b.super, "select grantee from information_schema.routine_privileges where grantee like 'tg\\_%'"); got != "" {
		t.Errorf("rights are left: %s", got)
	}
}

func TestCallRefusesAtPlan(t *testing.T) {
	b := newBench(t, routinesShop+"create function public.refund(id text) returns text language sql as $$ select id $$;", "app")
	for call, want := range map[string]string{
		"public.gone(int)": "names no function", "public.refund(float8)": "names no function", "app.gone": "names no function", "gone.*": "names no function",
		"refund": "is not understood", "*.refund": "is not understood", "a.b.c": "is not understood", "public.refund(int": "names no function",
		"pg_catalog.lower(text)": "names no function", "lower(text)": "names no function", "pg_catalog.*": "names no function",
		"public.refund(nosuchtype)": "", "public.refund(int)": "can't tell from public.refund(integer)", "app.fires()": "names no function",
		"app.tidy(int); drop table orders --)": "",
	} {
		_, err := b.Expand(t.Context(), access.Plan{Target: b.target, Role: caller(call)})
		if access.CodeOf(err) != access.CodeInvalid || !strings.Contains(access.Message(err), want) {
			t.Errorf("%s: got %v, want a refusal with %q", call, err, want)
		}
	}
	if _, err := b.Expand(t.Context(), access.Plan{Target: b.target, Role: caller("public.refund")}); err != nil {
		t.Errorf("both of one name: %v", err)
	}
}

// TestCallTrusts: a SECURITY DEFINER function that is named is trusted, with a
// warning; one that is not still refuses the plan where everybody may call it.
func TestCallTrusts(t *testing.T) {
	b := newBench(t, routinesShop, "app")
	g := b.ask(t, caller("public.raw_email"), masks()...)
	if got := strings.Join(g.Plan.Expansion.Summary, "\n"); !strings.Contains(got, "WARNING: trusts what runs with its owner's rights (SECURITY DEFINER) and may read and change more than the role: public.raw_email(integer)") {
		t.Errorf("the plan does not warn:\n%s", got)
	}
	b.mint(t, &g)
	if got, err := say(t, b.session(t, g), "select raw_email(1)"); err != nil || !raw(got) {
		t.Errorf("got %q, %v; want what was trusted", got, err)
	}
	b.end(t, g)
	b.must(t, "grant execute on function public.raw_email(int) to public")
	if _, err := b.Expand(t.Context(), access.Plan{Target: b.target, Role: caller("app.close"), Masks: masks()}); err == nil || !strings.Contains(err.Error(), "public.raw_email") {
		t.Errorf("one that everybody may call and nobody named: %v, want a refusal", err)
	}
	if _, err := b.Expand(t.Context(), access.Plan{Target: b.target, Role: caller("public.raw_email"), Masks: masks()}); err != nil {
		t.Errorf("one that everybody may call, named: %v", err)
	}
}

// TestRoomHearsOfShadows: by which names a function that is open to everybody
// could be met in the place of what may be called.
func TestRoomHearsOfShadows(t *testing.T) {
	b := newBench(t, routinesShop+`
		create function app.refund(id int) returns text language sql as $$ select 'app' $$;
		create extension citext schema public;
		create function public.json_value(a text, b text) returns text language sql as $$ select a $$;
		create function public.both(a text, b text) returns text language sql as $$ select a $$;
		create function public.one(a text, b text default '') returns text language sql as $$ select a $$;
		grant execute on function public.lower(int), public.fullname(users), app.refund(int), public.secret_report(), public.json_value(text, text), public.both(text, text), public.one(text, text) to public;`, "app")
	g := b.ask(t, caller("public.refund(int)", "app.close(int,text)"))
	b.mint(t, &g)
	p, err := backing.Parse(g.Backing)
	if want := []string{"citextsend", "fullname", "json_value", "lower", "one", "refund"}; err != nil || !slices.Equal(p.Shadows, want) {
		t.Errorf("shadows are %q, %v; want %q", p.Shadows, err, want)
	}
	b.end(t, g)
}

// TestCallSurvivesAMigration: a function that is gone is not given, and keeps
// nothing else from being minted; one that became SECURITY DEFINER is another.
func TestCallSurvivesAMigration(t *testing.T) {
	b := newBench(t, routinesShop, "app")
	g := b.ask(t, caller("public.refund(int)", "app.close", "app.tidy"))
	b.must(t, "drop function public.refund(int); alter function app.close(int, text) security definer")
	b.mint(t, &g)
	c := b.session(t, g)
	if _, err := say(t, c, "call app.tidy(4)"); err != nil {
		t.Error(err)
	}
	if got, err := say(t, c, "select app.close(1)"); err == nil {
		t.Errorf("what became SECURITY DEFINER after it was approved answers %q", got)
	}
	b.end(t, g)
}

func TestCallIsNarrowed(t *testing.T) {
	b := newBench(t, routinesShop, "app")
	g := b.ask(t, caller("public.refund(int)", "app.close"))
	today := g.Plan
	today.Role = caller("app.*")
	less, err := b.Narrow(t.Context(), g.Plan, today)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(less.Expansion.Summary, "\n"); !strings.Contains(got, "calls 1 function: app.close(integer,text)") {
		t.Errorf("narrowed it gives\n%s", got)
	}
}

func TestDiagnoseCalls(t *testing.T) {
	b := newBench(t, routinesShop+"create schema other; create function other.f() returns int language sql as $$ select 1 $$; revoke execute on function other.f() from public; grant usage on schema other to public;", "app")
	b.finds(t, []access.Plan{{Target: b.target, Role: caller("app.close")}, {Target: b.target, Role: caller("other.f()")}},
		"fail role caller: the login may not hand on its rights on other.f()")
}
