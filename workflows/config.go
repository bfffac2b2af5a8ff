package workflows

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/shared"
)

// The registered names. They are in recorded histories, so they stay when Go
// functions are renamed.
const (
	workflowRequest = "tidegate.Request"
	workflowGrant   = "tidegate.Grant"
	workflowHold    = "tidegate.Hold"

	activityCommands  = "tidegate.request.Commands"
	activityFollow    = "tidegate.request.Follow"
	activityReadGrant = "tidegate.grant.Read"
	activityMint      = "tidegate.grant.Mint"
	activityExtend    = "tidegate.grant.Extend"
	activityEnd       = "tidegate.grant.End"
	activityClose     = "tidegate.grant.Close"
	activityAlert     = "tidegate.grant.Alert"
	activityShowHeld  = "tidegate.hold.Show"
	activityTimeOut   = "tidegate.hold.TimeOut"

	signalHint   = "hint"
	updateRevoke = "revoke"
	updateExtend = "extend"
)

// Bounds on what one pull request may make us do.
const (
	maxReviews      = 500
	maxCommitsRead  = 20 // distinct commits whose reviews we evaluate, newest first
	maxCommands     = 50 // a reading
	maxCommandsEach = 10 // of one person
	maxReplies      = 10
	maxReplyLength  = 500
	maxGrantsPerPR  = 50
	maxPolicyFiles  = 200 // that one changes
	maxLength       = 366 * 24 * time.Hour
	recentlyMerged  = 24 * time.Hour
	hintAgain       = 5 * time.Minute
	propagation     = 10 * time.Second // older merges are compared with today's main as well
	unclaimedForbid = 10 * time.Minute // a file on main that nobody claims
)

// Rules are the server's own settings: what no policy file can change.
type Rules struct {
	AutoMerge    bool               // merge a pull request as soon as it is approved, if it brings nothing else
	Tidy         Tidy               // how files of ended grants leave main; the zero value leaves them
	AdoptFirst   bool               // adopt the policies on main when nothing was adopted yet
	PolicyOwners []access.Principal // who must agree to a change of policies
	Operators    []access.Principal // who may revoke anything
	Reminder     time.Duration      // a hold is shown again after this; 0 is 5 minutes
	Poll         time.Duration      // how often a pull request is read without a hint; 0 is 30 s
	AlertAfter   time.Duration      // a revocation that takes longer alerts; 0 is a minute
	Grace        time.Duration      // the sweeper leaves Temporal this long; 0 is 60 s
}

func (r Rules) withDefaults() Rules {
	r.Reminder = orDuration(r.Reminder, 5*time.Minute)
	r.Poll = orDuration(r.Poll, 30*time.Second)
	r.AlertAfter = orDuration(r.AlertAfter, time.Minute)
	r.Grace = orDuration(r.Grace, time.Minute)
	return r
}

func orDuration(d, fallback time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return fallback
}

// Activities are what the workflows do to the world. All of them are
// idempotent, read again what they act on, and take and return small values:
// plans and secrets never enter a history.
type Activities struct {
	Repo     int64 // the access repository's numeric id
	Forge    Forge
	Policies Policies
	Ledger   Ledger
	Minters  map[string]Minter // by kind
	Rules    Rules
	Now      func() time.Time // nil is time.Now
	Log      *slog.Logger
	Signals  *Signals // nil tells nothing

	starter starter                           // Temporal, behind what activities need of it
	today   *shared.Answers[Ref, *assessment] // readings of landed pull requests; nil shares none
	heard   *marks                            // which comments were handled; nil remembers none
	waiting *waits                            // commands that narrow and are tried again; nil tries them each time
	failing *streaks                          // what of pull requests fails; nil remembers nothing
	names   *sync.Map                         // meanings that the ledger has; nil looks there each time
	gate    *gate                             // keeps targets apart; nil does not
}

// starter starts and wakes workflows.
type starter interface {
	startGrant(ctx context.Context, key access.GrantKey) error
	hint(ctx context.Context, h Hint) error
	wakeGrant(ctx context.Context, key access.GrantKey) error
}

// Validate reports everything that is missing.
func (a *Activities) Validate() error {
	var errs []error
	need := func(ok bool, what string) {
		if !ok {
			errs = append(errs, errors.New("workflows: "+what+" is missing"))
		}
	}
	need(a.Repo != 0, "Repo, the access repository's id,")
	need(a.Forge != nil, "Forge")
	need(a.Policies != nil, "Policies")
	need(a.Ledger != nil, "Ledger")
	need(len(a.Minters) > 0, "a Minter")
	for _, kind := range slices.Sorted(maps.Keys(a.Minters)) {
		need(a.Minters[kind] != nil, "the minter of "+kind)
	}
	return errors.Join(errs...)
}

func (a *Activities) now() time.Time {
	if a.Now != nil {
		return a.Now().UTC()
	}
	return time.Now().UTC()
}

func (a *Activities) log() *slog.Logger {
	if a.Log != nil {
		return a.Log
	}
	return slog.New(slog.DiscardHandler)
}

func (a *Activities) minter(kind string) (Minter, error) {
	if m, ok := a.Minters[kind]; ok {
		return m, nil
	}
	return nil, access.Errorf(access.CodeInvalid, "This server can't give access to targets of kind %q: no minter for it is configured.", kind)
}

// audit writes to the chained log; a failure is the caller's.
func (a *Activities) audit(ctx context.Context, e entry) error {
	return a.Ledger.Audit(ctx, e.actor, e.action, e.subject, e.detail)
}

// entry is one line of the audit log.
type entry struct{ actor, action, subject, detail string }

// tell shortens a wait. Losing it costs a poll interval, nothing else.
func (a *Activities) tell(ctx context.Context, h Hint) {
	if a.starter == nil || h.Ref.Number == 0 {
		return
	}
	if err := a.starter.hint(ctx, h); err != nil {
		a.log().WarnContext(ctx, "hint not delivered", "pr", h.Ref.String(), "error", err)
	}
}

func (a *Activities) wake(ctx context.Context, key access.GrantKey) {
	if a.starter == nil {
		return
	}
	if err := a.starter.wakeGrant(ctx, key); err != nil {
		a.log().WarnContext(ctx, "grant not woken", "grant", key.String(), "error", err)
	}
}

// String is the pull request as workflow ids and logs write it.
func (r Ref) String() string { return strconv.FormatInt(r.Repo, 10) + "-" + strconv.Itoa(r.Number) }

// Hint says that something may have changed. It is never believed: it only
// shortens the wait until the next reading.
type Hint struct {
	Kind HintKind `json:"kind"`
	Ref  Ref      `json:"ref"`
	Held string   `json:"held,omitempty"` // held: the hold's id
}

// HintKind says what may have changed.
type HintKind string

// The kinds of hint.
const (
	HintPull    HintKind = "pull"    // a pull request or a review of it
	HintPush    HintKind = "push"    // a branch or main
	HintComment HintKind = "comment" // perhaps a command
	HintHeld    HintKind = "held"    // a held operation, or its answer
)

func requestID(ref Ref) string           { return "pr-" + ref.String() }
func grantID(key access.GrantKey) string { return "grant-" + key.String() }
func holdID(id string) string            { return "hold-" + id }
