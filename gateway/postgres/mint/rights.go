package mint

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// The server plans these queries by its statistics, and of its own catalogs it
// has none after thousands of grants in a minute: a join that it took to be of
// one row was made row by row, and a revoke over 5,000 tables ran into its own
// limit. Hence each begins at the roles' own entries in the server's list of
// who depends on what, behind a fence (offset 0) that leaves it one index to
// take, and goes on by unique keys alone.
const (
	// theirsCTE is all that the roles $1 own ('o') or hold ('a') in this database, or in none.
	theirsCTE = `
theirs as materialized (select refobjid as role, pg_get_userbyid(refobjid) as rolname, dbid, classid, objid, objsubid, deptype
	from (select * from pg_shdepend where refclassid = 'pg_authid'::regclass
		and refobjid = any(array(select to_regrole(quote_ident(name))::oid from unnest($1::text[]) as name)) offset 0) d
	where dbid in (0, (select oid from pg_database where datname = current_database())))`

	ownsSQL = `
with ` + theirsCTE + `
select rolname::text, count(*), array_to_string((array_agg(pg_describe_object(classid, objid, objsubid) order by objid))[1:5], ', ')
from theirs where deptype = 'o' group by 1 order by 1`

	// What the roles $1 hold on anything but the mask schemas whose names begin with $2.
	rightsSQL = `
with ` + theirsCTE + `,
held as materialized (select t.objid, t.objsubid, t.role, t.rolname
	from theirs t join pg_class c on c.oid = t.objid join pg_namespace n on n.oid = c.relnamespace
	where t.deptype = 'a' and t.classid = 'pg_class'::regclass and t.dbid <> 0 and left(n.nspname, length($2)) <> $2)` + rightsTail

	// What the views' owner $1 holds on tables, and on schemas, that none of its views reads but $2.
	unneededSQL = `
with ` + theirsCTE + `,
tables_held as materialized (select objid as oid, role, exists (
		select from pg_depend d join pg_rewrite w on w.oid = d.objid join pg_class v on v.oid = w.ev_class
		where d.refclassid = 'pg_class'::regclass and d.refobjid = t.objid and d.classid = 'pg_rewrite'::regclass
			and v.relowner = t.role and v.oid not in (select unnest($2::oid[])) offset 0) as needed
	from (select distinct objid, role from theirs where deptype = 'a' and classid = 'pg_class'::regclass) t),
held as materialized (select t.objid, t.objsubid, t.role, t.rolname
	from theirs t where t.deptype = 'a' and t.classid = 'pg_class'::regclass and t.objid not in (select oid from tables_held where needed))` + rightsTail + `
union all
select format('revoke usage on schema %I from %I', n.nspname, r.name)
from pg_namespace n cross join (select name, to_regrole(quote_ident(name))::oid as oid from unnest($1::text[]) as name) r
where n.nspowner <> r.oid
	and exists (select from aclexplode(n.nspacl) x where x.grantee = r.oid and x.privilege_type = 'USAGE')
	and n.oid not in (select c.relnamespace from tables_held t join pg_class c on c.oid = t.oid where t.needed)`

	// What is the same on several tables is taken away by one statement. A
	// table that was moved to a schema which the login may not use can't be
	// named: of a role that goes, DROP OWNED takes the rest.
	rightsTail = `,
privileges as (
	select h.objid, h.rolname, x.privilege_type as what
	from held h join pg_class c on c.oid = h.objid cross join lateral aclexplode(c.relacl) x
	where h.objsubid = 0 and x.grantee = h.role
	union all
	select h.objid, h.rolname, format('%s (%s)', x.privilege_type, string_agg(quote_ident(a.attname), ', ' order by a.attnum))
	from held h join pg_attribute a on a.attrelid = h.objid and a.attnum = h.objsubid cross join lateral aclexplode(a.attacl) x
	where h.objsubid <> 0 and x.grantee = h.role group by h.objid, h.rolname, x.privilege_type),
tables as (select objid, rolname, string_agg(what, ', ' order by what) as rights from privileges group by objid, rolname)
select format('revoke %s on %s %s from %I', t.rights, k.kind, string_agg(format('%I.%I', n.nspname, c.relname), ', '), t.rolname)
from tables t join pg_class c on c.oid = t.objid join pg_namespace n on n.oid = c.relnamespace
cross join lateral (select case c.relkind when 'S' then 'sequence' else 'table' end as kind) k
where has_schema_privilege(n.oid, 'USAGE')
group by t.rights, k.kind, t.rolname`

	// What the roles $1 hold on schemas, but mask schemas ($2), and on the database. DROP
	// OWNED takes it as another grantor where the login is a member of the owner.
	placesSQL = `
with ` + theirsCTE + `
select format('revoke %s on schema %I from %I', string_agg(x.privilege_type, ', '), n.nspname, t.rolname)
from theirs t join pg_namespace n on n.oid = t.objid cross join lateral aclexplode(n.nspacl) x
where t.deptype = 'a' and t.classid = 'pg_namespace'::regclass and x.grantee = t.role and left(n.nspname, length($2)) <> $2
group by n.nspname, t.rolname
union all
select format('revoke %s on database %I from %I', string_agg(x.privilege_type, ', '), d.datname, t.rolname)
from theirs t join pg_database d on d.oid = t.objid cross join lateral aclexplode(d.datacl) x
where t.deptype = 'a' and t.classid = 'pg_database'::regclass and x.grantee = t.role and d.datname = current_database()
group by d.datname, t.rolname`
)

// view is one of a mint's views.
type view struct {
	oid          uint32
	schema, name string
}

// maskSchemasOf lists the mask schemas whose names begin so, and their views.
func maskSchemasOf(ctx context.Context, c *pgx.Conn, prefix string) (schemas []string, views []view, err error) {
	look := &pgx.Batch{}
	queueMaskSchemas(look, prefix, &schemas, &views)
	if err := c.SendBatch(ctx, look).Close(); err != nil {
		return nil, nil, fmt.Errorf("list mask schemas: %w", err)
	}
	return schemas, views, nil
}

func queueMaskSchemas(look *pgx.Batch, prefix string, schemas *[]string, views *[]view) {
	const sql = `select n.nspname::text, coalesce(c.oid, 0), coalesce(c.relname::text, '')
		from pg_namespace n left join pg_class c on c.relnamespace = n.oid and c.relkind = 'v'
		where left(n.nspname, length($1)) = $1 order by 1, 3`
	look.Queue(sql, prefix).Query(func(rows pgx.Rows) error {
		var v view
		_, err := pgx.ForEachRow(rows, []any{&v.schema, &v.oid, &v.name}, func() error {
			if len(*schemas) == 0 || (*schemas)[len(*schemas)-1] != v.schema {
				*schemas = append(*schemas, v.schema)
			}
			if v.oid != 0 {
				*views = append(*views, v)
			}
			return nil
		})
		return err
	})
}

// dropMasks drops mask schemas with their views, and takes from the views'
// owner what it held for them alone: with the last grant it reads nothing.
func (m *Minter) dropMasks(ctx context.Context, c *pgx.Conn, schemas []string, views []view) ([]string, error) {
	if len(schemas) == 0 {
		return nil, nil
	}
	ids := make([]uint32, len(views))
	for i, v := range views {
		ids[i] = v.oid
	}
	owner := []string{m.names.masks()}
	// First, so that a failure between batches forgets nothing.
	out, err := m.statements(ctx, c, ask{unneededSQL, []any{owner, ids}})
	if err != nil {
		return nil, err
	}
	if len(views) > m.viewsEach { // with their schema at once they would need too many locks
		for _, v := range views {
			out = append(out, "drop view if exists "+ident(v.schema, v.name)+" cascade")
		}
	}
	for _, s := range schemas {
		out = append(out, "drop schema "+ident(s)+" cascade")
	}
	return out, nil
}

// stripStatements takes every right from roles. DROP OWNED would drop what
// they own as well, so that goes first to the owner as whom they act, or to the
// minter's login; and it revokes more than was given, for which that login may
// lack the right, so that what was given on tables and functions is revoked
// before, one by one.
func (m *Minter) stripStatements(ctx context.Context, c *pgx.Conn, roles []string, masks string) ([]string, error) {
	out, err := m.statements(ctx, c, ask{rightsSQL, []any{roles, masks}}, ask{placesSQL, []any{roles, masks}}, ask{heldRoutinesSQL, []any{roles}})
	if err != nil {
		return nil, err
	}
	owning, err := owners(ctx, c, roles)
	if err != nil {
		return nil, err
	}
	heirs, err := acting(ctx, c, roles)
	if err != nil {
		return nil, err
	}
	for _, o := range owning {
		heir := "current_user"
		if heirs[o.role] != "" {
			heir = ident(heirs[o.role])
		}
		m.cfg.Log.Warn("a role owns objects; they are handed on", "role", o.role, "objects", o.objects, "first", o.first, "to", heir)
		out = append(out, fmt.Sprintf("reassign owned by %s to %s", ident(o.role), heir))
	}
	return append(out, "drop owned by "+idents(roles)), nil
}

// owner is a role that owns something here.
type owner struct {
	role    string
	objects int
	first   string // some of them
}

func owners(ctx context.Context, c *pgx.Conn, roles []string) ([]owner, error) {
	rows, _ := c.Query(ctx, ownsSQL, roles) // the error comes out of CollectRows
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (o owner, err error) {
		err = row.Scan(&o.role, &o.objects, &o.first)
		return o, err
	})
	if err != nil {
		return nil, fmt.Errorf("look for what the roles own: %w", err)
	}
	return out, nil
}

// ask is a query for statements.
type ask struct {
	sql  string
	args []any
}

// statements asks the server for statements, in one round trip.
func (m *Minter) statements(ctx context.Context, c *pgx.Conn, asked ...ask) (out []string, err error) {
	batch := &pgx.Batch{}
	for _, a := range asked {
		batch.Queue(a.sql, a.args...).Query(func(rows pgx.Rows) error {
			found, err := pgx.CollectRows(rows, pgx.RowTo[string])
			out = append(out, found...)
			return err
		})
	}
	if err := c.SendBatch(ctx, batch).Close(); err != nil {
		return nil, fmt.Errorf("look for rights to take away: %w", err)
	}
	return out, nil
}
