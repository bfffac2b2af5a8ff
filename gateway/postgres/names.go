package postgres

import (
	"crypto/sha256"
	"strconv"
	"sync"

	"github.com/tidegate/tidegate/access"
)

// Bounds of the prepared statements, and of the portals, of one session.
const (
	maxNames = 10_000
	maxKept  = 32 << 20 // bytes of texts and parameters
)

// named is a prepared statement or a portal.
type named struct {
	name string             // at the target
	ops  []access.Operation // none for an empty text, else one
	does effect             // when it runs

	secret     []int  // parameters that are withheld
	types, sql string // see request
	bound      bool   // sql is no text of the client's, and has no parameters
	copyOut    bool
	copyIn     bool
	flow       flow
	fetches    *string // the cursor of a FETCH or MOVE, which may be another one each time

	params  []string          // a portal's
	binding [sha256.Size]byte // of its values and their formats
	values  string
	shown   int64 // rows, where they are limited
}

// size is about what it keeps in memory.
func (v *named) size() (n int) {
	if v == nil {
		return 0
	}
	for _, op := range v.ops {
		n += len(op.Text)
	}
	for _, p := range v.params {
		n += len(p) + 16
	}
	return n + len(v.values)
}

// names maps the client's names to the target's. Each Parse and each Bind
// gets a name that was never used before, unnamed ones too: when one of them
// fails or is skipped, nothing that was judged for it can meet an older
// statement under the same name. The unnamed portal alone keeps its name: a
// Bind is skipped or fails only with the transaction that older portals are
// of, and they can't run after it.
type names struct {
	kind   byte // S or P
	prefix string

	mu    sync.Mutex
	n     uint64
	at    map[string]*named
	kept  int      // bytes, of all in at
	stale []string // names at the target that nothing leads to any more
}

func newNames(kind byte, prefix string) *names { return &names{kind: kind, prefix: prefix} }

func (n *names) fresh() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.n++
	return n.prefix + strconv.FormatUint(n.n, 10)
}

func (n *names) get(name string) (*named, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	v, ok := n.at[name]
	return v, ok
}

// set binds a name; nil unbinds it. The reply gets what is to be done when
// the target has, or has not, done it.
func (n *names) set(name string, v *named, r *reply) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	old := n.at[name]
	if v != nil && old == nil && len(n.at) >= maxNames {
		return access.Errorf(access.CodeTooLarge, "This session has %d names for statements or portals; close some.", maxNames)
	}
	if v != nil && n.kept+v.size()-old.size() > maxKept {
		return access.Errorf(access.CodeTooLarge, "This session keeps %d bytes of statements or parameters, and may keep %d; close some.", n.kept, maxKept)
	}
	n.put(name, v)
	r.undo = func() { n.undo(name, v, old) }
	if v != nil && old != nil && old.name != "" {
		r.done = func() { n.discard(old.name) }
	}
	return nil
}

// clear unbinds every name.
func (n *names) clear(r *reply) {
	n.mu.Lock()
	defer n.mu.Unlock()
	at, kept := n.at, n.kept
	n.at, n.kept = nil, 0
	r.undo = func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.at, n.kept = at, kept
	}
}

func (n *names) put(name string, v *named) {
	n.kept += v.size() - n.at[name].size()
	if v == nil {
		delete(n.at, name)
		return
	}
	if n.at == nil {
		n.at = map[string]*named{}
	}
	n.at[name] = v
}

func (n *names) undo(name string, v, old *named) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.at[name] == v {
		n.put(name, old)
	}
}

func (n *names) discard(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stale = append(n.stale, name)
}

// sweep takes the stale names.
func (n *names) sweep() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.stale
	n.stale = nil
	return s
}
