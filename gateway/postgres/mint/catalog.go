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
	functions []openFunction      // SECURITY DEFINER functions open to PUBLIC
}

type openFunction struct {
	oid  uint32
	name string
}

// foreignSchema leaves out the system's schemas and those of any minter.
const foreignSchema = ` n.nspname <> 'information_schema' and n.nspname !~ '^pg_' and n.nspname !~ '^tg_[a-z0-9]{4,12}_' and n.nspname !~ '^tidegate_' `

const publicReads = ` (exists (select from aclexplode(c.relacl) x where x.grantee = 0 and x.privilege_type = 'SELECT')
	or exists (select from pg_attribute pa, aclexplode(pa.attacl) x where pa.attrelid = c.oid and x.grantee = 0 and x.privilege_type = 'SELECT')) `

// relationsSQL starts from what the patterns name, so that it costs what they
// touch: only a whole schema, and a masked column of any table ("*.email"),
// are looked for by reading pg_class and pg_attribute through. A relation that
// only a masked column brought in comes with such columns alone.
const relationsSQL = `
with picked as (
	select c.oid, true as whole from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = any($1)
	union all
	select c.oid, true from unnest($2::text[], $3::text[]) as w(schema, name)
		join pg_namespace n on n.nspname = w.schema join pg_class c on c.relnamespace = n.oid and c.relname = w.name
	union all
	select c.oid, true from pg_class c where c.relname = any($4)
	union all
	select a.attrelid, false from pg_attribute a where a.attname = any($5) and a.attnum > 0 and not a.attisdropped),
looked as (select oid, bool_or(whole) as whole from picked group by oid)
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
		where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and (l.whole or a.attname = any($5))),
	case when $6 then (select coalesce(json_agg(json_build_array(sn.nspname, s.relname) order by 1), '[]')
		from pg_depend d join pg_class s on s.oid = d.objid and s.relkind = 'S' join pg_namespace sn on sn.oid = s.relnamespace
		where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjid = c.oid
		and d.refobjsubid > 0 and d.deptype = 'a') else '[]' end
from looked l join pg_class c on c.oid = l.oid join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'v', 'm', 'f') and c.relpersistence <> 't' and ` + foreignSchema + `
order by n.nspname collate "C", c.relname collate "C"
limit $7`

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
			if p.parts[1] != "" {
				w.maskTables = append(w.maskTables, p.parts[1])
			} else {
				w.maskColumns = append(w.maskColumns, p.parts[2])
			}
		}
	}
	return w
}

// readCatalog asks once for the relations and the functions.
func readCatalog(ctx context.Context, tx pgx.Tx, read, write []pattern, masks []masked) (*catalog, error) {
	w, writes := want(slices.Concat(read, write), masks), len(write) > 0
	rows, err := tx.Query(ctx, relationsSQL, w.schemas, w.inSchema, w.tables, w.maskTables, w.maskColumns, writes, maxTables+1)
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
select p.oid, n.nspname || '.' || p.proname from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where p.prosecdef and ` + foreignSchema + `
	and exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) x where x.grantee = 0 and x.privilege_type = 'EXECUTE')
order by 2 limit 1000`

func (c *catalog) readFunctions(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, functionsSQL)
	if err == nil {
		c.functions, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (f openFunction, err error) {
			err = row.Scan(&f.oid, &f.name)
			return f, err
		})
	}
	if err != nil {
		return fmt.Errorf("read functions: %w", err)
	}
	return nil
}
