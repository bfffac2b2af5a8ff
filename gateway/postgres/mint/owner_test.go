package mint

import (
	"crypto/rand"
	"slices"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/postgres/backing"
)

// ownedBench is a bench whose tables belong to a role, as which grants may act.
func ownedBench(t *testing.T) (*bench, string) {
	b := newBench(t, shop)
	owner := "app_owner_" + strings.ToLower(rand.Text()[:8])
	b.must(t, "create role "+owner+"; alter schema public owner to "+owner+"; alter table users owner to "+owner+"; alter table orders owner to "+owner)
	b.must(t, "grant "+owner+" to minter_"+b.cfg.Installation+" with admin option")
	return b, owner
}

func migrator(owner string) access.Role {
	return access.Role{Name: "migrator", Settings: map[string]string{"owner": owner}}
}

func TestOwnerCreatesAndAlters(t *testing.T) {
	b, owner := ownedBench(t)
	b.must(t, "create function public.fix(int) returns int language sql as 'select $1'; revoke execute on function public.fix(int) from public; grant execute on function public.fix(int) to "+owner)
	g := b.ask(t, migrator(owner))
	if got := strings.Join(g.Plan.Expansion.Summary, "\n"); !strings.Contains(got, "WARNING: acts as "+owner) || !strings.Contains(got, "and stays") {
		t.Errorf("the plan says\n%s", got)
	}
	b.mint(t, &g)
	if p, err := backing.Parse(g.Backing); err != nil || p.Acts != owner || len(p.SearchPath)+len(p.Masked) > 0 || !slices.Contains(p.Shadows, "fix") {
		t.Errorf("the room's plan is %+v, %v", p, err)
	}
	c := b.session(t, g)
	for _, sql := range []string{
		"create table public.made (id serial primary key)", "alter table users add column phone text", "alter table users alter column born type text",
		"create index on orders (total)", "create schema_test", "create view seen as select id from users", "drop table public.\"nothing\"",
		"select email from users",
	} {
		_, err := say(t, c, sql)
		if wrong := sql == "create schema_test" || strings.Contains(sql, "nothing"); (err != nil) != wrong {
			t.Errorf("%s: %v", sql, err)
		}
	}
	if got, err := say(t, b.super, "select distinct tableowner from pg_tables where schemaname = 'public' and tablename in ('made', 'users')"); err != nil || got != owner+"\n" {
		t.Errorf("what was made belongs to %q, %v; want %s", got, err, owner)
	}
	if got, err := say(t, c, "select current_user, session_user = current_user"); err != nil || got != owner+"|f\n" {
		t.Errorf("the session acts as %q, %v", got, err)
	}
	if got, err := say(t, c, "set role none; select count(*) from users"); err == nil {
		t.Errorf("without acting, the role itself reads %q; want that it has no right of its own", got)
	}
	b.end(t, g)
	if got, err := say(t, b.super, "select count(*) from made"); err != nil || got != "0\n" {
		t.Errorf("what was made is gone after the end: %q, %v", got, err)
	}
}

// TestOwnerInheritsWhatTheRoleOwns: a session that left the role, gateway or
// not, may own things: here somebody gave the role CREATE.
func TestOwnerInheritsWhatTheRoleOwns(t *testing.T) {
	b, owner := ownedBench(t)
	g := b.ask(t, migrator(owner))
	b.mint(t, &g)
	b.must(t, "create schema free; grant create, usage on schema free to "+b.names.role(g))
	if _, err := say(t, b.session(t, g), "set role none; create table free.own (id int); insert into free.own values (1)"); err != nil {
		t.Fatal(err)
	}
	b.must(t, "revoke all on schema free from "+b.names.role(g))
	b.end(t, g)
	if got, err := say(t, b.super, "select tableowner, (select count(*) from free.own) from pg_tables where tablename = 'own'"); err != nil || got != owner+"|1\n" {
		t.Errorf("the table belongs to %q, %v; want %s, and its row kept", got, err, owner)
	}
}

func TestOwnerRefusesAtPlan(t *testing.T) {
	b, owner := ownedBench(t)
	suffix := strings.TrimPrefix(owner, "app_owner_")
	b.must(t, "create role maker_"+suffix+" createrole; create role runs_"+suffix+"; grant pg_execute_server_program to runs_"+suffix+"; create role far_"+suffix+"; create role stranger_"+suffix+"; grant runs_"+suffix+" to far_"+suffix)
	with := func(r access.Role, change func(*access.Role)) access.Role { change(&r); return r }
	for name, c := range map[string]struct {
		role  access.Role
		masks []access.Mask
		want  string
	}{
		"masks":            {role: migrator(owner), masks: masks(), want: "where columns are masked"},
		"read":             {role: with(migrator(owner), func(r *access.Role) { r.Read = []string{"public.*"} }), want: "leave read, write and rows out"},
		"rows":             {role: with(migrator(owner), func(r *access.Role) { r.Rows = []access.RowScope{{Where: "id = 1"}} }), want: "leave read, write and rows out"},
		"nobody":           {role: migrator("nobody_" + suffix), want: "has no such role"},
		"superuser":        {role: migrator("postgres"), want: "can't act as"},
		"makes roles":      {role: migrator("maker_" + suffix), want: "maker_" + suffix},
		"runs programs":    {role: migrator("far_" + suffix), want: "pg_execute_server_program"},
		"the minter":       {role: migrator("minter_" + b.cfg.Installation), want: "can't act as"},
		"the masks' owner": {role: migrator(b.names.masks()), want: "can't act as"},
		"no member":        {role: migrator("stranger_" + suffix), want: "--acting stranger_" + suffix},
		"unquoted":         {role: migrator(owner + `"; drop table users; --`), want: "has no such role"},
	} {
		_, err := b.Expand(t.Context(), access.Plan{Target: b.target, Role: c.role, Masks: c.masks})
		if access.CodeOf(err) != access.CodeInvalid || !strings.Contains(access.Message(err), c.want) {
			t.Errorf("%s: got %v, want a refusal with %q", name, err, c.want)
		}
	}
}

// TestOwnerThatReachesFurther: it joined another role after the approval.
func TestOwnerThatReachesFurther(t *testing.T) {
	b, owner := ownedBench(t)
	g := b.ask(t, migrator(owner))
	if same, err := b.Narrow(t.Context(), g.Plan, g.Plan); err != nil || same.Digest() != g.Plan.Digest() {
		t.Errorf("unchanged policies narrow it: %v", err)
	}
	other := strings.Replace(owner, "owner", "other", 1)
	b.must(t, "create role "+other+"; grant "+other+" to "+owner)
	if _, err := b.Mint(t.Context(), g); access.CodeOf(err) != access.CodeInvalid {
		t.Errorf("minted: %v; want that it is planned again", err)
	}
	if got := strings.Join(b.ask(t, migrator(owner)).Plan.Expansion.Summary, "\n"); !strings.Contains(got, "is a member of "+other) {
		t.Errorf("the plan says\n%s", got)
	}
}
