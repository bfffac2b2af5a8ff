package mint

import (
	"strings"
	"testing"

	"github.com/tidegate/tidegate/access"
)

// TestNarrowedGrantIsMadeAgain: a mask and a narrower role that came after the
// approval hold for the next generation, and the first one is gone.
func TestNarrowedGrantIsMadeAgain(t *testing.T) {
	b := newBench(t, shop, "sales")
	g := b.ask(t, readonly())
	b.mint(t, &g)
	old := b.session(t, g)
	if got, err := say(t, old, "select email, ssn from users order by id limit 1"); err != nil || !strings.Contains(got, "canary") {
		t.Fatalf("without masks: %q, %v", got, err)
	}
	today := g.Plan
	today.Masks, today.Expansion = masks(), access.Expansion{}
	today.Role.Read = []string{"public.users"}
	plan, err := b.Narrow(t.Context(), g.Plan, today)
	if err != nil {
		t.Fatal(err)
	}
	g.Plan, g.Generation, g.Backing = plan, 2, nil
	if err := b.Revoke(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	if _, err := say(t, old, "select 1"); err == nil {
		t.Error("a session of the first generation lives on")
	}
	b.mint(t, &g)
	c := b.session(t, g)
	got, err := say(t, c, "select email, ssn from users order by id limit 1; select email from public.users")
	if err == nil || strings.Contains(got, "canary") || !strings.Contains(got, "****") {
		t.Errorf("with masks: %q, %v", got, err)
	}
	if _, err := say(t, c, "select * from orders"); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("a table that the role lost: %v", err)
	}
	var roles string
	if roles, err = say(t, b.super, "select count(*) from pg_roles where left(rolname, length('"+b.names.prefix(g.Key)+"')) = '"+b.names.prefix(g.Key)+"'"); err != nil || strings.TrimSpace(roles) != "1" {
		t.Errorf("%s roles of the grant, want 1 (%v)", roles, err)
	}
	if again, err := b.Narrow(t.Context(), g.Plan, today); err != nil || again.Digest() != g.Plan.Digest() {
		t.Errorf("narrowed twice it is another plan: %v\n%s\n%s", err, again.Expansion.Body, g.Plan.Expansion.Body)
	}
	b.end(t, g)
}

func TestNarrowKeepsRefusesAndMerges(t *testing.T) {
	b := newBench(t, shop, "sales")
	role := readonly()
	role.Settings = map[string]string{"connection_limit": "4", "statement_timeout": "30s"}
	g := b.ask(t, role, masks()...)
	wider := g.Plan
	wider.Role.Read, wider.Masks = []string{"public.*", "sales.*"}, masks()[:1]
	wider.Role.Settings = map[string]string{"connection_limit": "9"}
	if got, err := b.Narrow(t.Context(), g.Plan, wider); err != nil || got.Digest() != g.Plan.Digest() {
		t.Errorf("a wider role changed the grant: %v %+v", err, got.Role)
	}
	tighter := g.Plan
	tighter.Role.Settings = map[string]string{"connection_limit": "2", "statement_timeout": "1m", "lock_timeout": "1s"}
	got, err := b.Narrow(t.Context(), g.Plan, tighter)
	if s := got.Role.Settings; err != nil || s["connection_limit"] != "2" || s["statement_timeout"] != "30s" || s["lock_timeout"] != "1s" {
		t.Errorf("settings %v, %v", s, err)
	}
	for name, spoil := range map[string]func(*access.Plan){
		"another role's tables":      func(p *access.Plan) { p.Role.Read = []string{"sales.*"} },
		"a setting nobody can weigh": func(p *access.Plan) { p.Role.Settings = map[string]string{"rows": "tenant = 7"} },
		"a mask that matches nothing": func(p *access.Plan) {
			p.Masks = append(masks(), access.Mask{Name: "x", Columns: []string{"*.nothing"}})
		},
	} {
		today := g.Plan
		spoil(&today)
		if _, err := b.Narrow(t.Context(), g.Plan, today); access.CodeOf(err) != access.CodeInvalid {
			t.Errorf("%s: got %v, want it refused", name, err)
		}
	}
}
