package policies

import (
	"github.com/hashicorp/hcl/v2"

	"github.com/tidegate/tidegate/access"
)

// approval is an approval block: when it applies, how many must agree, and who.
type approval struct {
	name     string
	when     *expr // nil: for policies only
	need     *expr
	from     []access.Principal
	say      string
	policies bool // asked for when policies change
	at       hcl.Range
	needAt   hcl.Range
}

func readApproval(b block) approval {
	b.only([]string{"when", "need", "from", "say", "policies"})
	a := approval{name: b.Labels[0], say: b.sentence("say"), policies: b.bool("policies"), at: b.DefRange()}
	when := b.attr("when")
	if when == nil && !a.policies {
		b.need("when")
	}
	if when != nil {
		a.when = compileAs(when, kindBool, planWords, b.diags)
	}
	if e := b.need("need"); e != nil {
		a.need, a.needAt = compileAs(e, kindInt, planWords, b.diags), e.Range()
	}
	if e := b.need("from"); e != nil {
		a.from = b.principals(e)
	}
	return a
}
