package policies

import (
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/tidegate/tidegate/access"
)

// policySet is what policies/*.hcl say.
type policySet struct {
	people    map[string]person // by lower-case login
	targets   map[access.TargetRef]target
	approvals []approval
	rules     []rule
	masks     []mask
	checks    []check
}

type person struct {
	login      string
	identities []access.IdentityRef
	at         hcl.Range
}

const policiesDir = "policies/"

// loadPolicies reads policies/*.hcl of a tree. The set is complete only if
// there are no errors.
func loadPolicies(t access.Tree, diags *diagnostics) *policySet {
	set := &policySet{people: map[string]person{}, targets: map[access.TargetRef]target{}}
	seen := map[string]hcl.Range{}
	if len(t.Files) > MaxFiles {
		diags.errorf(hcl.Range{Filename: policiesDir}, "There are too many files", "The tree has %d and may have %d.", len(t.Files), MaxFiles)
		return set
	}
	found := false
	for _, f := range t.Files {
		if !strings.HasPrefix(f.Path, policiesDir) || !strings.HasSuffix(f.Path, ".hcl") {
			continue
		}
		found = true
		if body := parse(f, diags); body != nil {
			set.read(body, seen, diags)
		}
	}
	if !found {
		diags.errorf(hcl.Range{Filename: policiesDir}, "There are no policies", "Write policies/*.hcl; without them nothing is allowed.")
	}
	set.crossCheck(diags)
	set.sort()
	return set
}

// sort makes the order of blocks and files irrelevant.
func (set *policySet) sort() {
	slices.SortFunc(set.approvals, func(a, b approval) int { return strings.Compare(a.name, b.name) })
	slices.SortFunc(set.rules, func(a, b rule) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(set.masks, func(a, b mask) int { return strings.Compare(a.Name, b.Name) })
}

func (set *policySet) read(body *hclsyntax.Body, seen map[string]hcl.Range, diags *diagnostics) {
	for _, a := range body.Attributes {
		diags.errorf(a.NameRange, "An attribute is not allowed here", "A policy file holds blocks only.")
	}
	for _, in := range body.Blocks {
		b := block{in, diags}
		wanted := 1
		if b.Type == "target" {
			wanted = 2
		}
		if !b.labels(wanted) {
			continue
		}
		key := b.Type + "\x00" + strings.ToLower(strings.Join(b.Labels, "\x00"))
		if first, dup := seen[key]; dup {
			diags.errorf(b.DefRange(), "A name is taken", "%s %q is already at %s:%d.", b.Type, strings.Join(b.Labels, "."), first.Filename, first.Start.Line)
			continue
		}
		seen[key] = b.DefRange()
		set.readBlock(b)
	}
}

func (set *policySet) readBlock(b block) {
	switch b.Type {
	case "person":
		p := readPerson(b)
		set.people[strings.ToLower(p.login)] = p
	case "target":
		t := readTarget(b)
		set.targets[t.TargetRef] = t
	case "approval":
		set.approvals = append(set.approvals, readApproval(b))
	case "rule":
		set.rules = append(set.rules, readRule(b))
	case "mask":
		set.masks = append(set.masks, readMask(b))
	case "check":
		set.checks = append(set.checks, readCheck(b))
	default:
		b.diags.errorf(b.TypeRange, "A block is unknown", "%q is none of person, target, approval, rule, mask, check.", b.Type)
	}
}

func readPerson(b block) person {
	b.only([]string{"identity"})
	p := person{login: b.Labels[0], at: b.DefRange()}
	if !loginPattern.MatchString(p.login) {
		b.diags.errorf(b.LabelRanges[0], "A login is not understood", "Write the person's GitHub login.")
	}
	e := b.need("identity")
	if e == nil {
		return p
	}
	for _, item := range list(e) {
		if ref, ok := identity(item); ok {
			p.identities = append(p.identities, ref)
		} else {
			b.wrong(item, `oidc("provider", "e-mail or subject") or saml(…) here`)
		}
	}
	if len(p.identities) == 0 {
		b.wrong(e, "at least one identity here")
	}
	return p
}

// identity reads oidc("okta", "a@b.c"); without an @ it is a subject.
func identity(e hclsyntax.Expression) (access.IdentityRef, bool) {
	name, args, ok := call(e)
	if !ok || (name != "oidc" && name != "saml") || len(args) != 2 {
		return access.IdentityRef{}, false
	}
	provider, ok1 := literalString(args[0])
	who, ok2 := literalString(args[1])
	if !ok1 || !ok2 || provider == "" || who == "" || !ascii(provider) || !ascii(who) {
		return access.IdentityRef{}, false
	}
	if strings.Contains(who, "@") {
		return access.IdentityRef{Provider: provider, Email: strings.ToLower(who)}, true
	}
	return access.IdentityRef{Provider: provider, Subject: who}, true
}

// crossCheck looks at what one block says of another.
func (set *policySet) crossCheck(diags *diagnostics) {
	for _, r := range set.rules {
		set.known(r.on, diags)
	}
	for _, m := range set.masks {
		set.known(m.on, diags)
	}
	for _, c := range set.checks {
		set.checkExpect(c, diags)
	}
	set.sharedIdentities(diags)
}

func (set *policySet) known(on []located[access.TargetRef], diags *diagnostics) {
	for _, ref := range on {
		if _, ok := set.targets[ref.value]; !ok && ref.value.Kind != "" {
			diags.errorf(ref.at, "The target is unknown", "No block says target %q %q.", ref.value.Kind, ref.value.Name)
		}
	}
}

// sharedIdentities refuses one identity for two people: nobody could say who came.
func (set *policySet) sharedIdentities(diags *diagnostics) {
	owner := map[access.IdentityRef]string{}
	for _, login := range sortedKeys(set.people) {
		p := set.people[login]
		for _, ref := range p.identities {
			if other, dup := owner[ref]; dup {
				diags.errorf(p.at, "An identity is there twice", "%s and %s name the same one; an identity is one person's.", other, login)
			}
			owner[ref] = login
		}
	}
}

// principals are all the users and teams that approvals and rules name.
func (set *policySet) principals() (out []access.Principal) {
	for _, a := range set.approvals {
		out = append(out, a.from...)
	}
	for _, r := range set.rules {
		out = append(out, r.ask...)
	}
	return slices.Clip(out)
}
