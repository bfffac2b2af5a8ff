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

// pace is between the readings of a merged pull request. What is left to say
// of it is how its grants do, and dozens of them may open in a second: said
// one by one, the saying would delay the opening. A command does not wait.
const pace = time.Second

// changeUnheard marks histories in which comments that could not be read are
// read in the next turn. Older ones, which waited for the clock, still replay.
const changeUnheard = "comments-unheard"

// changeOverdue marks histories in which hints without end, of anything but
// comments, keep no comment unread for longer than the clock would.
const changeOverdue = "comments-overdue"

// Request follows one pull request from open to closed, and its grants until
// they are closed. A turn is one reading of everything; hints only shorten
// the wait for the next, so they may come twice, late or in any order.
func Request(ctx workflow.Context, in RequestInput) error {
	heard := hear(ctx)
	read, last := true, workflow.Now(ctx)
	for range maxTurns {
		if read = heard.comment || read || overdue(ctx, last, in.Poll); read {
			last = workflow.Now(ctx)
		}
		*heard = hearing{}
		var out FollowResult
		unheard, err := turn(ctx, &in, read, &out)
		if err != nil {
			return err
		}
		if out.Done && !heard.any {
			return nil
		}
		if out.Again {
			read = unheard
			continue
		}
		if out.Landed {
			if _, err := workflow.AwaitWithTimeout(ctx, pace, func() bool { return heard.comment }); err != nil {
				return err
			}
		}
		got, err := workflow.AwaitWithTimeout(ctx, in.Poll, func() bool { return heard.any })
		if err != nil {
			return err
		}
		read = !got || unheard // by the clock, everything is read; after a hint, what it says
	}
	return workflow.NewContinueAsNewError(ctx, workflowRequest, in)
}

// overdue reports whether comments were read last longer ago than by the clock.
func overdue(ctx workflow.Context, last time.Time, poll time.Duration) bool {
	return workflow.Now(ctx).Sub(last) >= poll && workflow.GetVersion(ctx, changeOverdue, workflow.DefaultVersion, 1) == 1
}

// hearing is what the hints since the last reading said. However many came,
// one reading answers all.
type hearing struct{ any, comment bool }

func hear(ctx workflow.Context) *hearing {
	heard := &hearing{}
	workflow.Go(ctx, func(ctx workflow.Context) {
		for {
			var h Hint
			workflow.GetSignalChannel(ctx, signalHint).Receive(ctx, &h)
			heard.any, heard.comment = true, heard.comment || h.Kind == HintComment
		}
	})
	return heard
}

// turn reads the comments and then the pull request. Both are partly anybody's:
// however one of them can't be read, the other is. What failed is tried again in
// the next turn: an endless trying would hear no command meanwhile. unheard says
// that those were the comments.
func turn(ctx workflow.Context, in *RequestInput, read bool, out *FollowResult) (unheard bool, err error) {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: time.Minute, HeartbeatTimeout: silence,
		RetryPolicy: &temporal.RetryPolicy{InitialInterval: 200 * time.Millisecond, BackoffCoefficient: 2, MaximumAttempts: 4}})
	if read {
		var said []string
		failure := workflow.ExecuteActivity(ctx, activityCommands, in.Ref).Get(ctx, &said)
		if err := tried(ctx, failure); err != nil {
			return false, err
		}
		unheard = failure != nil && workflow.GetVersion(ctx, changeUnheard, workflow.DefaultVersion, 1) == 1
		in.Replies = append(in.Replies, said...)
		in.Replies = in.Replies[max(0, len(in.Replies)-maxReplies):]
	}
	return unheard, tried(ctx, workflow.ExecuteActivity(ctx, activityFollow, FollowInput{Ref: in.Ref, Replies: in.Replies}).Get(ctx, out))
}

// tried logs a failure; only a cancelled workflow stops.
func tried(ctx workflow.Context, err error) error {
	if err == nil || temporal.IsCanceledError(err) {
		return err
	}
	workflow.GetLogger(ctx).Error("pull request not read", "error", err)
	return nil
}
