package mint

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/access"
)

const maxLeaks = 200_000 // dependencies of views, or partitions, that are followed

// The queries begin at the relations that the patterns named ($1) and follow
// the catalog's indexes from there, so that they cost what those touch.
const (
	kinCTE = `
with recursive kin(oid) as (
	select unnest($1::oid[])
	union
	select x.oid from kin k cross join lateral (
		select inhrelid as oid from pg_inherits where inhparent = k.oid
		union all select inhparent from pg_inherits where inhrelid = k.oid) x)`

	treeSQL = kinCTE + `
select inhrelid, inhparent from kin join pg_inherits on inhrelid = kin.oid limit $2`

	// Partitions, parents and children that no pattern named, and that everybody may read.
	publicKinSQL = kinCTE + `
select c.oid, n.nspname || '.' || c.relname from kin k join pg_class c on c.oid = k.oid join pg_namespace n on n.oid = c.relnamespace
where not k.oid = any($1) and ` + publicReads + ` limit $2`

	// Views over them, and views over those, with the name of each that everybody may read.
	viewsSQL = kinCTE + `,
reads(view, source) as (
	select oid, 0::oid from kin
	union
	select r.ev_class, f.view from reads f
		join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = f.view and d.classid = 'pg_rewrite'::regclass
		join pg_rewrite r on r.oid = d.objid and r.ev_class <> f.view
		join pg_class c on c.oid = r.ev_class join pg_namespace n on n.oid = c.relnamespace
	where c.relkind in ('v', 'm') and ` + foreignSchema + `)
select f.source, f.view, case when ` + publicReads + ` then n.nspname || '.' || c.relname else '' end
from reads f join pg_class c on c.oid = f.view join pg_namespace n on n.oid = c.relnamespace where f.source <> 0 limit $2`

	// Views among them that call functions of the customer's, themselves or by the views that they read.
	callingSQL = `
with recursive under(view, oid) as (
	select oid, oid from pg_class where oid = any($1) and relkind in ('v', 'm')
	union
	select u.view, c.oid from under u join pg_rewrite r on r.ev_class = u.oid
		join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid and d.refclassid = 'pg_class'::regclass
		join pg_class c on c.oid = d.refobjid and c.relkind in ('v', 'm') and c.oid >= 16384)
select distinct u.view from under u join pg_rewrite r on r.ev_class = u.oid
	join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid and d.refclassid = 'pg_proc'::regclass
where d.refobjid >= 16384 limit $2`

	defaultsSQL = `
select distinct pg_get_userbyid(d.defaclrole) from pg_default_acl d, aclexplode(d.defaclacl) x
where d.defaclobjtype = 'r' and x.grantee = 0 and x.privilege_type = 'SELECT' order by 1`
)

// readLeaks asks, in one round trip, for every way by which what is hidden
// could come out.
func (c *catalog) readLeaks(ctx context.Context, tx pgx.Tx) error {
	c.readers, c.tree = map[uint32][]uint32{}, map[uint32][]uint32{}
	c.calling, c.publics = map[uint32]bool{}, map[uint32]string{}
	ids := make([]uint32, len(c.relations))
	for i, r := range c.relations {
		ids[i] = r.OID
	}
	asked, full := &pgx.Batch{}, false
	ask := func(sql string, into []any, keep func()) {
		n := 0
		asked.Queue(sql, ids, maxLeaks).Query(func(rows pgx.Rows) error {
			_, err := pgx.ForEachRow(rows, into, func() error { n++; keep(); return nil })
			full = full || n == maxLeaks
			return err
		})
	}
	var from, to uint32
	var name string
	ask(treeSQL, []any{&from, &to}, func() {
		c.tree[from], c.tree[to] = append(c.tree[from], to), append(c.tree[to], from)
	})
	ask(publicKinSQL, []any{&to, &name}, func() { c.publics[to] = name })
	ask(viewsSQL, []any{&from, &to, &name}, func() {
		c.readers[from] = append(c.readers[from], to)
		if name != "" {
			c.publics[to] = name
		}
	})
	ask(callingSQL, []any{&to}, func() { c.calling[to] = true })
	asked.Queue(defaultsSQL).Query(func(rows pgx.Rows) (err error) {
		c.defaults, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	if err := tx.SendBatch(ctx, asked).Close(); err != nil {
		return fmt.Errorf("read views, partitions and default privileges: %w", err)
	}
	if full {
		return access.Errorf(access.CodeTooLarge, "More than %d views or partitions hang on these tables: masks can't be shown to be safe there.", maxLeaks)
	}
	return nil
}

// reach is everything that can be got to from the starting points over edges.
func reach(start []uint32, edges map[uint32][]uint32) map[uint32]bool {
	seen := map[uint32]bool{}
	for todo := start; len(todo) > 0; {
		next := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, n := range edges[next] {
			if !seen[n] {
				seen[n] = true
				todo = append(todo, n)
			}
		}
	}
	return seen
}
