package mint

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/postgres/backing"
)

// staticBench is a bench whose target has a login that somebody made.
func staticBench(t *testing.T) (*bench, string) {
	b := newBench(t, shop)
	login, password := "app_"+strings.ToLower(rand.Text()[:8]), rand.Text()
	b.must(t, "create role "+login+" login password '"+password+"'; grant usage on schema public to "+login+"; grant select on orders to "+login)
	b.target.Admin, b.target.Static = "", "shop-static"
	b.cfg.Admin = func(_ context.Context, at access.Target) (AdminLogin, error) {
		if at.Secret() != "shop-static" {
			return AdminLogin{}, fmt.Errorf("asked for %q", at.Secret())
		}
		return AdminLogin{User: login, Password: access.NewSecret(password), ServerCA: server.CAPEM}, nil
	}
	return b, login
}

func TestStaticCredentialLives(t *testing.T) {
	b, login := staticBench(t)
	g := b.ask(t, access.Role{Name: "any", Settings: map[string]string{"drain": "5s"}})
	if got := strings.Join(g.Plan.Expansion.Summary, "\n"); !strings.Contains(got, "logs in as "+login) || !strings.Contains(got, "is not taken back") {
		t.Errorf("the plan says %q, want who logs in and what the end can't do", got)
	}
	b.mint(t, &g)
	if p, err := backing.Parse(g.Backing); err != nil || p.Role != login || len(p.Masked)+len(p.SearchPath) > 0 {
		t.Errorf("backing is %+v, %v; want the login and nothing made", p, err)
	}
	c := b.session(t, g)
	if got, err := say(t, c, "select session_user, total from orders"); err != nil || got != login+"|10.50\n" {
		t.Errorf("the session reads %q, %v", got, err)
	}
	if orphans, err := b.Orphans(t.Context(), b.target, nil); err != nil || len(orphans) > 0 {
		t.Errorf("orphans are %q, %v; want none, the login is not ours", orphans, err)
	}
	b.end(t, g)
	if _, err := say(t, c, "select 1"); err != nil {
		t.Errorf("revoking touched the login's sessions, of which others may be: %v", err)
	}
	g.NotAfter = time.Now().Add(-time.Second)
	if _, err := b.Lease(t.Context(), g, "s-2"); access.CodeOf(err) != access.CodeEnded {
		t.Errorf("an ended grant gets the password: %v", err)
	}
}

func TestStaticCredentialRefusesWhatNeedsARole(t *testing.T) {
	b, _ := staticBench(t)
	for name, c := range map[string]struct {
		plan access.Plan
		want string
	}{
		"mask":    {access.Plan{Role: access.Role{Name: "any"}, Masks: masks()}, "Columns can't be masked here"},
		"read":    {access.Plan{Role: access.Role{Name: "any", Read: []string{"public.*"}}}, "can't say what it reads"},
		"write":   {access.Plan{Role: access.Role{Name: "any", Write: []string{"public.*"}}}, "can't say what it reads or writes"},
		"limit":   {access.Plan{Role: access.Role{Name: "any", Settings: map[string]string{"connection_limit": "3"}}}, "can't have connection_limit"},
		"unknown": {access.Plan{Role: access.Role{Name: "any", Settings: map[string]string{"more": "3"}}}, "can't have more"},
	} {
		c.plan.Target = b.target
		if _, err := b.Expand(t.Context(), c.plan); access.CodeOf(err) != access.CodeInvalid || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want a refusal with %q", name, err, c.want)
		}
	}
}

// TestStaticCredentialIsTheApprovedOne: the secret now holds another login.
func TestStaticCredentialIsTheApprovedOne(t *testing.T) {
	b, login := staticBench(t)
	g := b.ask(t, access.Role{Name: "any"})
	other := "other_" + strings.ToLower(rand.Text()[:8])
	b.must(t, "create role "+other+" login password 'x'")
	b.Close()
	b.cfg.Admin = adminOf(AdminLogin{User: other, Password: access.NewSecret("x"), ServerCA: server.CAPEM})
	if _, err := b.Mint(t.Context(), g); access.CodeOf(err) != access.CodeInvalid || !strings.Contains(err.Error(), login) {
		t.Errorf("minted with another login than the approved: %v", err)
	}
	if _, err := b.Narrow(t.Context(), g.Plan, g.Plan); access.CodeOf(err) != access.CodeInvalid {
		t.Errorf("narrowed with another login than the approved: %v", err)
	}
}

func TestStaticCredentialIsNarrowed(t *testing.T) {
	b, _ := staticBench(t)
	g := b.ask(t, access.Role{Name: "any", Settings: map[string]string{"drain": "5m"}})
	if got, err := b.Narrow(t.Context(), g.Plan, g.Plan); err != nil || got.Digest() != g.Plan.Digest() {
		t.Errorf("unchanged policies narrow it: %v", err)
	}
	today := g.Plan
	today.Role.Settings = map[string]string{"drain": "5s"}
	if got, err := b.Narrow(t.Context(), g.Plan, today); err != nil || got.Role.Settings["drain"] != "5s" {
		t.Errorf("got %v, %v; want today's drain", got.Role, err)
	}
	today.Masks = masks()
	if _, err := b.Narrow(t.Context(), g.Plan, today); access.CodeOf(err) != access.CodeInvalid {
		t.Errorf("a mask that came since: %v, want a refusal, which ends the grant", err)
	}
}

func TestDiagnoseStatic(t *testing.T) {
	b, login := staticBench(t)
	b.finds(t, []access.Plan{{Target: b.target, Role: access.Role{Name: "any"}}}, "ok "+b.target.Address+" answers with verified TLS; the static login "+login+" works",
		"ok role any can be given: its sessions log in as "+login)
	b.Close()
	b.cfg.Admin = adminOf(AdminLogin{User: login, Password: access.NewSecret("wrong"), ServerCA: server.CAPEM})
	b.finds(t, nil, "→ Look at user and password_file of the secret.")
}
