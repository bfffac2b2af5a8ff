package policies

import (
	"cmp"
	"slices"

	"github.com/tidegate/tidegate/access"
)

// Offers are what the policies offer: for each role of each target, what a
// plan for it would have of target, role and masks, and nothing of a request.
// Policies that do not load offer nothing.
func Offers(t access.Tree) ([]access.Plan, access.Diagnostics) {
	var diags diagnostics
	set := loadPolicies(t, &diags)
	if diags.hasErrors() {
		return nil, diags.sorted()
	}
	var out []access.Plan
	for ref, at := range set.targets {
		var masks []access.Mask
		for _, m := range set.masks {
			if slices.Contains(m.On, ref) {
				masks = append(masks, m.Mask)
			}
		}
		for _, name := range sortedKeys(at.roles) {
			out = append(out, access.Plan{Target: at.Target, Role: at.roles[name], Masks: masks})
		}
	}
	slices.SortStableFunc(out, func(a, b access.Plan) int {
		return cmp.Compare(a.Target.TargetRef.String(), b.Target.TargetRef.String())
	})
	return out, diags.sorted()
}
