package postgres

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// Where a thing has no column of that name, PostgreSQL takes the name behind a
// dot for a function of it: u.to_json is to_json(u), and ('seq').nextval is
// nextval('seq'). So a name behind a dot counts as a call, unless it is that of
// a column for certain.

// systemColumns are those that every table has besides its own.
var systemColumns = []string{"tableoid", "ctid", "xmin", "xmax", "cmin", "cmax"}

// dotted lists the names in a message by which a function may be called where
// none is called as usual. Besides those behind dots these are the keywords of
// the parser's own grammar: an older server has none of them, and takes them
// for names of functions.
func (r *resolver) dotted(m proto.Message) (names []string) {
	switch n := m.(type) {
	case *pg.ColumnRef:
		if len(n.Fields) > 1 && !r.fields[n] {
			names = append(names, n.Fields[len(n.Fields)-1].GetString_().GetSval())
		}
	case *pg.A_Indirection:
		for _, f := range n.Indirection {
			names = append(names, f.GetString_().GetSval())
		}
	default:
		if name := grammarCall(m); name != "" {
			return []string{name}
		}
	}
	return slices.DeleteFunc(names, func(name string) bool { return name == "" })
}

// grammarCall is the name of a construct that PostgreSQL 16 or 17 brought and
// that looks like the call of a function.
func grammarCall(m proto.Message) string {
	switch n := m.(type) {
	case *pg.JsonFuncExpr:
		return map[pg.JsonExprOp]string{pg.JsonExprOp_JSON_EXISTS_OP: "json_exists", pg.JsonExprOp_JSON_QUERY_OP: "json_query", pg.JsonExprOp_JSON_VALUE_OP: "json_value"}[n.Op]
	case *pg.JsonParseExpr:
		return "json"
	case *pg.JsonScalarExpr:
		return "json_scalar"
	case *pg.JsonSerializeExpr:
		return "json_serialize"
	case *pg.JsonObjectConstructor:
		return "json_object"
	case *pg.JsonArrayConstructor, *pg.JsonArrayQueryConstructor:
		return "json_array"
	case *pg.JsonObjectAgg:
		return "json_objectagg"
	case *pg.JsonArrayAgg:
		return "json_arrayagg"
	case *pg.MergeSupportFunc:
		return "merge_action"
	}
	return ""
}

// keywordColumn is a keyword of the parser's own grammar as the name that it
// is to a server before PostgreSQL 16: of a column, or of a whole row. Nil for
// every other call.
func keywordColumn(n *pg.FuncCall) *pg.ColumnRef {
	if n.Funcformat != pg.CoercionForm_COERCE_SQL_SYNTAX || lastName(n.Funcname) != "system_user" {
		return nil
	}
	return &pg.ColumnRef{Fields: n.Funcname[len(n.Funcname)-1:], Location: n.Location}
}

// mayBeCalled counts a name as a call if a function has it.
func (f *facts) mayBeCalled(name string) {
	harmless, own := builtins[name]
	if !own && !f.names.catalog.functions[name] {
		return
	}
	f.called(name, own && harmless && !f.names.catalog.called[name])
}

// touchField touches what a name behind an item may be, and reports whether it
// is a column for certain. Of a function it is the whole row; one of the
// server's own catalogs holds nothing of a customer's tables.
func (r *resolver) touchField(i item, name string) (certain bool) {
	r.touchItem(i, name)
	certain = name == "*" || r.certainly(i, name)
	if !certain && !i.catalogs() && r.mayCall(i, name) {
		r.touchItem(i, "*")
	}
	return certain
}

// catalogs reports whether an item is of the server's own relations alone.
func (i item) catalogs() bool {
	return len(i.of) > 0 && !slices.ContainsFunc(i.of, func(r relation) bool { return r.schema != "pg_catalog" && r.schema != "information_schema" })
}

// field notes of a reference whether it is to a column for certain: in every
// place in which it was met.
func (r *resolver) field(n *pg.ColumnRef, certain bool) {
	before, met := r.fields[n]
	r.fields[n] = certain && (before || !met)
}

// certainly reports whether the item has the column, whatever it is.
func (r *resolver) certainly(i item, name string) bool {
	if slices.Contains(i.columns, name) {
		return true
	}
	return !i.renamed && !i.only && len(i.of) > 0 && !slices.ContainsFunc(i.of, func(rel relation) bool { return !slices.Contains(r.catalog.columns(rel), name) })
}

// mayCall reports whether a name behind one of the item's relations may be a
// function of its row.
func (r *resolver) mayCall(i item, name string) bool {
	if slices.Contains(systemColumns, name) {
		return false
	}
	_, own := builtins[name]
	return own || r.catalog.functions[name] || slices.ContainsFunc(i.of, func(rel relation) bool { return len(r.catalog.columns(rel)) > 0 })
}

// named are the columns that an alias names, or else those of a query.
func (r *resolver) named(alias []*pg.Node, query *pg.SelectStmt) (names []string) {
	if len(alias) == 0 {
		return r.outputs[query]
	}
	for _, n := range alias {
		names = append(names, n.GetString_().GetSval())
	}
	return names
}

// columnsOf are the columns that items have for certain.
func (r *resolver) columnsOf(items []item) (names []string) {
	for _, i := range items {
		if !r.work.spend(1 + len(i.columns)) {
			return nil
		}
		if names = append(names, i.columns...); !i.renamed && !i.only && len(i.of) == 1 {
			names = append(names, r.catalog.columns(i.of[0])...)
		}
	}
	return names
}

// output are the columns that come out of a query for certain.
func (r *resolver) output(n *pg.SelectStmt, s *scope) (names []string) {
	if n.Larg != nil {
		return r.outputs[n.Larg]
	}
	for _, t := range n.TargetList {
		target := t.GetResTarget()
		fields := target.GetVal().GetColumnRef().GetFields()
		switch {
		case target.GetName() != "":
			names = append(names, target.GetName())
		case len(fields) == 1 && fields[0].GetAStar() != nil:
			names = append(names, r.columnsOf(s.items)...)
		case len(fields) > 1 && fields[len(fields)-1].GetAStar() != nil:
			r.work.spend(len(s.items))
			of := fields[len(fields)-2].GetString_().GetSval()
			names = append(names, r.columnsOf(slices.DeleteFunc(slices.Clone(s.items), func(i item) bool { return i.name != of }))...)
		case len(fields) > 0:
			names = append(names, fields[len(fields)-1].GetString_().GetSval())
		}
	}
	return names
}
