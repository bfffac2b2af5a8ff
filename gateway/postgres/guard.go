package postgres

import (
	"fmt"
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/postgres/backing"
)

// guardMasked refuses what would meet masked values where no view stands
// between. It answers with the masked tables that are changed by their names
// alone, without a schema.
func guardMasked(stmts []statement, plan backing.Backing) (loose []string) {
	if len(plan.Masked) == 0 {
		return nil
	}
	for i := range stmts {
		g := guarded{plan: plan, temps: stmts[i].temps, work: stmts[i].names.work, loose: loose}
		walk(stmts[i].node.ProtoReflect(), g.visit)
		g.counts(stmts[i].op.Facts)
		if g.found != nil && stmts[i].op.Guard == nil {
			stmts[i].op.Guard = g.found
		}
		loose = g.loose
	}
	return loose
}

// maskedNotice is a sentence about statements that compare a masked column:
// they compare its mask, and find other rows than one may mean. Empty for most.
func maskedNotice(stmts []statement, c *catalog) string {
	for _, s := range stmts {
		if met := s.names.compared; met.name != "" {
			return fmt.Sprintf("%q of %s is masked for you: comparing it, or sorting and grouping by it, uses the mask, which is alike for different values.", c.masked(met), met.of)
		}
	}
	return ""
}

type guarded struct {
	plan  backing.Backing
	temps map[string]bool // see statement
	work  *work           // a statement within another is walked once more
	loose []string
	found *access.Decision
}

// temporary reports whether a name without a schema is that of a temporary
// table. It may be one of any that it is asked about.
func (g *guarded) temporary(schema, name string) bool {
	if schema == "" {
		g.loose = append(g.loose, name)
	}
	return schema == "" && g.temps[name]
}

func (g *guarded) deny(rule, say string) {
	if g.found == nil {
		g.found = &access.Decision{Verdict: access.Deny, Rule: rule, Say: say}
	}
}

// limits reports whether rows of some table are hidden.
func (g *guarded) limits() bool {
	return slices.ContainsFunc(g.plan.Masked, func(t backing.MaskedTable) bool { return t.Limited })
}

// conflict refuses ON CONFLICT DO UPDATE where it may meet a hidden row:
// PostgreSQL evaluates SET, WHERE, checks, generated columns and triggers on
// that row before it holds the view's condition against the outcome, so that
// which error comes tells what is in it.
func (g *guarded) conflict(n *pg.InsertStmt) {
	if n.GetOnConflictClause().GetAction() == pg.OnConflictAction_ONCONFLICT_UPDATE && g.limits() && !g.shownWhole(n.Relation) {
		g.deny("conflict-limited", "ON CONFLICT DO UPDATE is not allowed where rows are limited: PostgreSQL tries it on hidden rows, too, and its errors tell of them. Use UPDATE, or DO NOTHING.")
	}
}

// shownWhole reports whether a table is for certain one whose rows are all
// shown. Without its schema it is so by its name: no view takes that; see
// names.
func (g *guarded) shownWhole(r *pg.RangeVar) bool {
	of := func(schema, table string) bool {
		return r.GetRelname() == table && (r.GetSchemaname() == schema || r.GetSchemaname() == "")
	}
	return slices.ContainsFunc(g.plan.Tables, func(t backing.Table) bool { return of(t.Schema, t.Name) }) &&
		!slices.ContainsFunc(g.plan.Masked, func(t backing.MaskedTable) bool { return t.Limited && of(t.Schema, t.Table) })
}

// names refuses to give a view the name of a table of the role, where a
// temporary one would be met in the table's place, and lead to hidden rows.
func (g *guarded) names(view string) {
	if g.limits() && slices.ContainsFunc(g.plan.Tables, func(t backing.Table) bool { return t.Name == view }) {
		g.deny("view-limited", "Where rows are limited, a view can't have the name of a table of the role. Give it another name.")
	}
}

// statistics hold values of columns.
var statistics = []string{"pg_statistic", "pg_stats", "pg_statistic_ext_data", "pg_stats_ext", "pg_stats_ext_exprs", "pg_stat_statements"}

// counts refuses what PostgreSQL counts and locks while it runs, where rows are
// limited: it meets a hidden row by an index before it holds the view's
// condition against it, so that one more row that was fetched, or one more
// predicate lock of a serializable transaction, tells that there is one.
func (g *guarded) counts(f access.Facts) {
	called, _ := f["functions"].([]string)
	tables, _ := f["tables"].([]string)
	if !g.limits() || !slices.ContainsFunc(called, countingFunction) && !slices.ContainsFunc(tables, func(t string) bool { return countingView(bareName(t)) }) {
		return
	}
	g.deny("counts-limited", "What PostgreSQL counts (pg_stat_…) and locks (pg_locks) is not shown where rows are limited: it also tells of hidden ones. pg_stat_activity is.")
}

func countingFunction(name string) bool {
	return name == "pg_lock_status" || strings.HasPrefix(name, "pg_stat_get_") && name != "pg_stat_get_activity"
}

func countingView(name string) bool {
	return name == "pg_locks" || strings.HasPrefix(name, "pg_stat") && !slices.Contains([]string{"pg_stat_activity", "pg_stat_ssl", "pg_stat_gssapi"}, name)
}

func (g *guarded) visit(m proto.Message) {
	g.definition(m)
	switch n := m.(type) {
	case *pg.ExplainStmt: // the planner's statistics are of all rows, and its guesses tell values of hidden ones
		if g.limits() {
			g.deny("explain-limited", "EXPLAIN is not allowed where rows are limited: what the planner expects also rests on the hidden ones.")
		}
	case *pg.ListenStmt: // who sends a notification knows no masks, and often puts the whole changed row in it
		g.deny("listen-masked", "LISTEN is not allowed where columns are masked: notifications may carry their values.")
	case *pg.RangeVar:
		if slices.Contains(statistics, n.Relname) && n.Schemaname != "information_schema" || n.Schemaname == "pg_toast" {
			g.deny("statistics-masked", "Statistics of columns, and where PostgreSQL keeps long values, are not shown where columns are masked.")
		}
	case *pg.UpdateStmt:
		g.written(n.Relation, n)
	case *pg.DeleteStmt:
		g.written(n.Relation, n)
	case *pg.MergeStmt:
		g.written(n.Relation, n)
	case *pg.InsertStmt: // what it selects is read through views
		g.conflict(n)
		for _, r := range n.ReturningList {
			g.written(n.Relation, r)
		}
		if n.OnConflictClause != nil {
			g.written(n.Relation, n.OnConflictClause)
		}
	}
}

// written refuses to read masked columns of the table that a statement
// changes: there the table itself is met. Setting them names no column so.
func (g *guarded) written(target *pg.RangeVar, in proto.Message) {
	i := slices.IndexFunc(g.plan.Masked, func(t backing.MaskedTable) bool {
		return t.Table == target.GetRelname() && (target.GetSchemaname() == "" || target.GetSchemaname() == t.Schema)
	})
	if i < 0 || g.temporary(target.GetSchemaname(), target.GetRelname()) || g.plan.Masked[i].Limited { // which is changed through its view
		return
	}
	names := []string{target.Relname, "old", "new"} // these two from PostgreSQL 18 on
	if a := target.GetAlias().GetAliasname(); a != "" {
		names[0] = a
	}
	known := g.columns(g.plan.Masked[i])
	if g.work.done() {
		g.deny("masked-write", "The statement changes masked tables in too many places within one another; split it.")
		return
	}
	walk(in.ProtoReflect(), func(m proto.Message) {
		g.work.spend(1)
		c, ok := m.(*pg.ColumnRef)
		if f, is := m.(*pg.FuncCall); is {
			c = keywordColumn(f)
			ok = c != nil
		}
		if ok && readsMasked(c, names, g.plan.Masked[i], known) {
			g.deny("masked-write", "A statement that changes a masked table can't read its masked columns, nor all of its columns at once; name the others.")
		}
	})
}

// columns are those of a masked table; none if they are not known.
func (g *guarded) columns(t backing.MaskedTable) []string {
	i := slices.IndexFunc(g.plan.Tables, func(o backing.Table) bool { return o.Schema == t.Schema && o.Name == t.Table })
	if i < 0 {
		return nil
	}
	return g.plan.Tables[i].Columns
}

// readsMasked reports whether a reference may be to a masked column of the
// table, to its whole row or to all of its columns. A name behind the table's
// that is none of its columns is a function of its row.
func readsMasked(c *pg.ColumnRef, names []string, t backing.MaskedTable, known []string) bool {
	last := c.Fields[len(c.Fields)-1]
	column := last.GetString_().GetSval()
	if len(c.Fields) > 1 {
		if before := c.Fields[len(c.Fields)-2].GetString_().GetSval(); !slices.Contains(names, before) {
			return false
		}
	} else if slices.Contains(names, column) {
		return true // the whole row
	}
	if len(c.Fields) > 1 && !slices.Contains(known, column) && !slices.Contains(systemColumns, column) {
		if _, own := builtins[column]; own || len(known) > 0 {
			return true
		}
	}
	return last.GetAStar() != nil || slices.ContainsFunc(t.Columns, func(m backing.MaskedColumn) bool { return m.Name == column })
}
