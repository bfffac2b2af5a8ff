package policies

import (
	"strings"
	"testing"

	"github.com/tidegate/tidegate/access"
)

// TestProductionEndsWhatIsStale unless its policy says something else.
func TestProductionEndsWhatIsStale(t *testing.T) {
	const labels = `labels  = { env = "prod" }`
	for written, want := range map[string]string{
		labels:                                       access.WhenStaleEnd,
		labels + "\n  when_stale = \"keep\"":         access.WhenStaleKeep,
		`labels  = { env = "staging" }`:              "",
		`labels  = { env = "staging", prod = "yes"}`: "",
		"when_stale = \"end\"":                       access.WhenStaleEnd,
	} {
		policies := strings.Replace(basePolicies, labels, written, 1) + `
approval "every" {
  when = true
  need = 1
  from = team("acme/data-owners")
  say  = "A data owner must agree."
}`
		p := planned(t, policies, grantText("inc-1", `user("alice")`, "2h"))
		if got := p.Target.WhenStale; got != want {
			t.Errorf("%s: when_stale is %q, want %q", written, got, want)
		}
	}
}
