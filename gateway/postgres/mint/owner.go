package mint

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/access"
)

// A role with `owner` is one that creates and alters. Only a table's owner may
// do that, so the minted role is a member of the owner, of nothing else, and
// each of its sessions begins as the owner: what it makes is the owner's from
// the start. Whoever acts as the owner reads every column and every row, so
// that masks, rows and patterns would promise what does not hold; they are
// refused.

const ownerSQL = `
with recursive reach as (
	select r.oid from pg_roles r where r.rolname = $1
	union select am.roleid from pg_auth_members am join reach on am.member = reach.oid)
select o.oid is not null, coalesce(pg_has_role(current_user, o.oid, 'MEMBER') and (current_setting('server_version_num')::int < 160000
		or pg_has_role(current_user, o.oid, 'MEMBER WITH ADMIN OPTION')), false),
	array(select r.rolname::text from pg_roles r join reach using (oid) where r.rolname <> $1 order by 1),
	array(select r.rolname::text from pg_roles r join reach using (oid) where r.rolsuper or r.rolcreaterole or r.rolreplication
		or r.rolname in ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files', current_user)
		or r.rolname ~ '^tg_[a-z0-9]{4,12}_' order by 1)
from (select 1) one left join pg_roles o on o.rolname = $1`

// expandOwner says as whom a role acts.
func expandOwner(ctx context.Context, tx pgx.Tx, plan access.Plan) (body, error) {
	owner := plan.Role.Settings["owner"]
	if err := checkOwner(plan, owner); err != nil {
		return body{}, err
	}
	var exists, member bool
	var reach, dangerous []string
	if err := tx.QueryRow(ctx, ownerSQL, owner).Scan(&exists, &member, &reach, &dangerous); err != nil {
		return body{}, fmt.Errorf("look for role %s: %w", owner, err)
	}
	switch {
	case !exists:
		return body{}, access.Errorf(access.CodeInvalid, "Role %q acts as %q, and the target has no such role.", plan.Role.Name, owner)
	case len(dangerous) > 0:
		return body{}, access.Errorf(access.CodeInvalid, "Role %q can't act as %q, who is or can become %s: a superuser, one that makes roles or replicates, one that reaches the server's files or programs, or one of Tidegate's own.",
			plan.Role.Name, owner, strings.Join(dangerous, ", "))
	case !member:
		return body{}, access.Errorf(access.CodeInvalid, "The minter's login is no member of %q and can't let a role act as it: `tidegate setup postgres --acting %s` prints how.", owner, owner)
	}
	may, err := readCallable(ctx, tx, calls(plan.Role))
	if err != nil {
		return body{}, err
	}
	if len(reach) == 0 {
		reach = nil
	}
	return body{Tables: []table{}, Owner: owner, Reach: reach, Calls: may.settled()}, may.check()
}

// checkOwner refuses what does not hold for somebody who acts as an owner.
func checkOwner(plan access.Plan, owner string) error {
	masks, err := maskPatterns(plan.Masks, plan.Target.TargetRef)
	switch {
	case err != nil:
		return err
	case len(masks) > 0:
		return access.Errorf(access.CodeInvalid, "Role %q can't act as %q where columns are masked: an owner reads every column of its tables. Take the target out of the masks, or write a target of its own, without masks, for the same address.", plan.Role.Name, owner)
	case len(plan.Role.Read)+len(plan.Role.Write)+len(plan.Role.Rows) > 0:
		return access.Errorf(access.CodeInvalid, "Role %q acts as %q, who reads and writes whatever it may; leave read, write and rows out, which would narrow nothing.", plan.Role.Name, owner)
	}
	return nil
}

// sameOwner keeps the owner as which a role acts, unless that reaches further
// by now than was approved.
func sameOwner(approved, today body) (string, []string) {
	if approved.Owner != today.Owner || slices.ContainsFunc(today.Reach, func(r string) bool { return !slices.Contains(approved.Reach, r) }) {
		return "", nil
	}
	return today.Owner, today.Reach
}

func (b body) ownerSummary() (out []string) {
	if b.Owner == "" {
		return nil
	}
	out = append(out, fmt.Sprintf("WARNING: acts as %s: reads, changes, creates, alters and drops whatever %s may, nothing of it hidden", b.Owner, b.Owner))
	if len(b.Reach) > 0 {
		out = append(out, fmt.Sprintf("%s is a member of %s, and so acts as them, too", b.Owner, some(b.Reach, maxNamed)))
	}
	return append(out, fmt.Sprintf("what it makes belongs to %s and stays", b.Owner))
}

const actingSQL = `
select r.rolname::text, min(o.rolname::text) from pg_auth_members am join pg_roles r on r.oid = am.member join pg_roles o on o.oid = am.roleid
where r.rolname = any($1) group by r.rolname having count(distinct o.oid) = 1`

// acting maps minted roles to the owner of which each is a member: there goes
// what they own.
func acting(ctx context.Context, q querier, roles []string) (map[string]string, error) {
	out := map[string]string{}
	rows, _ := q.Query(ctx, actingSQL, roles) // the error comes out of ForEachRow
	var role, owner string
	_, err := pgx.ForEachRow(rows, []any{&role, &owner}, func() error { out[role] = owner; return nil })
	if err != nil {
		return nil, fmt.Errorf("look for the owners of roles: %w", err)
	}
	return out, nil
}
