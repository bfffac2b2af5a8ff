package postgres

import (
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/postgres/backing"
)

// edit replaces text[at:end].
type edit struct {
	at, end int
	with    string
}

// rewriter lets the user's own SQL meet the masked views. It changes single
// names in place, so that the target's errors point into the user's text.
type rewriter struct {
	text    string // up to the end of the statement that is looked at
	masked  []backing.MaskedTable
	targets map[*pg.RangeVar]bool // what INSERT, UPDATE, DELETE, MERGE, COPY FROM and LOCK mean: the table itself
	written map[string]bool       // the same by schema.table
	bare    map[*pg.RangeVar]bool // what TRUNCATE and VACUUM mean: never a view, of which the user knows nothing
	copied  *pg.RangeVar          // of a COPY that is one of its view
	temps   map[string]bool       // see statement
	loose   []string              // see understood
	edits   []edit
	err     error
}

// rewrite resolves names of masked tables: a qualified one in a reading place
// becomes the view, an unqualified one in a writing place the table; one that
// is limited to some rows becomes the view in both. The search path does the
// rest. The edits come in order and do not overlap.
func rewrite(text string, stmts []statement, plan backing.Backing) (*rewriter, error) {
	r := &rewriter{masked: plan.Masked}
	for _, s := range stmts {
		r.text = text[:s.to] // what is scanned again is no more than the statement
		r.targets, r.written, r.bare, r.temps = map[*pg.RangeVar]bool{}, map[string]bool{}, map[*pg.RangeVar]bool{}, s.temps
		walk(s.node.ProtoReflect(), r.findTarget)
		walk(s.node.ProtoReflect(), r.visit)
	}
	if r.err != nil {
		return nil, r.err
	}
	return r, nil
}

func (r *rewriter) findTarget(m proto.Message) {
	var v *pg.RangeVar
	switch n := m.(type) {
	case *pg.InsertStmt:
		v = n.Relation
	case *pg.UpdateStmt:
		v = n.Relation
	case *pg.DeleteStmt:
		v = n.Relation
	case *pg.MergeStmt:
		v = n.Relation
	case *pg.CopyStmt:
		if n.IsFrom {
			v = n.Relation
		}
	case *pg.TruncateStmt:
		mark(r.bare, n.Relations)
	case *pg.VacuumRelation:
		r.bare[n.Relation] = true
	case *pg.LockStmt:
		if n.Mode != sharedLock {
			mark(r.targets, n.Relations)
		}
	}
	if v != nil {
		r.targets[v] = true
		r.written[qualified(v.Schemaname, v.Relname)] = true
	}
}

func mark(these map[*pg.RangeVar]bool, tables []*pg.Node) {
	for _, t := range tables {
		these[t.GetRangeVar()] = true
	}
}

func (r *rewriter) visit(m proto.Message) {
	switch n := m.(type) {
	case *pg.CopyStmt:
		r.copyOfView(n)
	case *pg.SelectStmt:
		r.allowViews(n)
	case *pg.RangeVar:
		if n != r.copied {
			r.table(n)
		}
	case *pg.ColumnRef:
		r.column(n)
	}
}

func (r *rewriter) table(n *pg.RangeVar) {
	if n.Catalogname != "" {
		r.err = access.Errorf(access.CodeInvalid, "The name %q carries a database; write schema.table.", n.Relname)
		return
	}
	switch {
	case (r.targets[n] || r.bare[n]) && n.Schemaname == "":
		t, ok := r.find("", n.Relname)
		if ok {
			r.loose = append(r.loose, n.Relname)
		}
		if ok && !r.temps[n.Relname] && (r.bare[n] || !t.Limited) {
			r.edits = append(r.edits, edit{int(n.Location), int(n.Location), quote(t.Schema) + "."})
		}
	case n.Schemaname != "" && !r.bare[n]:
		if t, ok := r.find(n.Schemaname, n.Relname); ok && (t.Limited || !r.targets[n]) {
			r.swap(int(n.Location), t.MaskSchema)
		}
	}
}

func (r *rewriter) column(n *pg.ColumnRef) {
	if len(n.Fields) < 3 {
		return
	}
	schema, table := n.Fields[0].GetString_().GetSval(), n.Fields[1].GetString_().GetSval()
	if t, ok := r.find(schema, table); ok && (t.Limited || !r.written[qualified(schema, table)]) {
		r.swap(int(n.Location), t.MaskSchema)
	}
}

// find looks a table up; without a schema the first one named on the path.
func (r *rewriter) find(schema, table string) (backing.MaskedTable, bool) {
	i := slices.IndexFunc(r.masked, func(t backing.MaskedTable) bool {
		return t.Table == table && (schema == "" || t.Schema == schema)
	})
	if i < 0 {
		return backing.MaskedTable{}, false
	}
	return r.masked[i], true
}

func (r *rewriter) swap(at int, schema string) {
	end := identifierEnd(r.text, at)
	if end <= at {
		r.err = access.Errorf(access.CodeInvalid, "A table's name at byte %d was not understood; write it plainly as schema.table.", at+1)
		return
	}
	r.edits = append(r.edits, edit{at, end, quote(schema)})
}

// identifierEnd is where the identifier at the offset ends; at itself if
// there is none, as for U&"" names, which are then refused.
func identifierEnd(s string, at int) int {
	if at < 0 || at >= len(s) || strings.HasPrefix(strings.ToLower(s[at:]), `u&"`) {
		return at
	}
	i := at
	if s[i] != '"' {
		for i < len(s) && (s[i] >= 0x80 || s[i] == '_' || s[i] == '$' || '0' <= s[i] && s[i] <= '9' || 'a' <= s[i]|0x20 && s[i]|0x20 <= 'z') {
			i++
		}
		return i
	}
	for i++; i < len(s); i++ {
		if s[i] != '"' {
			continue
		}
		if i+1 == len(s) || s[i+1] != '"' {
			return i + 1
		}
		i++
	}
	return at
}

// sorted drops what was found twice: a name is met once for each way to it.
func (r *rewriter) sorted() []edit {
	slices.SortFunc(r.edits, func(a, b edit) int { return a.at - b.at })
	var out []edit
	last := 0
	for _, e := range slices.Compact(r.edits) {
		if e.at >= last {
			out, last = append(out, e), e.end
		}
	}
	return out
}

// apply makes the edits, which are in order.
func apply(text string, edits []edit) string {
	if len(edits) == 0 {
		return text
	}
	var out strings.Builder
	last := 0
	for _, e := range edits {
		out.WriteString(text[last:e.at])
		out.WriteString(e.with)
		last = e.end
	}
	out.WriteString(text[last:])
	return out.String()
}

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
