package policies

import (
	"testing"

	"github.com/tidegate/tidegate/access"
)

const replanPolicies = `
person "alice" { identity = oidc("dev", "alice@acme.test") }
target "postgres" "db" {
  address = "db.internal:5432/orders"
  admin   = secret("admin")
  labels  = { env = "prod" }
  role "readonly" {
    longest = "4h"
    read    = ["public.*"]
  }
}
approval "prod" {
  when = target.labels.env == "prod"
  need = grant.seconds > seconds("1h") ? 2 : 1
  from = [team("acme/dba")]
  say  = "An owner must agree."
}
`

// TestReplan judges an extension by its total length.
func TestReplan(t *testing.T) {
	adopted := access.Tree{Files: []access.File{{Path: "policies/all.hcl", Content: []byte(replanPolicies)}}}
	dir := access.Directory{
		Users: map[string]access.User{"alice": {ID: 11, Login: "alice"}},
		Teams: map[string]access.Team{"acme/dba": {ID: 7, Name: "acme/dba", Members: []access.User{{ID: 12, Login: "bob"}}}},
	}
	request := access.Request{
		ID: "inc-1", File: "grants/alice/inc-1.hcl", On: access.TargetRef{Kind: "postgres", Name: "db"},
		To: []access.Principal{{Kind: access.KindUser, Name: "alice"}}, Role: "readonly", Reason: "x",
	}
	for _, c := range []struct {
		lasts   access.Seconds
		need    int
		refused bool
	}{{3600, 1, false}, {3601, 2, false}, {4 * 3600, 2, false}, {4*3600 + 1, 0, true}} {
		request.Lasts = c.lasts
		plan, diags := Replan(adopted, dir, request)
		if diags.HasErrors() != c.refused {
			t.Errorf("%s: diagnostics %v, want refused %v", c.lasts, diags, c.refused)
			continue
		}
		if !c.refused && (len(plan.Requirements) != 1 || plan.Requirements[0].Need != c.need) {
			t.Errorf("%s: requirements %+v, want %d needed", c.lasts, plan.Requirements, c.need)
		}
	}
}
