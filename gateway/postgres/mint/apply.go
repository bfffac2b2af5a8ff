package mint

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidegate/tidegate/access"
)

const tries = 6

// Mint makes the grant's role at the target, or makes it again what it must
// be: a later end, another generation's rights. A grant that was minted before
// and is unchanged only has its login renewed.
func (m *Minter) Mint(ctx context.Context, g access.Grant) (access.Minted, error) {
	if err := m.mintable(g); err != nil {
		return access.Minted{}, err
	}
	if g.Plan.Target.Static != "" {
		return m.mintStatic(ctx, g)
	}
	approved, err := parseBody(g.Plan.Expansion.Body)
	if err != nil {
		return access.Minted{}, err
	}
	j := &job{names: m.names, role: m.names.role(g), key: g.Key, until: g.NotAfter}
	if j.settings, err = roleSettings(g.Plan.Role); err != nil {
		return access.Minted{}, err
	}
	if j.verifier, err = m.verifier(g); err != nil {
		return access.Minted{}, err
	}
	p, err := m.pool(g.Plan.Target)
	if err == nil {
		err = m.prepare(ctx, p)
	}
	if err == nil {
		err = m.transact(ctx, func() error {
			return pgx.BeginFunc(ctx, p, func(tx pgx.Tx) error { return m.mint(ctx, p, tx, j, g.Plan, approved) })
		})
	}
	if err != nil {
		return access.Minted{}, explain("mint grant "+g.Key.ID, g.Plan.Target, err)
	}
	b, err := j.backing().Encode()
	return access.Minted{Backing: b}, err
}

func (m *Minter) mintable(g access.Grant) error {
	switch now := m.cfg.Now(); {
	case g.State.Ended(), !now.Before(g.NotAfter):
		return access.Errorf(access.CodeEnded, "Grant %s is over (%s, until %s) and is not minted.", g.Key.ID, g.State, g.NotAfter.UTC().Format(time.RFC3339))
	case g.Generation < 0 || g.Generation > 1_000_000_000:
		return access.Errorf(access.CodeInvalid, "Grant %s has generation %d.", g.Key.ID, g.Generation)
	}
	return check(g.Plan.Target)
}

// mint reads the catalog first, which may run beside other mints, and then
// holds the lock for as short as it can.
func (m *Minter) mint(ctx context.Context, p *pool, tx pgx.Tx, j *job, plan access.Plan, approved body) error {
	today, err := expand(ctx, tx, plan)
	if err != nil {
		return err
	}
	if today.Database, err = database(ctx, tx); err != nil {
		return err
	}
	if approved.Database != today.Database {
		return access.Errorf(access.CodeInvalid, "Database %q was approved and the target is now %q: plan the request again.", approved.Database, today.Database)
	}
	j.body = intersect(approved, today)
	if len(j.body.Tables) == 0 {
		return access.Errorf(access.CodeInvalid, "Nothing of what was approved is left on target %s: plan the request again.", plan.Target.TargetRef)
	}
	if err := m.lock(ctx, p, tx); err != nil {
		return err
	}
	statements, err := m.plan(ctx, tx, j)
	if err != nil {
		return err
	}
	if m.inject != nil {
		statements = m.inject(statements)
	}
	if _, err := tx.Conn().PgConn().Exec(ctx, strings.Join(statements, ";\n")).ReadAll(); err != nil {
		return fmt.Errorf("make role %s: %w", j.role, err)
	}
	return refusedGrant(tx.Conn())
}

func database(ctx context.Context, tx pgx.Tx) (name string, err error) {
	err = tx.QueryRow(ctx, "select current_database()").Scan(&name)
	return name, err
}

// plan compares what the grant needs with what is there.
func (m *Minter) plan(ctx context.Context, tx pgx.Tx, j *job) ([]string, error) {
	var usable, stale []string
	var comment *string
	var views int
	err := tx.QueryRow(ctx, `select has_database_privilege('public', current_database(), 'connect'),
		array(select nspname::text from pg_namespace where nspname = any($1) and has_schema_privilege('public', oid, 'usage')),
		(select coalesce(shobj_description(oid, 'pg_authid'), '') from pg_roles where rolname = $2),
		array(select nspname::text from pg_namespace where left(nspname, length($3)) = $3),
		(select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.relkind = 'v' and left(n.nspname, length($3)) = $3)`,
		j.schemas(), j.role, j.role+"_m_").Scan(&j.publicConnect, &usable, &comment, &stale, &views)
	if err != nil {
		return nil, fmt.Errorf("look for role %s: %w", j.role, err)
	}
	j.publicUsage = map[string]bool{}
	for _, s := range usable {
		j.publicUsage[s] = true
	}
	out := j.login(comment != nil)
	if comment != nil && *comment == j.comment() && views == j.views() {
		return out, nil
	}
	if comment == nil {
		out = append(out, fmt.Sprintf("grant %s to current_user", ident(j.role))) // to reassign, drop and terminate as it
	}
	for _, s := range stale {
		out = append(out, fmt.Sprintf("drop schema %s cascade", ident(s)))
	}
	if comment != nil {
		revoke, err := m.stripStatements(ctx, tx, j.role)
		if err != nil {
			return nil, err
		}
		out = append(append(out, revoke...), fmt.Sprintf("alter role %s reset all", ident(j.role)))
	}
	return slices.Concat(out, j.settle(), j.give(),
		[]string{fmt.Sprintf("comment on role %s is%s", ident(j.role), literal(j.comment()))}), nil
}

const (
	ownsSQL = `select count(*) from pg_shdepend d where d.refclassid = 'pg_authid'::regclass
		and d.refobjid = (select oid from pg_roles where rolname = $1) and d.deptype = 'o'
		and d.dbid in (0, (select oid from pg_database where datname = current_database()))`
	rightsSQL      = heldSQL + rightsTail
	unneededSQL    = heldSQL + noView + rightsTail // of the views' owner: of tables that no view reads any more
	unneededUseSQL = `
select format('revoke usage on schema %I from %I', n.nspname, r.rolname) from pg_namespace n, pg_roles r
where r.rolname = $1 and left(n.nspname, length($2)) <> $2 and n.nspowner <> r.oid
	and exists (select from aclexplode(n.nspacl) x where x.grantee = r.oid and x.privilege_type = 'USAGE')
	and not exists (select from pg_class c join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = c.oid
		and d.classid = 'pg_rewrite'::regclass join pg_rewrite w on w.oid = d.objid
		join pg_class v on v.oid = w.ev_class where c.relnamespace = n.oid and v.relowner = r.oid)`
	heldSQL = `
with held as (select distinct c.oid, c.relkind, c.relname, c.relacl, n.nspname, r.oid as role
	from pg_roles r join pg_shdepend d on d.refclassid = 'pg_authid'::regclass and d.refobjid = r.oid and d.deptype = 'a'
		and d.classid = 'pg_class'::regclass and d.dbid = (select oid from pg_database where datname = current_database())
	join pg_class c on c.oid = d.objid join pg_namespace n on n.oid = c.relnamespace
	where r.rolname = $1 and left(n.nspname, length($2)) <> $2`
	noView = `
	and not exists (select from pg_depend v join pg_rewrite w on w.oid = v.objid join pg_class x on x.oid = w.ev_class
		where v.classid = 'pg_rewrite'::regclass and v.refclassid = 'pg_class'::regclass and v.refobjid = c.oid and x.relowner = r.oid)`
	rightsTail = `)
select format('revoke %s on %s %I.%I from %I', string_agg(p.priv, ', '), case h.relkind when 'S' then 'sequence' else 'table' end, h.nspname, h.relname, $1)
from held h cross join lateral (
	select x.privilege_type as priv from aclexplode(h.relacl) x where x.grantee = h.role
	union all
	select format('%s (%s)', x.privilege_type, string_agg(quote_ident(a.attname), ', '))
	from pg_attribute a, aclexplode(a.attacl) x where a.attrelid = h.oid and x.grantee = h.role group by x.privilege_type) p
group by h.oid, h.relkind, h.nspname, h.relname`
)

// stripStatements takes every right from a role. DROP OWNED would drop what
// it owns as well, so that goes to the minter's login first; and it revokes
// more than was given, for which that login may lack the right, so that what
// was given on tables is revoked before, one by one.
func (m *Minter) stripStatements(ctx context.Context, tx pgx.Tx, role string) ([]string, error) {
	var owned int
	if err := tx.QueryRow(ctx, ownsSQL, role).Scan(&owned); err != nil {
		return nil, fmt.Errorf("look for what role %s owns: %w", role, err)
	}
	rows, _ := tx.Query(ctx, rightsSQL, role, role+"_m_") // the error comes out of CollectRows
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("look for the rights of role %s: %w", role, err)
	}
	if owned > 0 {
		m.cfg.Log.Warn("a role owns objects; they go to the minter's login", "role", role, "objects", owned)
		out = append(out, fmt.Sprintf("reassign owned by %s to current_user", ident(role)))
	}
	return append(out, "drop owned by "+ident(role)), nil
}

// locked runs f in a transaction that no other mint or revoke on the database
// runs beside.
func (m *Minter) locked(ctx context.Context, p *pool, f func(pgx.Tx) error) error {
	return m.transact(ctx, func() error {
		return pgx.BeginFunc(ctx, p, func(tx pgx.Tx) error {
			if err := m.lock(ctx, p, tx); err != nil {
				return err
			}
			return f(tx)
		})
	})
}

// lock waits until no other mint or revoke runs; the transaction's end lets
// the next go.
func (m *Minter) lock(ctx context.Context, p *pool, tx pgx.Tx) error {
	// A row in a schema that only the minter can use: an advisory lock
	// could be taken by any minted role, and would block a revoke.
	tag, err := tx.Exec(ctx, "select from "+ident(m.names.lock(), "lock")+" for update")
	if err != nil {
		p.forget()
		return fmt.Errorf("lock target: %w", err)
	}
	if tag.RowsAffected() != 1 {
		return fmt.Errorf("lock target: table %s.lock has %d rows, want 1; insert its default row", m.names.lock(), tag.RowsAffected())
	}
	return nil
}

// transact runs a transaction, and again if the server was in the way.
func (m *Minter) transact(ctx context.Context, transaction func() error) error {
	var err error
	for try := range tries {
		if err = transaction(); err == nil || !passing(err) || ctx.Err() != nil {
			return err
		}
		m.cfg.Log.Info("target was busy, trying again", "try", try+1, "error", err)
		wait := time.Duration(10<<try)*time.Millisecond + rand.N(10*time.Millisecond)
		if !sleep(ctx, wait) {
			return context.Cause(ctx)
		}
	}
	return err
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// passing reports whether the same again may succeed.
func passing(err error) bool {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code {
	case "40001", "40P01", "55P03", "23505": // 23505: two transactions made the same catalog row
		return true
	case "XX000":
		return strings.HasPrefix(e.Message, "tuple concurrently ")
	}
	return false
}

// prepare makes what all grants of a database share. Where the setup made it,
// it only looks.
func (m *Minter) prepare(ctx context.Context, p *pool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ready {
		return nil
	}
	var schema, role, member bool
	look := func() error {
		return p.QueryRow(ctx, `select to_regclass($1) is not null, exists (select from pg_roles where rolname = $2),
			exists (select from pg_auth_members am join pg_roles r on r.oid = am.roleid join pg_roles u on u.oid = am.member
				where r.rolname = $2 and u.rolname = current_user)`,
			ident(m.names.lock(), "lock"), m.names.masks()).Scan(&schema, &role, &member)
	}
	for try := 0; ; try++ {
		if err := look(); err != nil {
			return fmt.Errorf("look for the minter's own tables: %w", err)
		}
		statements := m.shared(schema, role, member)
		if len(statements) == 0 {
			p.ready = true
			return nil
		}
		err := pgx.BeginFunc(ctx, p, func(tx pgx.Tx) error {
			_, err := tx.Conn().PgConn().Exec(ctx, strings.Join(statements, ";\n")).ReadAll()
			return err
		})
		var e *pgconn.PgError
		race := errors.As(err, &e) && (passing(err) || e.Code == "42710" || e.Code == "42P06" || e.Code == "42P07")
		if err != nil && (!race || try == tries) {
			return fmt.Errorf("make the minter's own tables: %w", err)
		}
	}
}

func (m *Minter) shared(schema, role, member bool) []string {
	var out []string
	s, masks := ident(m.names.lock()), ident(m.names.masks())
	if !role {
		out = append(out, fmt.Sprintf("create role %s with nologin", masks))
	}
	if !role || !member {
		out = append(out, fmt.Sprintf("grant %s to current_user", masks))
	}
	if !schema {
		out = append(out, "create schema "+s, fmt.Sprintf("revoke all on schema %s from public", s),
			fmt.Sprintf("create table %s.lock (only_row boolean primary key default true check (only_row))", s),
			fmt.Sprintf("revoke all on table %s.lock from public", s),
			fmt.Sprintf("insert into %s.lock default values", s))
	}
	return out
}

// away reports whether the server said that it stops, starts or has no room
// for us, in the classes of SQLSTATE.
func away(code string) bool {
	return strings.HasPrefix(code, "57P") || strings.HasPrefix(code, "53") || strings.HasPrefix(code, "08")
}

// said is the server's own sentence in an error.
func said(err error) string {
	if e := (*pgconn.PgError)(nil); errors.As(err, &e) {
		return e.Message
	}
	return err.Error()
}

// explain gives an error the code by which the caller knows what to do.
func explain(doing string, t access.Target, err error) error {
	var known *access.Error
	if errors.As(err, &known) {
		return err
	}
	var connect *pgconn.ConnectError
	var server *pgconn.PgError
	if errors.As(err, &server) && !errors.As(err, &connect) && !passing(err) && !away(server.Code) {
		return fmt.Errorf("%s at %s: %w", doing, t.TargetRef, err)
	}
	return &access.Error{Code: access.CodeUnavailable, Cause: fmt.Errorf("%s: %w", doing, err),
		Message: fmt.Sprintf("Target %s can't be reached or is busy; trying again helps once it is back.", t.TargetRef)}
}
