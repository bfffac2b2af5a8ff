package policies

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tidegate/tidegate/access"
)

// Compile makes the judge of one session: the rules on the grant's target, as
// that person under that grant. A rule that does not compile is an error, and
// the caller refuses everything. The judge is safe for concurrent use.
func Compile(rules []access.Rule, g access.Grant, id access.Identity) (access.Judge, error) {
	var compiled []compiledRule
	for _, r := range rules {
		if !slices.Contains(r.On, g.Plan.Target.TargetRef) {
			continue
		}
		c, err := compileRule(r)
		if err != nil {
			return nil, err
		}
		compiled = append(compiled, c)
	}
	facts := planScope(g.Plan)
	facts["identity"] = identityFacts(id)
	return judge{compiled, facts}, nil
}

// JudgesClasses implements access.ClassJudge: a rule that reads the text has
// to see each one.
func (j judge) JudgesClasses() bool {
	return !slices.ContainsFunc(j.rules, func(r compiledRule) bool { return readsText(r.deny) || readsText(r.hold) })
}

// readsText looks for the attribute in the canonical text, where a string
// that merely looks like it counts as well.
func readsText(x *expr) bool { return x != nil && strings.Contains(x.text, ".text") }

// compiledRule is a rule with its conditions compiled; nil is absent.
type compiledRule struct {
	access.Rule
	deny, hold *expr
}

func compileRule(r access.Rule) (c compiledRule, err error) {
	if r.Deny == "" && r.Hold == "" {
		return c, access.Errorf(access.CodeInvalid, "Rule %q neither denies nor holds; write one of the two.", r.Name)
	}
	c.Rule = r
	if c.deny, err = compileCondition(r.Name, r.Deny); err != nil {
		return c, err
	}
	c.hold, err = compileCondition(r.Name, r.Hold)
	return c, err
}

func compileCondition(name, src string) (*expr, error) {
	if src == "" {
		return nil, nil
	}
	x, diags := compileText(name, src, judgeWords)
	if x == nil || diags.HasErrors() {
		detail := "it is not understood"
		if len(diags) > 0 {
			detail = diags[0].String()
		}
		return nil, access.Errorf(access.CodeInvalid, "Rule %q does not compile: %s", name, detail)
	}
	return x, nil
}

// identityFacts leaves out what is not verified: then it is unknown.
func identityFacts(id access.Identity) access.Facts {
	facts := access.Facts{
		"provider": id.Provider, "issuer": id.Issuer, "subject": id.Subject,
		"groups": slices.Clone(id.Groups), "claims": id.Claims,
	}
	if id.EmailVerified && id.Email != "" {
		facts["email"] = id.Email
	}
	return facts
}

type judge struct {
	rules []compiledRule
	facts scope // read only
}

// Judge decides one operation: the strictest rule that bites, else Allow.
func (j judge) Judge(op access.Operation) (d access.Decision) {
	defer func() {
		if r := recover(); r != nil {
			d = access.Decision{Verdict: access.Deny, Rule: "error", Say: fmt.Sprintf("A rule failed on this %s, so it is refused.", op.Kind)}
		}
	}()
	s := j.scope(op)
	d = access.Decision{Verdict: access.Allow}
	for _, r := range j.rules {
		d = access.Strictest(d, r.judge(s))
	}
	return d
}

// scope joins the session's facts and the operation's. An operation cannot
// replace what the session knows of itself.
func (j judge) scope(op access.Operation) scope {
	s := make(scope, len(j.facts)+1)
	s[op.Subject] = withText(op)
	for root, facts := range j.facts {
		s[root] = facts
	}
	return s
}

// withText adds the text itself to an operation's facts. Rooms do not repeat
// it there: facts are recorded, and so is the text.
func withText(op access.Operation) access.Facts {
	if op.Text == "" || op.Facts == nil {
		return op.Facts
	}
	facts := maps.Clone(op.Facts)
	facts["text"] = op.Text
	return facts
}

func (r compiledRule) judge(s scope) access.Decision {
	d := access.Decision{Verdict: access.Allow, Rule: r.Name, Say: r.Say, Sync: r.Sync}
	switch {
	case bites(r.deny, s):
		d.Verdict = access.Deny
	case bites(r.hold, s):
		d.Verdict, d.Ask = access.Hold, r.Ask
	default:
		return access.Decision{Verdict: access.Allow}
	}
	return d
}

// bites reports whether a condition is anything but false.
func bites(x *expr, s scope) bool { return x != nil && x.eval(s) != false }
