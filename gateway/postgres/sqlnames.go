package postgres

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/tidegate/tidegate/access"
)

// SQL's own PREPARE, EXECUTE and DEALLOCATE share their names with the
// protocol's prepared statements, so they are led to the same names at the
// target. FETCH, MOVE and CLOSE are of a cursor that DECLARE made here.

// byName is what a statement does by a name.
type byName struct {
	verb     string // prepare, execute, deallocate, discard, declare, fetch, close, lock
	name     string // empty: all
	at, end  int    // where the name stands in the text, for the first three; or LOCK TABLE
	also     []edit // what changes besides
	prepared *access.Operation
	secrets  secrets  // of the statement prepared
	args     [][2]int // the literals of an EXECUTE
	flow     flow     // of the statement prepared
}

// namesOf finds what a statement does by name; nil for most. It completes the
// statement's own facts.
func namesOf(text string, from int, s *statement) (*byName, error) {
	n := s.node
	switch {
	case n.GetPrepareStmt() != nil:
		body := s.op
		body.Class = new(access.Class)
		s.op.Facts = maps.Clone(s.op.Facts)
		s.op.Facts["kind"], s.op.Facts["writes"] = "prepare", false
		if body.Facts["kind"] == "prepare" { // nothing in it says more
			body.Facts["kind"] = kindOf(n.GetPrepareStmt().Query)
		}
		return place(text, from, &byName{verb: "prepare", name: n.GetPrepareStmt().Name, prepared: &body})
	case n.GetExecuteStmt() != nil:
		return place(text, from, &byName{verb: "execute", name: n.GetExecuteStmt().Name})
	case n.GetExplainStmt().GetQuery().GetExecuteStmt() != nil:
		return place(text, from, &byName{verb: "execute", name: n.GetExplainStmt().GetQuery().GetExecuteStmt().Name})
	case n.GetDeallocateStmt() != nil && n.GetDeallocateStmt().Name != "":
		return place(text, from, &byName{verb: "deallocate", name: n.GetDeallocateStmt().Name})
	case n.GetDeallocateStmt() != nil, n.GetDiscardStmt().GetTarget() == pg.DiscardMode_DISCARD_ALL:
		return &byName{verb: "deallocate"}, nil
	case n.GetDeclareCursorStmt() != nil:
		return &byName{verb: "declare", name: n.GetDeclareCursorStmt().Portalname}, nil
	case n.GetFetchStmt() != nil:
		return &byName{verb: "fetch", name: n.GetFetchStmt().Portalname}, nil
	case n.GetLockStmt() != nil:
		return sharedLockOf(text, from, n.GetLockStmt()), nil
	case n.GetClosePortalStmt() != nil:
		return &byName{verb: "close", name: n.GetClosePortalStmt().Portalname}, nil
	}
	return nil, nil
}

// place finds the name behind its keyword. The words before it are few, and
// any other refuses the text: the edit must hit the name and nothing else.
func place(text string, from int, b *byName) (*byName, error) {
	scan, err := pg.Scan(text[from:])
	if err != nil {
		return nil, access.Errorf(access.CodeInvalid, "The statement was not understood and not sent: %v.", err)
	}
	for i, t := range scan.Tokens {
		word := strings.ToLower(text[from+int(t.Start) : from+int(t.End)])
		if t.Token == pg.Token_SQL_COMMENT || t.Token == pg.Token_C_COMMENT || word == "explain" || word == "analyze" || word == "analyse" || word == "verbose" {
			continue
		}
		rest := slices.DeleteFunc(slices.Clone(scan.Tokens[i+1:]), func(t *pg.ScanToken) bool {
			return t.Token == pg.Token_SQL_COMMENT || t.Token == pg.Token_C_COMMENT
		})
		if word == "deallocate" && len(rest) > 1 && rest[0].Token == pg.Token_PREPARE {
			rest = rest[1:]
		}
		if word != b.verb || len(rest) == 0 {
			break
		}
		b.at, b.end = from+int(rest[0].Start), from+int(rest[0].End)
		return b, nil
	}
	return nil, access.Errorf(access.CodeInvalid, "The name in this %s was not understood; write it plainly.", strings.ToUpper(b.verb))
}

// ahead are the names that statements of a text make and take for those that
// follow in the same text.
type ahead struct {
	cleared bool // none from before is left
	at      map[string]*named
}

func (a *ahead) set(name string, v *named) {
	if a.at == nil {
		a.at = map[string]*named{}
	}
	a.at[name] = v
}

// prepared finds a statement as the one that is being resolved will.
func (b *bridge) prepared(name string) (*named, bool) {
	if v, ok := b.ahead.at[name]; ok || b.ahead.cleared {
		return v, v != nil
	}
	return b.stmts.get(name)
}

// effect is what a statement does to the session's names once it is sent.
type effect func(*reply) error

// resolve leads the names of a text to the target's, and lets an EXECUTE and a
// FETCH be judged as what they run. The effects belong to its operations.
func (b *bridge) resolve(read *reading) ([]effect, error) {
	if !read.names {
		return nil, nil
	}
	effects := make([]effect, len(read.ops))
	b.declared, b.ahead = nil, ahead{}
	edits := slices.Clone(read.edits)
	for i := range read.ops {
		use := read.stmts[i].use
		if use == nil {
			continue
		}
		runs, _ := b.prepared(use.name)
		e, to, err := b.resolveOne(&read.ops[i], use, len(read.ops) == 1)
		if err != nil {
			return nil, err
		}
		if to != "" {
			edits = append(append(edits, edit{use.at, use.end, to}), use.also...)
		}
		effects[i] = e
		if use.verb == "execute" {
			read.copyOut, read.fetches = read.copyOut || runs.copyOut, runs.fetches
			if runs.copyIn {
				read.copies++
			}
			if read.runs == nil {
				read.runs = map[int]*named{}
			}
			read.runs[i] = runs
		}
	}
	slices.SortFunc(edits, func(a, b edit) int { return a.at - b.at })
	read.sent = apply(read.text, edits)
	return effects, nil
}

func (b *bridge) resolveOne(op *access.Operation, use *byName, alone bool) (effect, string, error) {
	switch use.verb {
	case "prepare":
		return b.resolvePrepare(op, use)
	case "execute":
		v, ok := b.prepared(use.name)
		if !ok {
			return nil, "", noStatement(use.name)
		}
		if len(v.secret) > 0 {
			op.Text = replaceSpans(op.Text, use.args, b.session.Withhold)
		}
		if v.does != nil && !alone {
			return nil, "", access.Errorf(access.CodeInvalid, "This EXECUTE runs what is understood only in a message of its own; send it alone.")
		}
		b.judgeAs(op, v)
		return v.does, v.name, nil
	case "deallocate":
		return b.resolveDeallocate(use)
	case "lock":
		return nil, b.takeLocks(), nil
	case "declare":
		e, err := b.resolveDeclare(op, use.name, alone)
		return e, "", err
	case "close":
		return func(r *reply) error { b.cursors.close(use.name, alone, r); return nil }, "", nil
	}
	b.resolveFetch(op, use.name, b.declared)
	return nil, "", nil
}

// judgeAs lets an operation be judged as what it runs.
func (b *bridge) judgeAs(op *access.Operation, v *named) {
	op.Class = nil
	for _, body := range v.ops {
		op.Facts, op.Guard, op.Class = maps.Clone(body.Facts), body.Guard, body.Class
		if v.fetches != nil {
			b.resolveFetch(op, *v.fetches, nil)
		}
		op.Facts["text"] = op.Text + "\n" + body.Text // what rules read is what runs
		op.Context = append(slices.Clone(op.Context), body.Text)
	}
}

func (b *bridge) resolvePrepare(op *access.Operation, use *byName) (effect, string, error) {
	if _, ok := b.prepared(use.name); ok {
		return nil, "", &access.Error{Code: access.CodeConflict, Message: fmt.Sprintf("prepared statement %q already exists", use.name)}
	}
	if err := b.admitDenied([]access.Operation{*use.prepared}); err != nil {
		return nil, "", err
	}
	body := *use.prepared
	body.Text = op.Text
	v := &named{name: b.stmts.fresh(), ops: []access.Operation{body}, secret: use.secrets.params, flow: use.flow}
	b.ahead.set(use.name, v)
	return func(r *reply) error { return b.stmts.set(use.name, v, r) }, v.name, nil
}

func (b *bridge) resolveDeallocate(use *byName) (effect, string, error) {
	if use.name == "" {
		b.ahead = ahead{cleared: true}
		return func(r *reply) error {
			b.stmts.clear(r)
			b.noted = "" // a pool may hand the connection to somebody else
			return nil
		}, "", nil
	}
	v, ok := b.prepared(use.name)
	if !ok {
		return nil, "", noStatement(use.name)
	}
	b.ahead.set(use.name, nil)
	return func(r *reply) error { return b.stmts.set(use.name, nil, r) }, v.name, nil
}

func noStatement(name string) error {
	return &access.Error{Code: access.CodeNotFound, Message: fmt.Sprintf("prepared statement %q does not exist", name)}
}
