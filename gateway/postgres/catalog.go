package postgres

import (
	"cmp"
	_ "embed"
	"slices"
	"strings"

	"github.com/tidegate/tidegate/gateway/postgres/backing"
)

// relation is a table, a view or the like by its real name.
type relation struct{ schema, name string }

func (r relation) String() string { return qualified(r.schema, r.name) }

// catalog is what the plan knows of the target's names. What it does not know
// may be anything that the search path can lead to.
type catalog struct {
	path   []string            // without the mask schemas: they stand for their sources
	free   bool                // the path is the server's own: it may lead elsewhere as well
	source map[string]string   // of each mask schema
	tables map[relation]*table // those that the role may use
	names  map[string]bool     // of all of these, without schemas

	functions map[string]bool // that may be called, beyond PostgreSQL 15's own, without schemas
	called    map[string]bool // of these, the customer's that the role's call names
}

// table is what is known of one.
type table struct {
	columns []string   // in their order
	masked  []string   // those that are
	behind  []relation // that are met through it
	read    []column   // of those, by a view
	same    []relation // those of which its columns are as well, under the same names: a partition's table
}

// catalogList are the names of PostgreSQL 15's own relations, which stand
// before every other on the search path.
//
//go:embed catalogs.txt
var catalogList string

var ownRelations = func() map[string]bool {
	m := map[string]bool{}
	for name := range strings.FieldsSeq(catalogList) {
		m[name] = true
	}
	return m
}()

func newCatalog(b backing.Backing) *catalog {
	c := &catalog{source: map[string]string{}, tables: map[relation]*table{}, names: map[string]bool{}, functions: setOf(b.Builtins), called: map[string]bool{}}
	for _, r := range b.Calls {
		c.functions[r.Name], c.called[r.Name] = true, true
	}
	for _, t := range b.Tables {
		made := &table{columns: t.Columns}
		for _, s := range t.Behind {
			made.add(s)
		}
		c.tables[relation{t.Schema, t.Name}] = made
	}
	for _, m := range b.Masked {
		c.source[m.MaskSchema] = m.Schema
		t := c.tables[relation{m.Schema, m.Table}]
		if t == nil { // its other columns are not known
			t = &table{}
			c.tables[relation{m.Schema, m.Table}] = t
		}
		for _, column := range m.Columns {
			t.masked = append(t.masked, column.Name)
		}
	}
	for r := range c.tables {
		c.names[r.name] = true
	}
	for _, s := range b.SearchPath {
		if c.source[s] == "" {
			c.path = append(c.path, s)
		}
	}
	if len(b.SearchPath) == 0 { // as PostgreSQL has it where nobody said otherwise
		c.free, c.path = true, []string{cmp.Or(b.Acts, b.Role), "public"}
	}
	return c
}

func (t *table) add(s backing.Source) {
	of := relation{s.Schema, s.Name}
	if t.behind = append(t.behind, of); s.Part {
		t.same = append(t.same, of)
	}
	for _, name := range s.Columns {
		t.read = append(t.read, column{of, name})
	}
}

// find lists what a name may stand for: more than one thing where a schema
// that comes earlier on the path may hold a table that the plan does not know.
func (c *catalog) find(schema, name string) []relation {
	if schema != "" {
		if s := c.source[schema]; s != "" {
			schema = s
		}
		return []relation{{schema, name}}
	}
	if ownRelations[name] {
		return []relation{{"pg_catalog", name}}
	}
	var out []relation
	for _, s := range c.path {
		out = append(out, relation{s, name})
		if c.tables[relation{s, name}] != nil {
			return out
		}
	}
	if len(out) == 0 || c.free {
		out = append(out, relation{"", name})
	}
	return out
}

// knows reports whether the plan has a table of that name, in any schema.
func (c *catalog) knows(name string) bool { return c.names[name] }

// columns are those of a relation, or none if they are not known.
func (c *catalog) columns(r relation) []string {
	if t := c.tables[r]; t != nil {
		return t.columns
	}
	return nil
}

// masked is the name of the masked column that the reference meets; of "*" it
// is the first one. Empty: it meets none.
func (c *catalog) masked(met column) string {
	t := c.tables[met.of]
	switch {
	case t == nil || len(t.masked) == 0:
		return ""
	case met.name == "*":
		return t.masked[0]
	case slices.Contains(t.masked, met.name):
		return met.name
	}
	return ""
}
