package workflows

import (
	"context"
	"fmt"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/tracing"
)

// How a grant gets a later end.

// ExtendInput asks for a later end.
type ExtendInput struct {
	Key     access.GrantKey `json:"key"`
	By      access.User     `json:"by"`
	Seconds access.Seconds  `json:"seconds"`
	Why     string          `json:"why"`
	Until   time.Time       `json:"until"` // the end that the caller wants: makes a repetition harmless
}

// ExtendGrant moves the end, judged as a request of the total length.
func (a *Activities) ExtendGrant(ctx context.Context, in ExtendInput) (GrantView, error) {
	g, err := a.extend(ctx, in)
	return view(g), a.logged(ctx, "extend", in.Key, err)
}

func (a *Activities) extend(ctx context.Context, in ExtendInput) (access.Grant, error) {
	moved := false
	g, err := a.change(ctx, in.Key, func(row *access.Grant) (bool, error) {
		if moved = row.NotAfter.Before(in.Until); !moved {
			return false, nil
		}
		if err := a.mayExtend(ctx, *row, in); err != nil {
			return false, err
		}
		if err := a.prolong(ctx, *row, in.Until); err != nil {
			return false, err
		}
		row.NotAfter, row.Why = in.Until.UTC(), fmt.Sprintf("Extended by %s: %s", in.By.Login, in.Why)
		return true, nil
	})
	if err != nil || !moved {
		return g, err
	}
	a.Signals.moved(ctx, tracing.Extend, g)
	detail := fmt.Sprintf("until %s: %s", g.NotAfter.Format(time.RFC3339), in.Why)
	if err := a.audit(ctx, entry{in.By.Login, "grant.extended", in.Key.String(), detail}); err != nil {
		return g, fmt.Errorf("audit grant %s: %w", in.Key, err)
	}
	a.tell(ctx, Hint{Kind: HintPull, Ref: refOf(g)})
	return g, nil
}

// prolong lets the credential live as long as the extended grant, before the
// ledger says so: the other order could leave an active grant that the target
// lets nobody use. Revoking takes it away at the ledger's end either way.
func (a *Activities) prolong(ctx context.Context, g access.Grant, until time.Time) error {
	g, err := a.signed(ctx, g)
	if err != nil {
		return err
	}
	m, err := a.minter(g.Plan.Target.Kind)
	if err != nil {
		return err
	}
	g.NotAfter = until.UTC()
	if _, err := m.Mint(ctx, g); err != nil {
		return fmt.Errorf("prolong the credential of %s: %w", g.Key, err)
	}
	return nil
}

func (a *Activities) mayExtend(ctx context.Context, row access.Grant, in ExtendInput) error {
	switch {
	case row.State != access.StateActive || !a.now().Before(row.NotAfter):
		return access.Errorf(access.CodeEnded, "The grant %s is %s; only an active one can be extended. Ask for a new one.", row.Key.ID, row.State)
	case row.Paused != "":
		return access.Errorf(access.CodeDenied, "The grant %s is on hold by %s; it can't be extended meanwhile.", row.Key.ID, row.Paused)
	case in.Until.After(latest(row)):
		return access.Errorf(access.CodeDenied, "The role %s is given for at most %s: until %s, and not until %s.",
			row.Plan.Role.Name, row.Plan.Role.Longest, latest(row).Format(time.RFC3339), in.Until.Format(time.RFC3339))
	}
	return a.approvedFor(ctx, row, in.Until)
}

// approvedFor counts the approvals of a request of the total length. The
// reviews that agreed to the grant as it is count; whatever more the policies
// ask of the longer one must come as further reviews.
func (a *Activities) approvedFor(ctx context.Context, row access.Grant, until time.Time) error {
	pull, err := a.Forge.Pull(ctx, refOf(row))
	if err != nil {
		return fmt.Errorf("read pull request %d: %w", row.Pull.Number, err)
	}
	s, err := a.assess(ctx, pull)
	if err != nil {
		return err
	}
	if s.pull.Unread != "" {
		return access.Errorf(access.CodeDenied, "%s", unusable(s.pull))
	}
	longer := row.Plan.Request
	longer.Lasts, longer.From, longer.Until = access.Seconds(until.Sub(row.NotBefore)/time.Second), time.Time{}, time.Time{}
	plan, diags := a.Policies.Replan(s.adopted, s.directory, longer)
	if diags.HasErrors() {
		return access.Errorf(access.CodeDenied, "The policies refuse the longer grant: %s", firstError(diags))
	}
	reason, err := a.countLonger(ctx, s, row, plan)
	if err != nil {
		return err
	}
	if !reason.Met {
		return access.Errorf(access.CodeDenied, "A grant of %s in all needs more approvals: %s Approve the pull request, then ask again.", longer.Lasts, reason.Text)
	}
	return nil
}

// countLonger counts for the longer plan. Nobody who has the grant may, whatever
// team they have left meanwhile.
func (a *Activities) countLonger(ctx context.Context, s *assessment, row access.Grant, plan access.Plan) (access.Reason, error) {
	id := plan.Request.ID
	seen, err := a.boundReviews(ctx, s)
	if err != nil {
		return access.Reason{}, err
	}
	reviews := seen.of(id, plan, true)
	for i, r := range reviews {
		if r.Digest != "" && r.Digest == s.digests[id] {
			reviews[i].Digest = plan.Digest()
		} else {
			reviews[i].Digest = ""
		}
	}
	out, err := a.excluded(ctx, s.pull, plan)
	if err != nil {
		return access.Reason{}, err
	}
	for _, p := range row.Plan.People {
		out[p.ID] = "has the access"
	}
	return a.Policies.Count(plan, access.Ballot{Reviews: reviews, Excluded: out}), nil
}
