package workflows

import (
	"context"
	"testing"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

func TestActivitiesBeat(t *testing.T) {
	var suite testsuite.WorkflowTestSuite
	e := suite.NewTestWorkflowEnvironment()
	e.SetTestTimeout(time.Minute)
	e.SetWorkerOptions(worker.Options{Interceptors: []interceptor.WorkerInterceptor{&beating{}}})
	heard := make(chan struct{})
	e.SetOnActivityHeartbeatListener(func(*activity.Info, converter.EncodedValues) {
		select {
		case heard <- struct{}{}:
		default:
		}
	})
	slow := func(ctx context.Context) error {
		for range 2 {
			select {
			case <-heard:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	}
	e.RegisterActivityWithOptions(slow, activity.RegisterOptions{Name: "slow"})
	e.ExecuteWorkflow(func(ctx workflow.Context) error {
		ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: time.Minute, HeartbeatTimeout: 3 * time.Second}) // a busy machine stands still for a second
		return workflow.ExecuteActivity(ctx, "slow").Get(ctx, nil)
	})
	if err := e.GetWorkflowError(); err != nil {
		t.Errorf("want a slow activity to say twice that it lives, got %v", err)
	}
}

// TestNothingIsSilentLong: without a bound on their silence, what a killed
// control was doing would wait for the activity's whole time.
func TestNothingIsSilentLong(t *testing.T) {
	seen := map[string]bool{}
	watch := func(info *activity.Info, _ context.Context, _ converter.EncodedValues) {
		if seen[info.ActivityType.Name] = true; info.HeartbeatTimeout != silence {
			t.Errorf("activity %s may be silent for %s, want %s", info.ActivityType.Name, info.HeartbeatTimeout, silence)
		}
	}
	w := newWorld(t)
	e, a := env(t, w)
	landed(t, w, a, 3600)
	e.SetOnActivityStartedListener(watch)
	runGrant(t, e)
	e, _ = env(t, w)
	e.SetOnActivityStartedListener(watch)
	e.ExecuteWorkflow(workflowRequest, RequestInput{Ref: pr7, Poll: time.Minute})
	if err := e.GetWorkflowError(); err != nil {
		t.Error(err)
	}
	for _, name := range []string{activityMint, activityClose, activityCommands, activityFollow} {
		if !seen[name] {
			t.Errorf("activity %s was not seen", name)
		}
	}
}
