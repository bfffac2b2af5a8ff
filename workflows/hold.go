package workflows

import (
	"context"
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/tidegate/tidegate/access"
)

// HoldInput names a held operation.
type HoldInput struct {
	ID       string        `json:"id"`
	Reminder time.Duration `json:"reminder"`
}

// HeldView is the little that the workflow knows of it.
type HeldView struct {
	Open    bool      `json:"open"`
	Expires time.Time `json:"expires"`
}

// Hold shows one paused operation, shows it again now and then, and closes
// what it showed when it was answered, cancelled, or nobody answered in time:
// then the answer is no.
func Hold(ctx workflow.Context, in HoldInput) error {
	heard := hear(ctx)
	ctx = quick(ctx)
	var v HeldView
	for {
		*heard = hearing{}
		if err := workflow.ExecuteActivity(ctx, activityShowHeld, in.ID).Get(ctx, &v); err != nil {
			return err
		}
		if !v.Open {
			return nil
		}
		left := v.Expires.Sub(workflow.Now(ctx))
		if left <= 0 {
			if err := workflow.ExecuteActivity(ctx, activityTimeOut, in.ID).Get(ctx, nil); err != nil {
				return err
			}
			continue
		}
		if _, err := workflow.AwaitWithTimeout(ctx, min(left, in.Reminder), func() bool { return heard.any }); err != nil {
			return err
		}
	}
}

// ShowHeld shows the operation, or closes its check run when it is not open
// any more.
func (a *Activities) ShowHeld(ctx context.Context, id string) (HeldView, error) {
	h, err := a.Ledger.Held(ctx, id)
	if access.CodeOf(err) == access.CodeDenied {
		return HeldView{}, activityError(a.hide(ctx, id, err))
	}
	if err != nil {
		return HeldView{}, activityError(fmt.Errorf("read held %s: %w", id, err))
	}
	g, err := a.Ledger.Grant(ctx, h.Grant)
	if err != nil {
		return HeldView{}, activityError(fmt.Errorf("read grant %s: %w", h.Grant, err))
	}
	if err := a.Forge.PublishHeld(ctx, refOf(g), h); err != nil {
		return HeldView{}, activityError(fmt.Errorf("publish held %s: %w", id, err))
	}
	return HeldView{Open: h.State == access.HeldOpen, Expires: h.Expires}, nil
}

// hide ends an operation that is not as its gateway wrote it: no more of it
// is shown, and who waits for it hears no.
func (a *Activities) hide(ctx context.Context, id string, why error) error {
	a.log().ErrorContext(ctx, "held operation is not shown", "held", id, "error", why)
	err := a.Ledger.CancelHeld(ctx, id, access.HeldCancelled)
	if err != nil && access.CodeOf(err) != access.CodeConflict { // a conflict: it is over already
		return fmt.Errorf("cancel held %s: %w", id, err)
	}
	return nil
}

// TimeOutHeld ends an operation that nobody answered. An answer that came at
// the last moment stands.
func (a *Activities) TimeOutHeld(ctx context.Context, id string) error {
	h, err := a.Ledger.Held(ctx, id)
	if err != nil {
		return activityError(fmt.Errorf("read held %s: %w", id, err))
	}
	if h.State != access.HeldOpen || a.now().Before(h.Expires) {
		return nil
	}
	err = a.Ledger.CancelHeld(ctx, id, access.HeldTimedOut)
	if err != nil && access.CodeOf(err) != access.CodeConflict {
		return activityError(fmt.Errorf("time out held %s: %w", id, err))
	}
	return activityError(a.audit(ctx, entry{"tidegate", "held.timed_out", id, "nobody answered " + h.Name()}))
}
