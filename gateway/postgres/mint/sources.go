package mint

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/postgres/backing"
)

const (
	maxSources = 100_000
	maxParts   = 16 // of a table, each of which its statements are told to touch
)

// sourcesSQL finds what is met through the relations $1: tables that a view
// reads, however indirectly, with the columns that it reads; and by partition
// or inheritance what a relation is part of, and what is part of it. It begins
// at these relations and follows the catalog's indexes. A view that takes a
// row as a whole depends on no column, and counts for all.
const sourcesSQL = `
with recursive given as (select c.oid from jsonb_to_recordset($1::jsonb) as w(schema text, name text)
	join pg_namespace n on n.nspname = w.schema join pg_class c on c.relnamespace = n.oid and c.relname = w.name),
met(top, oid, way, view) as (
	select oid, oid, '', false from given
	union
	select m.top, x.oid, x.way, m.view or x.way = '' from met m cross join lateral (
		select inhparent as oid, 'up' as way from pg_inherits where inhrelid = m.oid and m.way <> 'down'
		union all
		select inhrelid, 'down' from pg_inherits where inhparent = m.oid and m.way <> 'up' and (select count(*) from pg_inherits p where p.inhparent = m.oid) <= $3
		union all
		select d.refobjid, '' from pg_rewrite w join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid
			and d.refclassid = 'pg_class'::regclass and d.refobjid <> m.oid
		where w.ev_class = m.oid and w.rulename = '_RETURN') x),
reads as (select m.top, d.refobjid as oid, d.refobjsubid as num, w.ev_action::text like '%:varattno 0 %' as whole
	from met m join pg_rewrite w on w.ev_class = m.oid and w.rulename = '_RETURN'
	join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid and d.refclassid = 'pg_class'::regclass and d.refobjid <> m.oid),
columns as (select r.top, r.oid, bool_or(r.whole) as whole, array_agg(distinct a.attname::text) filter (where a.attname is not null) as names
	from reads r left join pg_attribute a on a.attrelid = r.oid and a.attnum = r.num and r.num > 0 group by r.top, r.oid)
select tn.nspname::text, t.relname::text, sn.nspname::text, s.relname::text,
	case when not m.view then '{}' when c.whole or c.oid is null then '{*}' else coalesce(c.names, '{}') end, not m.view
from (select top, oid, bool_or(view) as view from met where oid <> top group by top, oid) m
join pg_class t on t.oid = m.top join pg_namespace tn on tn.oid = t.relnamespace
join pg_class s on s.oid = m.oid join pg_namespace sn on sn.oid = s.relnamespace
left join columns c on c.top = m.top and c.oid = m.oid
where s.relkind in ('r', 'p', 'v', 'm', 'f') order by 1, 2, 3, 4 limit $2`

// sources is what is behind each relation, by its schema and name.
type sources map[[2]string][]backing.Source

// readSources looks behind the tables of a role.
func readSources(ctx context.Context, q querier, tables []table) (sources, error) {
	if len(tables) == 0 {
		return nil, nil
	}
	names := make([]backing.Table, len(tables))
	for i, t := range tables {
		names[i] = backing.Table{Schema: t.Schema, Name: t.Name}
	}
	given, err := json.Marshal(names)
	if err != nil {
		return nil, fmt.Errorf("encode tables: %w", err)
	}
	out, found := sources{}, 0
	var top [2]string
	var s backing.Source
	rows, _ := q.Query(ctx, sourcesSQL, string(given), maxSources+1, maxParts) // the error comes out of ForEachRow
	_, err = pgx.ForEachRow(rows, []any{&top[0], &top[1], &s.Schema, &s.Name, &s.Columns, &s.Part}, func() error {
		found++
		out[top] = append(out[top], backing.Source{Schema: s.Schema, Name: s.Name, Columns: slices.Clone(s.Columns), Part: s.Part})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for what is behind views and partitions: %w", err)
	}
	if found > maxSources {
		return nil, access.Errorf(access.CodeTooLarge, "The role's views and partitions show more than %d tables; name fewer.", maxSources)
	}
	return out, nil
}

// tell completes the room's plan: a rule about a table is also one about what
// shows it.
func (s sources) tell(b *backing.Backing) {
	for i, t := range b.Tables {
		b.Tables[i].Behind = s[[2]string{t.Schema, t.Name}]
	}
}
