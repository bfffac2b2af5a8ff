package postgres

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/tidegate/tidegate/access"
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

// requests are those of a simple query.
func (r reading) requests() []request {
	out := make([]request, len(r.ops))
	for i, op := range r.ops {
		out[i] = request{op: op, types: noTypes, values: noValues}
		if r.stmts[i].explain {
			out[i].sql = r.piece(i)
		}
	}
	return out
}

// piece is one statement as the target gets it.
func (r reading) piece(i int) string {
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
	reads := b.session.Reads("rows")
	if _, known := q.op.Facts["rows"]; known || q.values == "" || d.Verdict == access.Allow || q.sql == "" || d.Verdict == access.Deny && !reads {
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
