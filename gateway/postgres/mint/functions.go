package mint

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/postgres/backing"
)

// The customer's own functions are called only where the role's `call` names
// them. EXECUTE is given for those that not everybody may call; of the others
// the server asks nobody, so that the gateway must: it gets their names with
// its plan.

const maxFunctions = 10_000

// routine is a function or a procedure of the customer's.
type routine struct {
	Schema    string `json:"schema"`
	Name      string `json:"name"`
	Signature string `json:"signature"` // as SQL writes it: public.refund(integer)
	Definer   bool   `json:"definer,omitempty"`
	Public    bool   `json:"public,omitempty"` // everybody may call it

	oid uint32
}

// callable is what a role's `call` names.
type callable struct {
	routines []routine
	open     []routine // of the same names, which everybody may call and `call` does not name
	missing  error     // names nothing: a mistake of a plan, and later what was dropped
}

func (c callable) oids() []uint32 {
	out := make([]uint32, len(c.routines))
	for i, r := range c.routines {
		out[i] = r.oid
	}
	return out
}

// settled leaves out what can't be told, by its name, from one that `call`
// does not name.
func (c callable) settled() []routine {
	return slices.DeleteFunc(slices.Clone(c.routines), func(r routine) bool { return c.twin(r) != "" })
}

func (c callable) twin(r routine) string {
	for _, o := range c.open {
		if o.Schema == r.Schema && o.Name == r.Name {
			return o.Signature
		}
	}
	return ""
}

// check refuses what planning must say.
func (c callable) check() error {
	if c.missing != nil {
		return c.missing
	}
	for _, r := range c.routines {
		if twin := c.twin(r); twin != "" {
			return access.Errorf(access.CodeInvalid, "Everybody may call %s, which the gateway can't tell from %s: name it in call as well, or revoke EXECUTE from PUBLIC.", twin, r.Signature)
		}
	}
	return nil
}

const openRoutine = ` exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) x where x.grantee = 0 and x.privilege_type = 'EXECUTE') `

const routinesSQL = `
select p.oid, n.nspname, p.proname, p.oid::regprocedure::text, p.prosecdef, ` + openRoutine + `
from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where ` + foreignSchema + ` and p.prorettype not in ('trigger'::regtype, 'event_trigger'::regtype)
	and (n.nspname = any($1) or (n.nspname, p.proname) in (select * from unnest($2::text[], $3::text[])) or p.oid = any($4))
order by n.nspname collate "C", p.proname collate "C", 4
limit $5`

// readCallable looks up what the texts of `call` name: "app.*", "app.refund"
// for all of that name, "app.refund(int)" for one.
func readCallable(ctx context.Context, q querier, texts []string) (callable, error) {
	var c callable
	if len(texts) == 0 {
		return c, nil
	}
	if len(texts) > maxPatterns {
		return c, access.Errorf(access.CodeTooLarge, "call names %d functions; at most %d are allowed.", len(texts), maxPatterns)
	}
	for _, text := range texts {
		found, err := readCall(ctx, q, text)
		if err != nil {
			return c, err
		}
		if len(found) == 0 {
			c.missing = access.Errorf(access.CodeInvalid, "%q in call names no function of the target's: correct it, or make the function first.", text)
		}
		for _, r := range found {
			if !slices.ContainsFunc(c.routines, func(o routine) bool { return o.oid == r.oid }) {
				c.routines = append(c.routines, r)
			}
		}
	}
	slices.SortFunc(c.routines, func(a, b routine) int { return strings.Compare(a.Signature, b.Signature) })
	if len(c.routines) > maxFunctions {
		return c, access.Errorf(access.CodeTooLarge, "call names more than %d functions; name fewer.", maxFunctions)
	}
	var schemas, names []string
	for _, r := range c.routines {
		schemas, names = append(schemas, r.Schema), append(names, r.Name)
	}
	same, err := routines(ctx, q, []string{}, schemas, names, []uint32{})
	c.open = slices.DeleteFunc(same, func(r routine) bool { return !r.Public || slices.Contains(c.oids(), r.oid) })
	return c, err
}

func readCall(ctx context.Context, q querier, text string) ([]routine, error) {
	if strings.HasSuffix(text, ")") {
		return readSignature(ctx, q, text)
	}
	p, err := parsePattern(text)
	if err != nil || len(p.parts) != 2 || p.parts[0] == "" {
		return nil, access.Errorf(access.CodeInvalid, "%q in call is not understood: want schema.function(types), schema.function or schema.*.", text)
	}
	if p.parts[1] == "" {
		return routines(ctx, q, p.parts[:1], []string{}, []string{}, []uint32{})
	}
	return routines(ctx, q, []string{}, p.parts[:1], p.parts[1:], []uint32{})
}

func readSignature(ctx context.Context, q querier, text string) ([]routine, error) {
	var oid *uint32
	if err := q.QueryRow(ctx, "select to_regprocedure($1)::oid", text).Scan(&oid); err != nil {
		return nil, access.Errorf(access.CodeInvalid, "%q in call is not understood: %s.", text, said(err))
	}
	if oid == nil {
		return nil, nil
	}
	return routines(ctx, q, []string{}, []string{}, []string{}, []uint32{*oid})
}

func routines(ctx context.Context, q querier, all, schemas, names []string, oids []uint32) ([]routine, error) {
	rows, _ := q.Query(ctx, routinesSQL, all, schemas, names, oids, maxFunctions+1) // the error comes out of CollectRows
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r routine, err error) {
		err = row.Scan(&r.oid, &r.Schema, &r.Name, &r.Signature, &r.Definer, &r.Public)
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("read functions: %w", err)
	}
	return found, nil
}

// calls is what a role's setting says, a line each.
func calls(role access.Role) []string {
	if role.Settings["call"] == "" {
		return nil
	}
	return strings.Split(role.Settings["call"], "\n")
}

// commonRoutines keeps what both hold. One that runs with other rights by now
// is another one.
func commonRoutines(approved, today []routine) []routine {
	var out []routine
	for _, r := range today {
		if slices.ContainsFunc(approved, func(a routine) bool { return a.Signature == r.Signature && a.Definer == r.Definer }) {
			out = append(out, r)
		}
	}
	return out
}

// callSummary says for people what may be called.
func (b body) callSummary() (out []string) {
	var all, definer []string
	for _, r := range b.Calls {
		all = append(all, r.Signature)
		if r.Definer {
			definer = append(definer, r.Signature)
		}
	}
	if len(all) > 0 {
		out = append(out, fmt.Sprintf("calls %s: %s", count(len(all), "function"), some(all, maxNamed)))
	}
	if len(definer) > 0 {
		out = append(out, fmt.Sprintf("WARNING: trusts what runs with its owner's rights (SECURITY DEFINER) and may read and change more than the role: %s", some(definer, maxNamed)))
	}
	return out
}

// giveCalls gives EXECUTE where not everybody has it.
func (j *job) giveCalls() (out []string) {
	for _, r := range j.body.Calls {
		if !r.Public {
			out = append(out, fmt.Sprintf("grant execute on routine %s to %s", r.Signature, ident(j.role)))
		}
	}
	return out
}

// heldRoutinesSQL is the statements that take roles' rights on functions away.
const heldRoutinesSQL = `
with ` + theirsCTE + `
select format('revoke execute on routine %s from %I', objid::regprocedure, rolname)
from theirs where deptype = 'a' and classid = 'pg_proc'::regclass`

const (
	laterBuiltinsSQL = `select distinct proname::text from pg_proc where pronamespace = 'pg_catalog'::regnamespace
	and proname::text not in (select unnest($1::text[])) order by 1`
	shadowsSQL = `
select distinct p.proname::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where ` + foreignSchema + ` and (cardinality($1::text[]) = 0 or n.nspname = any($1))
	and (` + openRoutine + ` or case when $6 = '' then false else has_function_privilege($6::name, p.oid, 'EXECUTE') end)
	and p.oid <> all($2) and p.prorettype not in ('trigger'::regtype, 'event_trigger'::regtype)
	and not (p.provolatile = 'i' and exists (select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'))
	and (p.proname::text in (select unnest($3::text[])) or p.proname::text in (select unnest($4::text[]))
		or exists (select from pg_proc b where b.pronamespace = 'pg_catalog'::regnamespace and b.proname = p.proname)
		or p.pronargs >= 1 and p.pronargs - p.pronargdefaults <= 1 and p.proargtypes[0] <> 'internal'::regtype
		or current_setting('server_version_num')::int < 160000 and p.proname in ('json_array', 'json_arrayagg', 'json_object', 'json_objectagg')
		or current_setting('server_version_num')::int < 170000 and p.proname in ('json', 'json_exists', 'json_query', 'json_scalar', 'json_serialize', 'json_value', 'merge_action'))
order by 1 limit $5`
)

// knownNames is what the room must know of a server's functions: those that
// it has beyond PostgreSQL 15, and the names by which something else would be
// met than `call` names: those that PostgreSQL's own functions have as well,
// those that may stand behind a dot, for they take one argument (x.f is f(x)),
// and those that the room's parser takes for a construct of a later version.
// Immutable functions of extensions are no such thing: citext has a max of its
// own.
type knownNames struct{ builtins, shadows []string }

// readNames reads them for a search path, of which none stands for all schemas,
// and for the role as which sessions act, which may call more than everybody
// may; empty: for one that has no rights of its own. The thousands of names that the queries get stand in subqueries: as constants
// they took the server longer to plan than all else of a mint.
func readNames(ctx context.Context, q querier, path []string, acts string, may []routine) (knownNames, error) {
	oids, names := []uint32{}, map[string]bool{}
	for _, r := range may {
		oids, names[r.Name] = append(oids, r.oid), true
	}
	var errs []error
	list := func(sql string, args ...any) []string {
		rows, _ := q.Query(ctx, sql, args...) // the error comes out of CollectRows
		out, err := pgx.CollectRows(rows, pgx.RowTo[string])
		errs = append(errs, err)
		return out
	}
	own := backing.Builtins()
	out := knownNames{
		builtins: list(laterBuiltinsSQL, own),
		shadows:  list(shadowsSQL, append([]string{}, path...), oids, slices.Sorted(maps.Keys(names)), own, backing.MaxNames+1, acts),
	}
	if err := errors.Join(errs...); err != nil {
		return out, fmt.Errorf("read functions: %w", err)
	}
	return out, nil
}

// tell puts them into the room's plan, with what may be called.
func (n knownNames) tell(b *backing.Backing, may []routine) {
	b.Builtins, b.Shadows = n.builtins, n.shadows
	for _, r := range may {
		if one := (backing.Routine{Schema: r.Schema, Name: r.Name}); !slices.Contains(b.Calls, one) {
			b.Calls = append(b.Calls, one)
		}
	}
}

const callableSQL = `select s from unnest($1::text[]) s where not has_function_privilege(to_regprocedure(s), 'EXECUTE WITH GRANT OPTION') order by 1`

// notCallable are the functions of which the login can't hand on EXECUTE.
func notCallable(ctx context.Context, q querier, all []routine) ([]string, error) {
	signatures := []string{}
	for _, r := range all {
		if !r.Public {
			signatures = append(signatures, r.Signature)
		}
	}
	rows, err := q.Query(ctx, callableSQL, signatures)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

func sameRoutines(a, b []routine) bool {
	return slices.EqualFunc(a, b, func(x, y routine) bool { return x.Signature == y.Signature })
}
