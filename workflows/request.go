package workflows

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
)

// RequestInput names the pull request.
type RequestInput struct {
	Ref     Ref           `json:"ref"`
	Poll    time.Duration `json:"poll"`
	Replies []string      `json:"replies,omitempty"` // said before continuing as new
}

// maxTurns bounds a run's history; then the workflow continues as new.
const maxTurns = 500

// Request follows one pull request from open to closed, and its grants until
// they are closed. A turn is one reading of everything; hints only shorten
// the wait for the next, so they may come twice, late or in any order.
func Request(ctx workflow.Context, in RequestInput) error {
	hints := workflow.GetSignalChannel(ctx, signalHint)
	read := true
	for range maxTurns {
		read = drain(hints) || read
		var out FollowResult
		if err := turn(ctx, &in, read, &out); err != nil {
			return err
		}
		if out.Done && hints.Len() == 0 {
			return nil
		}
		if out.Again {
			read = false
			continue
		}
		got, err := workflow.AwaitWithTimeout(ctx, in.Poll, func() bool { return hints.Len() > 0 })
		if err != nil {
			return err
		}
		read = !got // by the clock, everything is read; after a hint, what it says
	}
	return workflow.NewContinueAsNewError(ctx, workflowRequest, in)
}

// drain empties the channel: however many hints came, one reading answers
// all. It reports whether a comment was among them.
func drain(hints workflow.ReceiveChannel) bool {
	comment := false
	var h Hint
	for hints.ReceiveAsync(&h) {
		comment = comment || h.Kind == HintComment
		h = Hint{}
	}
	return comment
}

func turn(ctx workflow.Context, in *RequestInput, read bool, out *FollowResult) error {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: time.Minute, RetryPolicy: patient()})
	if read {
		// Comments are anybody's: however they can't be read, what was merged
		// must land. They are read again in the next turn.
		var said []string
		few := workflow.WithRetryPolicy(ctx, temporal.RetryPolicy{InitialInterval: 200 * time.Millisecond, BackoffCoefficient: 2, MaximumAttempts: 3})
		if err := workflow.ExecuteActivity(few, activityCommands, in.Ref).Get(ctx, &said); err != nil {
			if temporal.IsCanceledError(err) {
				return err
			}
			workflow.GetLogger(ctx).Error("comments not read", "error", err)
		}
		in.Replies = append(in.Replies, said...)
		in.Replies = in.Replies[max(0, len(in.Replies)-maxReplies):]
	}
	return workflow.ExecuteActivity(ctx, activityFollow, FollowInput{Ref: in.Ref, Replies: in.Replies}).Get(ctx, out)
}
