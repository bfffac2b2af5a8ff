package postgres

import (
	"fmt"
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/postgres/backing"
)

// A temporary table stands before every other of its name, masked ones too. A
// text that changes an unqualified name must meet it there, and not be led to
// the masked table. Only the target knows whether it is there now, and is asked
// where the session has ever made one of such a name.

// shadows are names of masked tables that a session has temporary ones of.
type shadows struct {
	names []string
	plan  *planned
}

// shadowed is the plan for a session that has temporary tables of the names.
// It keeps texts of its own: they mean something else.
func (p *planned) shadowed(names []string) *planned {
	s := &planned{Backing: p.Backing, catalog: p.catalog, callable: p.callable, temps: setOf(names)}
	s.exact.maxEntries, s.exact.maxBytes = maxTexts/8, maxTextSum/8
	s.shapes.maxEntries, s.shapes.maxBytes = maxTexts/8, maxTextSum/8
	return s
}

// tempsFrom is which masked tables' names are of temporary ones behind a
// statement, where those before it are.
func (p *planned) tempsFrom(n *pg.Node, before map[string]bool) map[string]bool {
	out := before
	for _, name := range flowOf(n).temps {
		if n.GetRenameStmt() != nil || out[name] || !p.masks(name) {
			continue // whether what was renamed is temporary, the target says later
		}
		more := setOf([]string{name})
		for name := range out {
			more[name] = true
		}
		out = more
	}
	return out
}

func (p *planned) masks(name string) bool {
	return slices.ContainsFunc(p.Masked, func(t backing.MaskedTable) bool { return t.Table == name })
}

// read understands a text as the session would have it. The kind is that of
// the message.
func (b *bridge) read(text []byte, kind byte) (reading, error) {
	read, err := b.plan.read(text)
	if err == nil && b.encoding != utf8Encoding {
		err = asServer(read.text, b.encoding)
	}
	if err != nil || len(b.made.temp) == 0 || !slices.ContainsFunc(read.loose, func(name string) bool { return b.made.temp[name] }) {
		return read, err
	}
	names, err := b.temporary(kind == 'P')
	if err != nil || len(names) == 0 {
		return read, err
	}
	if !slices.Equal(names, b.shadows.names) {
		b.shadows = shadows{names, b.plan.shadowed(names)}
	}
	return b.shadows.plan.read(text)
}

// temporary are the masked tables' names that temporary ones of the session
// have now.
func (b *bridge) temporary(inside bool) ([]string, error) {
	var ask []string
	for name := range b.made.temp {
		ask = append(ask, sqlText(name))
	}
	slices.Sort(ask)
	rows, err := b.ask(question{sql: fmt.Sprintf(temporarySQL, strings.Join(ask, ", ")), types: noTypes, values: noValues, inside: inside})
	if err != nil && (b.status.Load() == 'E' || b.replies.isSkipping()) {
		return nil, nil // nothing runs there any more
	}
	if err != nil {
		return nil, access.Errorf(access.CodeUnavailable, "This session has made temporary tables, and which of them are there could not be looked up at the target. Nothing ran; try again.")
	}
	names := make([]string, len(rows))
	for i, row := range rows {
		names[i] = row[0]
	}
	return names, nil
}

const temporarySQL = `select c.relname from pg_catalog.pg_class c where c.relnamespace = pg_catalog.pg_my_temp_schema() and c.relname in (%s) order by 1 limit 1000`
