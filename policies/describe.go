package policies

import (
	"cmp"
	"slices"

	"github.com/tidegate/tidegate/access"
)

// Overview is what a policy tree says, for people to read. Nothing is decided
// by it: names are not looked up, and conditions are text.
type Overview struct {
	People    []access.Person // by login; the policies know no ids
	Targets   []TargetOverview
	Approvals []ApprovalOverview
	Rules     []access.Rule // Ask has names alone
	Masks     []access.Mask
}

// TargetOverview is a target with the roles that it offers.
type TargetOverview struct {
	access.Target
	Roles []access.Role
}

// ApprovalOverview is an approval block.
type ApprovalOverview struct {
	Name, When, Need string
	From             []access.Principal
	Say              string
	Policies         bool // it is asked for when policies change
}

// Describe reads a policy tree. With errors nothing of it is in force, and the
// overview is empty.
func Describe(t access.Tree) (Overview, access.Diagnostics) {
	var diags diagnostics
	set := loadPolicies(t, &diags)
	if diags.hasErrors() {
		return Overview{}, diags.sorted()
	}
	var o Overview
	for _, login := range sortedKeys(set.people) {
		p := set.people[login]
		o.People = append(o.People, access.Person{User: access.User{Login: p.login}, Identities: p.identities})
	}
	for _, t := range set.targets {
		o.Targets = append(o.Targets, t.overview())
	}
	slices.SortFunc(o.Targets, func(a, b TargetOverview) int { return cmp.Compare(a.TargetRef.String(), b.TargetRef.String()) })
	for _, a := range set.approvals {
		o.Approvals = append(o.Approvals, a.overview())
	}
	for _, r := range set.rules {
		for _, p := range r.ask {
			r.Ask = append(r.Ask, access.Party{Principal: p})
		}
		o.Rules = append(o.Rules, r.Rule)
	}
	for _, m := range set.masks {
		o.Masks = append(o.Masks, m.Mask)
	}
	return o, diags.sorted()
}

func (t target) overview() TargetOverview {
	out := TargetOverview{Target: t.Target}
	for _, name := range sortedKeys(t.roles) {
		out.Roles = append(out.Roles, t.roles[name])
	}
	return out
}

func (a approval) overview() ApprovalOverview {
	out := ApprovalOverview{Name: a.name, From: a.from, Say: a.say, Policies: a.policies}
	if a.when != nil {
		out.When = a.when.text
	}
	if a.need != nil {
		out.Need = a.need.text
	}
	return out
}
