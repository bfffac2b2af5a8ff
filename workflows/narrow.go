package workflows

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tidegate/tidegate/access"
)

// An active grant keeps the policies that it was approved under, and today's
// can only narrow them. The gateways judge by both sets of rules themselves;
// what is at the target is made again, under a new generation (renewAll), so
// that no session goes on with what the old one gave.

// narrowAll looks at the active grants when other policies came into force
// than those that they were looked at under.
func (s *sweeper) narrowAll(ctx context.Context) error {
	adopted, err := s.Ledger.Adopted(ctx)
	if access.CodeOf(err) == access.CodeNotFound {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read adopted policies: %w", err)
	}
	rows, err := s.Ledger.Unclosed(ctx)
	if err != nil {
		return fmt.Errorf("list unclosed grants: %w", err)
	}
	force, active := policyFiles(adopted), map[access.GrantKey]string{}
	var look []access.Grant
	for _, g := range rows {
		if g.State != access.StateActive || !s.now().Before(g.NotAfter) || s.now().Before(g.Yields) {
			continue // or its target is amid a migration: later
		}
		if s.narrowed[g.Key] == force {
			active[g.Key] = force
		} else {
			look = append(look, g)
		}
	}
	s.narrowed = active // forgets what has ended
	if len(look) == 0 {
		return nil
	}
	n := narrowing{Activities: s.Activities, adopted: adopted}
	if n.directory, err = s.whoIsMeant(ctx, adopted, look); err != nil {
		return err
	}
	return s.narrowEach(ctx, n, look, force)
}

func (s *sweeper) narrowEach(ctx context.Context, n narrowing, look []access.Grant, force string) error {
	done := make(chan access.GrantKey, len(look))
	err := byTarget(ctx, look, func(ctx context.Context, mine []access.Grant) error {
		var errs []error
		for _, g := range mine {
			err := n.one(ctx, g)
			if err == nil {
				done <- g.Key
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
	close(done)
	for key := range done {
		s.narrowed[key] = force
	}
	return err
}

// whoIsMeant looks up the names in the policies and in the requests.
func (a *Activities) whoIsMeant(ctx context.Context, adopted access.Tree, look []access.Grant) (access.Directory, error) {
	users, teams := a.Policies.Names(adopted, access.Tree{}, access.Tree{})
	for _, g := range look {
		for _, p := range g.Plan.Request.To {
			if p.Kind == access.KindTeam {
				teams = append(teams, p.Name)
			} else {
				users = append(users, p.Name)
			}
		}
	}
	slices.Sort(users)
	slices.Sort(teams)
	return a.lookUp(ctx, slices.Compact(users), slices.Compact(teams))
}

// lookUp looks up any number of names, a part at a time: who receives all that
// is active may be many.
func (a *Activities) lookUp(ctx context.Context, users, teams []string) (access.Directory, error) {
	all := access.Directory{Users: map[string]access.User{}, Teams: map[string]access.Team{}}
	add := func(users, teams []string) error {
		dir, err := a.Forge.Directory(ctx, users, teams)
		if err != nil {
			return fmt.Errorf("look up people: %w", err)
		}
		maps.Copy(all.Users, dir.Users)
		maps.Copy(all.Teams, dir.Teams)
		return nil
	}
	for some := range slices.Chunk(users, MaxNames) {
		if err := add(some, nil); err != nil {
			return access.Directory{}, err
		}
	}
	for some := range slices.Chunk(teams, MaxNames) {
		if err := add(nil, some); err != nil {
			return access.Directory{}, err
		}
	}
	return all, nil
}

// narrowing is today's policies, held against active grants.
type narrowing struct {
	*Activities
	adopted   access.Tree
	directory access.Directory
}

// one narrows one active grant.
func (n narrowing) one(ctx context.Context, g access.Grant) error {
	today, err := n.narrower(ctx, g)
	if isRefusal(err) {
		why := "The policies changed and don't give it any more: " + access.Message(err)
		_, err = n.end(ctx, ending{key: g.Key, state: access.StateRevoked, by: "tidegate", why: clip(why)})
		n.wake(ctx, g.Key)
		return err
	}
	if err != nil {
		return err
	}
	return n.apply(ctx, g, today)
}

// narrowed is what is left of a grant.
type narrowed struct {
	plan  access.Plan
	until time.Time
}

// narrower is what both the approved plan and today's policies give. A refusal
// says that nothing is left.
func (n narrowing) narrower(ctx context.Context, g access.Grant) (narrowed, error) {
	today, err := n.replan(g)
	if err != nil {
		return narrowed{}, err
	}
	out := narrowed{g.Plan, g.NotAfter}
	if end := g.NotBefore.Add(today.Role.Longest.Duration()); end.Before(out.until) {
		out.until = end
	}
	if !out.until.After(n.now()) {
		return out, access.Errorf(access.CodeDenied, "Role %s is given for at most %s by now.", today.Role.Name, today.Role.Longest)
	}
	if t, was := today.Target, g.Plan.Target; t.Address != was.Address || t.Admin != was.Admin || t.Static != was.Static || t.Zone != was.Zone {
		return out, access.Errorf(access.CodeDenied, "Target %s is another one by now.", was.TargetRef)
	}
	if out.plan.People = stillMeant(g.Plan.People, today.People); len(out.plan.People) == 0 {
		return out, access.Errorf(access.CodeDenied, "None of its people is named any more as when it was approved.")
	}
	if today.Target.WhenStale == access.WhenStaleEnd {
		out.plan.Target.WhenStale = access.WhenStaleEnd
	}
	longest := min(g.Plan.Role.Longest, today.Role.Longest)
	out.plan.Role.Longest, today.Role.Longest = longest, longest
	asked := access.Plan{Role: out.plan.Role, Masks: g.Plan.Masks}
	if asked.Digest() == (access.Plan{Role: today.Role, Masks: today.Masks}).Digest() {
		return out, nil
	}
	return out, n.narrowAccess(ctx, &out.plan, today)
}

// narrowAccess asks the minter what both plans give.
func (n narrowing) narrowAccess(ctx context.Context, plan *access.Plan, today access.Plan) error {
	m, err := n.minter(plan.Target.Kind)
	if err != nil {
		return err
	}
	narrower, ok := m.(Narrower)
	if !ok {
		return access.Errorf(access.CodeDenied, "Role %s changed, and access to targets of kind %s can't be narrowed.", plan.Role.Name, plan.Target.Kind)
	}
	less, err := narrower.Narrow(ctx, *plan, today)
	if err != nil {
		return fmt.Errorf("narrow %s on %s: %w", plan.Role.Name, plan.Target.TargetRef, err)
	}
	plan.Role, plan.Masks, plan.Expansion = less.Role, less.Masks, less.Expansion
	return nil
}

// replan plans the request as it runs today. One that is too long by now is
// planned for as long as it may be.
func (n narrowing) replan(g access.Grant) (access.Plan, error) {
	r := g.Plan.Request
	r.From, r.Until = time.Time{}, time.Time{}
	r.Lasts = access.Seconds(g.NotAfter.Sub(g.NotBefore) / time.Second)
	plan, diags := n.Policies.Replan(n.adopted, n.directory, r)
	if !diags.HasErrors() {
		return plan, nil
	}
	short := r
	short.Lasts = 1
	if asked, bad := n.Policies.Replan(n.adopted, n.directory, short); !bad.HasErrors() && asked.Role.Longest < r.Lasts {
		r.Lasts = asked.Role.Longest
		plan, diags = n.Policies.Replan(n.adopted, n.directory, r)
	}
	if diags.HasErrors() {
		return plan, access.Errorf(access.CodeDenied, "%s", firstError(diags))
	}
	return plan, nil
}

// stillMeant keeps the people whom both name, with the identities of both.
func stillMeant(approved, today []access.Person) []access.Person {
	now := map[int64]access.Person{}
	for _, p := range today {
		now[p.ID] = p
	}
	var out []access.Person
	for _, p := range approved {
		t, ok := now[p.ID]
		if !ok {
			continue
		}
		had := p.Identities
		p.Identities = slices.DeleteFunc(slices.Clone(had), func(ref access.IdentityRef) bool { return !slices.Contains(t.Identities, ref) })
		if len(p.Identities) > 0 || len(had) == 0 {
			out = append(out, p)
		}
	}
	return out
}

// apply stores what is left, of which renewAll makes the access anew.
func (n narrowing) apply(ctx context.Context, g access.Grant, to narrowed) error {
	shorter := to.until.Before(g.NotAfter)
	if !shorter && to.plan.Digest() == g.Plan.Digest() {
		return nil
	}
	at := to.plan // as far as the target sees it
	at.Target, at.Role.Longest = g.Plan.Target, g.Plan.Role.Longest
	other := at.Digest() != g.Plan.Digest()
	row, err := n.change(ctx, g.Key, func(row *access.Grant) (bool, error) {
		if row.State != access.StateActive || row.Sequence != g.Sequence {
			return false, access.Errorf(access.CodeConflict, "The grant %s changed meanwhile; the next reading looks again.", g.Key.ID)
		}
		row.Plan, row.NotAfter, row.Why = to.plan, to.until.UTC(), "The policies became narrower."
		if other {
			row.Generation, row.Backing = row.Generation+1, nil
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	detail := fmt.Sprintf("generation %d, until %s: %s", row.Generation, row.NotAfter.Format(time.RFC3339), strings.Join(to.plan.Expansion.Summary, "; "))
	if err := n.audit(ctx, entry{"tidegate", "grant.narrowed", g.Key.String(), clip(detail)}); err != nil {
		return fmt.Errorf("audit grant %s: %w", g.Key, err)
	}
	n.wake(ctx, g.Key)
	if !shorter || len(row.Backing) == 0 {
		return nil
	}
	return n.prolong(ctx, row, row.NotAfter)
}
