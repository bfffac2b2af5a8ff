package mint

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/access"
)

// Bounds of ending sessions.
const (
	endWait = 5 * time.Second
	endPoll = 5 * time.Millisecond
)

// role is a minted role that is at the target.
type role struct {
	oid  uint32
	name string
}

// Revoke takes every generation of the grant away. Of a static credential
// nothing can be taken: its sessions end at the gateway.
func (m *Minter) Revoke(ctx context.Context, g access.Grant) error {
	if g.Plan.Target.Static != "" {
		return check(g.Plan.Target)
	}
	p, err := m.pool(g.Plan.Target)
	if err == nil {
		err = m.prepare(ctx, p)
	}
	if err == nil {
		err = m.revoke(ctx, p, g.Key, m.names.prefix(g.Key))
	}
	if err != nil {
		return explain("revoke grant "+g.Key.ID, g.Plan.Target, err)
	}
	return nil
}

// revoke cuts first, without waiting for anybody, and then cleans up under the
// lock. A mint that was under way meanwhile has made a role that the cut did
// not see: then it begins again.
func (m *Minter) revoke(ctx context.Context, p *pool, key access.GrantKey, prefix string) error {
	for range tries {
		roles, err := m.cut(ctx, p, prefix)
		if err != nil {
			return err
		}
		again := false
		err = m.inBatches(ctx, p, func(ctx context.Context, c *pgx.Conn) ([]string, error) {
			now, err := m.roles(ctx, c, prefix)
			if again = !slices.Equal(now, roles); err != nil || again {
				return nil, err
			}
			return m.remove(ctx, c, prefix, roles)
		}, func(context.Context, *pgx.Conn) error { return nil })
		if err != nil {
			return fmt.Errorf("remove roles: %w", err)
		}
		if !again {
			m.remember(key, roles)
			return nil
		}
	}
	return access.Errorf(access.CodeConflict, "Roles of %s keep appearing while they are revoked.", key)
}

func (m *Minter) remember(key access.GrantKey, roles []role) {
	if key == (access.GrantKey{}) { // an orphan, which nobody will ask about
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range roles {
		m.dropped[key] = append(m.dropped[key], r.oid)
	}
}

type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// roles lists the minted roles whose names begin so.
func (m *Minter) roles(ctx context.Context, q querier, prefix string) ([]role, error) {
	rows, _ := q.Query(ctx, "select oid, rolname::text from pg_roles where left(rolname, length($1)) = $1 order by oid", prefix)
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r role, err error) {
		err = row.Scan(&r.oid, &r.name)
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("list roles: %w", err)
	}
	return slices.DeleteFunc(all, func(r role) bool { return !m.names.ours(r.name) }), nil
}

// cut takes the logins away, ends the sessions and waits until none is left.
// An open session outlives NOLOGIN, VALID UNTIL and even DROP ROLE, and after
// the drop it can't be found by name: so this comes first, and goes by oid.
func (m *Minter) cut(ctx context.Context, p *pool, prefix string) ([]role, error) {
	roles, err := m.roles(ctx, p, prefix)
	if err != nil || len(roles) == 0 {
		return nil, err
	}
	ids := oids(roles)
	for range tries {
		err = takeLogins(ctx, p, roles)
		if err == nil {
			return roles, m.endSessions(ctx, p, ids)
		}
		if !passing(err) {
			break
		}
		// A role may alter itself, and one that does so in a transaction that
		// it leaves open would hold this up for ever: its sessions go first.
		if err := m.endSessions(ctx, p, ids); err != nil {
			return nil, err
		}
	}
	return nil, err
}

func takeLogins(ctx context.Context, p *pool, roles []role) error {
	return pgx.BeginFunc(ctx, p, func(tx pgx.Tx) error {
		out := []string{"set local lock_timeout to '100ms'"}
		for _, r := range roles {
			out = append(out, fmt.Sprintf("alter role %s with nologin connection limit 0 valid until '-infinity' password null", ident(r.name)))
		}
		if _, err := tx.Conn().PgConn().Exec(ctx, strings.Join(out, ";\n")).ReadAll(); err != nil {
			return fmt.Errorf("take logins away: %w", err)
		}
		return nil
	})
}

func oids(roles []role) []uint32 {
	out := make([]uint32, len(roles))
	for i, r := range roles {
		out[i] = r.oid
	}
	return out
}

func (m *Minter) endSessions(ctx context.Context, p *pool, ids []uint32) error {
	ctx, cancel := context.WithTimeoutCause(ctx, endWait, fmt.Errorf("end sessions: some are still open after %s", endWait))
	defer cancel()
	for {
		tag, err := p.Exec(ctx, "select pg_terminate_backend(pid) from pg_stat_activity where usesysid = any($1)", ids)
		if err != nil {
			return fmt.Errorf("end sessions: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return nil
		}
		if !sleep(ctx, endPoll) {
			return context.Cause(ctx)
		}
	}
}

// remove is the statements that drop what is left.
func (m *Minter) remove(ctx context.Context, c *pgx.Conn, prefix string, roles []role) ([]string, error) {
	schemas, views, err := maskSchemasOf(ctx, c, prefix)
	if err != nil {
		return nil, err
	}
	out, err := m.dropMasks(ctx, c, schemas, views)
	if err != nil || len(roles) == 0 {
		return out, err
	}
	// A session that was just being opened when the login went away shows now.
	var left int
	if err := c.QueryRow(ctx, "select count(*) from pg_stat_activity where usesysid = any($1)", oids(roles)).Scan(&left); err != nil {
		return nil, fmt.Errorf("look for sessions: %w", err)
	}
	if left > 0 {
		return nil, access.Errorf(access.CodeUnavailable, "Role %s has a session that opened while it was revoked; try again.", roles[0].name)
	}
	var named []string
	for _, r := range roles {
		named = append(named, r.name)
	}
	strip, err := m.stripStatements(ctx, c, named, prefix)
	if err != nil {
		return nil, err
	}
	return append(append(out, strip...), "drop role "+idents(named)), nil
}

// Prove looks for anything that is left of the grant. Where nothing is made,
// nothing is.
func (m *Minter) Prove(ctx context.Context, g access.Grant) error {
	if g.Plan.Target.Static != "" {
		return check(g.Plan.Target)
	}
	p, err := m.pool(g.Plan.Target)
	if err != nil {
		return err
	}
	m.mu.Lock()
	gone := slices.Clone(m.dropped[g.Key])
	m.mu.Unlock()
	if gone == nil {
		gone = []uint32{}
	}
	var roles, schemas, sessions int
	// A role that is gone has no privileges: PostgreSQL keeps their list (pg_shdepend) and refuses the drop before.
	err = p.QueryRow(ctx, `select (select count(*) from pg_roles where left(rolname, length($1)) = $1),
		(select count(*) from pg_namespace where left(nspname, length($1)) = $1),
		(select count(*) from pg_stat_activity where left(usename, length($1)) = $1 or usesysid = any($2))`,
		m.names.prefix(g.Key), gone).Scan(&roles, &schemas, &sessions)
	if err != nil {
		return explain("prove the end of grant "+g.Key.ID, g.Plan.Target, err)
	}
	if roles+schemas+sessions > 0 {
		return access.Errorf(access.CodeConflict, "Grant %s is not gone from %s: %s, %s and %s are left.", g.Key.ID,
			g.Plan.Target.TargetRef, count(roles, "role"), count(schemas, "mask schema"), count(sessions, "session"))
	}
	m.mu.Lock()
	delete(m.dropped, g.Key)
	m.mu.Unlock()
	return nil
}

// Orphans lists the roles of this installation at the target that belong to
// none of the known grants.
func (m *Minter) Orphans(ctx context.Context, t access.Target, known []access.GrantKey) ([]string, error) {
	if t.Static != "" {
		return nil, check(t)
	}
	p, err := m.pool(t)
	if err != nil {
		return nil, err
	}
	all, err := m.roles(ctx, p, m.names.all())
	if err != nil {
		return nil, explain("look for orphans", t, err)
	}
	mine := map[string]bool{}
	for _, k := range known {
		mine[m.names.prefix(k)] = true
	}
	var out []string
	for _, r := range all {
		if !mine[grantPrefix(r.name)] {
			out = append(out, r.name)
		}
	}
	return out, nil
}

// grantPrefix is a minted role's name without its generation.
func grantPrefix(role string) string { return role[:strings.LastIndex(role, "_g")+2] }

// RevokeOrphan removes a role that Orphans named, with all its generations.
func (m *Minter) RevokeOrphan(ctx context.Context, t access.Target, name string) error {
	if !m.names.ours(name) {
		return access.Errorf(access.CodeInvalid, "Role %q was not minted by installation %s.", name, m.cfg.Installation)
	}
	p, err := m.pool(t)
	if err == nil {
		err = m.prepare(ctx, p)
	}
	if err == nil {
		err = m.revoke(ctx, p, access.GrantKey{}, grantPrefix(name))
	}
	if err != nil {
		return explain("revoke orphan "+name, t, err)
	}
	return nil
}
