package postgres

import (
	"maps"
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/postgres/backing"
)

// A session can make views and tables of its own, temporary ones above all,
// and read others through them. What it made counts as all that went into it,
// for as long as the session lasts: whether a statement worked, whether a
// transaction was rolled back and what was dropped since, nobody here can tell
// for certain, and a rule that bites too often is better than one that is
// walked around.

// flow is into which relations a statement puts what it reads, by their names
// alone: that of a temporary one means it in every schema.
type flow struct {
	makes   []string // made, or joined to others
	changes []string // rows of it
	temps   []string // of those made: they may be temporary
	calls   bool     // a function that may change something
}

func (f flow) empty() bool { return len(f.makes)+len(f.changes) == 0 }

// flowOf finds it in every part of a statement.
func flowOf(n *pg.Node) (f flow) {
	walk(n.ProtoReflect(), f.visit)
	return f
}

func (f *flow) visit(m proto.Message) {
	switch n := m.(type) {
	case *pg.CreateStmt: // whoever reads a parent reads its children
		f.making(n.Relation)
		for _, p := range n.InhRelations {
			f.making(p.GetRangeVar())
		}
	case *pg.IntoClause:
		f.making(n.Rel)
	case *pg.ViewStmt:
		f.making(n.View)
	case *pg.AlterTableStmt:
		f.joining(n)
	case *pg.RenameStmt:
		if n.Relation != nil && (n.RenameType == pg.ObjectType_OBJECT_TABLE || n.RenameType == pg.ObjectType_OBJECT_VIEW || n.RenameType == pg.ObjectType_OBJECT_MATVIEW) {
			f.makes, f.temps = append(f.makes, n.Newname), append(f.temps, n.Newname)
		}
	case *pg.InsertStmt:
		f.changes = append(f.changes, n.GetRelation().GetRelname())
	case *pg.UpdateStmt:
		f.changes = append(f.changes, n.GetRelation().GetRelname())
	case *pg.MergeStmt:
		f.changes = append(f.changes, n.GetRelation().GetRelname())
	}
}

// making notes a relation that is made, or joined to others.
func (f *flow) making(r *pg.RangeVar) {
	if r.GetRelname() == "" {
		return
	}
	f.makes = append(f.makes, r.Relname)
	if r.Relpersistence == "t" || r.Schemaname == "pg_temp" {
		f.temps = append(f.temps, r.Relname)
	}
}

// joining finds an ALTER TABLE that makes one table part of another.
func (f *flow) joining(n *pg.AlterTableStmt) {
	for _, c := range n.Cmds {
		def := c.GetAlterTableCmd().GetDef()
		for _, other := range []*pg.RangeVar{def.GetRangeVar(), def.GetPartitionCmd().GetName()} {
			if other != nil {
				f.making(n.Relation)
				f.making(other)
			}
		}
	}
}

// Bounds of what is known of a session's own relations. Beyond, each of them
// counts as everything.
const (
	maxMade     = 1000
	maxMadeSize = 1 << 20 // bytes of names
)

// everything is what no rule overlooks.
var everything = access.Facts{"tables": []string{"*.*"}, "columns": []string{"*.*.*"}}

// made are the relations that a session has made, and what went into them.
type made struct {
	of   map[string]access.Facts // by bareName
	size int
	rest access.Facts    // that of those over the bounds
	temp map[string]bool // masked tables of whose names it may have made temporary ones
}

// listed are the facts that a relation hands on.
var listed = []string{"tables", "columns", "functions"}

// bareName is a relation's name without its schema.
func bareName(name string) string { return name[strings.LastIndexByte(name, '.')+1:] }

func bareNames(f access.Facts) []string {
	tables, _ := f["tables"].([]string)
	out := make([]string, len(tables))
	for i, t := range tables {
		out[i] = bareName(t)
	}
	return out
}

// add notes what a statement with these facts puts into others. Changing rows
// counts for what the session made and for what the plan does not know.
func (m *made) add(f flow, facts access.Facts, p *planned) {
	for _, name := range f.makes {
		if name = bareName(name); reaches(name, facts) || p.catalog.knows(name) { // one of a known name may be filled later
			m.put(name, f, facts)
		}
	}
	for _, name := range f.temps { // where it lacks a column, the name means that of an outer query
		if p.catalog.knows(name) {
			m.put(name, f, access.Facts{"columns": everything["columns"]})
		}
	}
	for _, name := range f.changes {
		if len(m.of) > 0 || !p.catalog.knows(name) {
			m.fill(name, f, facts, p)
		}
	}
	for _, name := range f.temps {
		if !p.masks(name) {
			continue
		}
		if m.temp == nil {
			m.temp = map[string]bool{}
		}
		m.temp[name] = true
	}
}

// fill notes what goes into a relation, and into the tables of a view.
func (m *made) fill(name string, f flow, facts access.Facts, p *planned) {
	for _, name := range m.through([]string{name}) {
		if m.of[name] != nil || !p.catalog.knows(name) && reaches(name, facts) {
			m.put(name, f, facts)
		}
	}
}

func (m *made) put(name string, f flow, facts access.Facts) {
	add := access.Facts{"writes": f.calls}
	for _, fact := range listed {
		list, _ := facts[fact].([]string)
		add[fact] = slices.Clone(list)
	}
	sum := joined(m.of[name], add)
	if m.size += sizeOf(sum) - sizeOf(m.of[name]); m.of[name] == nil && len(m.of) >= maxMade || m.size > maxMadeSize {
		m.of, m.size, m.rest = map[string]access.Facts{}, 0, everything
		return
	}
	if m.of == nil {
		m.of = map[string]access.Facts{}
	}
	m.of[name] = sum
}

// reaches reports whether there is anything behind a relation of that name.
func reaches(name string, facts access.Facts) bool {
	called, _ := facts["functions"].([]string)
	return len(called) > 0 || slices.ContainsFunc(bareNames(facts), func(t string) bool { return t != name })
}

func sizeOf(f access.Facts) (n int) {
	for _, fact := range listed {
		list, _ := f[fact].([]string)
		for _, s := range list {
			n += len(s) + 16
		}
	}
	return n
}

// behind is all that a statement with these facts reads through what the
// session made; nil: nothing.
func (m *made) behind(facts access.Facts) access.Facts {
	if len(m.of) == 0 && m.rest == nil {
		return nil
	}
	names := bareNames(facts)
	if len(names) == 0 {
		return nil
	}
	found := m.rest
	for _, name := range m.through(names) {
		if m.of[name] != nil {
			found = joined(found, m.of[name])
		}
	}
	return found
}

// through lists relations and all those that are met through them.
func (m *made) through(names []string) (all []string) {
	for look := slices.Clone(names); len(look) > 0; look = look[1:] {
		name := bareName(look[0])
		if slices.Contains(all, name) {
			continue
		}
		all = append(all, name)
		look = append(look, bareNames(m.of[name])...)
	}
	return all
}

// see lets an operation be judged with what it reads through the session's own
// relations. It reports whether hidden rows are among that, of which no
// estimate may tell.
func (b *bridge) see(op *access.Operation) (hidden bool) {
	behind := b.made.behind(op.Facts)
	if behind == nil {
		return false
	}
	facts := maps.Clone(op.Facts)
	for _, fact := range listed {
		was, _ := facts[fact].([]string)
		more, _ := behind[fact].([]string)
		facts[fact] = uniq(slices.Concat(was, more))
	}
	if behind["writes"] == true {
		facts["writes"] = true
	}
	op.Facts, op.Class = facts, nil
	return b.plan.limits(behind)
}

// follow lets the statements of a text be judged so, each with what those
// before it make.
func (b *bridge) follow(read *reading) {
	if !read.flows && read.runs == nil && len(b.made.of) == 0 && b.made.rest == nil {
		return
	}
	for i := range read.ops {
		if b.see(&read.ops[i]) {
			read.hidden = append(read.hidden, i)
		}
		b.made.add(read.flowOf(i), read.ops[i].Facts, b.plan)
	}
}

// flowOf is the flow of a statement, or of what it executes.
func (r *reading) flowOf(i int) flow {
	if v := r.runs[i]; v != nil {
		return v.flow
	}
	return r.stmts[i].flow
}

// limits reports whether rows of one of the tables are hidden.
func (p *planned) limits(f access.Facts) bool {
	tables, _ := f["tables"].([]string)
	return slices.ContainsFunc(p.Masked, func(t backing.MaskedTable) bool {
		return t.Limited && slices.Contains(tables, qualified(t.Schema, t.Table))
	})
}
