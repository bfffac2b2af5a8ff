package policies

import (
	"hash/fnv"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/tidegate/tidegate/access"
)

// What a check may expect, besides the name of an approval that is asked for.
const (
	expectRefused       = "refused"
	expectAllowed       = "allowed" // every approval is given in advance
	expectNeedsApproval = "needs approval"
)

// check is a policy's own test.
type check struct {
	name   string
	given  wrote
	expect string
	at     hcl.Range
}

// CheckResult is how one check block went.
type CheckResult struct {
	Name string             `json:"name"`
	File string             `json:"file"`
	Line int                `json:"line"`
	OK   bool               `json:"ok"`
	Want string             `json:"want"`
	Got  string             `json:"got"` // what happened, with the names of the approvals
	Why  access.Diagnostics `json:"why,omitempty"`
}

func readCheck(b block) check {
	b.only([]string{"given", "expect"})
	c := check{name: b.Labels[0], at: b.DefRange(), expect: b.sentence("expect")}
	e := b.need("given")
	if e == nil {
		return c
	}
	body := &hclsyntax.Body{Attributes: hclsyntax.Attributes{}, SrcRange: e.Range()}
	for _, f := range b.object(e) {
		body.Attributes[f.name] = &hclsyntax.Attribute{Name: f.name, Expr: f.expr, SrcRange: f.expr.Range(), NameRange: f.expr.Range()}
	}
	given := block{&hclsyntax.Block{Type: "given", Body: body, TypeRange: e.Range(), OpenBraceRange: e.Range()}, b.diags}
	given.only([]string{"to", "on", "role", "lasts", "from", "until", "reason", "ticket"})
	c.given = readRequest(given)
	c.given.ID, c.given.at = "check", b.DefRange()
	c.given.Reason, c.given.Ticket = given.text("reason"), given.text("ticket")
	return c
}

// checkExpect refuses an expectation that could never be seen.
func (set *policySet) checkExpect(c check, diags *diagnostics) {
	if slices.Contains([]string{expectRefused, expectAllowed, expectNeedsApproval, ""}, c.expect) {
		return
	}
	if !slices.ContainsFunc(set.approvals, func(a approval) bool { return a.name == c.expect }) {
		diags.errorf(c.at, "The expectation is not understood", `%q is not "refused", "allowed", "needs approval" or an approval's name.`, c.expect)
	}
}

// Check runs the check blocks of a tree. A tree that does not load has no
// results; the diagnostics of [Load] say why.
func Check(t access.Tree, dir access.Directory) []CheckResult {
	var diags diagnostics
	set := loadPolicies(t, &diags)
	if diags.hasErrors() {
		return nil
	}
	var out []CheckResult
	for _, c := range set.checks {
		out = append(out, set.run(c, dir))
	}
	return out
}

func (set *policySet) run(c check, dir access.Directory) CheckResult {
	var diags diagnostics
	plan := planner{set, dir, &diags}.plan(c.given)
	out := CheckResult{Name: c.name, File: c.at.Filename, Line: c.at.Start.Line, Want: c.expect, Why: diags.sorted()}
	var asked []string
	for _, r := range plan.Requirements {
		if r.Need > 0 {
			asked = append(asked, r.Name)
		}
	}
	switch {
	case diags.hasErrors():
		out.Got, out.OK = expectRefused, c.expect == expectRefused
	case len(asked) == 0:
		out.Got, out.OK = expectAllowed, c.expect == expectAllowed
	default:
		out.Got = expectNeedsApproval + ": " + strings.Join(asked, ", ")
		out.OK = c.expect == expectNeedsApproval || slices.Contains(asked, c.expect)
	}
	return out
}

// Load reads a whole access repository, policies and grants, and says
// everything that is wrong with it.
func Load(t access.Tree) access.Diagnostics {
	var diags diagnostics
	loadPolicies(t, &diags)
	for _, f := range t.Files {
		if strings.HasPrefix(f.Path, grantsDir) && !placeholder(f.Path) {
			readGrant(f, &diags)
		}
	}
	takenIDs(Input{Head: t}, &diags)
	return diags.sorted()
}

// OfflineDirectory makes up a directory from the names that a tree's policies
// write, so that checks run without a forge. Ids come from the names. A team's
// members are not written anywhere, so each team has everybody who has a
// person block: a check on a team judges it as if all of them were in it.
func OfflineDirectory(t access.Tree) access.Directory {
	var ignored diagnostics
	set := loadPolicies(t, &ignored)
	dir := access.Directory{Users: map[string]access.User{}, Teams: map[string]access.Team{}}
	var everybody []access.User
	for _, login := range sortedKeys(set.people) {
		u := access.User{ID: nameID(login), Login: login}
		dir.Users[login] = u
		everybody = append(everybody, u)
	}
	names := set.principals()
	for _, c := range set.checks {
		names = append(names, c.given.To...)
	}
	for _, n := range names {
		if n.Kind == access.KindUser {
			dir.Users[n.Name] = access.User{ID: nameID(n.Name), Login: n.Name}
		} else {
			dir.Teams[n.Name] = access.Team{ID: nameID(n.Name), Name: n.Name, Members: everybody}
		}
	}
	return dir
}

func nameID(name string) int64 {
	h := fnv.New64a()
	h.Write([]byte(name))
	return int64(h.Sum64()>>1) | 1
}
