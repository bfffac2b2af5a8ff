package policies

import (
	"strings"

	"github.com/tidegate/tidegate/access"
)

// AdoptionRequirements says who must agree before another policy tree comes
// into force: one of the policy owners from the server's own config, and every
// approval block in the tree in force that says policies = true. Without
// owners the first can't be met. With errors nothing may be adopted. The first
// tree of all is adopted under an empty old tree: the owners alone.
func AdoptionRequirements(old access.Tree, owners []access.Party, dir access.Directory) ([]access.Requirement, access.Diagnostics) {
	out := []access.Requirement{{
		Name: "policy_owners", Need: 1, From: owners, Say: "An owner of the policies must agree to new ones.",
	}}
	if len(filesUnder(old, policiesDir)) == 0 {
		return out, nil
	}
	var diags diagnostics
	set := loadPolicies(old, &diags)
	if diags.hasErrors() {
		return out, diags.sorted()
	}
	p := planner{set, dir, &diags}
	for _, a := range set.approvals {
		if a.policies {
			out = append(out, p.requirement(a, scope{})) // a need that reads target or grant is unknown here: refused
		}
	}
	return out, diags.sorted()
}

// PoliciesDigest is the identity of a policy tree, byte for byte: equal trees
// say the same.
func PoliciesDigest(t access.Tree) string {
	files := map[string][]byte{}
	for path, f := range filesUnder(t, policiesDir) {
		files[strings.TrimPrefix(path, policiesDir)] = f.Content
	}
	return hashJSON(files)
}
