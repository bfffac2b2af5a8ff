package workflows

import (
	"context"
	"errors"
	"time"

	"github.com/tidegate/tidegate/access"
)

// What the workflows' activities need of the rest of the house. cmd joins the
// forge, the policies, the ledger and the minters to these.

// Ref names a pull request.
type Ref struct {
	Repo   int64 `json:"repo"` // GitHub's repository id
	Number int   `json:"number"`
}

type urgent struct{}

// Urgent marks what ends access, or hears of its end: a forge that has few calls
// left keeps those for it.
func Urgent(ctx context.Context) context.Context { return context.WithValue(ctx, urgent{}, true) }

// IsUrgent reports whether a call is marked so.
func IsUrgent(ctx context.Context) bool { return ctx.Value(urgent{}) != nil }

// ErrUnreadable is the cause of an error about a commit that holds what is not
// read: a link, or too much. It stays so, unlike a forge that does not answer.
var ErrUnreadable = errors.New("a commit holds what is not read")

// Unreadable makes such an error; its text may be shown.
func Unreadable(code access.Code, format string, args ...any) error {
	err := access.Errorf(code, format, args...)
	err.Cause = ErrUnreadable
	return err
}

// MaxNames is how many people and teams a forge looks up at once.
const MaxNames = 500

// Forge is where pull requests live.
type Forge interface {
	// OpenPulls lists the pull requests that are open, and those closed since.
	OpenPulls(ctx context.Context, closedSince time.Time) ([]Ref, error)
	Pull(ctx context.Context, ref Ref) (Pull, error)
	// Pushers lists everybody who ever moved the pull request's branch; whole
	// says that they account for each commit on it. It is asked where the
	// deliveries that would have told did not come.
	Pushers(ctx context.Context, pull Pull) (who []access.User, whole bool, err error)
	// Tree reads grants/ and policies/ of a commit, or of the main branch. What
	// it holds that is not read is an [ErrUnreadable].
	Tree(ctx context.Context, commit string) (access.Tree, error)
	// Blobs are git's ids of plain files in a commit, by path: "" where it has
	// none. Unlike Tree it does not fail for what lies beside them. A file that
	// could not be looked for is absent, and the error says why.
	Blobs(ctx context.Context, commit string, files []string) (map[string]string, error)
	// Main is the main branch's commit, and the merged pull request behind it, if any.
	Main(ctx context.Context) (string, error)
	// MainWas lists what main was before it became the commit, back to a mark
	// in the forge's log of its moves; without a mark only the next one is set.
	MainWas(ctx context.Context, mark int64, commit string) (Passed, error)
	// PullOf finds the merged pull request that brought a commit to main; 0 is none.
	PullOf(ctx context.Context, commit string) (int, error)
	// PolicyPulls lists the merged pull requests that changed policies/ on
	// main, the newest first, up to a change that none of them brought.
	PolicyPulls(ctx context.Context) ([]int, error)
	// Directory looks logins and team names up, with members: at most [MaxNames].
	Directory(ctx context.Context, users, teams []string) (access.Directory, error)
	// Publish makes the one comment and the check runs say what r says. It is
	// idempotent and writes only what changed.
	Publish(ctx context.Context, ref Ref, r Report) error
	// PublishHeld shows (or closes) a held operation in its check run and names it in the comment.
	PublishHeld(ctx context.Context, ref Ref, h access.Held) error
	// Comments reads the newest comments: the commands in unedited ones, and
	// what others than Tidegate did to the comments of its own. Those up to the
	// comment heard were handled before, and need not be read again.
	Comments(ctx context.Context, ref Ref, heard int64) (Talk, error)
	// Outside reports whether head differs from base anywhere but in grants/
	// and policies/: there nothing that Tidegate counts was agreed to.
	Outside(ctx context.Context, base, head string) (bool, error)
	// Merge merges exactly the head that was approved.
	Merge(ctx context.Context, ref Ref, head string) error
	// Tidy removes files of ended grants from main: by one pull request, the
	// same until it is merged, or with [TidyCommit] by a commit.
	Tidy(ctx context.Context, files []string, how Tidy) (commit string, err error)
}

// Passed is what main was between two readings.
type Passed struct {
	Commits []string // the newest first
	Mark    int64    // where to go on from the next time; 0 if the log does not have the commit
	Whole   bool     // the log leads from the mark to the commit
}

// Pull is what a pull request is right now.
type Pull struct {
	Ref      Ref             `json:"ref"`
	URL      string          `json:"url"`
	Author   access.User     `json:"author"`
	Head     string          `json:"head"`
	Branch   string          `json:"branch"` // the head's
	Base     string          `json:"base"`   // the commit that head is compared with: the merge base
	Open     bool            `json:"open"`
	Draft    bool            `json:"draft"`
	Fork     bool            `json:"fork"`
	MergedAt time.Time       `json:"merged_at,omitzero"`
	Merge    string          `json:"merge,omitempty"` // the commit on main
	Reviews  []access.Review `json:"reviews"`         // Digest and PolicyDigest are not the forge's to know
	// Retargeted is when the branch that it goes to was changed to another, or
	// rewritten, last; zero if never. What was approved before was another
	// difference, and does not count.
	Retargeted time.Time        `json:"retargeted,omitzero"`
	Commits    []string         `json:"commits"`  // the branch's commits: their pushers don't count as approvers
	Excluded   map[int64]string `json:"excluded"` // author, committers, co-authors: id -> why
	Unknown    []string         `json:"unknown"`  // committers whom the forge can't name: nobody's approval counts while there are any, which the report says
	Unpushed   []string         `json:"unpushed"` // commits whose pusher is not known, which is not the forge's to know: the same
	Unread     string           `json:"unread"`   // what it has more of than is read, in words: the same
}

// Talk is what the comments of a pull request say, the oldest first.
type Talk struct {
	Commands []Command  `json:"commands"`
	Meddled  []Meddling `json:"meddled"`
	Newest   int64      `json:"newest"`  // comment
	Partial  bool       `json:"partial"` // there are older ones, ours among them: whether it was edited is not known
}

// Command is a slash command in a comment: "/tidegate approve H7 3fa9c2d1".
type Command struct {
	Comment int64       `json:"comment"`
	By      access.User `json:"by"`
	Verb    string      `json:"verb"`
	Args    []string    `json:"args"`
	At      time.Time   `json:"at"`
}

// The verbs of commands. A comment may hold any other word: that is answered
// with what there is.
const (
	VerbHelp    = "help"
	VerbExplain = "explain"
	VerbExtend  = "extend"  // a grant's end
	VerbRevoke  = "revoke"  // a grant, for good
	VerbHold    = "hold"    // a grant, until VerbResume
	VerbResume  = "resume"  // a grant on hold
	VerbRetry   = "retry"   // what failed
	VerbApprove = "approve" // a held operation
	VerbDeny    = "deny"    // a held operation
)

// Meddling is one edit of Tidegate's own comment by somebody else.
type Meddling struct {
	Comment int64       `json:"comment"`
	Edit    string      `json:"edit"` // the forge's id of it
	By      access.User `json:"by"`   // nobody: the forge can't say
	At      time.Time   `json:"at"`
}

// Report is everything that a pull request shows; the forge renders it.
type Report struct {
	Head        string             `json:"head"`
	Diagnostics access.Diagnostics `json:"diagnostics,omitempty"`
	Refusal     string             `json:"refusal,omitempty"` // why the whole pull request can't be used: mixed with policies, a fork, a draft
	Grants      []GrantReport      `json:"grants"`
	Policy      *access.Reason     `json:"policy,omitempty"`  // a change of policies: who must agree to it, and who did
	Replies     []string           `json:"replies,omitempty"` // answers to commands, newest last
}

// GrantReport is one grant in a report.
type GrantReport struct {
	Plan     access.Plan   `json:"plan"`
	Digest   string        `json:"digest"`
	Approval access.Reason `json:"approval"`
	State    access.State  `json:"state"`
	Until    time.Time     `json:"until,omitzero"`
	Paused   bool          `json:"paused,omitempty"`
	Why      string        `json:"why,omitempty"`
	Sessions []SessionLine `json:"sessions,omitempty"`
}

// SessionLine is one session in a report. What was done in it is in the
// recording, which lies with the gateway.
type SessionLine struct {
	ID             string      `json:"id"`
	Person         access.User `json:"person"`
	Started, Ended time.Time
}

// Policies evaluates, purely.
type Policies interface {
	// Names lists the logins and team names that evaluating head under the
	// policies in adopted will look up.
	Names(adopted, base, head access.Tree) (users, teams []string)
	// Evaluate plans each grant that differs between base and head, under the
	// policies in adopted. The plans lack their Expansion.
	Evaluate(in Evaluate) Evaluation
	// Count counts a ballot for a complete plan: Met means approved.
	Count(plan access.Plan, ballot access.Ballot) access.Reason
	// Rules are the rules in force, for the gateways' snapshot.
	Rules(adopted access.Tree, dir access.Directory) ([]access.Rule, access.Diagnostics)
	// Targets are those that a tree names.
	Targets(adopted access.Tree) ([]access.Target, error)
	// Replan plans one request that is in no tree, as it would be planned
	// today: an extension, or an active grant under other policies.
	Replan(adopted access.Tree, dir access.Directory, r access.Request) (access.Plan, access.Diagnostics)
	// AdoptionRequirements say what the policies in force ask of their
	// successors, owners included.
	AdoptionRequirements(old access.Tree, owners []access.Party, dir access.Directory) ([]access.Requirement, access.Diagnostics)
}

// Evaluate is the input of an evaluation.
type Evaluate struct {
	Adopted   access.Tree // policies/ are read from here
	Base      access.Tree // grants/ before
	Head      access.Tree // grants/ after
	Directory access.Directory
}

// Evaluation is what a pull request would do.
type Evaluation struct {
	Diagnostics access.Diagnostics
	Mixed       bool // policies and grants in one pull request
	PolicyOnly  bool
	Changes     []access.Change
	Plans       map[string]access.Plan // by grant id; for added and edited grants without errors
}

// Minter gives and takes access at targets of one kind.
type Minter interface {
	Kind() string
	// Expand says what the plan's role means on the target today. A pattern
	// that matches nothing is an *access.Error with CodeInvalid.
	Expand(ctx context.Context, plan access.Plan) (access.Expansion, error)
	// Mint makes what the grant needs at the target. It is idempotent, and
	// gives no more than both the approved expansion and today's.
	Mint(ctx context.Context, g access.Grant) (access.Minted, error)
	// Revoke takes everything of the grant away: sessions, views, credential.
	// It is idempotent and takes back a mint that half happened.
	Revoke(ctx context.Context, g access.Grant) error
	// Prove asks the target and returns nil only if nothing of the grant is left.
	Prove(ctx context.Context, g access.Grant) error
}

// OrphanSweeper is what a [Minter] may do besides: take away whatever carries
// this installation's name at the targets and belongs to none of the grants
// that are open.
type OrphanSweeper interface {
	SweepOrphans(ctx context.Context, targets []access.Target, open []access.Grant) error
}

// Narrower is what a [Minter] must do besides for an active grant to go on
// when its role or its masks changed: say what both plans give. The approved
// plan has its expansion, today's has none; the answer's role, masks and
// expansion give no more than either. Where nothing is left, or a difference
// is not understood, it is an *access.Error with CodeInvalid or CodeDenied, and
// the grant ends.
type Narrower interface {
	Narrow(ctx context.Context, approved, today access.Plan) (access.Plan, error)
}

// Mender is what a [Minter] may do besides: say what an active grant lost at
// its target since it was minted, or holds there beyond it, in words for
// people; nothing if it is whole. Mint makes it whole in the next generation.
type Mender interface {
	Broken(ctx context.Context, g access.Grant) (string, error)
}

// Ledger is the durable truth. Each write of a grant is a compare-and-set on
// its sequence: CodeConflict means read again.
type Ledger interface {
	Grant(ctx context.Context, key access.GrantKey) (access.Grant, error) // CodeNotFound
	// SignedGrant reads a grant and refuses it (CodeDenied) if control did not
	// sign it.
	SignedGrant(ctx context.Context, key access.GrantKey) (access.Grant, error)
	// Create stores a grant once: the id is consumed for ever (CodeConflict).
	Create(ctx context.Context, g access.Grant) (access.Grant, error)
	// Update stores g if the row's sequence is still g.Sequence, and answers
	// with the new, signed row.
	Update(ctx context.Context, g access.Grant) (access.Grant, error)
	// Unclosed lists grants that landed or were active and are not proved closed.
	Unclosed(ctx context.Context) ([]access.Grant, error)
	// Ending lists those of them that have ended.
	Ending(ctx context.Context) ([]access.Grant, error)
	GrantsOf(ctx context.Context, ref Ref) ([]access.Grant, error)

	// Adopted is the policy tree in force, and SetAdopted replaces it with
	// the rules for gateways. Nothing adopted yet is CodeNotFound.
	Adopted(ctx context.Context) (access.Tree, error)
	// once names what they are adopted for, which counts once (CodeConflict);
	// then Done("policies", once) is true.
	SetAdopted(ctx context.Context, t access.Tree, rules []access.Rule, once string) error

	// SeeReview keeps the first sight of a review: the policy digest then in
	// force. It answers with what was first stored.
	SeeReview(ctx context.Context, ref Ref, r access.Review) (access.Review, error)
	// Pushed remembers who pushed commits; Pushers says it for each commit. One
	// of which nobody is known is absent.
	Pushed(ctx context.Context, repo int64, commits []string, by access.User) error
	Pushers(ctx context.Context, repo int64, commits []string) (map[string][]access.User, error)

	OpenHelds(ctx context.Context) ([]access.Held, error)
	Held(ctx context.Context, id string) (access.Held, error)
	HeldByNumber(ctx context.Context, ref Ref, number int) (access.Held, error)
	// AnswerHeld stores a signed answer on an open one, once (CodeConflict).
	AnswerHeld(ctx context.Context, a access.Answer) error
	CancelHeld(ctx context.Context, id string, state access.HeldState) error

	// Once stores that a thing (a delivery, a command) was done; false if it had been before.
	Once(ctx context.Context, kind, id string) (bool, error)
	// Done reports whether Once stored a thing before.
	Done(ctx context.Context, kind, id string) (bool, error)
	// Audit appends to the chained audit log.
	Audit(ctx context.Context, actor, action, subject, detail string) error
	Sessions(ctx context.Context, grant access.GrantKey) ([]access.SessionInfo, error)

	// Watch takes note of what was written, and says why the ledger is older
	// than that (it was restored from a backup, or emptied), or "". Such a one
	// refuses to open anything by itself; the workflows say so to people, and
	// go on taking away.
	Watch(ctx context.Context) (why string, err error)
	// Rebase takes the ledger as it is for the truth from now on.
	Rebase(ctx context.Context, by, why string) error
	// Began is when that was done last; zero if never.
	Began(ctx context.Context) (time.Time, error)
}
