package workflows

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/shared"
)

// Config is what Start needs. Zero values are defaults except where said.
type Config struct {
	Client     client.Client   // needed
	Activities Activities      // needed
	Queue      string          // task queue; "" is "tidegate". Revocations have their own: "<queue>-revoke"
	Sweep      time.Duration   // between sweeps of ledger and targets; 0 is 15 s
	Reconcile  time.Duration   // between readings of main and the pull requests; 0 is Rules.Poll
	Changed    <-chan struct{} // the ledger changed: look for held operations and early ends
	// Guard runs a sweep only if no other control does; nil runs it.
	Guard func(ctx context.Context, sweep func(context.Context) error) error
}

// Control runs the workers and the loops.
type Control struct {
	client  client.Client
	acts    *Activities
	queue   string
	guard   func(context.Context, func(context.Context) error) error
	workers []worker.Worker
	nudge   chan struct{} // reconcile now
	gone    chan struct{} // look for files that left main now
	remake  chan struct{} // look for access to be made again
	cancel  context.CancelFunc
	loops   sync.WaitGroup
}

// Register registers the workflows and activities by their recorded names.
// The calls are spelled out because workflowcheck finds workflows by them.
func Register(r worker.Registry, a *Activities) {
	r.RegisterWorkflowWithOptions(Request, workflow.RegisterOptions{Name: workflowRequest})
	r.RegisterWorkflowWithOptions(Grant, workflow.RegisterOptions{Name: workflowGrant})
	r.RegisterWorkflowWithOptions(Hold, workflow.RegisterOptions{Name: workflowHold})
	for name, fn := range map[string]any{
		activityCommands: a.Commands, activityFollow: a.Follow,
		activityReadGrant: a.ReadGrant, activityMint: a.MintGrant, activityExtend: a.ExtendGrant,
		activityShowHeld: a.ShowHeld, activityTimeOut: a.TimeOutHeld, activityEnd: a.EndGrant,
	} {
		r.RegisterActivityWithOptions(fn, activity.RegisterOptions{Name: name})
	}
}

// RegisterRevoke registers what the revocations' own worker does.
func RegisterRevoke(r worker.ActivityRegistry, a *Activities) {
	r.RegisterActivityWithOptions(a.CloseGrant, activity.RegisterOptions{Name: activityClose})
	r.RegisterActivityWithOptions(a.Alert, activity.RegisterOptions{Name: activityAlert})
}

// Start runs the workers, the reconciling and the sweeping until Stop.
func Start(ctx context.Context, cfg Config) (*Control, error) {
	if cfg.Client == nil {
		return nil, errors.New("workflows: Client is missing")
	}
	acts := cfg.Activities
	if err := acts.Validate(); err != nil {
		return nil, err
	}
	acts.Rules = acts.Rules.withDefaults()
	c := &Control{client: cfg.Client, acts: &acts, queue: cfg.Queue, guard: cfg.Guard,
		nudge: make(chan struct{}, 1), gone: make(chan struct{}, 1), remake: make(chan struct{}, 1)}
	if c.queue == "" {
		c.queue = defaultQueue
	}
	if c.guard == nil {
		c.guard = func(ctx context.Context, sweep func(context.Context) error) error { return sweep(ctx) }
	}
	acts.starter, acts.today, acts.gate = c, shared.New[Ref, *assessment](), newGate()
	acts.heard, acts.waiting, acts.failing = newMarks(), newWaits(), newStreaks()
	acts.names = &sync.Map{}
	if err := c.startWorkers(); err != nil {
		return nil, err
	}
	c.startLoops(ctx, cfg)
	return c, nil
}

// What one worker does side by side. Many grants may end in one second.
const (
	maxAtOnce = 512
	pollers   = 8
)

func (c *Control) startWorkers() error {
	main := worker.New(c.client, c.queue, worker.Options{
		MaxConcurrentActivityExecutionSize: maxAtOnce, MaxConcurrentActivityTaskPollers: pollers, MaxConcurrentWorkflowTaskPollers: pollers,
		Interceptors: []interceptor.WorkerInterceptor{&beating{}},
	})
	Register(main, c.acts)
	revoke := worker.New(c.client, revokeQueue(c.queue), worker.Options{
		MaxConcurrentActivityExecutionSize: maxAtOnce, MaxConcurrentActivityTaskPollers: pollers, DisableWorkflowWorker: true,
		Interceptors: []interceptor.WorkerInterceptor{&beating{}},
	})
	RegisterRevoke(revoke, c.acts)
	for _, w := range []worker.Worker{revoke, main} {
		if err := w.Start(); err != nil {
			c.stopWorkers()
			return fmt.Errorf("start worker: %w", err)
		}
		c.workers = append(c.workers, w)
	}
	return nil
}

// defaultQueue is where control's workers ask for work.
const defaultQueue = "tidegate"

func revokeQueue(queue string) string { return queue + "-revoke" }

func (c *Control) startLoops(ctx context.Context, cfg Config) {
	ctx, c.cancel = context.WithCancel(ctx)
	s := newSweeper(c.acts)
	reconcile := orDuration(cfg.Reconcile, c.acts.Rules.Poll)
	tasks := []task{
		{name: "sweep", every: orDuration(cfg.Sweep, 15*time.Second), bound: 2 * time.Minute,
			do: func(ctx context.Context) error { return c.guard(ctx, s.sweep) }},
		{name: "ends", every: reconcile, bound: 2 * time.Minute, wake: c.gone,
			do: func(ctx context.Context) error { return c.guard(ctx, s.endDeleted) }},
		{name: "reconcile", every: reconcile, bound: 2 * time.Minute, wake: c.nudge,
			do: func(ctx context.Context) error { return c.guard(ctx, s.reconcile) }},
		{name: "renew", every: 5 * time.Second, rest: time.Second, bound: 2 * time.Minute, wake: c.remake,
			do: func(ctx context.Context) error { return c.guard(ctx, c.renewAll) }},
		{name: "changes", every: 5 * time.Second, bound: 30 * time.Second, wake: cfg.Changed, do: (&waker{Control: c}).changed},
		{name: "measure", every: 15 * time.Second, bound: 10 * time.Second, do: c.measure},
	}
	for _, t := range tasks {
		c.loops.Go(func() { t.run(ctx, c.acts.log(), c.acts.Signals) })
	}
}

// Stop ends the loops and the workers, and waits for both.
func (c *Control) Stop() {
	c.cancel()
	c.loops.Wait()
	c.stopWorkers()
}

func (c *Control) stopWorkers() {
	for _, w := range c.workers {
		w.Stop()
	}
}

// poke wakes a loop, unless that is due already.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Hint says that something may have changed. It only wakes a workflow, so a
// webhook may wait for it.
func (c *Control) Hint(ctx context.Context, h Hint) error {
	if h.Kind == HintPush {
		poke(c.gone)
		poke(c.nudge)
	}
	return c.hint(ctx, h)
}

func (c *Control) hint(ctx context.Context, h Hint) error {
	if h.Held != "" {
		return ignoreMissing(c.client.SignalWorkflow(ctx, holdID(h.Held), "", signalHint, h))
	}
	if h.Ref.Number == 0 {
		return nil
	}
	in := RequestInput{Ref: h.Ref, Poll: c.acts.Rules.Poll}
	_, err := c.client.SignalWithStartWorkflow(ctx, requestID(h.Ref), signalHint, h, client.StartWorkflowOptions{
		ID: requestID(h.Ref), TaskQueue: c.queue,
		WorkflowIDConflictPolicy: enums.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		WorkflowIDReusePolicy:    enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
	}, workflowRequest, in)
	if err != nil {
		return fmt.Errorf("wake %s: %w", requestID(h.Ref), err)
	}
	return nil
}

// startGrant starts the grant's workflow. One that runs is left alone, and one
// that completed is not repeated; one that failed or was terminated by hand
// starts again, to revoke.
func (c *Control) startGrant(ctx context.Context, key access.GrantKey) error {
	in := GrantInput{Key: key, Queue: revokeQueue(c.queue), AlertAfter: c.acts.Rules.AlertAfter}
	_, err := c.client.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: grantID(key), TaskQueue: c.queue,
		WorkflowIDConflictPolicy:                 enums.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
		WorkflowIDReusePolicy:                    enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE_FAILED_ONLY,
		WorkflowExecutionErrorWhenAlreadyStarted: true,
	}, workflowGrant, in)
	if started := (*serviceerror.WorkflowExecutionAlreadyStarted)(nil); errors.As(err, &started) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("start %s: %w", grantID(key), err)
	}
	return nil
}

func (c *Control) wakeGrant(ctx context.Context, key access.GrantKey) error {
	return ignoreMissing(c.client.SignalWorkflow(ctx, grantID(key), "", signalHint, Hint{Kind: HintPull}))
}

// finishGrant wakes the workflow of a grant that ended, or starts it where
// Temporal has none.
func (c *Control) finishGrant(ctx context.Context, key access.GrantKey) error {
	err := c.client.SignalWorkflow(ctx, grantID(key), "", signalHint, Hint{Kind: HintPull})
	if missing := (*serviceerror.NotFound)(nil); errors.As(err, &missing) {
		return c.startGrant(ctx, key)
	}
	return err
}

// ignoreMissing: a workflow that is gone needs no waking; the sweeper starts
// the ones that should not be gone.
func ignoreMissing(err error) error {
	if missing := (*serviceerror.NotFound)(nil); errors.As(err, &missing) {
		return nil
	}
	return err
}

func (c *Control) startHold(ctx context.Context, id string) error {
	_, err := c.client.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: holdID(id), TaskQueue: c.queue,
		WorkflowIDConflictPolicy: enums.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		WorkflowIDReusePolicy:    enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE_FAILED_ONLY,
	}, workflowHold, HoldInput{ID: id, Reminder: c.acts.Rules.Reminder})
	if started := (*serviceerror.WorkflowExecutionAlreadyStarted)(nil); errors.As(err, &started) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("start %s: %w", holdID(id), err)
	}
	return nil
}

// Revoke ends a grant early: for the command line and the console, which have
// checked who asks. It works with Temporal down: gateways read the ledger.
func (c *Control) Revoke(ctx context.Context, in EndInput) error {
	if in.By == "" || in.Why == "" {
		return access.Errorf(access.CodeInvalid, "A revocation says who revokes and why.")
	}
	if _, err := c.acts.end(ctx, ending{key: in.Key, state: access.StateRevoked, by: in.By, why: in.Why}); err != nil {
		return fmt.Errorf("revoke grant %s: %w", in.Key, err)
	}
	c.acts.wake(ctx, in.Key)
	return nil
}
