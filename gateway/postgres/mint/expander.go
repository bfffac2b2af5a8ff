package mint

import (
	"slices"
	"strings"

	"github.com/tidegate/tidegate/access"
)

// expander turns a catalog and patterns into an expansion, and refuses what
// would let a masked value out.
type expander struct {
	*catalog
	asked
	callable callable

	columns map[uint32]map[string]access.MaskWith // relation -> its masked columns
	limits  map[uint32][]condition                // relation of the role -> which rows of it
	views   map[uint32]bool                       // that read a guarded table, however indirectly
	kin     map[uint32]bool                       // partitions, parents and children of guarded tables
}

// asked is what a role and the masks say.
type asked struct {
	read, write []pattern
	masks       []masked
	rows        []scope
}

func newExpander(c *catalog, a asked) *expander {
	e := &expander{catalog: c, asked: a, columns: map[uint32]map[string]access.MaskWith{}, limits: map[uint32][]condition{}}
	var ids []uint32
	for _, r := range c.relations {
		if cols := e.maskedColumns(r); len(cols) > 0 {
			e.columns[r.OID] = cols
		}
		if matched(e.read, r) != nil || matched(e.write, r) != nil {
			e.limit(r)
		}
		if e.guarded(r) {
			ids = append(ids, r.OID)
		}
	}
	e.views, e.kin = reach(ids, c.readers), reach(ids, c.tree)
	// A view may stand on a partition of a guarded table.
	for id := range e.kin {
		for v := range reach([]uint32{id}, c.readers) {
			e.views[v] = true
		}
	}
	return e
}

func (e *expander) limit(r relation) {
	for _, s := range e.rows {
		if s.matches(r) {
			e.limits[r.OID] = append(e.limits[r.OID], s.condition)
		}
	}
}

// guarded reports whether the relation holds what the role must not see:
// masked columns, or rows beyond its own.
func (e *expander) guarded(r relation) bool {
	return e.columns[r.OID] != nil || e.limits[r.OID] != nil
}

func (e *expander) maskedColumns(r relation) map[string]access.MaskWith {
	cols := map[string]access.MaskWith{}
	for _, m := range e.masks {
		for _, p := range m.patterns {
			for _, a := range r.Columns {
				if !p.matches(r.Schema, r.Name, a.Name) {
					continue
				}
				with := m.with
				if old, ok := cols[a.Name]; ok {
					with = stricter(old, with)
				}
				cols[a.Name] = with
			}
		}
	}
	return cols
}

func (e *expander) expand(role access.Role) (body, error) {
	if err := e.checkDatabase(role); err != nil {
		return body{}, err
	}
	b := body{Tables: []table{}, Calls: e.callable.settled()}
	for _, r := range e.relations {
		read, write := matched(e.read, r), matched(e.write, r)
		if read == nil && write == nil {
			continue
		}
		if why := e.refuse(r, write != nil); why != "" {
			if (read != nil && read.exact()) || (write != nil && write.exact()) {
				return body{}, access.Errorf(access.CodeInvalid, "Table %s can't be given: %s.", r, why)
			}
			b.LeftOut = append(b.LeftOut, leftOut{r.String(), why})
			continue
		}
		b.Tables = append(b.Tables, e.table(r, read != nil, write != nil))
	}
	if b.empty() && len(b.LeftOut) > 0 {
		return body{}, access.Errorf(access.CodeInvalid, "Role %q means no table that can be given; %s", role.Name, b.LeftOut[0].Why)
	}
	return b, nil
}

// matched is the pattern that takes the relation in; one that names it exactly before others.
func matched(ps []pattern, r relation) *pattern {
	var found *pattern
	for i := range ps {
		if ps[i].matches(r.Schema, r.Name) && (found == nil || ps[i].exact()) {
			found = &ps[i]
		}
	}
	return found
}

func (e *expander) table(r relation, read, write bool) table {
	t := table{Schema: r.Schema, Name: r.Name, Kind: r.Kind, Read: read, Write: write}
	for _, a := range r.Columns {
		c := column{Name: a.Name, Type: a.Type}
		if with, ok := e.columns[r.OID][a.Name]; ok {
			c.Mask = &with
		}
		t.Columns = append(t.Columns, c)
	}
	for _, c := range e.limits[r.OID] {
		t.Rows = both(t.Rows, []string{c.text})
	}
	if write {
		t.Sequences = r.Sequences
	}
	return t
}

// matchAll refuses patterns that match nothing: most often a misspelt name,
// and of a mask it would show what was meant to be hidden.
func (e *expander) matchAll() error {
	for _, p := range slices.Concat(e.read, e.write) {
		if !slices.ContainsFunc(e.relations, func(r relation) bool { return p.matches(r.Schema, r.Name) }) {
			return access.Errorf(access.CodeInvalid, "Pattern %q matches no table: correct it, or make the table first.", p.text)
		}
	}
	for _, s := range e.rows {
		if !slices.ContainsFunc(e.relations, func(r relation) bool { return e.limits[r.OID] != nil && s.matches(r) }) {
			return access.Errorf(access.CodeInvalid, "The condition on %s is for no table of the role: correct its pattern, or the role's.", s)
		}
	}
	for _, m := range e.masks {
		for _, p := range m.patterns {
			if !slices.ContainsFunc(e.relations, func(r relation) bool { return p.matchesColumn(r) }) {
				return access.Errorf(access.CodeInvalid, "Mask pattern %q matches no column: correct it, or make the column first.", p.text)
			}
		}
	}
	return nil
}

func (p pattern) matchesColumn(r relation) bool {
	return slices.ContainsFunc(r.Columns, func(a attribute) bool { return p.matches(r.Schema, r.Name, a.Name) })
}

// checkDatabase refuses a database in which everybody can reach what this
// grant's role must not.
func (e *expander) checkDatabase(role access.Role) error {
	var open []string
	trusted, called := fields(role.Settings["trust_functions"]), e.callable.oids()
	for _, f := range e.functions {
		if !slices.Contains(trusted, f.name) && !slices.Contains(called, f.oid) {
			open = append(open, f.name)
		}
	}
	open = slices.Compact(open)
	if len(open) > 0 {
		return access.Errorf(access.CodeInvalid, "Everybody may call %s, which run with their owner's rights (SECURITY DEFINER): revoke EXECUTE from PUBLIC, or name them in the role's call or trust_functions.", some(open, maxReports))
	}
	if len(e.columns)+len(e.limits) == 0 {
		return nil
	}
	var public []string
	for _, r := range e.relations {
		if r.Public && (e.guarded(r) || e.kin[r.OID]) {
			public = append(public, r.String())
		}
	}
	for id, name := range e.publics {
		if (e.views[id] || e.kin[id]) && e.columns[id] == nil && e.limits[id] == nil {
			public = append(public, name)
		}
	}
	if len(public) > 0 {
		slices.Sort(public)
		return access.Errorf(access.CodeInvalid, "Everybody may read %s, where values are masked or rows limited: revoke SELECT from PUBLIC.", some(public, maxReports))
	}
	if len(e.defaults) > 0 {
		return access.Errorf(access.CodeInvalid, "Default privileges of %s let everybody read new tables, guarded or not: revoke SELECT from PUBLIC in them.", some(e.defaults, maxReports))
	}
	return nil
}

// refuse says why a relation can't be given, or nothing.
func (e *expander) refuse(r relation, write bool) string {
	masked, limited := e.columns[r.OID] != nil, e.limits[r.OID] != nil
	what := "has masked columns"
	if !masked {
		what = "is limited to some of its rows"
	}
	switch {
	case len(r.Columns) == 0:
		return "it has no columns"
	case r.Kind == "f":
		return "it is a foreign table, whose server can't be told what is masked"
	case e.views[r.OID]:
		return "it is a view that reads a masked table, or one with limited rows, with its owner's rights"
	case len(e.masks)+len(e.rows) > 0 && e.calling[r.OID]:
		return "it is a view that calls functions, which may read what is hidden"
	case write && r.Kind != "r" && r.Kind != "p":
		return "it is a view, and views are not written through"
	case write && r.Rules:
		return "it has rewrite rules, which run with their owner's rights"
	case (masked || limited) && r.Kind != "r":
		return "it " + what + " and is no plain table"
	case e.kin[r.OID] || ((masked || limited) && len(e.tree[r.OID]) > 0):
		return "it is part of an inheritance tree or a partitioned table with masked columns or limited rows"
	case (masked || limited) && r.RLS:
		return "it " + what + " and has row-level security, and a view of it would run with its owner's rights"
	case masked && limited && write:
		return "it has masked columns and limited rows, and can't be written as well"
	case limited && e.refuseRows(r, write) != "":
		return e.refuseRows(r, write)
	case masked:
		return e.refuseMasks(r)
	}
	return ""
}

func (e *expander) refuseRows(r relation, write bool) string {
	has := func(name string) bool {
		return slices.ContainsFunc(r.Columns, func(a attribute) bool { return a.Name == name })
	}
	for _, c := range e.limits[r.OID] {
		if missing := c.lacks(has); len(missing) > 0 {
			return "its rows are limited by " + c.text + ", and it has no column " + strings.Join(missing, ", ")
		}
	}
	for _, a := range r.Columns {
		if write && len(a.From) > 0 && slices.ContainsFunc(e.limits[r.OID], func(c condition) bool { return slices.Contains(c.columns, a.Name) }) {
			return "its rows are limited by the column " + a.Name + ", which is computed from others that could be written: limit them by those"
		}
	}
	return ""
}

func (e *expander) refuseMasks(r relation) string {
	cols := e.columns[r.OID]
	hidden := map[int]bool{}
	for _, a := range r.Columns {
		_, hidden[a.Num] = cols[a.Name]
	}
	for _, a := range r.Columns {
		with, masked := cols[a.Name]
		switch {
		case !masked && slices.ContainsFunc(a.From, func(n int) bool { return hidden[n] }):
			return "its column " + a.Name + " is computed from a masked one and is not masked"
		case masked && a.Domain:
			return "its masked column " + a.Name + " has a domain as its type"
		case masked && with.Kind == access.MaskPartial && a.Category != "S":
			return "its column " + a.Name + " is of type " + a.Type + ", of which no part can be shown: mask it with null or a constant"
		}
	}
	return ""
}

// fields splits a list that commas or spaces separate.
func fields(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}
