package postgres

import (
	"crypto/sha256"
	"slices"
	"sync"
	"unicode/utf8"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/postgres/backing"
)

// Bounds of what is kept of texts that were read, for each plan.
const (
	maxTexts    = 512
	maxTextSum  = 512 << 10
	maxPlans    = 32
	maxPlanSum  = 8 << 20
	maxKeptText = 16 << 10
)

// understood is what a text means. It is shared and never changes.
type understood struct {
	stmts  []statement // without their trees
	edits  []edit      // of names of masked tables
	copies int         // how many COPY FROM STDIN
	notice string      // for the client, once
	names  bool        // some statement does something by a name: see resolve
	flows  bool        // some statement puts what it reads into others: see made
	loose  []string    // masked tables that are changed by their names alone
	shape  *shapedText // set where only literals may differ
}

// shapedText says where the one statement of a text lies, in its shape.
type shapedText struct{ from, to int }

// reading is a text and what it means.
type reading struct {
	*understood
	ops   []access.Operation
	text  string   // as the client wrote it
	sent  string   // what the target gets in its place
	spans [][2]int // where the statements lie in text
	made  []edit   // of the text, in order

	copies  int            // how many COPY FROM STDIN, by an EXECUTE as well
	copyOut bool           // an EXECUTE in it is of COPY TO STDOUT
	fetches *string        // or of a FETCH from that cursor
	runs    map[int]*named // what each EXECUTE runs
	hidden  []int          // statements that read hidden rows through something the session made
}

// planned is a plan with the texts that were read under it. Sessions of one
// grant share it.
type planned struct {
	backing.Backing
	catalog  *catalog
	callable *callable
	temps    map[string]bool     // see shadowed
	exact    recent[*understood] // by text
	shapes   recent[*understood] // by shape
}

func newPlanned(b backing.Backing) *planned {
	p := &planned{callable: newCallable(b), Backing: b, catalog: newCatalog(b)}
	p.exact.maxEntries, p.exact.maxBytes = maxTexts, maxTextSum
	p.shapes.maxEntries, p.shapes.maxBytes = maxTexts, maxTextSum
	return p
}

// plans are those in use, by the hash of their bytes.
type plans struct{ kept recent[*planned] }

func newPlans() *plans {
	return &plans{recent[*planned]{maxEntries: maxPlans, maxBytes: maxPlanSum}}
}

func (p *plans) parse(data []byte) (*planned, error) {
	key := sha256.Sum256(data)
	if found, ok := p.kept.get(key[:]); ok {
		return found, nil
	}
	b, err := backing.Parse(data)
	if err != nil {
		return nil, err
	}
	made := newPlanned(b)
	p.kept.put(string(key[:]), made)
	return made, nil
}

var shapes = sync.Pool{New: func() any { return new(shaped) }}

// read understands a text. An error is a refusal that may be shown.
func (p *planned) read(text []byte) (reading, error) {
	s := shapes.Get().(*shaped)
	defer shapes.Put(s)
	fits := s.shape(text)
	if fits {
		if u, ok := p.shapes.get(s.bytes); ok && utf8.Valid(text) {
			return u.of(string(text), s), nil
		}
	}
	if u, ok := p.exact.get(text); ok {
		return u.of(string(text), nil), nil
	}
	u, err := p.parse(string(text), s, fits)
	if err != nil {
		return reading{}, err
	}
	if u.shape != nil {
		p.shapes.put(string(s.bytes), u)
		return u.of(string(text), s), nil
	}
	if len(text) <= maxKeptText {
		p.exact.put(string(text), u)
	}
	return u.of(string(text), nil), nil
}

// parse reads a text for the first time.
func (p *planned) parse(text string, s *shaped, fits bool) (*understood, error) {
	stmts, err := classify(text, p.catalog)
	if err != nil {
		return nil, err
	}
	temps := p.temps
	for i := range stmts {
		stmts[i].temps = temps
		temps = p.tempsFrom(stmts[i].node, temps)
	}
	loose := guardMasked(stmts, p.Backing)
	guardCalls(stmts, p.callable)
	guardActing(stmts, p.Backing)
	r, err := rewrite(text, stmts, p.Backing)
	if err != nil {
		return nil, err
	}
	edits := r.sorted()
	u := &understood{stmts: stmts, edits: edits, notice: maskedNotice(stmts, p.catalog), loose: uniq(slices.Concat(loose, r.loose))}
	if fits && len(stmts) == 1 && literalsDoNotMatter(stmts[0]) {
		u.generalize(s, text)
	}
	for i := range stmts {
		if c := stmts[i].node.GetCopyStmt(); c != nil && c.IsFrom {
			u.copies++
			stmts[i].copyIn = true
		}
		u.names, u.flows = u.names || stmts[i].use != nil, u.flows || !stmts[i].flow.empty()
		stmts[i].explain, stmts[i].bound = p.estimable(stmts[i])
		stmts[i].node, stmts[i].names, stmts[i].temps = nil, nil, nil // a tree is some hundred times as large as its text
		stmts[i].op.Class = new(access.Class)
	}
	return u, nil
}

// literalsDoNotMatter lists the statements in which no literal changes what
// the classifier finds: a file's name in COPY does.
func literalsDoNotMatter(s statement) bool {
	n := s.node
	if n.GetSelectStmt() == nil && n.GetInsertStmt() == nil && n.GetUpdateStmt() == nil && n.GetDeleteStmt() == nil {
		return false
	}
	called, _ := s.op.Facts["functions"].([]string)
	return len(s.secrets.spans) == 0 && s.op.Guard == nil && s.op.Facts["ddl"] == false && !slices.Contains(called, "set_config")
}

// generalize moves the places into the shape, so that they serve every text
// of it.
func (u *understood) generalize(s *shaped, text string) {
	where := &shapedText{s.inShape(u.stmts[0].from), s.inShape(u.stmts[0].to)}
	edits := slices.Clone(u.edits)
	for i, e := range edits {
		edits[i].at, edits[i].end = s.inShape(e.at), s.inShape(e.end)
		if edits[i].at < 0 || edits[i].end < 0 {
			return
		}
	}
	if where.from < 0 || where.to < 0 {
		return
	}
	u.shape, u.edits = where, edits
}

// of is the reading of one text; s is its shape if u is of a shape.
func (u *understood) of(text string, s *shaped) reading {
	r := reading{understood: u, text: text, copies: u.copies}
	r.ops, r.spans = roomFor(len(u.stmts))
	for i := range u.stmts {
		r.ops[i], r.spans[i] = u.stmts[i].op, [2]int{u.stmts[i].from, u.stmts[i].to}
	}
	edits := u.edits
	if u.shape != nil {
		r.spans[0] = [2]int{s.inText(u.shape.from), s.inText(u.shape.to)}
		r.ops[0].Text = text[r.spans[0][0]:r.spans[0][1]]
		edits = make([]edit, len(u.edits))
		for i, e := range u.edits {
			edits[i] = edit{s.inText(e.at), s.inText(e.end), e.with}
		}
	}
	r.made, r.sent = edits, apply(text, edits)
	return r
}

// roomFor is room for the statements of a text: mostly one, at once.
func roomFor(n int) ([]access.Operation, [][2]int) {
	if n != 1 {
		return make([]access.Operation, n), make([][2]int, n)
	}
	one := new(struct {
		op   [1]access.Operation
		span [1][2]int
	})
	return one.op[:], one.span[:]
}
