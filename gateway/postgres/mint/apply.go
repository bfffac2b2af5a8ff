package mint

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidegate/tidegate/access"
)

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
		err = m.mint(ctx, p, j, g.Plan, approved)
	}
	if err != nil {
		return access.Minted{}, explain("mint grant "+g.Key.ID, g.Plan.Target, err)
	}
	b, err := j.plan.Encode()
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
func (m *Minter) mint(ctx context.Context, p *pool, j *job, plan access.Plan, approved body) error {
	now, err := m.today(ctx, p, plan, approved)
	if err != nil {
		return err
	}
	j.body = now.body
	j.plan = j.backing()
	now.names.tell(&j.plan, j.body.Calls)
	now.sources.tell(&j.plan)
	j.making = rand.Text()
	err = m.inBatches(ctx, p,
		func(ctx context.Context, c *pgx.Conn) ([]string, error) { return m.plan(ctx, c, j) },
		func(ctx context.Context, c *pgx.Conn) error { return stillMaking(ctx, c, j) })
	if err != nil {
		return fmt.Errorf("make role %s: %w", j.role, err)
	}
	return nil
}

// reading is what a mint must know of the target's catalog. It is only read.
type reading struct {
	body    body // what was approved and is there
	names   knownNames
	sources sources
}

// today reads the catalog for a mint. Mints of the same access that come
// together, as after the merge of a team's requests, share one reading, which
// began after each of them asked: it is most of what a mint costs the server.
func (m *Minter) today(ctx context.Context, p *pool, plan access.Plan, approved body) (reading, error) {
	same := access.Plan{Target: plan.Target, Role: plan.Role, Masks: plan.Masks, Expansion: plan.Expansion}
	return m.readings.Do(ctx, same.Digest(), func(ctx context.Context) (reading, error) { return readToday(ctx, p, plan, approved) })
}

func readToday(ctx context.Context, p *pool, plan access.Plan, approved body) (r reading, err error) {
	today, err := expandToday(ctx, p, plan)
	if err != nil {
		return r, err
	}
	if approved.Database != today.Database {
		return r, access.Errorf(access.CodeInvalid, "Database %q was approved and the target is now %q: plan the request again.", approved.Database, today.Database)
	}
	r.body = intersect(approved, today)
	if r.body.empty() || r.body.Owner != approved.Owner {
		return r, access.Errorf(access.CodeInvalid, "Nothing of what was approved is left on target %s: plan the request again.", plan.Target.TargetRef)
	}
	var path []string // an owner's is the server's own
	if r.body.Owner == "" {
		path = (&job{body: r.body}).schemas()
	}
	if r.names, err = readNames(ctx, p, path, r.body.Owner, r.body.Calls); err == nil {
		r.sources, err = readSources(ctx, p, r.body.Tables)
	}
	return r, err
}

func expandToday(ctx context.Context, p *pool, plan access.Plan) (b body, err error) {
	err = pgx.BeginTxFunc(ctx, p, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if b, err = expand(ctx, tx, plan); err != nil {
			return err
		}
		return tx.QueryRow(ctx, "select current_database()").Scan(&b.Database)
	})
	return b, err
}

// stillMaking looks whether nobody took the role away, or began to make it
// anew, since this mint's last batch.
func stillMaking(ctx context.Context, c *pgx.Conn, j *job) error {
	var comment string
	err := c.QueryRow(ctx, "select coalesce((select shobj_description(oid, 'pg_authid') from pg_roles where rolname = $1), '')", j.role).Scan(&comment)
	if err == nil && comment != j.unfinished() {
		return access.Errorf(access.CodeUnavailable, "Grant %s was minted or revoked by somebody else at the same time; trying again helps.", j.key.ID)
	}
	return err
}

// found is what is at the target of a role that is to be minted.
type found struct {
	comment *string // nil: the role is not there
	schemas []string
	views   []view
}

// plan compares what the grant needs with what is there.
func (m *Minter) plan(ctx context.Context, c *pgx.Conn, j *job) ([]string, error) {
	var is found
	var usable []string
	var yield bool
	looks := &pgx.Batch{}
	looks.Queue(`select has_database_privilege('public', current_database(), 'connect'),
		array(select nspname::text from pg_namespace where nspname = any($1) and has_schema_privilege('public', oid, 'usage')),
		(select coalesce(shobj_description(oid, 'pg_authid'), '') from pg_roles where rolname = $2), to_regclass($3) is not null`,
		j.schemas(), j.role, m.names.yield()).QueryRow(func(row pgx.Row) error {
		return row.Scan(&j.publicConnect, &usable, &is.comment, &yield)
	})
	queueMaskSchemas(looks, j.role+"_m_", &is.schemas, &is.views)
	if err := c.SendBatch(ctx, looks).Close(); err != nil {
		return nil, fmt.Errorf("look for role %s: %w", j.role, err)
	}
	if yield && j.views() > 0 {
		if err := m.yields(ctx, c); err != nil {
			return nil, err
		}
	}
	j.publicUsage = map[string]bool{}
	for _, s := range usable {
		j.publicUsage[s] = true
	}
	out := j.login(is.comment != nil)
	if is.comment != nil && *is.comment == j.comment() && len(is.views) == j.views() {
		return out, nil
	}
	if is.comment == nil {
		out = append(out, fmt.Sprintf("grant %s to current_user", ident(j.role))) // to reassign, drop and terminate as it
	}
	if j.views()+len(is.views) > m.viewsEach {
		out = append(out, fmt.Sprintf("comment on role %s is%s", ident(j.role), literal(j.unfinished())))
	}
	undo, err := m.undo(ctx, c, j, is)
	if err != nil {
		return nil, err
	}
	return slices.Concat(out, undo, j.settle(), j.give(),
		[]string{fmt.Sprintf("comment on role %s is%s", ident(j.role), literal(j.comment()))}), nil
}

// undo takes away what an earlier mint of the role gave.
func (m *Minter) undo(ctx context.Context, c *pgx.Conn, j *job, is found) ([]string, error) {
	out, err := m.dropMasks(ctx, c, is.schemas, is.views)
	if err != nil || is.comment == nil {
		return out, err
	}
	strip, err := m.stripStatements(ctx, c, []string{j.role}, j.role+"_m_")
	return append(append(out, strip...), fmt.Sprintf("alter role %s reset all", ident(j.role))), err
}

// prepare makes what all grants of a database share. Where the setup made it,
// it only looks, and nobody waits for another: a look at a target that hangs
// must not hold up a revocation.
func (m *Minter) prepare(ctx context.Context, p *pool) error {
	if p.ready.Load() {
		return nil
	}
	missing, err := m.missing(ctx, p)
	if err != nil || len(missing) == 0 {
		p.ready.Store(err == nil)
		return err
	}
	select {
	case p.making <- struct{}{}:
		defer func() { <-p.making }()
	case <-ctx.Done():
		return fmt.Errorf("wait for the minter's own tables: %w", context.Cause(ctx))
	}
	return m.makeShared(ctx, p)
}

// missing are the statements that make what all grants share and is not there.
func (m *Minter) missing(ctx context.Context, p *pool) ([]string, error) {
	var schema, role, member bool
	err := p.QueryRow(ctx, `select to_regclass($1) is not null, exists (select from pg_roles where rolname = $2),
		exists (select from pg_auth_members am join pg_roles r on r.oid = am.roleid join pg_roles u on u.oid = am.member
			where r.rolname = $2 and u.rolname = current_user)`,
		ident(m.names.lock(), "lock"), m.names.masks()).Scan(&schema, &role, &member)
	if err != nil {
		return nil, fmt.Errorf("look for the minter's own tables: %w", err)
	}
	return m.shared(schema, role, member), nil
}

// makeShared makes what is missing, beside other processes that do the same.
func (m *Minter) makeShared(ctx context.Context, p *pool) error {
	for try := 0; ; try++ {
		missing, err := m.missing(ctx, p)
		if err != nil || len(missing) == 0 {
			p.ready.Store(err == nil)
			return err
		}
		err = pgx.BeginFunc(ctx, p, func(tx pgx.Tx) error {
			_, err := tx.Conn().PgConn().Exec(ctx, strings.Join(missing, ";\n")).ReadAll()
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
	if errors.As(err, &server) && server.Code == "54000" { // a row of pg_attribute has one page
		return &access.Error{Code: access.CodeUnavailable, Cause: err, Message: fmt.Sprintf(
			"Target %s holds as many rights on one table as PostgreSQL can keep (%s): of those that are met without a view, about 2,400 grants at once. It is tried again, and goes through when some have ended.", t.TargetRef, server.Message)}
	}
	if errors.As(err, &server) && !errors.As(err, &connect) && !passing(err) && !away(server.Code) {
		return fmt.Errorf("%s at %s: %w", doing, t.TargetRef, err)
	}
	return &access.Error{Code: access.CodeUnavailable, Cause: fmt.Errorf("%s: %w", doing, err),
		Message: fmt.Sprintf("Target %s can't be reached or is busy; trying again helps once it is back.", t.TargetRef)}
}
