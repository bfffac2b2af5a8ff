package gateway

import (
	"slices"

	"github.com/tidegate/tidegate/access"
)

// judges are the rules that the grant was approved with and those of today.
// The stricter of the two decides, so today's can only narrow.
type judges struct {
	generation   uint64
	rules        string // today's, to see a change
	grant, today access.Judge
}

// agreed is one person's yes to one rule's hold.
type agreed struct {
	rule string
	by   int64
}

// compile makes the judges of the view, if its rules differ from those in use.
func (s *session) compile(v *view) error {
	old := s.judges.Load()
	if old != nil && old.rules == v.key {
		return nil
	}
	g := s.grantNow()
	j := &judges{generation: 1, rules: v.key}
	if old != nil {
		j.generation = old.generation + 1
	}
	var err error
	if j.grant, err = s.server.cfg.Compiler.Compile(g.Plan.Rules, g, s.info.Identity); err == nil {
		j.today, err = s.server.cfg.Compiler.Compile(v.rules, g, s.info.Identity)
	}
	if err != nil {
		return &access.Error{Code: access.CodeUnavailable, Message: "The rules for this target cannot be read, so nothing may run. The operator's log has the reason.", Cause: err}
	}
	s.judges.Store(j)
	return nil
}

// Judge implements Session.
func (s *session) Judge(op access.Operation) access.Decision { return s.decide(op, nil) }

// Generation implements Session.
func (s *session) Generation() uint64 { return s.judges.Load().generation }

// decide takes the strictest of all judges. A hold that an eligible person
// agreed to no longer holds; a denial denies whatever anybody agreed to.
func (s *session) decide(op access.Operation, yes []agreed) access.Decision {
	j := s.judges.Load()
	ds := []access.Decision{j.grant.Judge(op), j.today.Judge(op)}
	if op.Guard != nil {
		ds = append([]access.Decision{*op.Guard}, ds...)
	}
	for i, d := range ds {
		if d.Verdict == access.Hold && covered(d, yes) {
			ds[i].Verdict = access.Allow
		}
	}
	return access.Strictest(ds...)
}

func covered(d access.Decision, yes []agreed) bool {
	return slices.ContainsFunc(yes, func(y agreed) bool { return y.rule == d.Rule && asked(d.Ask, y.by) })
}

// asked reports whether the user is among those who may answer.
func asked(ask []access.Party, user int64) bool {
	return slices.ContainsFunc(ask, func(p access.Party) bool {
		if p.Kind == access.KindUser {
			return p.ID == user
		}
		return slices.ContainsFunc(p.Members, func(m access.User) bool { return m.ID == user })
	})
}
