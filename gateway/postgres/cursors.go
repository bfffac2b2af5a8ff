package postgres

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/tidegate/tidegate/access"
)

// Bounds of the cursors of a session that are known.
const (
	maxCursors  = 1000
	maxDeclared = 32 // of one name
)

// cursors are what DECLARE has named. Whether a DECLARE or a CLOSE worked is
// known later than the next FETCH has to be judged, and a transaction that is
// rolled back takes cursors along. So a name stands for everything that it may
// be: what was declared last for certain, and what came after it.
type cursors struct {
	mu sync.Mutex
	at map[string][]*declared
}

// declared is what one DECLARE reads.
type declared struct{ facts access.Facts }

// declare adds what a name may be. A DECLARE that worked shows that nothing
// before it is left; one that failed made nothing. Of several statements in
// one message nobody says which of them worked.
func (c *cursors) declare(name string, facts access.Facts, alone bool, r *reply) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.at) >= maxCursors && c.at[name] == nil || len(c.at[name]) >= maxDeclared {
		return access.Errorf(access.CodeTooLarge, "This session has declared %d cursors, or %d of one name; close some.", maxCursors, maxDeclared)
	}
	if c.at == nil {
		c.at = map[string][]*declared{}
	}
	before, d := c.at[name], &declared{facts}
	c.at[name] = append(slices.Clone(before), d)
	if alone {
		r.done = func() { c.forget(name, before) }
		r.undo = func() { c.forget(name, []*declared{d}) }
	}
	return nil
}

// close forgets a name, or all of them, when the target has closed it.
func (c *cursors) close(name string, alone bool, r *reply) {
	if !alone { // of several in one message nobody says which of them worked
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	gone := maps.Clone(c.at)
	if name != "" {
		gone = map[string][]*declared{name: c.at[name]}
	}
	r.done = func() {
		for name, list := range gone {
			c.forget(name, list)
		}
	}
}

func (c *cursors) forget(name string, gone []*declared) {
	c.mu.Lock()
	defer c.mu.Unlock()
	left := slices.DeleteFunc(slices.Clone(c.at[name]), func(d *declared) bool { return slices.Contains(gone, d) })
	if c.at[name] = left; len(left) == 0 {
		delete(c.at, name)
	}
}

// reads is all that a name may read; nil if nothing has that name.
func (c *cursors) reads(name string) access.Facts {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all access.Facts
	for _, d := range c.at[name] {
		all = joined(all, d.facts)
	}
	return all
}

// joined is the facts of both, where either may be what runs.
func joined(a, b access.Facts) access.Facts {
	if a == nil {
		return maps.Clone(b)
	}
	out := maps.Clone(b)
	for fact, was := range a {
		switch was := was.(type) {
		case []string:
			now, _ := out[fact].([]string)
			out[fact] = uniq(slices.Concat(was, now))
		case bool:
			now, _ := out[fact].(bool)
			if out[fact] = was || now; fact == "has_where" {
				out[fact] = was && now
			}
		}
	}
	return out
}

// resolveDeclare lets a cursor be known. Its name must be none of those that
// the room gives to portals: by it, FETCH would run a statement that was only
// bound, and that nobody has judged or agreed to.
func (b *bridge) resolveDeclare(op *access.Operation, name string, alone bool) (effect, error) {
	if strings.HasPrefix(name, b.portals.prefix) {
		return nil, access.Errorf(access.CodeInvalid, "The name of a cursor can't begin with %q, as those of Tidegate's own do.", b.portals.prefix)
	}
	facts := op.Facts
	if b.declared == nil {
		b.declared = map[string]access.Facts{}
	}
	b.declared[name] = joined(b.declared[name], facts)
	return func(r *reply) error { return b.cursors.declare(name, facts, alone, r) }, nil
}

// resolveFetch lets FETCH and MOVE be judged with what the cursor reads. One
// that nobody declared here, a function perhaps, is refused. ODBC declares and
// fetches in one message, whose cursors are here.
func (b *bridge) resolveFetch(op *access.Operation, name string, here map[string]access.Facts) {
	op.Class = nil
	reads := b.cursors.reads(name)
	if d := here[name]; d != nil {
		reads = joined(reads, d)
	}
	if reads == nil {
		op.Guard = &access.Decision{Verdict: access.Deny, Rule: "cursor", Say: fmt.Sprintf("The cursor %q was not declared in this session, so what it reads is not known.", name)}
		return
	}
	reads["kind"] = op.Facts["kind"]
	op.Facts = reads
}

// isCursor reports whether a portal is one that DECLARE made: it has the
// client's own name at the target.
func (b *bridge) isCursor(kind byte, name string) bool {
	return kind == 'P' && b.cursors.reads(name) != nil
}
