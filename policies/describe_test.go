package policies

import (
	"testing"

	"github.com/tidegate/tidegate/access"
)

func TestDescribe(t *testing.T) {
	tree := access.Tree{Files: []access.File{{Path: "policies/a.hcl", Content: []byte(`
person "Alice" { identity = [oidc("okta", "A@acme.test"), oidc("okta", "sub-1")] }
target "postgres" "orders" {
  address = "db:5432/orders"
  role "b" { longest = "1h" }
  role "a" { longest = "2h" }
}
approval "x" {
  when = target.name == "orders"
  need = 1
  from = [team("acme/dba")]
  say  = "Somebody must agree."
}
rule "r" {
  on   = [postgres.orders]
  hold = statement.writes
  ask  = [user("bob")]
  say  = "Ask first."
}
mask "m" {
  on      = [postgres.orders]
  columns = ["*.email"]
  with    = partial(4)
}`)}}}
	o, diags := Describe(tree)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	if len(o.People) != 1 || o.People[0].Login != "Alice" || o.People[0].Identities[0].Email != "a@acme.test" || o.People[0].Identities[1].Subject != "sub-1" {
		t.Errorf("people: %+v", o.People)
	}
	if len(o.Targets) != 1 || len(o.Targets[0].Roles) != 2 || o.Targets[0].Roles[0].Name != "a" {
		t.Errorf("targets: %+v", o.Targets)
	}
	if len(o.Approvals) != 1 || o.Approvals[0].When != `target.name == "orders"` || o.Approvals[0].Need != "1" {
		t.Errorf("approvals: %+v", o.Approvals)
	}
	if len(o.Rules) != 1 || o.Rules[0].Hold != "statement.writes" || o.Rules[0].Ask[0].Name != "bob" || len(o.Masks) != 1 {
		t.Errorf("rules: %+v, masks: %+v", o.Rules, o.Masks)
	}
	tree.Files[0].Content = append(tree.Files[0].Content, "rule {"...)
	if o, diags := Describe(tree); !diags.HasErrors() || len(o.People) != 0 {
		t.Errorf("a broken tree describes %+v", o)
	}
}
