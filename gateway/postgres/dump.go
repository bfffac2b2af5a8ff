package postgres

import (
	"fmt"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// What pg_dump says and the grant's role could not do as it stands: it empties
// the search path, copies tables where there are views, and locks tables, for
// which PostgreSQL wants a right on the whole table.

// harmlessConfig reports whether a call of set_config does no more than a SET
// that is allowed, or empties the search path: then names without a schema lead
// nowhere, and those with one are led to the views.
func harmlessConfig(n *pg.FuncCall) bool {
	if len(n.Args) != 3 || n.AggFilter != nil || n.Over != nil {
		return false
	}
	name, ok := constant(n.Args[0])
	if !ok {
		return false
	}
	if strings.EqualFold(name, "search_path") {
		value, ok := constant(n.Args[1])
		return ok && value == ""
	}
	return settable[strings.ToLower(name)]
}

func constant(n *pg.Node) (string, bool) {
	s, ok := n.GetAConst().GetVal().(*pg.A_Const_Sval)
	if !ok || n.GetAConst().GetIsnull() {
		return "", false
	}
	return s.Sval.GetSval(), true
}

// copyOfView makes COPY of a masked table one of what its view shows, which is
// all that PostgreSQL copies of a view.
func (r *rewriter) copyOfView(n *pg.CopyStmt) {
	rel := n.GetRelation()
	if rel == nil || n.IsFrom || rel.Catalogname != "" {
		return
	}
	t, ok := r.find(rel.Schemaname, rel.Relname)
	if !ok {
		return
	}
	from := int(rel.Location)
	end, ok := endOfCopied(r.text, from)
	if !ok {
		return // PostgreSQL will say that it can't copy from a view
	}
	source := quote(rel.Relname) // by the search path, as it would be found: a temporary table may stand before
	if rel.Schemaname != "" {
		source = quote(t.MaskSchema) + "." + source
	}
	columns := "*"
	if len(n.Attlist) > 0 {
		var names []string
		for _, a := range n.Attlist {
			names = append(names, quote(a.GetString_().GetSval()))
		}
		columns = strings.Join(names, ", ")
	}
	r.copied = rel
	r.edits = append(r.edits, edit{from, end, "(SELECT " + columns + " FROM " + source + ")"})
}

// endOfCopied is where name and columns behind a COPY end: before its TO.
func endOfCopied(text string, from int) (int, bool) {
	scan, err := pg.Scan(text[from:])
	if err != nil {
		return 0, false
	}
	end := 0
	for _, t := range scan.Tokens {
		switch t.Token {
		case pg.Token_TO:
			return from + end, end > 0
		case pg.Token_SQL_COMMENT, pg.Token_C_COMMENT:
		default:
			end = int(t.End)
		}
	}
	return 0, false
}

// sharedLock is the mode that pg_dump takes.
const sharedLock = 1

// sharedLockOf finds a LOCK TABLE … IN ACCESS SHARE MODE. A cursor that is
// never read takes the same locks until the transaction's end, and wants no
// more than a right to read some column.
func sharedLockOf(text string, from int, n *pg.LockStmt) *byName {
	if n == nil || n.Mode != sharedLock || n.Nowait {
		return nil
	}
	first := len(text)
	for _, r := range n.Relations {
		first = min(first, int(r.GetRangeVar().GetLocation()))
	}
	scan, err := pg.Scan(text[from:])
	if err != nil {
		return nil
	}
	use := &byName{verb: "lock", at: from}
	for i, t := range scan.Tokens {
		at := from + int(t.Start)
		switch {
		case t.Token == pg.Token_ONLY && i+1 < len(scan.Tokens) && at < first:
			first = at
		case t.Token == pg.Token_ASCII_44: // ,
			use.also = append(use.also, edit{at, at + 1, " UNION ALL SELECT FROM "})
		case t.Token == pg.Token_IN_P:
			use.also = append(use.also, edit{at, len(text), ""})
		}
	}
	use.end = first
	return use
}

// takeLocks is what takes the place of LOCK TABLE. The name is new each time:
// one text may come twice in a transaction.
func (b *bridge) takeLocks() string {
	b.locks++
	return fmt.Sprintf(`DECLARE "tidegate lock %d" NO SCROLL CURSOR FOR SELECT FROM `, b.locks)
}

// restricted is the setting by which pg_dump guards itself against tables that
// somebody exchanges for views while it runs.
const restricted = "restrict_nonsystem_relation_kind"

// restriction finds pg_dump's way to set it, by which servers that do not know
// it are left alone: SELECT set_config(name, '…', false) FROM pg_settings WHERE
// name = '…'.
func restriction(n *pg.SelectStmt) (call *pg.FuncCall, value *pg.A_Const) {
	if len(n.TargetList) != 1 || len(n.FromClause) != 1 {
		return nil, nil
	}
	call = n.TargetList[0].GetResTarget().GetVal().GetFuncCall()
	from, where := n.FromClause[0].GetRangeVar(), n.WhereClause.GetAExpr()
	if call == nil || lastName(call.Funcname) != "set_config" || len(call.Args) != 3 || from.GetRelname() != "pg_settings" || where == nil {
		return nil, nil
	}
	name, _ := constant(where.Rexpr)
	if !isName(call.Args[0]) || !isName(where.Lexpr) || where.Kind != pg.A_Expr_Kind_AEXPR_OP || lastName(where.Name) != "=" || name != restricted {
		return nil, nil
	}
	if _, ok := constant(call.Args[1]); !ok {
		return nil, nil
	}
	return call, call.Args[1].GetAConst()
}

func isName(n *pg.Node) bool {
	c := n.GetColumnRef()
	return c != nil && columnName(c) == "name"
}

// allowViews takes the views out of the restriction: masks are views.
func (r *rewriter) allowViews(n *pg.SelectStmt) {
	_, value := restriction(n)
	if value == nil || len(r.masked) == 0 {
		return
	}
	at := int(value.Location)
	scan, err := pg.Scan(r.text[at:])
	if err != nil || len(scan.Tokens) == 0 || scan.Tokens[0].Token != pg.Token_SCONST {
		return
	}
	r.edits = append(r.edits, edit{at, at + int(scan.Tokens[0].End), "'foreign-table'"})
}
