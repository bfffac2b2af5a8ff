package workflows

import (
	"context"
	"fmt"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/tracing"
)

// How a landed grant becomes active.

// MintGrant makes the access of a landed grant and lets gateways open it. It
// judges the approvals again: days may lie between landing and start.
func (a *Activities) MintGrant(ctx context.Context, key access.GrantKey) (GrantView, error) {
	g, err := a.Ledger.Grant(ctx, key)
	if err != nil {
		return GrantView{}, activityError(fmt.Errorf("read grant %s: %w", key, err))
	}
	if g.State != access.StateLanded {
		return view(g), nil
	}
	var minted access.Minted
	err = a.gate.through(g.Plan.Target.TargetRef, func() (err error) { minted, err = a.timedMint(ctx, g); return err })
	if isRefusal(err) {
		g, err = a.end(ctx, ending{key: key, state: access.StateRefused, by: "tidegate", why: access.Message(err)})
		return view(g), a.logged(ctx, "refuse", key, err)
	}
	if err != nil {
		return view(g), a.logged(ctx, "mint", key, err)
	}
	g, err = a.activate(ctx, g, minted)
	return view(g), a.logged(ctx, "activate", key, err)
}

func (a *Activities) timedMint(ctx context.Context, g access.Grant) (access.Minted, error) {
	ctx, span := a.Signals.start(ctx, tracing.Mint, g)
	done := a.Signals.minting()
	minted, err := a.mint(ctx, g)
	done(err)
	a.Signals.finish(span, tracing.Mint, g.Key, err)
	return minted, err
}

func (a *Activities) mint(ctx context.Context, g access.Grant) (access.Minted, error) {
	if !g.NotAfter.After(a.now()) {
		return access.Minted{}, access.Errorf(access.CodeDenied, "Its time was up before it could be opened.")
	}
	g, err := a.signed(ctx, g)
	if err != nil {
		return access.Minted{}, err
	}
	if err := a.stillApproved(ctx, g); err != nil {
		return access.Minted{}, err
	}
	m, err := a.minter(g.Plan.Target.Kind)
	if err != nil {
		return access.Minted{}, err
	}
	return m.Mint(ctx, g)
}

// stillApproved judges the pull request again, by today's people and policies.
// Grants of one pull request that are minted together share one reading, which
// began after each of them asked.
func (a *Activities) stillApproved(ctx context.Context, g access.Grant) error {
	s, err := a.today.Do(ctx, refOf(g), func(ctx context.Context) (*assessment, error) { return a.assessLanded(ctx, refOf(g)) })
	if err != nil { // a forge that answers 403 or 422 refuses Tidegate, not the grant
		return &access.Error{Code: access.CodeUnavailable, Message: access.Message(err), Cause: err}
	}
	if s.pull.Head != g.Pull.Head || s.pull.MergedAt.IsZero() {
		return access.Errorf(access.CodeDenied, "The pull request is not what was approved any more: its head is %s, and %s was approved.", s.pull.Head, g.Pull.Head)
	}
	if s.pull.Unread != "" { // anybody's doing, and a refusal is for ever
		return access.Errorf(access.CodeUnavailable, "%s", unusable(s.pull))
	}
	plan, ok := s.plans[g.Key.ID]
	switch {
	case s.refusal != "":
		return access.Errorf(access.CodeDenied, "%s", s.refusal)
	case !ok:
		return access.Errorf(access.CodeDenied, "Today's policies don't allow it: %s", firstError(s.eval.Diagnostics))
	case plan.PolicyDigest != g.Plan.PolicyDigest:
		return access.Errorf(access.CodeDenied, "The policies that it touches changed after it was approved. Ask again under the new ones.")
	case !s.approvals[g.Key.ID].Met:
		return access.Errorf(access.CodeDenied, "It lost an approval that it needs: %s", s.approvals[g.Key.ID].Text)
	}
	return nil
}

func (a *Activities) assessLanded(ctx context.Context, ref Ref) (*assessment, error) {
	pull, err := a.Forge.Pull(ctx, ref)
	if err != nil {
		return nil, fmt.Errorf("read pull request %d: %w", ref.Number, err)
	}
	if !pull.MergedAt.IsZero() {
		dropLate(&pull)
	}
	return a.assess(ctx, pull)
}

// activate opens a minted grant, unless it ended meanwhile: then what was
// minted is taken away again here, because the revocation may have run before
// this mint finished.
func (a *Activities) activate(ctx context.Context, g access.Grant, minted access.Minted) (access.Grant, error) {
	active, err := a.change(ctx, g.Key, func(row *access.Grant) (bool, error) {
		if row.State != access.StateLanded || row.Generation != g.Generation {
			return false, nil
		}
		row.State, row.Backing, row.Why = access.StateActive, made(minted), "It is open."
		return true, nil
	})
	if err != nil {
		return active, err
	}
	if active.State.Ended() {
		return active, a.take(ctx, active)
	}
	if err := a.audit(ctx, entry{"tidegate", "grant.active", g.Key.String(), "until " + active.NotAfter.Format(time.RFC3339)}); err != nil {
		return active, fmt.Errorf("audit grant %s: %w", g.Key, err)
	}
	a.log().InfoContext(ctx, "grant active", "grant", g.Key.String(), "pr", refOf(g).String(), "until", active.NotAfter)
	a.Signals.moved(ctx, tracing.Activate, active)
	a.tell(ctx, Hint{Kind: HintPull, Ref: refOf(active)})
	return active, nil
}

// made is what a mint left. It is never empty: an active grant without it is
// one whose access is to be made again.
func made(m access.Minted) []byte {
	if len(m.Backing) == 0 {
		return []byte("{}")
	}
	return m.Backing
}
