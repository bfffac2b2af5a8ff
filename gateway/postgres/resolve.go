package postgres

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// resolver finds what the names in a statement stand for, by PostgreSQL's own
// rules: aliases stand for their tables, names of WITH are no tables, columns
// without a table are those of the nearest tables that can hold them. Where
// more than one thing is possible it finds all of them, so that a rule about
// any of them bites.
//
// A column that comes out of a subquery, a function or a CTE is not found at
// the place that reads it: it was found where it left its table.
type resolver struct {
	catalog *catalog
	tables  map[relation]bool
	columns []column // in the order in which they were met, with doubles

	compared column // the first masked one whose values are compared, joined, grouped or sorted by
	work     *work
	fields   map[*pg.ColumnRef]bool      // of names behind a dot: whether it is a column for certain, and no call (see dotted)
	outputs  map[*pg.SelectStmt][]string // columns that come out of a query for certain
	secret   int                         // how many columns were met that are named as passwords are
	params   []int                       // parameters that meet a masked column: 1 is $1
	literals []int                       // where literals begin that meet one
}

// column is one that a statement touches; "*" is any of its relation's.
type column struct {
	of   relation
	name string
}

func (c column) String() string { return qualified(c.of.String(), c.name) }

// scope is what names mean at one place. An inner one hides an outer one.
type scope struct {
	outer *scope
	ctes  map[string][]string // and the columns that each has for certain
	items []item
}

// item is something in FROM, or the target of a change.
type item struct {
	name    string     // by which its columns can be qualified
	of      []relation // that it may be; none for a subquery, a function, a CTE
	columns []string   // that it has for certain, besides those of its relation
	renamed bool       // its columns have names of the statement's own
	only    bool       // it has no others than columns
}

// anything is what a construct stands for that is not understood here.
var anything = item{of: []relation{{"*", "*"}}, renamed: true}

// resolve walks a statement. Where it ran out of work, it did not find all.
func resolve(n *pg.Node, c *catalog, w *work) *resolver {
	r := &resolver{catalog: c, work: w, tables: map[relation]bool{}, fields: map[*pg.ColumnRef]bool{}, outputs: map[*pg.SelectStmt][]string{}}
	r.walk(n.ProtoReflect(), nil)
	return r
}

// walk visits every message, whatever its type: a node that a later parser
// adds is not skipped.
func (r *resolver) walk(m protoreflect.Message, s *scope) {
	if r.work.done() {
		return
	}
	switch n := m.Interface().(type) {
	case *pg.SelectStmt:
		r.query(n, s)
	case *pg.InsertStmt:
		r.insert(n, s)
	case *pg.UpdateStmt:
		r.update(n, s)
	case *pg.DeleteStmt:
		r.remove(n, s)
	case *pg.MergeStmt:
		r.merge(n, s)
	case *pg.RangeVar:
		r.table(n)
	case *pg.ColumnRef:
		r.reference(n, s)
	case *pg.ConstraintsSetStmt: // its names are of constraints
	default:
		if !r.utility(m, s) && !r.expression(m, s) {
			r.children(m, s)
		}
	}
}

// children visits what is in a message, but for the fields named.
func (r *resolver) children(m protoreflect.Message, s *scope, without ...protoreflect.Name) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.Message() == nil || slices.Contains(without, fd.Name()):
		case fd.IsList():
			for i := range v.List().Len() {
				r.walk(v.List().Get(i).Message(), s)
			}
		default:
			r.walk(v.Message(), s)
		}
		return true
	})
}

func (r *resolver) node(m proto.Message, s *scope) {
	if p := m.ProtoReflect(); p.IsValid() {
		r.walk(p, s)
	}
}

func (r *resolver) nodes(list []*pg.Node, s *scope) {
	for _, n := range list {
		r.node(n, s)
	}
}

// with visits the queries of a WITH. Without RECURSIVE, each sees those before
// it alone: in WITH t AS (SELECT * FROM t) the inner t is a table.
func (r *resolver) with(w *pg.WithClause, outer *scope) *scope {
	s := &scope{outer: outer, ctes: map[string][]string{}}
	for _, n := range w.GetCtes() {
		if w.Recursive {
			s.ctes[n.GetCommonTableExpr().GetCtename()] = nil
		}
	}
	for _, n := range w.GetCtes() {
		r.node(n, s)
		cte := n.GetCommonTableExpr()
		s.ctes[cte.GetCtename()] = r.named(cte.GetAliascolnames(), cte.GetCtequery().GetSelectStmt())
	}
	return s
}

func (r *resolver) query(n *pg.SelectStmt, outer *scope) {
	base := r.with(n.WithClause, outer)
	s := &scope{outer: base}
	for _, f := range n.FromClause {
		s.items = append(s.items, r.from(f, base, s.items)...)
	}
	r.compare(s, n.GroupClause, n.SortClause, n.DistinctClause)
	if len(n.DistinctClause) > 0 {
		r.compare(s, n.TargetList)
	}
	// FOR UPDATE OF names what FROM has named.
	r.children(n.ProtoReflect(), s, "with_clause", "from_clause", "locking_clause", "group_clause", "sort_clause", "distinct_clause")
	r.outputs[n] = r.output(n, s)
}

// from visits one item of FROM. Only a LATERAL subquery, or a function, sees
// the items before it.
func (r *resolver) from(n *pg.Node, base *scope, before []item) []item {
	lateral := &scope{outer: base, items: before}
	switch {
	case n.GetRangeVar() != nil:
		return []item{r.source(n.GetRangeVar(), base)}
	case n.GetRangeSubselect() != nil:
		f := n.GetRangeSubselect()
		if !f.Lateral {
			lateral = base
		}
		r.node(f.Subquery, lateral)
		return []item{{name: f.GetAlias().GetAliasname(), columns: r.named(f.GetAlias().GetColnames(), f.Subquery.GetSelectStmt())}}
	case n.GetRangeFunction() != nil:
		r.children(n.GetRangeFunction().ProtoReflect(), lateral)
		return []item{{name: n.GetRangeFunction().GetAlias().GetAliasname(), columns: r.named(n.GetRangeFunction().GetAlias().GetColnames(), nil)}}
	case n.GetRangeTableFunc() != nil:
		r.children(n.GetRangeTableFunc().ProtoReflect(), lateral)
		return []item{{name: n.GetRangeTableFunc().GetAlias().GetAliasname()}}
	case n.GetJsonTable() != nil:
		r.children(n.GetJsonTable().ProtoReflect(), lateral)
		return []item{{name: n.GetJsonTable().GetAlias().GetAliasname()}}
	case n.GetRangeTableSample() != nil:
		r.nodes(n.GetRangeTableSample().Args, lateral)
		return r.from(n.GetRangeTableSample().Relation, base, before)
	case n.GetJoinExpr() != nil:
		return r.join(n.GetJoinExpr(), base, before)
	}
	r.node(n, lateral)
	r.tables[anything.of[0]] = true
	r.touchItem(anything, "*")
	return []item{anything}
}

// join visits both sides, and its condition, which sees them alone. An alias
// of the join hides the names within.
func (r *resolver) join(n *pg.JoinExpr, base *scope, before []item) []item {
	left := r.from(n.Larg, base, before)
	r.work.spend(len(before) + len(left))
	right := r.from(n.Rarg, base, slices.Concat(before, left))
	both := slices.Concat(left, right)
	if n.Quals != nil {
		r.node(n.Quals, &scope{outer: base, items: both})
	}
	mark := len(r.columns)
	for _, u := range n.UsingClause {
		for _, side := range [][]item{left, right} {
			r.unqualified(u.GetString_().GetSval(), &scope{items: side})
		}
	}
	if n.IsNatural {
		r.natural(left, right)
	}
	r.comparing(mark)
	whole := func(a *pg.Alias) item {
		j := item{name: a.Aliasname, renamed: len(a.Colnames) > 0, columns: r.named(a.Colnames, nil)}
		for _, i := range both {
			r.work.spend(1 + len(i.of))
			j.of, j.renamed = append(j.of, i.of...), j.renamed || i.renamed
		}
		return j
	}
	if n.JoinUsingAlias != nil { // it has those columns alone
		merged := whole(n.JoinUsingAlias)
		merged.columns, merged.only = r.named(n.UsingClause, nil), true
		both = append(both, merged)
	}
	if n.Alias != nil {
		j := whole(n.Alias)
		if !j.renamed {
			j.columns = r.columnsOf(both)
		}
		return []item{j}
	}
	return both
}

// natural touches the columns that both sides have. Where one side's are not
// known they may be any of the other's.
func (r *resolver) natural(left, right []item) {
	for _, side := range [][2][]item{{left, right}, {right, left}} {
		for _, i := range side[0] {
			for _, rel := range i.of {
				if known := r.catalog.columns(rel); len(known) > 0 && !i.renamed {
					for _, c := range known {
						if r.work.spend(len(side[1])) && r.mayHold(side[1], c) {
							r.touch(rel, c)
						}
					}
					continue
				}
				r.touch(rel, "*")
			}
		}
	}
}

func (r *resolver) mayHold(items []item, name string) bool {
	return slices.ContainsFunc(items, func(i item) bool {
		return i.renamed || len(i.of) == 0 || slices.ContainsFunc(i.of, func(rel relation) bool {
			known := r.catalog.columns(rel)
			return len(known) == 0 || slices.Contains(known, name)
		})
	})
}

// source is a table in FROM, or a name that WITH gave.
func (r *resolver) source(n *pg.RangeVar, s *scope) item {
	i := item{name: n.Relname, renamed: len(n.GetAlias().GetColnames()) > 0, columns: r.named(n.GetAlias().GetColnames(), nil)}
	if a := n.GetAlias().GetAliasname(); a != "" {
		i.name = a
	}
	if columns, is := r.cte(n.Relname, s); n.Schemaname == "" && is {
		if !i.renamed {
			i.columns = columns
		}
		return i
	}
	i.of = r.table(n)
	return i
}

func (r *resolver) cte(name string, s *scope) (columns []string, is bool) {
	for ; s != nil && r.work.spend(1); s = s.outer {
		if columns, is = s.ctes[name]; is {
			return columns, true
		}
	}
	return nil, false
}

// table is what a name of a table may be.
func (r *resolver) table(n *pg.RangeVar) []relation {
	found := r.catalog.find(n.Schemaname, n.Relname)
	for _, rel := range found {
		r.tables[rel] = true
		r.behind(rel)
	}
	return found
}

// behind finds what is met through a relation.
func (r *resolver) behind(rel relation) {
	t := r.catalog.tables[rel]
	if t == nil {
		return
	}
	for _, of := range t.behind {
		r.tables[of] = true
	}
	if r.work.spend(len(t.read)) {
		r.columns = append(r.columns, t.read...)
	}
}

func (r *resolver) touch(of relation, name string) {
	if t := r.catalog.tables[of]; t != nil {
		for _, same := range t.same {
			r.touchOwn(same, name, t.columns)
		}
	}
	r.touchOwn(of, name, r.catalog.columns(of))
}

func (r *resolver) touchOwn(of relation, name string, known []string) {
	if name != "*" || len(known) == 0 || len(known) > maxExpanded {
		known = []string{name}
	}
	if !r.work.spend(len(known)) {
		return
	}
	for _, c := range known {
		r.columns = append(r.columns, column{of, c})
	}
}

// maxExpanded bounds what one star becomes; of wider tables it stays a star,
// which every rule takes for any column.
const maxExpanded = 200

func (r *resolver) touchItem(i item, name string) {
	if i.renamed {
		name = "*"
	}
	for _, rel := range i.of {
		r.touch(rel, name)
	}
}

// reference is a column, a whole row or all columns.
func (r *resolver) reference(n *pg.ColumnRef, s *scope) {
	parts := make([]string, len(n.Fields))
	for i, f := range n.Fields {
		if parts[i] = f.GetString_().GetSval(); f.GetAStar() != nil {
			parts[i] = "*"
		}
	}
	last := parts[len(parts)-1]
	if namesPassword(last) {
		r.secret++
	}
	switch {
	case len(parts) > 2: // schema.table.column
		i := item{of: r.catalog.find(parts[len(parts)-3], parts[len(parts)-2])}
		r.field(n, r.touchField(i, last))
	case len(parts) == 2:
		r.field(n, r.qualified(parts[0], last, s))
	case last == "*":
		for ; s != nil && len(s.items) == 0; s = s.outer {
		}
		if s != nil {
			for _, i := range s.items {
				r.touchItem(i, "*")
			}
		}
	default:
		r.unqualified(last, s)
	}
}

// qualified reports whether the name is that of a column for certain.
func (r *resolver) qualified(of, name string, s *scope) (certain bool) {
	for ; s != nil && r.work.spend(1+len(s.items)); s = s.outer {
		found := false
		for _, i := range s.items {
			if i.name == of {
				certain = r.touchField(i, name) && (certain || !found)
				found = true
			}
		}
		if found {
			return certain
		}
	}
	r.touch(relation{"", "*"}, name) // the server knows no such table either
	return false
}

// unqualified looks for the nearest tables that hold the column. Those whose
// columns are not known may hold it as well; if nobody is known to, it may be
// a column that is newer than the plan, of any table in sight. It is the whole
// row of what has that name only where no table holds such a column, further
// out neither.
func (r *resolver) unqualified(name string, s *scope) {
	row, from := false, s
	for ; s != nil && r.work.spend(1+len(s.items)); s = s.outer {
		held := false
		for _, i := range s.items {
			if i.name == name {
				r.touchItem(i, "*")
				row = true
			}
			held = r.heldBy(i, name) || held
		}
		if held {
			return
		}
	}
	for s = from; s != nil && !row; s = s.outer {
		for _, i := range s.items {
			r.touchItem(i, name)
		}
	}
}

// heldBy touches the column in those of the item's relations that have it or
// may, and reports whether one is known to.
func (r *resolver) heldBy(i item, name string) (known bool) {
	for _, rel := range i.of {
		columns := r.catalog.columns(rel)
		r.work.spend(1)
		switch {
		case i.renamed:
			r.touch(rel, "*")
		case len(columns) == 0:
			r.touch(rel, name)
		case slices.Contains(columns, name):
			r.touch(rel, name)
			known = true
		}
	}
	return known
}

func (r *resolver) tableNames() []string {
	out := make([]string, 0, len(r.tables))
	for rel := range r.tables {
		out = append(out, rel.String())
	}
	return uniq(out)
}

func (r *resolver) columnNames() []string {
	out := make([]string, 0, len(r.columns))
	for _, c := range r.columns {
		out = append(out, c.String())
	}
	return uniq(out)
}
