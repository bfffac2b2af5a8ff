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
	return judge{compiled, facts, factsRead(compiled)}, nil
}

// JudgesClasses implements access.ClassJudge: a rule that reads the text, or
// an estimate that changes from run to run, has to see each one.
func (j judge) JudgesClasses() bool { return !j.Reads("text") && !j.Reads("rows") }

// Reads implements access.FactJudge.
func (j judge) Reads(fact string) bool { return j.reads[fact] }

// factsRead looks for each attribute in the canonical texts, where a string
// that merely looks like it counts as well.
func factsRead(rules []compiledRule) map[string]bool {
	read := map[string]bool{}
	for _, r := range rules {
		for _, x := range []*expr{r.deny, r.hold, r.when} {
			for name := range judgeWords["statement"] {
				read[name] = read[name] || x != nil && strings.Contains(x.text, "."+name)
			}
		}
	}
	return read
}

// compiledRule is a rule with its conditions compiled; nil is absent.
type compiledRule struct {
	access.Rule
	deny, hold, when *expr
}

func compileRule(r access.Rule) (c compiledRule, err error) {
	if r.Deny == "" && r.Hold == "" && !r.Limits() {
		return c, access.Errorf(access.CodeInvalid, "Rule %q neither denies nor holds nor limits; write one of them.", r.Name)
	}
	c.Rule = r
	for _, one := range []struct {
		into **expr
		text string
	}{{&c.deny, r.Deny}, {&c.hold, r.Hold}, {&c.when, r.When}} {
		if *one.into, err = compileCondition(r.Name, one.text); err != nil {
			return c, err
		}
	}
	return c, nil
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
	reads map[string]bool
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
	if _, more := op.Facts["text"]; op.Text == "" || op.Facts == nil || more { // a room may know of more text that runs
		return op.Facts
	}
	facts := maps.Clone(op.Facts)
	facts["text"] = op.Text
	return facts
}

func (r compiledRule) judge(s scope) access.Decision {
	d := access.Decision{Verdict: access.Allow, Limits: r.limits(s)}
	switch {
	case bites(r.deny, s):
		d.Verdict = access.Deny
	case bites(r.hold, s):
		d.Verdict, d.Ask = access.Hold, r.Ask
	default:
		d.Sync = r.Sync && d.Limits != (access.Limits{})
		return d
	}
	d.Rule, d.Say, d.Sync = r.Name, r.Say, r.Sync
	return d
}

// limits are those of the rule, unless its condition is known to be false.
func (r compiledRule) limits(s scope) access.Limits {
	if !r.Limits() || r.when != nil && !bites(r.when, s) {
		return access.Limits{}
	}
	l := access.Limits{Rows: r.LimitRows, Time: r.LimitTime, Results: r.Record == access.RecordResults}
	if l.Rows > 0 || l.Time > 0 {
		l.Rule, l.Say = r.Name, r.Say
	}
	return l
}

// bites reports whether a condition is anything but false.
func bites(x *expr, s scope) bool { return x != nil && x.eval(s) != false }
