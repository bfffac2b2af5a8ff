package mint

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/access"
)

// Bounds of what is read of a catalog.
const (
	maxTables  = 10_000
	maxColumns = 1_000_000
	maxReports = 5 // names in one sentence
)

// relation is a table, or something that looks like one, with its columns.
type relation struct {
	OID       uint32
	Schema    string
	Name      string
	Kind      string // pg_class.relkind
	RLS       bool
	Rules     bool // it has rewrite rules
	Public    bool // PUBLIC may read some of it
	Columns   []attribute
	Sequences [][2]string // that its columns' defaults use
}

type attribute struct {
	Name     string `json:"name"`
	Num      int    `json:"num"`
	Type     string `json:"type"`     // with its modifier, as SQL writes it
	Category string `json:"category"` // pg_type.typcategory; S is text
	Domain   bool   `json:"domain"`
	From     []int  `json:"from"` // a generated column: the numbers of those it is computed from
}

func (r relation) String() string { return r.Schema + "." + r.Name }

// catalog is what the database says, as far as a plan touches it.
type catalog struct {
	relations []relation // those that the role's patterns or a mask's may match, sorted by name
	// the rest is read only where something is hidden
	readers   map[uint32][]uint32 // relation -> views that read it
	tree      map[uint32][]uint32 // relation -> its parents and children by inheritance
	calling   map[uint32]bool     // views that call functions of the customer's
	publics   map[uint32]string   // views that PUBLIC may read, by name
	defaults  []string            // default privileges that let PUBLIC read new tables
	functions []string            // SECURITY DEFINER functions open to PUBLIC
}

// foreignSchema leaves out the system's schemas and those of any minter.
const foreignSchema = ` n.nspname <> 'information_schema' and n.nspname !~ '^pg_' and n.nspname !~ '^tg_[a-z0-9]{4,12}_' and n.nspname !~ '^tidegate_' `

const publicReads = ` (exists (select from aclexplode(c.relacl) x where x.grantee = 0 and x.privilege_type = 'SELECT')
	or exists (select from pg_attribute pa, aclexplode(pa.attacl) x where pa.attrelid = c.oid and x.grantee = 0 and x.privilege_type = 'SELECT')) `

const relationsSQL = `
select c.oid, n.nspname, c.relname, c.relkind::text, c.relrowsecurity, c.relhasrules, ` + publicReads + `,
	(select coalesce(json_agg(json_build_object('name', a.attname, 'num', a.attnum,
			'type', format_type(a.atttypid, a.atttypmod), 'category', t.typcategory, 'domain', t.typtype = 'd',
			'from', case when a.attgenerated <> '' then (select json_agg(d.refobjsubid) from pg_depend d
				left join pg_attrdef f on d.classid = 'pg_attrdef'::regclass and f.oid = d.objid
				where d.refclassid = 'pg_class'::regclass and d.refobjid = c.oid and d.refobjsubid > 0 and d.refobjsubid <> a.attnum
				and ((f.adrelid = c.oid and f.adnum = a.attnum)
					or (d.classid = 'pg_class'::regclass and d.objid = c.oid and d.objsubid = a.attnum))) end)
			order by a.attnum), '[]')
		from pg_attribute a join pg_type t on t.oid = a.atttypid
		where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
	(select coalesce(json_agg(json_build_array(sn.nspname, s.relname) order by 1), '[]')
		from pg_depend d join pg_class s on s.oid = d.objid and s.relkind = 'S' join pg_namespace sn on sn.oid = s.relnamespace
		where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjid = c.oid
		and d.refobjsubid > 0 and d.deptype = 'a')
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'v', 'm', 'f') and c.relpersistence <> 't' and ` + foreignSchema + `
	and (n.nspname = any($1)
		or (n.nspname, c.relname) in (select * from unnest($2::text[], $3::text[]))
		or c.relname = any($4)
		or exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = any($5) and a.attnum > 0 and not a.attisdropped))
order by n.nspname collate "C", c.relname collate "C"
limit $6`

// wanted is which relations a plan can touch.
type wanted struct{ schemas, inSchema, tables, maskTables, maskColumns []string }

func want(tables []pattern, masks []masked) wanted {
	w := wanted{[]string{}, []string{}, []string{}, []string{}, []string{}}
	for _, p := range tables {
		if p.parts[1] == "" {
			w.schemas = append(w.schemas, p.parts[0])
			continue
		}
		w.inSchema, w.tables = append(w.inSchema, p.parts[0]), append(w.tables, p.parts[1])
	}
	for _, m := range masks {
		for _, p := range m.patterns {
			if p.parts[2] != "" {
				w.maskColumns = append(w.maskColumns, p.parts[2])
			} else {
				w.maskTables = append(w.maskTables, p.parts[1])
			}
		}
	}
	return w
}

// readCatalog asks once for the relations and the functions.
func readCatalog(ctx context.Context, tx pgx.Tx, tables []pattern, masks []masked) (*catalog, error) {
	w := want(tables, masks)
	rows, err := tx.Query(ctx, relationsSQL, w.schemas, w.inSchema, w.tables, w.maskTables, w.maskColumns, maxTables+1)
	if err != nil {
		return nil, fmt.Errorf("read tables: %w", err)
	}
	c := &catalog{}
	c.relations, err = pgx.CollectRows(rows, scanRelation)
	if err != nil {
		return nil, fmt.Errorf("read tables: %w", err)
	}
	columns := 0
	for _, r := range c.relations {
		columns += len(r.Columns)
	}
	if len(c.relations) > maxTables || columns > maxColumns {
		return nil, access.Errorf(access.CodeTooLarge, "The role and its masks touch more than %d tables or %d columns; name fewer.", maxTables, maxColumns)
	}
	return c, c.readFunctions(ctx, tx)
}

func scanRelation(row pgx.CollectableRow) (r relation, err error) {
	var columns, sequences []byte
	if err = row.Scan(&r.OID, &r.Schema, &r.Name, &r.Kind, &r.RLS, &r.Rules, &r.Public, &columns, &sequences); err != nil {
		return r, err
	}
	if err = json.Unmarshal(columns, &r.Columns); err != nil {
		return r, err
	}
	err = json.Unmarshal(sequences, &r.Sequences)
	return r, err
}

const functionsSQL = `
select n.nspname || '.' || p.proname from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where p.prosecdef and ` + foreignSchema + `
	and exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) x where x.grantee = 0 and x.privilege_type = 'EXECUTE')
order by 1 limit 1000`

func (c *catalog) readFunctions(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, functionsSQL)
	if err == nil {
		c.functions, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	if err != nil {
		return fmt.Errorf("read functions: %w", err)
	}
	c.functions = slices.Compact(c.functions)
	return nil
}

const (
	viewsSQL = `
select distinct d.refobjid, r.ev_class, d.refclassid = 'pg_proc'::regclass,
	case when ` + publicReads + ` then n.nspname || '.' || c.relname else '' end
from pg_rewrite r join pg_class c on c.oid = r.ev_class join pg_namespace n on n.oid = c.relnamespace
join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid
where c.relkind in ('v', 'm') and d.refclassid in ('pg_class'::regclass, 'pg_proc'::regclass)
	and d.refobjid >= 16384 and d.refobjid <> r.ev_class and ` + foreignSchema + ` limit 200000`
	inheritsSQL = `select inhrelid, inhparent from pg_inherits limit 200000`
	defaultsSQL = `
select pg_get_userbyid(d.defaclrole) from pg_default_acl d, aclexplode(d.defaclacl) x
where d.defaclobjtype = 'r' and x.grantee = 0 and x.privilege_type = 'SELECT' order by 1`
)

// readLeaks asks for every way by which what is hidden could come out.
func (c *catalog) readLeaks(ctx context.Context, tx pgx.Tx) error {
	c.readers, c.tree = map[uint32][]uint32{}, map[uint32][]uint32{}
	c.calling, c.publics = map[uint32]bool{}, map[uint32]string{}
	var from, view uint32
	var calls bool
	var public string
	rows, _ := tx.Query(ctx, viewsSQL) // the error comes out of ForEachRow
	n, err := pgx.ForEachRow(rows, []any{&from, &view, &calls, &public}, func() error {
		if calls {
			c.calling[view] = true
		} else {
			c.readers[from] = append(c.readers[from], view)
		}
		if public != "" {
			c.publics[view] = public
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read views: %w", err)
	}
	rows, _ = tx.Query(ctx, inheritsSQL)
	k, err := pgx.ForEachRow(rows, []any{&from, &view}, func() error {
		c.tree[from], c.tree[view] = append(c.tree[from], view), append(c.tree[view], from)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read inheritance: %w", err)
	}
	if max(n.RowsAffected(), k.RowsAffected()) >= 200_000 {
		return access.Errorf(access.CodeTooLarge, "The database has more than 200000 dependencies of views or partitions: masks can't be shown to be safe there.")
	}
	rows, _ = tx.Query(ctx, defaultsSQL)
	if c.defaults, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
		return fmt.Errorf("read default privileges: %w", err)
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
