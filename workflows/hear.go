package workflows

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tidegate/tidegate/access"
)

// How commands are heard. Comments are anybody's, and so is their number: what
// one person writes must not keep another from ending a grant.

// spoken is a command as it stands in its pull request.
type spoken struct {
	Command
	nth     int  // which of its comment's commands it is
	partial bool // there are more comments than were read
	rank    int  // of what ends: the lowest is handled first
}

// ends reports whether it ends something for good.
func (s spoken) ends() bool { return s.Verb == VerbRevoke || s.Verb == VerbDeny }

// pauses reports whether it stops a grant or lets it go on.
func (s spoken) pauses() bool { return s.Verb == VerbHold || s.Verb == VerbResume }

// narrows reports whether it leaves less open than before: the forge keeps its
// last calls for it, and it may be tried again.
func (s spoken) narrows() bool { return s.ends() || s.Verb == VerbHold }

// id is the command's in the ledger.
func (s spoken) id(ref Ref) string { return fmt.Sprintf("%d-%d-%d", ref.Repo, s.Comment, s.nth) }

// Commands handles the new commands of a pull request, each once, and answers
// with what is to be said.
func (a *Activities) Commands(ctx context.Context, ref Ref) ([]string, error) {
	said, err := a.commands(ctx, ref)
	return said, a.again(ctx, "commands", ref, err)
}

func (a *Activities) commands(ctx context.Context, ref Ref) ([]string, error) {
	talk, err := a.Forge.Comments(a.listening(ctx, ref), ref, a.heard.upTo(ref))
	if err != nil {
		return nil, fmt.Errorf("read comments of %s: %w", ref, err)
	}
	rows, err := a.Ledger.GrantsOf(ctx, ref)
	if err != nil {
		return nil, fmt.Errorf("read grants of %s: %w", ref, err)
	}
	said, err := a.meddling(ctx, ref, talk.Meddled)
	if err != nil {
		return nil, err
	}
	r := a.handle(ctx, ref, inTurn(talk, rows))
	said = append(said, r.said...)
	if !r.left {
		a.heard.note(ref, talk.Newest)
	}
	if r.full {
		a.tell(ctx, Hint{Kind: HintComment, Ref: ref})
	}
	err = errors.Join(r.errs...)
	if err != nil && len(said) == 0 {
		return nil, err
	}
	if err != nil { // what was done must be said
		a.log().WarnContext(ctx, "commands wait for the next reading", "pr", ref.String(), "error", err)
	}
	return said[max(0, len(said)-maxCommands):], nil
}

// What comments may take of an activity's minute.
const (
	hearFor = 30 * time.Second // no command is begun after it
	askFor  = 15 * time.Second // one command that narrows waits for the forge
)

// reading is what came of the commands handled so far.
type reading struct {
	said []string
	errs []error
	each map[int64]int  // answers and failures, by person
	rest int            // answers to what ends nothing
	hold map[int64]bool // whose hold waits: what they let go on after it waits too
	left bool           // some wait for the next reading
	full bool           // which is to be at once: there were too many
}

// takes reports whether the command is still this reading's. Of what ends,
// only the same person's others keep one back.
func (r *reading) takes(c spoken) bool {
	full := !c.ends() && r.rest == maxCommands
	if full || r.each[c.By.ID] == maxCommandsEach || r.hold[c.By.ID] && c.pauses() {
		r.left, r.full = true, r.full || full
		return false
	}
	return true
}

func (r *reading) note(c spoken, reply string, err error) {
	if reply == "" && err == nil {
		return // it was handled before
	}
	r.each[c.By.ID]++
	switch {
	case err != nil:
		r.left = true
		r.hold[c.By.ID] = r.hold[c.By.ID] || c.pauses()
	case !c.ends():
		r.rest++
	}
	if err != nil && err != errNotYet {
		r.errs = append(r.errs, err)
	}
	if reply != "" {
		r.said = append(r.said, clip("@"+c.By.Login+": "+reply))
	}
}

// handle handles commands in their turn, so many of each person.
func (a *Activities) handle(ctx context.Context, ref Ref, list []spoken) *reading {
	soon, cancel := context.WithTimeout(ctx, hearFor)
	defer cancel()
	r := &reading{each: map[int64]int{}, hold: map[int64]bool{}}
	for _, c := range list {
		if soon.Err() != nil {
			r.left = true
			break
		}
		if !r.takes(c) {
			continue
		}
		reply, err := a.once(ctx, ref, c)
		r.note(c, reply, err)
		if err != nil && !c.narrows() {
			break // they stay in their order
		}
	}
	return r
}

// marks are up to which comment the commands of each pull request were all
// handled. It may be lost: then they are looked up once more. Nil knows nothing.
type marks struct {
	mu  sync.Mutex
	ids map[Ref]int64
}

const maxMarks = 10_000

func newMarks() *marks { return &marks{ids: map[Ref]int64{}} }

func (m *marks) upTo(ref Ref) int64 {
	if m == nil {
		return 0
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ids[ref]
}

func (m *marks) note(ref Ref, comment int64) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.ids) >= maxMarks {
		clear(m.ids)
	}
	m.ids[ref] = comment
}

// inTurn is the order in which commands are handled: what ends something for
// good before anything else, and of that first what needs nobody's word, then
// the newest; the rest as it was said.
func inTurn(talk Talk, rows []access.Grant) []spoken {
	var ends, rest []spoken
	nth := map[int64]int{}
	for _, c := range talk.Commands {
		nth[c.Comment]++
		s := spoken{Command: c, nth: nth[c.Comment], partial: talk.Partial, rank: rank(c, rows)}
		if s.ends() {
			ends = append(ends, s)
		} else {
			rest = append(rest, s)
		}
	}
	slices.Reverse(ends)
	slices.SortStableFunc(ends, func(a, b spoken) int { return a.rank - b.rank })
	return append(ends, rest...)
}

// rank is 0 for who revokes what is theirs: the forge is not asked for that,
// and strangers, for whom it is, could make it wait. 1 is who holds a part.
func rank(c Command, rows []access.Grant) int {
	of, _ := chosen(rows, c.Args)
	own, _ := apart(of, c.By)
	switch {
	case c.Verb != VerbRevoke || len(own) == 0:
		return 2
	case len(own) < len(of):
		return 1
	}
	return 0
}

func clip(s string) string {
	if len(s) <= maxReplyLength {
		return s
	}
	return strings.ToValidUTF8(s[:maxReplyLength], "") + "…"
}

// once handles one command; without a reply it was handled before. It is marked
// as done before it is tried: a command that fails says so and is given again
// by a person, never repeated by itself. But for one that narrows, which may be
// repeated: that is done when it was done, or refused.
func (a *Activities) once(ctx context.Context, ref Ref, c spoken) (string, error) {
	id := c.id(ref)
	if done, err := a.Ledger.Done(ctx, "command", id); err != nil || done {
		return "", err
	}
	if !c.narrows() {
		if first, err := a.Ledger.Once(ctx, "command", id); err != nil || !first {
			return "", err
		}
		reply, err := a.obeySaid(ctx, ref, c)
		said := a.replyTo(ctx, ref, c, answered{reply, err})
		if access.CodeOf(err) == access.CodeUnavailable {
			said += fmt.Sprintf(" `/tidegate %s` was not carried out: give it again when that is over.", c.Verb)
		}
		return said, nil
	}
	if !a.waiting.due(id, a.now()) {
		return "", errNotYet
	}
	reply, err := a.obeySaid(Urgent(ctx), ref, c)
	if err != nil && !isFinal(err) {
		a.waiting.failed(id, a.now())
		return a.sayWaits(ctx, ref, c, fmt.Errorf("%s by %s: %w", c.Verb, c.By.Login, err))
	}
	if _, err := a.Ledger.Once(ctx, "command", id); err != nil {
		return "", err
	}
	a.waiting.over(id)
	a.Signals.answered(id)
	return a.replyTo(ctx, ref, c, answered{reply, err}), nil
}

// refused is Tidegate's own no to what a person asked for, which stays one. What
// the forge or the ledger answers is none, whatever its code: a permission may
// be missing for a minute.
type refused struct{ why *access.Error }

func (r refused) Error() string { return r.why.Error() }
func (r refused) Unwrap() error { return r.why }

func refuse(code access.Code, format string, args ...any) error {
	return refused{access.Errorf(code, format, args...)}
}

// isFinal tells an answer from a part that is down.
func isFinal(err error) bool { return errors.As(err, new(refused)) }

// obeySaid obeys, but for a yes to what is held where older comments were not
// read: whether somebody changed the one of ours that the approver went by
// can't be told.
func (a *Activities) obeySaid(ctx context.Context, ref Ref, c spoken) (string, error) {
	if c.partial && c.Verb == VerbApprove {
		return "", access.Errorf(access.CodeTooLarge, "There are more comments here than Tidegate reads, so it can't tell whether its own was changed. Answer in the console; `/tidegate deny` and `/tidegate revoke` work here.")
	}
	return a.obey(ctx, ref, c.Command)
}

// answered is what came of a command.
type answered struct {
	reply string
	err   error
}

// replyTo keeps what came of a command in the audit log, and says it.
func (a *Activities) replyTo(ctx context.Context, ref Ref, c spoken, out answered) string {
	reply, action := out.reply, "command."+c.Verb
	if out.err != nil {
		a.log().WarnContext(ctx, "command refused", "pr", ref.String(), "verb", c.Verb, "error", out.err)
		a.Signals.refused("command")
		reply, action = access.Message(out.err), "command.refused"
	}
	detail := clip(c.Verb + " " + strings.Join(c.Args, " ") + ": " + reply)
	if err := a.audit(ctx, entry{c.By.Login, action, ref.String(), detail}); err != nil {
		a.log().ErrorContext(ctx, "command not audited", "pr", ref.String(), "error", err)
	}
	return reply
}
