package mint

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/tidegate/tidegate/access"
)

// A role may be given some rows of a table only. It then meets the table
// through a view, for reading and for writing, and has no right on the table
// itself. The condition is one that a reviewer can judge by reading it: it
// compares columns of that table with constants, by PostgreSQL's own operators.

const (
	maxCondition  = 1000 // bytes
	maxConditions = 100  // of one role
)

// scope is one condition and the tables that it is for.
type scope struct {
	tables *pattern // nil: each table of the role
	condition
}

// condition is a boolean expression in the form in which it is approved.
type condition struct {
	text    string
	columns []string
}

// rowScopes reads a role's conditions.
func rowScopes(role access.Role) ([]scope, error) {
	if len(role.Rows) > maxConditions {
		return nil, access.Errorf(access.CodeTooLarge, "Role %q has %d conditions on rows; at most %d are allowed.", role.Name, len(role.Rows), maxConditions)
	}
	var out []scope
	for _, r := range role.Rows {
		c, err := parseCondition(r.Where)
		if err != nil {
			return nil, err
		}
		s := scope{condition: c}
		if r.Tables != "" {
			tables, err := tablePatterns([]string{r.Tables})
			if err != nil {
				return nil, err
			}
			s.tables = &tables[0]
		}
		out = append(out, s)
	}
	return out, nil
}

func (s scope) String() string {
	if s.tables == nil {
		return "rows"
	}
	return "rows of " + s.tables.text
}

func (s scope) matches(r relation) bool { return s.tables == nil || s.tables.matches(r.Schema, r.Name) }

// lacks names the columns of the condition that the relation has not.
func (c condition) lacks(has func(column string) bool) (out []string) {
	for _, name := range c.columns {
		if !has(name) {
			out = append(out, name)
		}
	}
	return out
}

// parseCondition reads an expression with PostgreSQL's parser and brings it
// into that parser's own form, in which no comment and no layout is left.
func parseCondition(text string) (condition, error) {
	bad := func(why string) (condition, error) {
		return condition{}, access.Errorf(access.CodeInvalid, "The condition on rows %q is not understood: %s.", text, why)
	}
	if len(text) > maxCondition {
		return bad(fmt.Sprintf("it has %d bytes, at most %d are allowed", len(text), maxCondition))
	}
	const head = "SELECT WHERE "
	tree, err := pg.Parse(head + text)
	if err != nil {
		return bad(err.Error())
	}
	if len(tree.Stmts) != 1 || tree.Stmts[0].GetStmt().GetSelectStmt().GetWhereClause() == nil {
		return bad("want one expression such as region = 'eu'")
	}
	c := conditionShape{}
	sel := tree.Stmts[0].GetStmt().GetSelectStmt()
	c.look(sel.WhereClause)
	where := sel.WhereClause
	sel.WhereClause = nil
	if rest := (&pg.SelectStmt{LimitOption: sel.LimitOption, Op: sel.Op}); !proto.Equal(sel, rest) {
		return bad("something follows the expression")
	}
	switch {
	case c.why != "":
		return bad(c.why)
	case len(c.columns) == 0:
		return bad("it reads no column, so it is alike for each row")
	}
	sel.WhereClause, tree.Stmts[0].StmtLen = where, 0
	out, err := pg.Deparse(tree)
	if err != nil || !strings.HasPrefix(out, head) {
		return bad("it can't be written again")
	}
	slices.Sort(c.columns)
	return condition{strings.TrimPrefix(out, head), slices.Compact(c.columns)}, nil
}

// conditionShape looks at each node of an expression. What is not listed is
// refused: a subquery, a function that reads something else, a cast of a
// column, whose error would show the values of hidden rows.
type conditionShape struct {
	columns []string
	why     string // refused
}

func (c *conditionShape) refuse(format string, args ...any) {
	if c.why == "" {
		c.why = fmt.Sprintf(format, args...)
	}
}

func (c *conditionShape) look(nodes ...*pg.Node) {
	for _, n := range nodes {
		c.node(n)
	}
}

func (c *conditionShape) node(n *pg.Node) {
	switch x := n.GetNode().(type) {
	case nil, *pg.Node_AConst:
	case *pg.Node_ColumnRef:
		if name, ok := soleName(x.ColumnRef.Fields); ok {
			c.columns = append(c.columns, name)
		} else {
			c.refuse("write columns by their name alone")
		}
	case *pg.Node_BoolExpr:
		c.look(x.BoolExpr.Args...)
	case *pg.Node_NullTest:
		c.look(x.NullTest.Arg)
	case *pg.Node_BooleanTest:
		c.look(x.BooleanTest.Arg)
	case *pg.Node_CoalesceExpr:
		c.look(x.CoalesceExpr.Args...)
	case *pg.Node_List:
		c.look(x.List.Items...)
	case *pg.Node_AArrayExpr:
		c.look(x.AArrayExpr.Elements...)
	case *pg.Node_AExpr:
		c.operator(x.AExpr)
	case *pg.Node_TypeCast:
		c.cast(x.TypeCast)
	case *pg.Node_FuncCall:
		c.call(x.FuncCall)
	default:
		c.refuse("it may compare columns with constants, and holds something else (%s)", strings.TrimPrefix(fmt.Sprintf("%T", x), "*pg_query.Node_"))
	}
}

func (c *conditionShape) operator(e *pg.A_Expr) {
	if _, ok := soleName(e.Name); !ok {
		c.refuse("an operator is named with a schema")
	}
	switch e.Kind {
	case pg.A_Expr_Kind_AEXPR_OP, pg.A_Expr_Kind_AEXPR_OP_ANY, pg.A_Expr_Kind_AEXPR_OP_ALL, pg.A_Expr_Kind_AEXPR_DISTINCT,
		pg.A_Expr_Kind_AEXPR_NOT_DISTINCT, pg.A_Expr_Kind_AEXPR_IN, pg.A_Expr_Kind_AEXPR_LIKE, pg.A_Expr_Kind_AEXPR_ILIKE,
		pg.A_Expr_Kind_AEXPR_BETWEEN, pg.A_Expr_Kind_AEXPR_NOT_BETWEEN:
	default:
		c.refuse("an operator of it is not one of those that are known here")
	}
	c.look(e.Lexpr, e.Rexpr)
}

func (c *conditionShape) cast(e *pg.TypeCast) {
	before := len(c.columns)
	c.look(e.Arg)
	if len(c.columns) > before {
		c.refuse("a column is cast, and a cast that fails shows its value")
	}
	if !builtinName(e.GetTypeName().GetNames()) {
		c.refuse("a cast names a type that is not PostgreSQL's own")
	}
}

// plainFunctions are immutable, fail for no value, and read nothing else.
var plainFunctions = []string{
	"abs", "btrim", "char_length", "length", "lower", "ltrim", "mod", "octet_length", "reverse", "right", "left", "rtrim", "starts_with", "strpos", "upper",
}

func (c *conditionShape) call(f *pg.FuncCall) {
	name, _ := soleName(f.Funcname[len(f.Funcname)-1:])
	if !builtinName(f.Funcname) || !slices.Contains(plainFunctions, name) {
		c.refuse("the function %s is not one of those that are known to be harmless: %s", name, strings.Join(plainFunctions, ", "))
	}
	if f.AggStar || f.AggDistinct || f.AggWithinGroup || f.FuncVariadic || f.Over != nil || f.AggFilter != nil || len(f.AggOrder) > 0 {
		c.refuse("the function %s is called in a way that is not known here", name)
	}
	c.look(f.Args...)
}

func soleName(names []*pg.Node) (string, bool) {
	if len(names) != 1 || names[0].GetString_() == nil {
		return "", false
	}
	return names[0].GetString_().GetSval(), true
}

// builtinName reports whether a name can only be one of PostgreSQL's own: the
// views are made with pg_catalog alone in the search path.
func builtinName(names []*pg.Node) bool {
	return len(names) == 1 || len(names) == 2 && names[0].GetString_().GetSval() == "pg_catalog"
}

// both is the union of two lists of conditions, which all must hold.
func both(a, b []string) []string {
	out := slices.Concat(a, b)
	slices.Sort(out)
	return slices.Clip(slices.Compact(out))
}

// limited reports whether only some rows of the table are given.
func (t table) limited() bool { return len(t.Rows) > 0 }

// limitable reports whether the table still has what its conditions read.
func (t table) limitable() bool {
	for _, text := range t.Rows {
		c, err := parseCondition(text)
		if err != nil || len(c.lacks(t.has)) > 0 {
			return false
		}
	}
	return true
}

func (t table) has(name string) bool {
	return slices.ContainsFunc(t.Columns, func(c column) bool { return c.Name == name })
}

// limitColumns are the columns that the table's conditions read.
func (t table) limitColumns() (out []string) {
	for _, text := range t.Rows {
		if c, err := parseCondition(text); err == nil { // limitable, or it would not be here
			out = append(out, c.columns...)
		}
	}
	return out
}

// where is the tail of the view's query.
func (t table) where() string {
	if !t.limited() {
		return ""
	}
	return " where (" + strings.Join(t.Rows, ") and (") + ")"
}

// checkConditions asks the server whether each condition fits the columns'
// types. It reads no row. Tables alike are asked about once: each question
// takes a lock until the transaction ends.
func checkConditions(ctx context.Context, tx pgx.Tx, b body) error {
	asked := map[string]bool{}
	for _, t := range b.Tables {
		like := t.where()
		for _, name := range t.limitColumns() {
			i := slices.IndexFunc(t.Columns, func(c column) bool { return c.Name == name })
			like += "\n" + name + " " + t.Columns[i].Type
		}
		if !t.limited() || asked[like] {
			continue
		}
		asked[like] = true
		if _, err := tx.Exec(ctx, "select from "+ident(t.Schema, t.Name)+" as t"+t.where()+" limit 0"); err != nil {
			return &access.Error{Code: access.CodeInvalid, Cause: err, Message: fmt.Sprintf(
				"The rows of %s can't be limited by %s: %s.", t, strings.Join(t.Rows, " and "), said(err))}
		}
	}
	return nil
}

// limitsSummary says for people which tables are limited, by condition.
func (b body) limitsSummary() (out []string) {
	by := map[string][]string{}
	for _, t := range b.Tables {
		if t.limited() {
			by[strings.Join(t.Rows, " and ")] = append(by[strings.Join(t.Rows, " and ")], t.String())
		}
	}
	for _, where := range slices.Sorted(maps.Keys(by)) {
		out = append(out, fmt.Sprintf("only rows where %s: of %s", where, some(by[where], maxNamed)))
	}
	return out
}

// bothRows are the conditions of both: they all hold.
func bothRows(approved, today []access.RowScope) []access.RowScope {
	out := slices.Clone(approved)
	for _, r := range today {
		if !slices.Contains(out, r) {
			out = append(out, r)
		}
	}
	return out
}
