package gateway

import (
	"encoding/json"
	"slices"
	"sync"

	"github.com/tidegate/tidegate/access"
)

// judges are the rules that the grant was approved with and those of today.
// The stricter of the two decides, so today's can only narrow.
type judges struct {
	generation uint64
	rules      string // today's, to see a change
	*compiled
}

// compiled judges what one identity does under one plan. Sessions share it,
// and with it the decisions that it keeps.
type compiled struct {
	grant, today access.Judge
	classes      bool // neither reads more than an operation's class

	mu   sync.RWMutex
	kept map[*access.Class]access.Decision
}

// maxKept bounds the decisions, and maxCompiled the judges, that are kept.
const (
	maxKept     = 4096
	maxCompiled = 256
)

// compiledKey is what judges are made of. The digest stands for the plan as
// approved, the generation for what was narrowed since.
type compiledKey struct {
	grant                   access.GrantKey
	generation              int
	digest, identity, rules string
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
	made, err := s.server.compiledFor(g, s.info.Identity, v)
	if err != nil {
		return &access.Error{Code: access.CodeUnavailable, Message: "The rules for this target cannot be read, so nothing may run. The operator's log has the reason.", Cause: err}
	}
	j.compiled = made
	s.judges.Store(j)
	return nil
}

// compiledFor finds the judges of another session of the same identity under
// the same plan, or makes them.
func (s *Server) compiledFor(g access.Grant, id access.Identity, v *view) (*compiled, error) {
	who, err := json.Marshal(id)
	if err != nil {
		return nil, err
	}
	key := compiledKey{g.Key, g.Generation, g.Digest, string(who), v.key}
	s.compiledMu.Lock()
	found := s.compiled[key]
	s.compiledMu.Unlock()
	if found != nil {
		return found, nil
	}
	made := &compiled{}
	if made.grant, err = s.cfg.Compiler.Compile(g.Plan.Rules, g, id); err == nil {
		made.today, err = s.cfg.Compiler.Compile(v.rules, g, id)
	}
	if err != nil {
		return nil, err
	}
	made.classes = judgesClasses(made.grant) && judgesClasses(made.today)
	s.compiledMu.Lock()
	defer s.compiledMu.Unlock()
	if len(s.compiled) >= maxCompiled || s.compiled == nil {
		s.compiled = map[compiledKey]*compiled{}
	}
	s.compiled[key] = made
	return made, nil
}

func judgesClasses(j access.Judge) bool {
	c, ok := j.(access.ClassJudge)
	return ok && c.JudgesClasses()
}

// judge takes the strictest of what the room, the grant's rules and today's
// say.
func (c *compiled) judge(op access.Operation) access.Decision {
	keep := c.classes && op.Class != nil
	if keep {
		c.mu.RLock()
		d, ok := c.kept[op.Class]
		c.mu.RUnlock()
		if ok {
			return d
		}
	}
	d := access.Strictest(c.all(op)...)
	if keep {
		c.mu.Lock()
		defer c.mu.Unlock()
		if len(c.kept) >= maxKept || c.kept == nil {
			c.kept = map[*access.Class]access.Decision{}
		}
		c.kept[op.Class] = d
	}
	return d
}

func (c *compiled) all(op access.Operation) []access.Decision {
	ds := []access.Decision{c.grant.Judge(op), c.today.Judge(op)}
	if op.Guard != nil {
		ds = append([]access.Decision{*op.Guard}, ds...)
	}
	return ds
}

// Judge implements Session.
func (s *session) Judge(op access.Operation) access.Decision { return s.decide(op, nil) }

// Reads implements Session.
func (s *session) Reads(fact string) bool {
	j := s.judges.Load()
	return reads(j.grant, fact) || reads(j.today, fact)
}

func reads(j access.Judge, fact string) bool {
	f, ok := j.(access.FactJudge)
	return ok && f.Reads(fact)
}

// Generation implements Session.
func (s *session) Generation() uint64 { return s.judges.Load().generation }

// decide takes the strictest of all judges. A hold that an eligible person
// agreed to no longer holds; a denial denies whatever anybody agreed to.
func (s *session) decide(op access.Operation, yes []agreed) access.Decision {
	d := s.ruled(op, yes)
	d.Limits = d.Limits.Narrower(s.limits)
	return d
}

func (s *session) ruled(op access.Operation, yes []agreed) access.Decision {
	j := s.judges.Load()
	if len(yes) == 0 {
		return j.judge(op)
	}
	ds := j.all(op)
	for i, d := range ds {
		if d.Verdict == access.Hold && covered(d, yes) {
			ds[i].Verdict = access.Allow
		}
	}
	return access.Strictest(ds...)
}

func covered(d access.Decision, yes []agreed) bool {
	return slices.ContainsFunc(yes, func(y agreed) bool { return y.rule == d.Rule && access.Includes(d.Ask, y.by) })
}
