package postgres

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway"
)

// admitRequest asks whether a statement may run. What a person is asked about
// comes with all that the answer should rest on, and is held against the
// target's catalog once more before it runs: a table that was made anew
// meanwhile, or a temporary one before it, is not what was agreed to.
func (b *bridge) admitRequest(q request) (gateway.Open, error) {
	q, d := b.weigh(q)
	if d.Verdict != access.Hold {
		return b.admit(q.op, d)
	}
	before, err := b.generation(q)
	if err != nil {
		return nil, access.Errorf(access.CodeUnavailable, "This needs a second person, and what it names could not be looked up at the target. Nothing ran; try again.")
	}
	q.op.Context = append(slices.Clone(q.op.Context), b.evidence(q)...)
	q.op.Class = nil
	open, err := b.admit(q.op, d)
	if err != nil {
		return nil, err
	}
	if after, err := b.generation(q); err != nil || after != before {
		_ = open.Close(access.Outcome{Status: "cancelled"})
		return nil, access.Errorf(access.CodeDenied, "What this names was changed at the target while it waited, so it is not what was agreed to. Nothing ran; run it again.")
	}
	return open, nil
}

// evidence is what an approver sees besides the statement itself.
func (b *bridge) evidence(q request) []string {
	out := []string{"Estimated rows: unknown"}
	if rows, ok := q.op.Facts["rows"].(int64); ok {
		out[0] = fmt.Sprintf("Estimated rows: %d", rows)
	}
	b.mu.Lock()
	ran := history{slices.Clone(b.ran.texts), b.ran.more}
	b.mu.Unlock()
	if len(ran.texts) == 0 {
		return out
	}
	title := "In this transaction so far:"
	if ran.more > 0 {
		title = fmt.Sprintf("In this transaction so far (after %d more):", ran.more)
	}
	out = append(out, title+"\n"+strings.Join(ran.texts, ";\n"))
	locks, err := b.ask(question{sql: locksSQL, types: noTypes, values: noValues, inside: q.inside})
	if err != nil {
		return append(out, "Its locks: unknown")
	}
	lines := make([]string, len(locks))
	for i, l := range locks {
		lines[i] = strings.Join(l, " ")
	}
	return append(out, "Its locks: "+strings.Join(lines, ", "))
}

// locksSQL are the locks on tables that the session holds, but for what only
// keeps a table from being dropped.
const locksSQL = `select l.mode, n.nspname || '.' || c.relname from pg_catalog.pg_locks l
	join pg_catalog.pg_class c on c.oid = l.relation join pg_catalog.pg_namespace n on n.oid = c.relnamespace
	where l.pid = pg_catalog.pg_backend_pid() and l.granted and l.locktype = 'relation' and l.mode <> 'AccessShareLock'
	and l.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
	order by 2, 1 limit 100`

// generation says what the statement's names stand for at the target now:
// equal texts, equal things. Rights do not count: other grants change them.
func (b *bridge) generation(q request) (string, error) {
	tables, _ := q.op.Facts["tables"].([]string)
	if len(tables) == 0 {
		return "", nil
	}
	var full, names []string
	for _, t := range tables {
		full = append(full, sqlText(t))
		names = append(names, sqlText(t[strings.LastIndexByte(t, '.')+1:]))
	}
	rows, err := b.ask(question{sql: fmt.Sprintf(generationSQL, strings.Join(full, ", "), strings.Join(names, ", ")), types: noTypes, values: noValues, inside: q.inside})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%q", rows), nil
}

const generationSQL = `select n.nspname, c.relname, c.oid, c.relkind, c.relrowsecurity, c.relhasrules, c.relhastriggers,
	(select pg_catalog.md5(pg_catalog.string_agg(pg_catalog.concat_ws(' ', a.attnum, a.attname, a.atttypid, a.atttypmod, a.attisdropped, a.attgenerated), ',' order by a.attnum))
		from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0),
	case when c.relkind in ('v', 'm') then pg_catalog.md5(pg_catalog.pg_get_viewdef(c.oid)) end
	from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
	where n.nspname || '.' || c.relname in (%s) or n.oid = pg_catalog.pg_my_temp_schema() and c.relname in (%s)
	order by 1, 2 limit 1000`

// sqlText quotes a text: standard_conforming_strings is on, and stays on.
func sqlText(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
