package workflows

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/temporal"

	"github.com/tidegate/tidegate/access"
)

// A grant's row in the ledger: how it is read, and changed. The workflow's
// activities, the commands and the sweeper share what is done to one grant
// (here, opening.go, ending.go, extend.go); each act is idempotent.

// GrantView is the little that a workflow knows of a grant.
type GrantView struct {
	State     access.State `json:"state"`
	NotBefore time.Time    `json:"not_before"`
	NotAfter  time.Time    `json:"not_after"`
	Latest    time.Time    `json:"latest"` // no extension goes further
	Closed    bool         `json:"closed"`
	Drained   time.Time    `json:"drained,omitzero"` // until when what ran at NotAfter may go on; zero: nothing may
	Busy      bool         `json:"busy,omitempty"`   // something does: asked for after NotAfter alone
}

func view(g access.Grant) GrantView {
	v := GrantView{State: g.State, NotBefore: g.NotBefore, NotAfter: g.NotAfter, Latest: latest(g), Closed: !g.Closed.IsZero()}
	if d := g.Drained(); d.After(g.NotAfter) {
		v.Drained = d
	}
	return v
}

// latest is the end that the role's longest allows, counted from the start.
func latest(g access.Grant) time.Time {
	end := g.NotBefore.Add(g.Plan.Role.Longest.Duration() - g.Plan.Role.Drain())
	if end.Before(g.NotAfter) {
		return g.NotAfter // what was approved stands
	}
	return end
}

// maxConflicts bounds how often a compare-and-set is tried again at once.
const maxConflicts = 8

// change reads the row, lets edit change it, and stores it by compare-and-set;
// when somebody else was faster it looks again. edit answers false when there
// is nothing to do.
func (a *Activities) change(ctx context.Context, key access.GrantKey, edit func(*access.Grant) (bool, error)) (access.Grant, error) {
	for range maxConflicts {
		g, err := a.Ledger.Grant(ctx, key)
		if err != nil {
			return g, fmt.Errorf("read grant %s: %w", key, err)
		}
		wanted, err := edit(&g)
		if err != nil || !wanted {
			return g, err
		}
		stored, err := a.Ledger.Update(ctx, g)
		if access.CodeOf(err) == access.CodeConflict && err != nil {
			continue
		}
		if err != nil {
			return g, fmt.Errorf("store grant %s: %w", key, err)
		}
		return stored, nil
	}
	return access.Grant{}, access.Errorf(access.CodeConflict, "The grant %s is being changed by others; try again.", key.ID)
}

// signed reads the row again, verified: what somebody wrote into the database
// past control is never made at a target.
func (a *Activities) signed(ctx context.Context, g access.Grant) (access.Grant, error) {
	row, err := a.Ledger.SignedGrant(ctx, g.Key)
	if err != nil {
		return g, fmt.Errorf("verify grant %s: %w", g.Key, err)
	}
	if row.Sequence != g.Sequence {
		return g, access.Errorf(access.CodeConflict, "The grant %s changed meanwhile; read it again.", g.Key.ID)
	}
	return row, nil
}

// ReadGrant is the row as it is now.
func (a *Activities) ReadGrant(ctx context.Context, key access.GrantKey) (GrantView, error) {
	g, err := a.Ledger.Grant(ctx, key)
	if err != nil {
		return GrantView{}, activityError(fmt.Errorf("read grant %s: %w", key, err))
	}
	v := view(g)
	if v.Drained.IsZero() || a.now().Before(v.NotAfter) {
		return v, nil
	}
	if v.Busy, err = a.busy(ctx, key); err != nil {
		return GrantView{}, activityError(err)
	}
	return v, nil
}

// busy reports whether any session of the grant is still open.
func (a *Activities) busy(ctx context.Context, key access.GrantKey) (bool, error) {
	sessions, err := a.Ledger.Sessions(ctx, key)
	if err != nil {
		return false, fmt.Errorf("read sessions of %s: %w", key, err)
	}
	return slices.ContainsFunc(sessions, func(s access.SessionInfo) bool { return s.Ended.IsZero() }), nil
}

// activityError keeps a final refusal from being tried again, and the cause
// from being kept in a history.
func activityError(err error) error {
	if err == nil || isBusy(err) {
		return err
	}
	code := access.CodeOf(err)
	if isRefusal(err) || code == access.CodeNotFound || code == access.CodeEnded {
		return temporal.NewNonRetryableApplicationError(access.Message(err), string(code), nil)
	}
	return temporal.NewApplicationError(access.Message(err), string(code))
}

// logged writes the cause to the log, which a history must not hold.
func (a *Activities) logged(ctx context.Context, what string, key access.GrantKey, err error) error {
	if err != nil && !isBusy(err) {
		a.log().ErrorContext(ctx, "grant: "+what+" failed", "grant", key.String(), "error", err)
	}
	return activityError(err)
}

func refOf(g access.Grant) Ref { return Ref{Repo: g.Pull.Repo, Number: g.Pull.Number} }
