package mint

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/access"
)

// need is a right that the role must hold on some columns of a relation.
type need struct {
	Table   string   `json:"table"` // that people know it by
	Schema  string   `json:"schema"`
	Name    string   `json:"name"`
	Right   string   `json:"right"`
	Columns []string `json:"columns"`
}

// lostSQL finds what the role $1 needs ($2) and does not hold.
const lostSQL = `
select distinct w."table" from jsonb_to_recordset($2::jsonb) as w("table" text, schema text, name text, "right" text, columns text[])
cross join lateral unnest(w.columns) as col
left join pg_namespace n on n.nspname = w.schema left join pg_class c on c.relnamespace = n.oid and c.relname = w.name
left join pg_attribute a on a.attrelid = c.oid and a.attname = col and not a.attisdropped
where not coalesce(has_column_privilege((select oid from pg_roles where rolname = $1), c.oid, a.attnum, w."right"), false)
order by 1 limit 100`

// strayedSQL finds what the role $1 holds under names that it was not given
// ($2): rights and views follow a table that is renamed. Names of its mask
// schemas begin with $3.
const strayedSQL = `
with given as (select w.schema, w.name from jsonb_to_recordset($2::jsonb) as w(schema text, name text)),
mine as materialized (select * from pg_shdepend
	where refclassid = 'pg_authid'::regclass and refobjid = (select oid from pg_roles where rolname = $1) offset 0),
holds as (select objid as oid from mine
	where deptype = 'a' and classid = 'pg_class'::regclass and dbid = (select oid from pg_database where datname = current_database())
	union
	select d.refobjid from pg_namespace m join pg_class v on v.relnamespace = m.oid and v.relkind = 'v' join pg_rewrite w on w.ev_class = v.oid
		join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid and d.refclassid = 'pg_class'::regclass and d.refobjid <> v.oid
	where left(m.nspname, length($3)) = $3)
select n.nspname || '.' || c.relname from holds h join pg_class c on c.oid = h.oid and c.relkind <> 'S' join pg_namespace n on n.oid = c.relnamespace
where left(n.nspname, length($3)) <> $3 and (n.nspname::text, c.relname::text) not in (select schema, name from given)
order by 1 limit 100`

// excessSQL finds where the role $1 holds more than it was given ($2): a mint
// of an earlier version gave some rights that are not given any more. Of a
// right without columns it is the whole table's.
const excessSQL = `
with given as (select w.schema, w.name, w."right", col from jsonb_to_recordset($2::jsonb) as w(schema text, name text, "right" text, columns text[])
	cross join lateral unnest(w.columns) as col),
holds as (select d.objid, d.objsubid, r.oid as role from pg_roles r join pg_shdepend d on d.refclassid = 'pg_authid'::regclass and d.refobjid = r.oid
	and d.deptype = 'a' and d.classid = 'pg_class'::regclass and d.dbid = (select oid from pg_database where datname = current_database())
	where r.rolname = $1),
rights as (select h.objid, '' as col, x.privilege_type as "right" from holds h join pg_class c on c.oid = h.objid and c.relkind <> 'S'
		cross join lateral aclexplode(c.relacl) x where h.objsubid = 0 and x.grantee = h.role
	union all
	select h.objid, a.attname, x.privilege_type from holds h join pg_attribute a on a.attrelid = h.objid and a.attnum = h.objsubid and not a.attisdropped
		cross join lateral aclexplode(a.attacl) x where h.objsubid > 0 and x.grantee = h.role)
select distinct n.nspname || '.' || c.relname from rights h join pg_class c on c.oid = h.objid join pg_namespace n on n.oid = c.relnamespace
where (n.nspname::text, c.relname::text, h."right"::text, h.col::text) not in (select schema, name, "right", col from given)
order by 1 limit 100`

// Broken says which tables a minted grant does not meet as a mint today would
// make them, and is empty where it meets them all. A table that was dropped
// and made again, or renamed, is one.
func (m *Minter) Broken(ctx context.Context, g access.Grant) (string, error) {
	if g.Plan.Target.Static != "" || len(g.Backing) == 0 {
		return "", nil
	}
	approved, err := parseBody(g.Plan.Expansion.Body)
	if err != nil {
		return "", err
	}
	p, err := m.pool(g.Plan.Target)
	if err != nil {
		return "", err
	}
	today, err := expandToday(ctx, p, g.Plan)
	if err == nil {
		j := &job{names: m.names, role: m.names.role(g), body: intersect(approved, today)}
		var broken []string
		if broken, err = j.broken(ctx, p); err == nil {
			return some(broken, maxNamed), nil
		}
	}
	return "", explain("look at grant "+g.Key.ID, g.Plan.Target, err)
}

func (j *job) broken(ctx context.Context, q querier) ([]string, error) {
	needs, err := json.Marshal(j.needs())
	if err != nil {
		return nil, fmt.Errorf("encode rights: %w", err)
	}
	given, err := json.Marshal(append([]table{}, j.body.Tables...)) // none is an empty list
	if err != nil {
		return nil, fmt.Errorf("encode tables: %w", err)
	}
	most, err := json.Marshal(j.most())
	if err != nil {
		return nil, fmt.Errorf("encode rights: %w", err)
	}
	var out []string
	for _, ask := range []ask{
		{lostSQL, []any{j.role, string(needs)}},
		{strayedSQL, []any{j.role, string(given), j.role + "_m_"}},
		{excessSQL, []any{j.role, string(most)}},
	} {
		rows, _ := q.Query(ctx, ask.sql, ask.args...) // the error comes out of CollectRows
		found, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return nil, fmt.Errorf("look for the rights of role %s: %w", j.role, err)
		}
		out = append(out, found...)
	}
	return out, nil
}

// needs is what the role holds when it was made as it should be.
func (j *job) needs() []need {
	masks, out := j.maskSchemas(), []need{}
	for _, t := range j.body.Tables {
		if t.Read {
			schema := t.Schema
			if viewed(t) {
				schema = masks[t.Schema]
			}
			out = append(out, t.need(schema, "SELECT", columnNames(t)))
		}
		if t.Write {
			out = append(out, t.need(t.writtenIn(masks), "INSERT", columnNames(t)))
		}
	}
	return out
}

// most is all that the role may hold on tables and views.
func (j *job) most() []need {
	masks, whole, out := j.maskSchemas(), []string{""}, []need{}
	for _, t := range j.body.Tables {
		if t.Read && viewed(t) { // maskView gives the whole view
			out = append(out, t.need(masks[t.Schema], "SELECT", whole))
		}
		if t.Read && !t.limited() {
			out = append(out, t.need(t.Schema, "SELECT", plainNames(t)))
		}
		if t.Write {
			schema, all := t.writtenIn(masks), columnNames(t)
			out = append(out, t.need(schema, "INSERT", all), t.need(schema, "UPDATE", without(all, t.limitColumns())), t.need(schema, "DELETE", whole))
		}
	}
	return out
}

func (t table) need(schema, right string, columns []string) need {
	return need{Table: t.String(), Schema: schema, Name: t.Name, Right: right, Columns: columns}
}

// writtenIn is the schema in which the role meets the table to change it.
func (t table) writtenIn(masks map[string]string) string {
	if t.limited() {
		return masks[t.Schema]
	}
	return t.Schema
}
