package policies

import (
	"github.com/hashicorp/hcl/v2"

	"github.com/tidegate/tidegate/access"
)

// rule is a rule block. Its conditions are checked here and compiled by gateways.
type rule struct {
	access.Rule // Ask is resolved later
	on          []located[access.TargetRef]
	ask         []access.Principal
	at          hcl.Range
}

func readRule(b block) rule {
	b.only([]string{"on", "deny", "hold", "ask", "say", "sync", "when", "limit_rows", "limit_time", "record"})
	r := rule{on: b.targets("on"), at: b.DefRange()}
	r.Rule = access.Rule{Name: b.Labels[0], On: values(r.on), Say: b.sentence("say"), Sync: b.bool("sync")}
	r.Deny, r.Hold = condition(b, "deny"), condition(b, "hold")
	r.readLimits(b)
	if b.attr("deny") == nil && b.attr("hold") == nil && b.attr("limit_rows") == nil && b.attr("limit_time") == nil && b.attr("record") == nil {
		b.diags.errorf(b.DefRange(), "A rule does nothing", "Write deny, hold, limit_rows, limit_time or record.")
	}
	ask := b.attr("ask")
	switch {
	case ask != nil:
		r.ask = b.principals(ask)
	case b.attr("hold") != nil:
		b.need("ask")
	}
	return r
}

// Bounds of limits. A rule with a longer time, or more rows, limits nothing.
const (
	maxLimitRows = 1_000_000_000
	maxLimitTime = 24 * 3600
)

// readLimits reads what a rule does to what it lets run.
func (r *rule) readLimits(b block) {
	if e := b.attr("limit_rows"); e != nil {
		n, ok := literalInt(e)
		if r.LimitRows = n; !ok || n < 1 || n > maxLimitRows {
			b.wrong(e, "1 to 1000000000 for limit_rows")
		}
	}
	if e := b.attr("limit_time"); e != nil {
		if r.LimitTime = b.length(e); r.LimitTime > maxLimitTime {
			b.wrong(e, "at most a day for limit_time")
		}
	}
	if e := b.attr("record"); e != nil {
		if r.Record = b.stringOf(e); r.Record != access.RecordResults {
			b.wrong(e, `"results" for record`)
		}
	}
	r.When = condition(b, "when")
	if e := b.attr("when"); e != nil && !r.Limits() {
		b.diags.errorf(e.Range(), "A condition has no effect", "when says for what limit_rows, limit_time and record hold; write one of them.")
	}
}

// condition is an expression's canonical text: comments and layout are gone.
func condition(b block, name string) string {
	e := b.attr(name)
	if e == nil {
		return ""
	}
	x := compileAs(e, kindBool, judgeWords, b.diags)
	if x == nil {
		return ""
	}
	// What gateways compile is the canonical text: it must pass the guard too.
	if again, _ := compileText(name, x.text, judgeWords); again == nil || again.text != x.text {
		b.diags.errorf(e.Range(), "The expression is too complex", "Write it flatter, or as two rules.")
	}
	return x.text
}
