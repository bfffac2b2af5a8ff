package policies

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/tidegate/tidegate/access"
)

// maxNeed bounds how many people an approval may ask for.
const maxNeed = 20

// planner makes plans under one policy set.
type planner struct {
	set   *policySet
	dir   access.Directory
	diags *diagnostics
}

// plan makes one request's plan. It counts only if there are no errors.
func (p planner) plan(w wrote) access.Plan {
	plan := access.Plan{Request: w.Request, People: p.people(w)}
	t, ok := p.set.targets[w.On]
	if !ok {
		p.diags.errorf(w.place("on"), "The target is unknown", "The policies have no target %s; they have %s.", w.On, p.set.offered())
		return plan
	}
	plan.Target = t.Target
	plan.Role = p.role(w, t)
	for _, m := range p.set.masks {
		if slices.Contains(m.Mask.On, w.On) {
			plan.Masks = append(plan.Masks, m.Mask)
		}
	}
	for _, r := range p.set.rules {
		if slices.Contains(r.Rule.On, w.On) {
			plan.Rules = append(plan.Rules, p.rule(r))
		}
	}
	var read []approval
	plan.Requirements, read = p.requirements(w, plan)
	plan.PolicyDigest = p.digest(plan, read)
	return plan
}

// offered names the targets, the first of them where there are many.
func (set *policySet) offered() string {
	const most = 10
	var names []string
	for ref := range set.targets {
		names = append(names, ref.String())
	}
	slices.Sort(names)
	if n := len(names) - most; n > 0 {
		names = append(names[:most], fmt.Sprintf("%d more", n))
	}
	return strings.Join(names, ", ")
}

func (p planner) role(w wrote, t target) access.Role {
	r, ok := t.roles[w.Role]
	if !ok {
		p.diags.errorf(w.place("role"), "The role is unknown", "%s offers %s.", w.On, strings.Join(sortedKeys(t.roles), ", "))
		return r
	}
	drain := access.Seconds(r.Drain() / time.Second)
	if n := w.Length(); drain > 0 && n <= r.Longest && n+drain > r.Longest {
		p.diags.errorf(w.place("lasts"), "The time is too long", "It is %s, and what runs at its end may go on for %s: together more than the %s that role %q of %s gives.", n, drain, r.Longest, w.Role, w.On)
	}
	if n := w.Length(); n > r.Longest {
		at := w.place("lasts")
		if w.Lasts == 0 {
			at = w.place("until")
		}
		p.diags.errorf(at, "The time is too long", "It is %s, and role %q of %s gives at most %s.", n, r.Name, w.On, r.Longest)
	}
	return r
}

// people expands `to` to persons, each once, by id.
func (p planner) people(w wrote) (out []access.Person) {
	seen := map[int64]bool{}
	for _, party := range p.parties(w.To, w.place("to")) {
		if party.Kind == access.KindTeam && len(party.Members) == 0 {
			p.diags.errorf(w.place("to"), "A team is empty", "%s has no members.", party.Principal)
		}
		for _, u := range partyUsers(party) {
			if seen[u.ID] {
				continue
			}
			seen[u.ID] = true
			who, ok := p.set.people[strings.ToLower(u.Login)]
			if !ok {
				p.diags.errorf(w.place("to"), "A person is unknown", "The policies have no person %q, so no identity to let in; add a person block.", u.Login)
				continue
			}
			out = append(out, access.Person{User: u, Identities: who.identities})
		}
	}
	slices.SortFunc(out, func(a, b access.Person) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

func partyUsers(p access.Party) []access.User {
	if p.Kind == access.KindTeam {
		return p.Members
	}
	return []access.User{{ID: p.ID, Login: p.Name}}
}

// parties resolves names to ids.
func (p planner) parties(names []access.Principal, at hcl.Range) (out []access.Party) {
	for _, n := range names {
		party, ok := resolve(n, p.dir)
		if !ok {
			p.diags.errorf(at, "A name is unknown", "The forge knows no %s, or the name means another account or team than when it came into force.", n)
			continue
		}
		out = append(out, party)
	}
	return out
}

func resolve(n access.Principal, dir access.Directory) (access.Party, bool) {
	if n.Kind == access.KindUser {
		u, ok := dir.User(n.Name)
		return access.Party{Principal: n, ID: u.ID}, ok && u.ID != 0
	}
	t, ok := dir.Team(n.Name)
	members := slices.Clone(t.Members)
	slices.SortFunc(members, func(a, b access.User) int { return cmp.Compare(a.ID, b.ID) })
	return access.Party{Principal: n, ID: t.ID, Members: members}, ok && t.ID != 0
}

func (p planner) rule(r rule) access.Rule {
	out := r.Rule
	out.Ask = p.parties(r.ask, r.at)
	return out
}

// planScope is what approvals read of a plan.
func planScope(plan access.Plan) scope {
	t, r := plan.Target, plan.Request
	return scope{
		"target": access.Facts{"kind": t.Kind, "name": t.Name, "zone": t.Zone, "labels": t.Labels},
		"grant": access.Facts{
			"id": r.ID, "role": r.Role, "seconds": int64(r.Length()), "people": int64(len(plan.People)),
			"reason": r.Reason, "ticket": r.Ticket,
		},
	}
}

// requirements are the approvals that apply: those whose condition is not
// false. Unknown is not false.
func (p planner) requirements(w wrote, plan access.Plan) (out []access.Requirement, read []approval) {
	facts := planScope(plan)
	for _, a := range p.set.approvals {
		if a.when == nil || a.when.eval(facts) == false {
			continue
		}
		read = append(read, a)
		out = append(out, p.requirement(a, facts))
	}
	if len(out) == 0 {
		p.diags.errorf(w.at, "No approval covers this", "No approval block applies to %s as %q, so nobody could agree to it; write one (need = 0 for a standing approval).", w.On, w.Role)
	}
	return out, read
}

func (p planner) requirement(a approval, facts scope) access.Requirement {
	need, ok := a.need.eval(facts).(int64)
	if !ok || need < 0 || need > maxNeed {
		p.diags.errorf(a.needAt, "An approval's need is not known", "Approval %q must come to 0 to %d here.", a.name, maxNeed)
		need = maxNeed + 1 // never met, should anybody count it
	}
	return access.Requirement{Name: a.name, Need: int(need), From: p.parties(a.from, a.at), Say: a.say}
}

// digest covers what the plan read of the policies, in canonical form: names
// as written, not the ids they stood for, which the plan's own digest has.
func (p planner) digest(plan access.Plan, read []approval) string {
	type wroteApproval struct {
		Name, When, Need, Say string
		From                  []access.Principal
	}
	type wroteRule struct {
		access.Rule
		Asks []access.Principal
	}
	body := struct {
		People    map[string][]access.IdentityRef
		Target    access.Target
		Role      access.Role
		Masks     []access.Mask
		Rules     []wroteRule
		Approvals []wroteApproval
	}{map[string][]access.IdentityRef{}, plan.Target, plan.Role, plan.Masks, nil, nil}
	for _, who := range plan.People {
		body.People[strings.ToLower(who.Login)] = who.Identities
	}
	for _, r := range p.set.rules {
		if slices.Contains(r.Rule.On, plan.Target.TargetRef) {
			body.Rules = append(body.Rules, wroteRule{r.Rule, r.ask})
		}
	}
	for _, a := range read {
		body.Approvals = append(body.Approvals, wroteApproval{a.name, a.when.text, a.need.text, a.say, a.from})
	}
	return hashJSON(body)
}

func hashJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode policies: %v", err)) // plain data: only a programming error gets here
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
