package postgres

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// changed is what the target of a change is called in its conditions. It is a
// table even where WITH gave its name to something else.
func changed(n *pg.RangeVar, of []relation) []item {
	name := n.GetRelname()
	if a := n.GetAlias().GetAliasname(); a != "" {
		name = a
	}
	return []item{{name: name, of: of}, {name: "excluded", of: of}, {name: "old", of: of}, {name: "new", of: of}}
}

func (r *resolver) insert(n *pg.InsertStmt, outer *scope) {
	base := r.with(n.WithClause, outer)
	of := r.table(n.Relation)
	names := r.written(n.Cols, of, n.SelectStmt != nil)
	if n.SelectStmt != nil {
		r.node(n.SelectStmt, base)
		r.withholdRows(n.SelectStmt.GetSelectStmt(), of, names)
	}
	s := &scope{outer: base, items: changed(n.Relation, of)}
	if c := n.OnConflictClause; c != nil {
		r.set(c.TargetList, of, s)
		r.children(c.ProtoReflect(), s, "target_list")
	}
	r.nodes(n.ReturningList, s)
}

// written touches the columns that an INSERT or a COPY names; without a word
// it is all of them, in their order.
func (r *resolver) written(list []*pg.Node, of []relation, rows bool) (names []string) {
	for _, n := range list {
		name := n.GetResTarget().GetName() + n.GetString_().GetSval()
		names = append(names, name)
		for _, rel := range of {
			r.touch(rel, name)
		}
	}
	if len(list) > 0 || !rows {
		return names
	}
	for _, rel := range of {
		r.touch(rel, "*")
		names = r.catalog.columns(rel)
	}
	return names
}

// set visits assignments.
func (r *resolver) set(list []*pg.Node, of []relation, s *scope) {
	for _, n := range list {
		t := n.GetResTarget()
		for _, rel := range of {
			r.touch(rel, t.GetName())
		}
		r.children(n.ProtoReflect(), s)
		if t.GetVal() != nil && (r.anyMasked(of, t.GetName()) || namesPassword(t.GetName())) {
			r.withhold(t.Val)
		}
	}
}

func (r *resolver) update(n *pg.UpdateStmt, outer *scope) {
	base := r.with(n.WithClause, outer)
	of := r.table(n.Relation)
	s := &scope{outer: base}
	for _, f := range n.FromClause {
		s.items = append(s.items, r.from(f, base, s.items)...)
	}
	s.items = append(s.items, changed(n.Relation, of)...)
	r.set(n.TargetList, of, s)
	r.children(n.ProtoReflect(), s, "relation", "with_clause", "from_clause", "target_list")
}

func (r *resolver) remove(n *pg.DeleteStmt, outer *scope) {
	base := r.with(n.WithClause, outer)
	s := &scope{outer: base}
	for _, f := range n.UsingClause {
		s.items = append(s.items, r.from(f, base, s.items)...)
	}
	s.items = append(s.items, changed(n.Relation, r.table(n.Relation))...)
	r.children(n.ProtoReflect(), s, "relation", "with_clause", "using_clause")
}

func (r *resolver) merge(n *pg.MergeStmt, outer *scope) {
	base := r.with(n.WithClause, outer)
	of := r.table(n.Relation)
	s := &scope{outer: base, items: append(r.from(n.SourceRelation, base, nil), changed(n.Relation, of)...)}
	for _, w := range n.MergeWhenClauses {
		arm := w.GetMergeWhenClause()
		if arm.GetCommandType() != pg.CmdType_CMD_INSERT {
			r.set(arm.GetTargetList(), of, s)
			r.children(arm.ProtoReflect(), s, "target_list")
			continue
		}
		names := r.written(arm.TargetList, of, true)
		r.children(arm.ProtoReflect(), s, "target_list")
		r.withholdRow(arm.Values, of, names)
	}
	r.children(n.ProtoReflect(), s, "relation", "with_clause", "source_relation", "merge_when_clauses")
}

// utility visits statements that name tables in ways of their own. It is
// false for all other messages.
func (r *resolver) utility(m protoreflect.Message, s *scope) bool {
	switch n := m.Interface().(type) {
	case *pg.CopyStmt:
		r.copy(n, s)
	case *pg.IndexStmt:
		of := r.table(n.Relation)
		r.children(m, &scope{outer: s, items: changed(n.Relation, of)}, "relation")
	case *pg.AlterTableStmt:
		r.reshape(m, n.Relation, s)
	case *pg.RenameStmt:
		if n.Relation == nil {
			return false
		}
		r.reshape(m, n.Relation, s)
	case *pg.DropStmt:
		for _, o := range n.Objects {
			r.object(n.RemoveType, o)
		}
	case *pg.CommentStmt:
		r.object(n.Objtype, n.Object)
	default:
		return false
	}
	return true
}

func (r *resolver) copy(n *pg.CopyStmt, s *scope) {
	if n.Relation != nil {
		of := r.table(n.Relation)
		r.written(n.Attlist, of, true)
		s = &scope{outer: s, items: changed(n.Relation, of)}
	}
	r.children(n.ProtoReflect(), s, "relation", "attlist")
}

// reshape is an ALTER: it touches all of the table.
func (r *resolver) reshape(m protoreflect.Message, n *pg.RangeVar, s *scope) {
	of := r.table(n)
	for _, rel := range of {
		r.touch(rel, "*")
	}
	r.children(m, &scope{outer: s, items: changed(n, of)}, "relation")
}

// object is a name in DROP or COMMENT ON: a list of words.
func (r *resolver) object(kind pg.ObjectType, n *pg.Node) {
	var words []string
	for _, w := range n.GetList().GetItems() {
		words = append(words, w.GetString_().GetSval())
	}
	name := ""
	switch kind {
	case pg.ObjectType_OBJECT_TABLE, pg.ObjectType_OBJECT_VIEW, pg.ObjectType_OBJECT_MATVIEW, pg.ObjectType_OBJECT_FOREIGN_TABLE,
		pg.ObjectType_OBJECT_SEQUENCE, pg.ObjectType_OBJECT_INDEX:
		name = "*"
	case pg.ObjectType_OBJECT_COLUMN:
		if len(words) > 1 {
			words, name = words[:len(words)-1], words[len(words)-1]
		}
	}
	if name == "" || len(words) == 0 {
		return
	}
	v := &pg.RangeVar{Relname: words[len(words)-1]}
	if len(words) > 1 {
		v.Schemaname = words[len(words)-2]
	}
	for _, rel := range r.table(v) {
		r.touch(rel, name)
	}
}

// expression visits what compares, and what may meet a masked column. It is
// false for all other messages.
func (r *resolver) expression(m protoreflect.Message, s *scope) bool {
	mark := met{len(r.columns), r.secret}
	switch n := m.Interface().(type) {
	case *pg.A_Expr:
		r.children(m, s)
		r.meets(n, mark, comparing(n), true)
	case *pg.CaseExpr:
		r.children(m, s)
		r.meets(n, mark, n.Arg != nil, n.Arg != nil)
	case *pg.FuncCall:
		if c := keywordColumn(n); c != nil {
			r.reference(c, s)
		}
		r.children(m, s)
		if r.meets(n, mark, false, true); takesPassword(lastName(n.Funcname)) {
			r.withhold(n)
		}
	case *pg.SubLink:
		r.children(m, s)
		r.meets(n, mark, n.Testexpr != nil, n.Testexpr != nil)
	case *pg.WindowDef:
		r.compare(s, n.PartitionClause, n.OrderClause)
		r.children(m, s, "partition_clause", "order_clause")
	case *pg.IndexElem:
		if n.Name != "" {
			r.unqualified(n.Name, s)
		}
		r.children(m, s)
	default:
		return false
	}
	return true
}

// compare visits expressions by whose values rows are grouped or sorted.
func (r *resolver) compare(s *scope, lists ...[]*pg.Node) {
	mark := len(r.columns)
	for _, l := range lists {
		r.nodes(l, s)
	}
	r.comparing(mark)
}

// comparing notes that what was met since the mark is compared.
func (r *resolver) comparing(mark int) {
	if found := r.columns[mark:]; r.compared.name == "" && r.work.spend(len(found)) {
		if i := slices.IndexFunc(found, func(c column) bool { return r.catalog.masked(c) != "" }); i >= 0 {
			r.compared = found[i]
		}
	}
}

// met is how much was met before: columns, and those named as passwords are.
type met struct{ columns, secret int }

// meets looks at the columns that were found within n.
func (r *resolver) meets(n proto.Message, before met, compares, withholds bool) {
	if compares {
		r.comparing(before.columns)
	}
	found := r.columns[before.columns:]
	if withholds && r.work.spend(len(found)) && (r.secret > before.secret || slices.ContainsFunc(found, func(c column) bool { return r.catalog.masked(c) != "" })) {
		r.withhold(n)
	}
}

func (r *resolver) anyMasked(of []relation, name string) bool {
	return slices.ContainsFunc(of, func(rel relation) bool { return r.catalog.masked(column{rel, name}) != "" })
}

// withholdRows looks at the rows of an INSERT.
func (r *resolver) withholdRows(n *pg.SelectStmt, of []relation, names []string) {
	for _, v := range n.GetValuesLists() {
		r.withholdRow(v.GetList().GetItems(), of, names)
	}
	var row []*pg.Node
	for _, t := range n.GetTargetList() {
		row = append(row, t.GetResTarget().GetVal())
	}
	r.withholdRow(row, of, names)
}

// withholdRow looks at the values for columns of these names, in their order.
func (r *resolver) withholdRow(values []*pg.Node, of []relation, names []string) {
	for i, v := range values {
		if v != nil && i < len(names) && (r.anyMasked(of, names[i]) || namesPassword(names[i])) {
			r.withhold(v)
		}
	}
}

// withhold marks the literals and parameters within n: they are, or are held
// against, values of a masked column.
func (r *resolver) withhold(n proto.Message) {
	if r.work.done() {
		return
	}
	walk(n.ProtoReflect(), func(m proto.Message) {
		r.work.spend(1)
		switch n := m.(type) {
		case *pg.ParamRef:
			r.params = append(r.params, int(n.Number))
		case *pg.A_Const:
			if n.GetBoolval() == nil && !n.Isnull {
				r.literals = append(r.literals, int(n.Location))
			}
		}
	})
}

// notComparing are the operators that make a new value of two.
var notComparing = []string{"+", "-", "*", "/", "%", "^", "||", "->", "->>", "#>", "#>>", "&", "|", "#"}

func comparing(n *pg.A_Expr) bool {
	return n.Kind != pg.A_Expr_Kind_AEXPR_OP || !slices.Contains(notComparing, lastName(n.Name))
}
