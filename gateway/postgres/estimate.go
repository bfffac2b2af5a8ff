package postgres

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/postgres/backing"
)

// request is one statement that wants to run, and how the target can be asked
// about it.
type request struct {
	op     access.Operation
	sql    string // what EXPLAIN may be asked of: as the target gets it; empty: nothing
	types  string // of its parameters
	values string // and they themselves: see question
	inside bool   // see question
}

// explainable reports whether EXPLAIN takes the statement and runs nothing of
// it. Planning evaluates functions of constants, so those that may change
// something are not for it.
func explainable(n *pg.Node, f *facts) bool {
	if f.calls || f.guard != nil {
		return false
	}
	switch {
	case n.GetSelectStmt() != nil, n.GetInsertStmt() != nil, n.GetUpdateStmt() != nil, n.GetDeleteStmt() != nil,
		n.GetMergeStmt() != nil, n.GetDeclareCursorStmt() != nil, n.GetCreateTableAsStmt() != nil:
		return true
	}
	return false
}

// estimable says of a statement whether EXPLAIN may be asked of it. The planner
// knows values of hidden rows and how often they come, and whoever asks for
// ever other conditions would learn them from what a rule about rows says. So
// of a table with hidden rows it is asked how many the role may see at all,
// which no condition changes, and that only where a statement can't meet more.
func (p *planned) estimable(s statement) (explain bool, bound string) {
	reads, all := p.limitedReads(s.node)
	switch {
	case len(reads) == 0 || !s.explain:
		return s.explain, ""
	case all == 1 && meetsOnce(s.node):
		return true, "select from " + quote(reads[0].MaskSchema) + "." + quote(reads[0].Table)
	}
	return false, ""
}

// limitedReads are the tables with hidden rows of which a statement reads, and
// how many tables it names in all. Into what it inserts it does not read.
func (p *planned) limitedReads(n *pg.Node) (found []backing.MaskedTable, all int) {
	var into *pg.RangeVar
	walk(n.ProtoReflect(), func(m proto.Message) {
		switch n := m.(type) {
		case *pg.InsertStmt:
			into = n.Relation
		case *pg.RangeVar:
			all++
			i := slices.IndexFunc(p.Masked, func(t backing.MaskedTable) bool {
				return t.Limited && t.Table == n.Relname && (n.Schemaname == "" || n.Schemaname == t.Schema || n.Schemaname == t.MaskSchema)
			})
			if i >= 0 && n != into {
				found = append(found, p.Masked[i])
			}
		}
	})
	return found, all
}

// ofOneRow are functions that make no more rows than they get.
var ofOneRow = []string{"avg", "count", "length", "lower", "max", "min", "now", "sum", "upper"}

// meetsOnce reports whether a statement of one table can't return or change
// more rows than the table has.
func meetsOnce(n *pg.Node) bool {
	s := n.GetSelectStmt()
	once := n.GetUpdateStmt() != nil || n.GetDeleteStmt() != nil
	if s != nil {
		once = len(s.FromClause) == 1 && s.FromClause[0].GetRangeVar() != nil && len(s.GroupClause) == 0
	}
	walk(n.ProtoReflect(), func(m proto.Message) {
		switch n := m.(type) {
		case *pg.FuncCall:
			once = once && (s == nil || slices.Contains(ofOneRow, lastName(n.Funcname)))
		case *pg.SubLink, *pg.WithClause, *pg.RangeSubselect, *pg.RangeFunction, *pg.A_Indirection: // which may call one
			once = false
		}
	})
	return once
}

// requests appends those of a simple query.
func (r *reading) requests(to []request) []request {
	for i, op := range r.ops {
		to = append(to, request{op: op, sql: r.asked(i), types: noTypes, values: noValues})
	}
	return to
}

// asked is what EXPLAIN may be asked of in a statement's place.
func (r *reading) asked(i int) string {
	switch s := &r.stmts[i]; {
	case slices.Contains(r.hidden, i):
		return ""
	case s.bound != "":
		return s.bound
	case s.explain:
		return r.piece(i)
	}
	return ""
}

// piece is one statement as the target gets it.
func (r *reading) piece(i int) string {
	from, to := r.spans[i][0], r.spans[i][1]
	var edits []edit
	for _, e := range r.made {
		if from <= e.at && e.end <= to {
			edits = append(edits, edit{e.at - from, e.end - from, e.with})
		}
	}
	return apply(r.text[from:to], edits)
}

// weigh finds out how many rows the statement meets, if that can change what
// is decided or if a person is to decide. A rule that lets it run whatever the
// number is needs none.
func (b *bridge) weigh(q request) (request, access.Decision) {
	d := b.session.Judge(q.op)
	if d.Verdict == access.Allow || q.values == "" || q.sql == "" || d.Verdict == access.Deny && !b.session.Reads("rows") {
		return q, d
	}
	if _, known := q.op.Facts["rows"]; known {
		return q, d
	}
	rows, err := b.estimate(q)
	if err != nil {
		b.log.Debug("rows not estimated", "error", err)
		return q, d
	}
	q.op.Facts = maps.Clone(q.op.Facts)
	q.op.Facts["rows"], q.op.Class = rows, nil
	return q, b.session.Judge(q.op)
}

// asksFor reports whether the target may be asked about what runs.
func (b *bridge) asksFor(ops []access.Operation) bool {
	return slices.ContainsFunc(ops, func(op access.Operation) bool { return b.session.Judge(op).Verdict != access.Allow })
}

// estimate asks the planner. Nothing is run.
func (b *bridge) estimate(q request) (int64, error) {
	rows, err := b.ask(question{sql: "explain (format json) " + q.sql, types: q.types, values: q.values, inside: q.inside})
	if err != nil {
		return 0, err
	}
	if len(rows) != 1 || len(rows[0]) != 1 {
		return 0, fmt.Errorf("read plan: got %d rows, want one with one column", len(rows))
	}
	return planRows([]byte(rows[0][0]))
}

// planNode is a node of EXPLAIN's answer.
type planNode struct {
	Type  string     `json:"Node Type"`
	Rows  float64    `json:"Plan Rows"`
	Plans []planNode `json:"Plans"`
}

// planRows is how many rows a plan returns or changes, whichever is more. A
// node that changes rows says how many it returns; how many it changes, its
// child says.
func planRows(text []byte) (int64, error) {
	var plans []struct{ Plan planNode }
	if err := json.Unmarshal(text, &plans); err != nil || len(plans) == 0 {
		return 0, fmt.Errorf("read plan: not understood: %w", err)
	}
	most := 0.0
	for _, p := range plans {
		most = max(most, p.Plan.Rows, p.Plan.changes())
	}
	return int64(min(math.Ceil(most), math.MaxInt32)), nil
}

func (n planNode) changes() (rows float64) {
	for _, child := range n.Plans {
		if n.Type == "ModifyTable" {
			rows += child.Rows
		}
		rows += child.changes()
	}
	return rows
}
