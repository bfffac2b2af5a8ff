package workflows

import (
	"errors"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/tidegate/tidegate/access"
)

// GrantInput names the grant. Everything else is read from the ledger.
type GrantInput struct {
	Key        access.GrantKey `json:"key"`
	Queue      string          `json:"queue"` // the revocations' own task queue
	AlertAfter time.Duration   `json:"alert_after"`
}

// Grant is the life of one landed grant: wait for its start, mint, wait for
// its end, revoke, prove.
//
// The revocation stands behind everything else, armed before the mint: a mint
// that timed out may have minted. It is a plain call and not a defer because
// the SDK runs deferred calls too when it drops a workflow from its cache.
// live has one way out, by return, whatever happened in it; a panic stops the
// workflow task, not the workflow.
func Grant(ctx workflow.Context, in GrantInput) error {
	run := &grantRun{in: in}
	if err := run.listen(ctx); err != nil {
		return err
	}
	for {
		err := run.live(ctx)
		if closed := run.close(ctx, reasonOf(err)); closed {
			return nil
		}
	}
}

func reasonOf(err error) string {
	switch {
	case err == nil:
		return ""
	case temporal.IsCanceledError(err):
		return "Its workflow was cancelled."
	default:
		return "It could not be opened: " + lastMessage(err)
	}
}

func lastMessage(err error) string {
	var app *temporal.ApplicationError
	if errors.As(err, &app) {
		return app.Message()
	}
	return "the target gave no answer in time."
}

// grantRun is one run of the workflow.
type grantRun struct {
	in    GrantInput
	view  GrantView
	dirty bool // somebody changed the row: read it again
}

// listen takes hints and the two updates. Denials never come here as history:
// the validators refuse before anything is written.
func (r *grantRun) listen(ctx workflow.Context) error {
	workflow.Go(ctx, func(ctx workflow.Context) {
		for {
			workflow.GetSignalChannel(ctx, signalHint).Receive(ctx, nil)
			r.dirty = true
		}
	})
	if err := workflow.SetUpdateHandlerWithOptions(ctx, updateRevoke, r.onRevoke, workflow.UpdateHandlerOptions{Validator: r.mayRevoke}); err != nil {
		return err
	}
	return workflow.SetUpdateHandlerWithOptions(ctx, updateExtend, r.onExtend, workflow.UpdateHandlerOptions{Validator: r.mayExtend})
}

func (r *grantRun) mayRevoke(_ workflow.Context, in EndInput) error {
	switch {
	case in.Key != r.in.Key:
		return errors.New("revoke: the update names another grant")
	case in.By == "" || in.Why == "":
		return errors.New("revoke: it must say who revokes and why")
	case r.view.State.Ended():
		return errors.New("revoke: the grant has ended already")
	}
	return nil
}

func (r *grantRun) onRevoke(ctx workflow.Context, in EndInput) (GrantView, error) {
	var v GrantView
	err := workflow.ExecuteActivity(quick(ctx), activityEnd, in).Get(ctx, &v)
	r.dirty = true
	return v, err
}

func (r *grantRun) mayExtend(_ workflow.Context, in ExtendInput) error {
	switch {
	case in.Key != r.in.Key:
		return errors.New("extend: the update names another grant")
	case r.view.State != access.StateActive:
		return errors.New("extend: only an active grant can be extended")
	case !in.Until.After(r.view.NotAfter):
		return errors.New("extend: the new end must be later than the present one")
	case in.Until.After(r.view.Latest):
		return errors.New("extend: the role is not given that long")
	}
	return nil
}

func (r *grantRun) onExtend(ctx workflow.Context, in ExtendInput) (GrantView, error) {
	var v GrantView
	err := workflow.ExecuteActivity(quick(ctx), activityExtend, in).Get(ctx, &v)
	r.dirty = true
	return v, err
}

// live is the grant until it must end. Whatever it returns, it is revoked.
func (r *grantRun) live(ctx workflow.Context) error {
	if err := r.read(ctx); err != nil {
		return err
	}
	if err := r.waitUntil(ctx, func() time.Time { return r.view.NotBefore }); err != nil {
		return err
	}
	if r.view.State == access.StateLanded {
		if err := r.mint(ctx); err != nil {
			return err
		}
	}
	if err := r.waitUntil(ctx, func() time.Time { return r.view.NotAfter }); err != nil {
		return err
	}
	return r.drain(ctx)
}

// drainPoll is how often it is asked whether what ran at the end is over.
const drainPoll = 2 * time.Second

// drain waits, where the role says so, until what ran at the grant's end is
// over, at most until its time for that is over as well. Gateways start
// nothing new meanwhile.
func (r *grantRun) drain(ctx workflow.Context) error {
	for !r.view.Drained.IsZero() && !r.view.State.Ended() {
		if err := r.read(ctx); err != nil {
			return err
		}
		left := r.view.Drained.Sub(workflow.Now(ctx))
		if left <= 0 || !r.view.Busy {
			return nil
		}
		if _, err := workflow.AwaitWithTimeout(ctx, min(left, drainPoll), func() bool { return r.dirty }); err != nil {
			return err
		}
	}
	return nil
}

// waitUntil waits for the moment, which may move, or for the grant's end.
func (r *grantRun) waitUntil(ctx workflow.Context, moment func() time.Time) error {
	for !r.view.State.Ended() {
		if r.dirty {
			if err := r.read(ctx); err != nil {
				return err
			}
			continue
		}
		left := moment().Sub(workflow.Now(ctx))
		if left <= 0 {
			return nil
		}
		if _, err := workflow.AwaitWithTimeout(ctx, left, func() bool { return r.dirty }); err != nil {
			return err
		}
	}
	return nil
}

// read is a local activity: a look at the ledger is not worth three steps of
// the server.
func (r *grantRun) read(ctx workflow.Context) error {
	r.dirty = false
	ctx = workflow.WithLocalActivityOptions(ctx, workflow.LocalActivityOptions{
		StartToCloseTimeout: 5 * time.Second, RetryPolicy: patient(),
	})
	var now GrantView // a fresh one: what is left out of the answer must not stay
	if err := workflow.ExecuteLocalActivity(ctx, activityReadGrant, r.in.Key).Get(ctx, &now); err != nil {
		return err
	}
	r.view = now
	return nil
}

// mint tries until the grant's end; after that there is nothing to mint.
func (r *grantRun) mint(ctx workflow.Context) error {
	left := r.view.NotAfter.Sub(workflow.Now(ctx))
	if left <= 0 {
		return nil
	}
	ctx, cancel := workflow.WithCancel(ctx)
	defer cancel()
	minting := workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: 30 * time.Second, HeartbeatTimeout: silence, ScheduleToCloseTimeout: left, RetryPolicy: patient(),
	}), activityMint, r.in.Key)
	for !minting.IsReady() && !r.view.State.Ended() {
		if err := workflow.Await(ctx, func() bool { return minting.IsReady() || r.dirty }); err != nil {
			return err
		}
		if r.dirty {
			if err := r.read(ctx); err != nil {
				return err
			}
		}
	}
	if r.view.State.Ended() {
		return nil
	}
	return minting.Get(ctx, &r.view)
}

// close revokes on a context that no cancellation reaches, until the row is
// closed. It answers false if the end was moved at the last moment.
func (r *grantRun) close(ctx workflow.Context, why string) bool {
	ctx, done := workflow.NewDisconnectedContext(ctx)
	defer done()
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: r.in.Queue, StartToCloseTimeout: 30 * time.Second, HeartbeatTimeout: silence, RetryPolicy: patient(),
	})
	r.watch(ctx)
	for pause := time.Second; ; pause = min(2*pause, 30*time.Second) {
		err := workflow.ExecuteActivity(ctx, activityClose, CloseInput{Key: r.in.Key, Why: why}).Get(ctx, &r.view)
		if err == nil {
			return r.settled(ctx)
		}
		// Nothing is final here: what can't be retried by the server is tried again by us.
		if err := workflow.Sleep(ctx, pause); err != nil {
			workflow.GetLogger(ctx).Error("pause between revocations failed", "error", err)
		}
	}
}

// settled reports whether the grant is closed. If its end was moved, or this
// worker's clock is behind the server's, life goes on.
func (r *grantRun) settled(ctx workflow.Context) bool {
	if r.view.Closed {
		return true
	}
	if !r.view.NotAfter.After(workflow.Now(ctx)) {
		_ = workflow.Sleep(ctx, 50*time.Millisecond) // can't be cancelled: the context is disconnected
	}
	return false
}

// watch alerts when the revocation takes long, again and again.
func (r *grantRun) watch(ctx workflow.Context) {
	started := workflow.Now(ctx)
	workflow.Go(ctx, func(ctx workflow.Context) {
		for pause := r.in.AlertAfter; ; pause = min(2*pause, time.Hour) {
			if workflow.Sleep(ctx, pause) != nil {
				return
			}
			late := AlertInput{Key: r.in.Key, Late: workflow.Now(ctx).Sub(started)}
			if err := workflow.ExecuteActivity(ctx, activityAlert, late).Get(ctx, nil); err != nil {
				workflow.GetLogger(ctx).Error("alert failed", "error", err)
			}
		}
	})
}

// quick is for activities that only touch the ledger or the forge.
func quick(ctx workflow.Context) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: 30 * time.Second, HeartbeatTimeout: silence, RetryPolicy: patient(),
	})
}

// patient retries for ever, soon at first and never rarely.
func patient() *temporal.RetryPolicy {
	return &temporal.RetryPolicy{InitialInterval: 200 * time.Millisecond, BackoffCoefficient: 2, MaximumInterval: 30 * time.Second}
}
