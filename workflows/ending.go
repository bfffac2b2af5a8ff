package workflows

import (
	"context"
	"fmt"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/tracing"
)

// How a grant ends: first in the ledger, then at its target, and at last with
// the target's word that nothing is left.

// ending is how a grant ends.
type ending struct {
	key   access.GrantKey
	state access.State
	by    string
	why   string
}

// end writes the end into the ledger: gateways cut at once. Taking the access
// away at the target follows.
func (a *Activities) end(ctx context.Context, e ending) (access.Grant, error) {
	ended := false
	g, err := a.change(ctx, e.key, func(row *access.Grant) (bool, error) {
		ended = !row.State.Ended()
		if ended {
			row.State, row.Why = e.state, e.why
		}
		return ended, nil
	})
	if err != nil || !ended {
		return g, err
	}
	if err := a.audit(ctx, entry{e.by, "grant." + string(e.state), e.key.String(), e.why}); err != nil {
		return g, fmt.Errorf("audit grant %s: %w", e.key, err)
	}
	a.log().InfoContext(ctx, "grant ended", "grant", e.key.String(), "pr", refOf(g).String(), "state", string(g.State), "why", e.why)
	a.Signals.moved(ctx, tracing.End, g)
	return g, nil
}

// EndInput asks for the early end of a grant.
type EndInput struct {
	Key access.GrantKey `json:"key"`
	By  string          `json:"by"`
	Why string          `json:"why"`
}

// EndGrant ends a grant early.
func (a *Activities) EndGrant(ctx context.Context, in EndInput) (GrantView, error) {
	g, err := a.end(ctx, ending{key: in.Key, state: access.StateRevoked, by: in.By, why: in.Why})
	return view(g), a.logged(ctx, "end", in.Key, err)
}

// CloseInput says how a grant that ends now ends.
type CloseInput struct {
	Key access.GrantKey `json:"key"`
	Why string          `json:"why,omitempty"` // empty: its time is up
}

// CloseGrant ends the grant in the ledger, takes its access away, proves that
// nothing is left, and only then marks the row closed. A grant whose end was
// moved meanwhile is left alone.
func (a *Activities) CloseGrant(ctx context.Context, in CloseInput) (GrantView, error) {
	g, err := a.Ledger.Grant(ctx, in.Key)
	if access.CodeOf(err) == access.CodeNotFound {
		// The row comes before the mint, so without a row there is nothing to
		// revoke; what a lost ledger leaves behind is an orphan at the target.
		return GrantView{Closed: true}, nil
	}
	if err != nil {
		return GrantView{}, a.logged(ctx, "close", in.Key, err)
	}
	if !g.Closed.IsZero() {
		return view(g), nil
	}
	if in.Why == "" && !g.State.Ended() && a.now().Before(g.NotAfter) {
		return view(g), nil
	}
	err = a.gate.through(g.Plan.Target.TargetRef, func() (err error) { g, err = a.closeRow(ctx, in, byWorkflow); return err })
	return view(g), a.logged(ctx, "close", in.Key, err)
}

// Who closes a grant.
const (
	byWorkflow = "workflow"
	bySweep    = "sweep"
)

func (a *Activities) closeRow(ctx context.Context, in CloseInput, by string) (access.Grant, error) {
	e := ending{key: in.Key, state: access.StateRevoked, by: "tidegate", why: in.Why}
	if in.Why == "" {
		e.state, e.why = access.StateExpired, "Its time is up."
	}
	g, err := a.end(ctx, e)
	if err != nil {
		return g, err
	}
	ctx, span := a.Signals.start(ctx, tracing.Close, g, tracing.KeyBy.Text(by), tracing.KeyState.Text(string(g.State)))
	g, err = a.proveClosed(ctx, g, by)
	a.Signals.finish(span, tracing.Close, in.Key, err)
	return g, err
}

// proveClosed takes an ended grant's access away and marks the row when
// nothing is left.
func (a *Activities) proveClosed(ctx context.Context, g access.Grant, by string) (access.Grant, error) {
	if err := a.take(ctx, g); err != nil {
		return g, err
	}
	first, key := false, g.Key
	g, err := a.change(ctx, key, func(row *access.Grant) (bool, error) {
		if first = row.Closed.IsZero(); first {
			row.Closed = a.now()
		}
		return first, nil
	})
	if err != nil || !first {
		return g, err
	}
	if err := a.audit(ctx, entry{"tidegate", "grant.closed", key.String(), "nothing is left at " + g.Plan.Target.TargetRef.String()}); err != nil {
		return g, fmt.Errorf("audit grant %s: %w", key, err)
	}
	a.log().InfoContext(ctx, "grant closed", "grant", key.String(), "pr", refOf(g).String(), "target", g.Plan.Target.TargetRef.String(), "by", by)
	a.Signals.closed(g, by)
	a.tell(ctx, Hint{Kind: HintPull, Ref: refOf(g)})
	return g, nil
}

// take takes the access away at the target and asks the target for proof.
func (a *Activities) take(ctx context.Context, g access.Grant) (err error) {
	if !g.State.Ended() {
		return fmt.Errorf("revoke grant %s: its state is %s, and only an ended grant is revoked", g.Key, g.State)
	}
	m, err := a.minter(g.Plan.Target.Kind)
	if err != nil {
		return err
	}
	done := a.Signals.revoking()
	defer func() { done(err) }()
	if err := a.spanned(ctx, tracing.Revoke, g, m.Revoke); err != nil {
		return fmt.Errorf("revoke grant %s: %w", g.Key, err)
	}
	if err := a.spanned(ctx, tracing.Prove, g, m.Prove); err != nil {
		return fmt.Errorf("prove the end of grant %s: %w", g.Key, err)
	}
	return nil
}

func (a *Activities) spanned(ctx context.Context, name tracing.Name, g access.Grant, do func(context.Context, access.Grant) error) error {
	ctx, span := a.Signals.start(ctx, name, g)
	err := do(ctx, g)
	a.Signals.finish(span, name, g.Key, err)
	return err
}

// AlertInput says which revocation is late.
type AlertInput struct {
	Key  access.GrantKey `json:"key"`
	Late time.Duration   `json:"late"`
}

// Alert says that a revocation is late: log, metric and audit.
func (a *Activities) Alert(ctx context.Context, in AlertInput) error {
	a.log().ErrorContext(ctx, "revocation is late", "grant", in.Key.String(), "late", in.Late)
	a.Signals.alert()
	return a.audit(ctx, entry{"tidegate", "grant.alert", in.Key.String(), fmt.Sprintf("not revoked after %s", in.Late)})
}
