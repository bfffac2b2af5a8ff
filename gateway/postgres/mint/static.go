package mint

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/postgres/backing"
)

// A target with a static credential is one at which roles can't be minted:
// every session logs in with the same login, which somebody else made. There
// is no first lock of ours. So whatever only that lock could hold (columns,
// rows, tables) is refused when the grant is planned, and the end of a grant
// closes its sessions and takes nothing back.

// staticSettings are the settings of a role that the gateway keeps alone.
var staticSettings = []string{"drain", "call", "limit_rows", "limit_time"}

// expandStatic logs in and says what a session will be.
func (m *Minter) expandStatic(ctx context.Context, plan access.Plan) (access.Expansion, error) {
	if err := checkStatic(plan); err != nil {
		return access.Expansion{}, err
	}
	b, super, err := m.staticToday(ctx, plan.Target)
	var may callable
	if err == nil {
		may, err = m.staticCalls(ctx, plan)
	}
	if err == nil {
		err = may.check()
	}
	if err != nil {
		return access.Expansion{}, explain("expand role", plan.Target, err)
	}
	b.Calls = may.settled()
	out, err := json.Marshal(b)
	if err != nil {
		return access.Expansion{}, fmt.Errorf("encode expansion: %w", err)
	}
	return access.Expansion{Body: out, Summary: b.staticSummary(super)}, nil
}

// checkStatic refuses what needs a role of the grant's own.
func checkStatic(plan access.Plan) error {
	const why = "sessions of target %s log in with a static credential, and what that login may do is not ours to limit"
	masks, err := maskPatterns(plan.Masks, plan.Target.TargetRef)
	switch {
	case err != nil:
		return err
	case len(masks) > 0:
		return access.Errorf(access.CodeInvalid, "Columns can't be masked here: "+why+". Take the target out of the mask, or give it an admin that mints.", plan.Target.TargetRef)
	case len(plan.Role.Read)+len(plan.Role.Write)+len(plan.Role.Rows) > 0:
		return access.Errorf(access.CodeInvalid, "Role %q can't say what it reads or writes: "+why+". Leave read, write and rows out, and narrow it by rules.", plan.Role.Name, plan.Target.TargetRef)
	}
	for _, key := range slices.Sorted(maps.Keys(plan.Role.Settings)) {
		if !slices.Contains(staticSettings, key) {
			return access.Errorf(access.CodeInvalid, "Role %q can't have %s: "+why+".", plan.Role.Name, key, plan.Target.TargetRef)
		}
	}
	return nil
}

// staticToday asks the target who logs in there.
func (m *Minter) staticToday(ctx context.Context, t access.Target) (b body, super bool, err error) {
	p, err := m.pool(t)
	if err != nil {
		return b, false, err
	}
	b.Tables = []table{}
	err = p.QueryRow(ctx, "select current_database(), session_user::text, rolsuper from pg_roles where rolname = session_user").
		Scan(&b.Database, &b.Login, &super)
	return b, super, err
}

// staticCalls are the functions that the role names. Whether the login may
// call them, the target says.
func (m *Minter) staticCalls(ctx context.Context, plan access.Plan) (callable, error) {
	p, err := m.pool(plan.Target)
	if err != nil {
		return callable{}, err
	}
	return readCallable(ctx, p, calls(plan.Role))
}

func (b body) staticSummary(super bool) []string {
	out := []string{
		fmt.Sprintf("logs in as %s, which is not made for this grant: gives whatever that login may do; only the rules narrow it", b.Login),
		fmt.Sprintf("when it ends its sessions are closed; the password of %s is not taken back and works on for who has it", b.Login),
	}
	if super {
		out = append(out, fmt.Sprintf("WARNING: %s is a superuser", b.Login))
	}
	return append(out, b.callSummary()...)
}

// mintStatic makes nothing. It looks whether the login is still the one that
// was approved.
func (m *Minter) mintStatic(ctx context.Context, g access.Grant) (access.Minted, error) {
	if err := checkStatic(g.Plan); err != nil {
		return access.Minted{}, err
	}
	approved, err := parseBody(g.Plan.Expansion.Body)
	if err != nil {
		return access.Minted{}, err
	}
	today, _, err := m.staticToday(ctx, g.Plan.Target)
	if err != nil {
		return access.Minted{}, explain("log in for grant "+g.Key.ID, g.Plan.Target, err)
	}
	if approved.Login != today.Login || approved.Database != today.Database {
		return access.Minted{}, access.Errorf(access.CodeInvalid, "The login %q on database %q was approved, and it is now %q on %q: plan the request again.",
			approved.Login, approved.Database, today.Login, today.Database)
	}
	b, err := m.staticPlan(ctx, g.Plan, approved)
	if err != nil {
		return access.Minted{}, explain("log in for grant "+g.Key.ID, g.Plan.Target, err)
	}
	out, err := b.Encode()
	return access.Minted{Backing: out}, err
}

// staticPlan is the room's plan.
func (m *Minter) staticPlan(ctx context.Context, plan access.Plan, approved body) (backing.Backing, error) {
	b := backing.Backing{Role: approved.Login, Database: approved.Database}
	p, err := m.pool(plan.Target)
	if err != nil {
		return b, err
	}
	may, err := m.staticCalls(ctx, plan)
	if err != nil {
		return b, err
	}
	common := commonRoutines(approved.Calls, may.settled())
	names, err := readNames(ctx, p, nil, approved.Login, common)
	names.tell(&b, common)
	return b, err
}

// narrowStatic is the role with today's settings, as long as nothing else changed.
func (m *Minter) narrowStatic(ctx context.Context, approved, today access.Plan) (access.Plan, error) {
	out := approved
	var err error
	if out.Role, err = narrowRole(approved.Role, today.Role); err != nil {
		return access.Plan{}, err
	}
	out.Masks = bothMasks(approved.Masks, today.Masks)
	if out.Expansion, err = m.expandStatic(ctx, out); err != nil {
		return access.Plan{}, err
	}
	was, err := parseBody(approved.Expansion.Body)
	if err != nil {
		return access.Plan{}, err
	}
	is, err := parseBody(out.Expansion.Body)
	switch {
	case err != nil:
		return access.Plan{}, err
	case was.Login != is.Login || was.Database != is.Database:
		return access.Plan{}, access.Errorf(access.CodeInvalid, "The login %q was approved, and the target's is now %q.", was.Login, is.Login)
	case maps.Equal(out.Role.Settings, approved.Role.Settings):
		approved.Masks = access.AddDetect(approved.Masks, today.Masks)
		return approved, nil
	}
	is.Calls = commonRoutines(was.Calls, is.Calls)
	if out.Expansion.Body, err = json.Marshal(is); err != nil {
		return access.Plan{}, fmt.Errorf("encode expansion: %w", err)
	}
	out.Expansion.Summary = is.staticSummary(false)
	return out, nil
}

// static logs in with a target's static credential.
func (d *diagnosis) static(ctx context.Context) bool {
	if d.t.Static == "" {
		return false
	}
	b, super, err := d.m.staticToday(ctx, d.t)
	if err != nil {
		d.Fail(remedy(err), "%s: %v", d.t.Address, err)
		return false
	}
	d.OK("%s answers with verified TLS; the static login %s works", d.t.Address, b.Login)
	if super {
		d.Warn("Give sessions a login that may do less.", "the static login %s is a superuser", b.Login)
	}
	return true
}
