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

// changePatience marks histories in which a pull request that can't be read is
// read less often by the clock, and as soon as ever after a hint.
const changePatience = "follow-patience"

// longestWait is the most between two readings that fail.
const longestWait = 5 * time.Minute

// Request follows one pull request from open to closed, and its grants until
// they are closed. A turn is one reading of everything; hints only shorten
// the wait for the next, so they may come twice, late or in any order.
func Request(ctx workflow.Context, in RequestInput) error {
	heard := hear(ctx)
	read, last := true, workflow.Now(ctx)
	p := pulled{RequestInput: &in}
	for range maxTurns {
		if read = heard.comment || read || overdue(ctx, last, in.Poll); read {
			last = workflow.Now(ctx)
		}
		hinted := heard.any
		*heard = hearing{}
		unheard, err := p.turn(ctx, read, hinted)
		if err != nil {
			return err
		}
		out := p.out
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

// pulled is a pull request as its workflow knows it.
type pulled struct {
	*RequestInput
	out    FollowResult // of the turn
	failed int          // readings since one succeeded
	until  time.Time    // they are left to hints
	deaf   bool         // the comments could not be read
}

// turn reads the comments and then the pull request. Both are partly anybody's:
// however one of them can't be read, the other is. What failed is tried again in
// the next turn: an endless trying would hear no command meanwhile. unheard says
// that those were the comments.
func (p *pulled) turn(ctx workflow.Context, read, hinted bool) (unheard bool, err error) {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: time.Minute, HeartbeatTimeout: silence,
		RetryPolicy: &temporal.RetryPolicy{InitialInterval: 200 * time.Millisecond, BackoffCoefficient: 2, MaximumAttempts: 4}})
	p.out = FollowResult{}
	due := hinted || !workflow.Now(ctx).Before(p.until)
	if read {
		var said []string
		failure := workflow.ExecuteActivity(ctx, activityCommands, p.Ref).Get(ctx, &said)
		if err := tried(ctx, failure, p.deaf); err != nil {
			return false, err
		}
		p.deaf = failure != nil
		unheard = p.deaf && workflow.GetVersion(ctx, changeUnheard, workflow.DefaultVersion, 1) == 1
		p.Replies = append(p.Replies, said...)
		p.Replies = p.Replies[max(0, len(p.Replies)-maxReplies):]
		due = due || len(said) > 0
	}
	if !due {
		return unheard, nil
	}
	failure := workflow.ExecuteActivity(ctx, activityFollow, FollowInput{Ref: p.Ref, Replies: p.Replies}).Get(ctx, &p.out)
	err = tried(ctx, failure, p.failed > 0)
	p.waits(ctx, failure)
	return unheard, err
}

// waits keeps a reading that failed from being repeated by the clock: the longer,
// the more have failed. Comments are read meanwhile as always.
func (p *pulled) waits(ctx workflow.Context, failure error) {
	if failure == nil {
		p.failed, p.until = 0, time.Time{}
		return
	}
	wait := min(p.Poll<<min(p.failed, 10), max(p.Poll, longestWait))
	p.failed++
	if workflow.GetVersion(ctx, changePatience, workflow.DefaultVersion, 1) == 1 {
		p.until = workflow.Now(ctx).Add(wait)
	}
}

// tried logs a failure, the first in a row; only a cancelled workflow stops.
func tried(ctx workflow.Context, err error, again bool) error {
	if err == nil || temporal.IsCanceledError(err) {
		return err
	}
	if !again {
		workflow.GetLogger(ctx).Error("pull request not read", "error", err)
	}
	return nil
}
