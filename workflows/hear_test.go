package workflows

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/tidegate/tidegate/access"
)

// heard handles the comments once.
func heard(t *testing.T, a *Activities) string {
	t.Helper()
	said, err := a.Commands(t.Context(), pr7)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(said, "\n")
}

// TestRevokeIsHeardInACrowd: mallory has written more commands than one reading
// handles, before bob's and after it.
func TestRevokeIsHeardInACrowd(t *testing.T) {
	w, a, _ := active(t)
	a.heard = newMarks()
	for i := range 2 * maxCommands {
		w.comment(mallory, "help")
		w.comment(mallory, "revoke", strconv.Itoa(i))
	}
	w.comment(bob, "revoke")
	for i := range maxCommandsEach / 2 {
		w.comment(mallory, "revoke", strconv.Itoa(i))
	}
	all := heard(t, a)
	if g := w.grant(t, key1); g.State != access.StateRevoked {
		t.Errorf("state is %s, heard were\n%s", g.State, all)
	}
	if n := strings.Count(all, "@mallory"); n != maxCommandsEach {
		t.Errorf("%d commands of mallory were handled in one reading, want %d", n, maxCommandsEach)
	}
	for n := maxCommandsEach; n < 4*maxCommands+maxCommandsEach/2; n += maxCommandsEach {
		if a.heard.upTo(pr7) != 0 {
			t.Fatalf("after %d commands all are taken for handled", n)
		}
		heard(t, a)
	}
	if got := a.heard.upTo(pr7); got != int64(len(w.commands)) {
		t.Errorf("heard up to %d, want all of %d", got, len(w.commands))
	}
}

// TestEachPersonIsHeard: the commands of one keep no other's back.
func TestEachPersonIsHeard(t *testing.T) {
	w, a, _ := active(t)
	for range 2 * maxCommands {
		w.comment(mallory, "help")
	}
	w.comment(bob, "hold", "inc-1", "let me look")
	all := heard(t, a)
	if g := w.grant(t, key1); g.Paused == "" {
		t.Errorf("the grant is not on hold; heard were\n%s", all)
	}
}

// TestEditsKeepNoCommandBack: each edit of our comment is told of, and there may
// be as many as one reading says.
func TestEditsKeepNoCommandBack(t *testing.T) {
	w, a, _ := active(t)
	for i := range maxCommands {
		w.meddled = append(w.meddled, Meddling{Comment: 1, Edit: strconv.Itoa(i), By: mallory, At: time.Now()})
	}
	w.comment(bob, "revoke")
	all := heard(t, a)
	if g := w.grant(t, key1); g.State != access.StateRevoked {
		t.Errorf("state is %s; heard were\n%s", g.State, all)
	}
}

// TestRevokeIsNotLost: while GitHub does not say who bob is, his revocation
// waits, and other commands don't wait for it.
func TestRevokeIsNotLost(t *testing.T) {
	w, a, _ := active(t)
	a.heard = newMarks()
	w.nobody = true
	w.comment(bob, "revoke")
	if _, err := a.Commands(t.Context(), pr7); err == nil {
		t.Error("what could not be judged is silent")
	}
	w.comment(carol, "help")
	if all := heard(t, a); !strings.Contains(all, "@carol") {
		t.Errorf("heard were %q, want carol's", all)
	}
	w.nobody = false
	if all := heard(t, a); !strings.Contains(all, "revoked inc-1") {
		t.Errorf("heard were %q, want bob's", all)
	}
	if all := heard(t, a); all != "" || w.grant(t, key1).State != access.StateRevoked {
		t.Errorf("heard again: %q", all)
	}
}

// TestRefusedRevokeIsSaidOnce: mallory's is not tried again for ever.
func TestRefusedRevokeIsSaidOnce(t *testing.T) {
	w, a, _ := active(t)
	if all := says(t, w, a, mallory, "revoke"); !strings.Contains(all, "can revoke it") {
		t.Errorf("got %q", all)
	}
	if all := heard(t, a); all != "" {
		t.Errorf("said again: %q", all)
	}
}

// TestRevokeOfSome: what is not his keeps nothing of the rest open.
func TestRevokeOfSome(t *testing.T) {
	w, a, _ := active(t)
	other := w.grant(t, key1)
	other.Key.ID, other.Plan.Requirements = "inc-2", nil
	if _, err := w.Create(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	if all := says(t, w, a, bob, "revoke"); !strings.Contains(all, "revoked inc-1. Only who asked for inc-2") {
		t.Errorf("got %q", all)
	}
	if one, two := w.grant(t, key1), w.grant(t, other.Key); one.State != access.StateRevoked || two.State != access.StateActive {
		t.Errorf("inc-1 is %s and inc-2 %s", one.State, two.State)
	}
}

// TestUnreadCommentsAgreeToNothing: a no and an end need less than a yes.
func TestUnreadCommentsAgreeToNothing(t *testing.T) {
	w, a, _ := active(t)
	h := hold(t, w, time.Now().Add(time.Hour))
	w.partial = true
	if all := says(t, w, a, bob, "approve", "H7", h.Short()); !strings.Contains(all, "more comments here than Tidegate reads") {
		t.Errorf("approve: %q", all)
	}
	if all := says(t, w, a, bob, "deny", "H7"); !strings.Contains(all, "denied") {
		t.Errorf("deny: %q", all)
	}
	if all := says(t, w, a, bob, "revoke"); !strings.Contains(all, "revoked inc-1") {
		t.Errorf("revoke: %q", all)
	}
}

// TestUnreadReviewsApproveNothing, and revoke is obeyed.
func TestUnreadReviewsApproveNothing(t *testing.T) {
	w := newWorld(t)
	a := w.activities()
	a.starter = &started{}
	w.open(3600)
	w.review(bob, access.ReviewApproved)
	w.pulls[7].Unread = "more than 1000 reviews"
	follow(t, a)
	if r := approval(t, w); r.Met || !strings.Contains(r.Text, "more than 1000 reviews") {
		t.Errorf("approval is %+v", r)
	}
	w.merge()
	follow(t, a)
	if len(w.grants) > 0 {
		t.Errorf("landed as %s, want it to wait", w.grant(t, key1).State)
	}
	later(w, unclaimedForbid) // then a file on main without a grant is consumed
	follow(t, a)
	if g := w.grant(t, key1); g.State != access.StateRefused || !strings.Contains(g.Why, "more than 1000 reviews") {
		t.Errorf("landed as %s: %s", g.State, g.Why)
	}
}

// TestUnreadReviewsRefuseNothingApproved: anybody may write them after the merge.
func TestUnreadReviewsRefuseNothingApproved(t *testing.T) {
	w := newWorld(t)
	a := w.activities()
	a.starter = &started{}
	w.open(3600)
	w.review(bob, access.ReviewApproved)
	w.merge()
	w.pulls[7].Unread = "more than 1000 reviews"
	follow(t, a)
	w.pulls[7].Unread = ""
	follow(t, a)
	w.pulls[7].Unread = "more than 1000 reviews"
	if _, err := a.MintGrant(t.Context(), key1); err == nil || !strings.Contains(err.Error(), "more than 1000 reviews") || w.grant(t, key1).State != access.StateLanded {
		t.Errorf("error %v, state %s, want it to wait", err, w.grant(t, key1).State)
	}
	w.pulls[7].Unread = ""
	if _, err := a.MintGrant(t.Context(), key1); err != nil || w.grant(t, key1).State != access.StateActive {
		t.Errorf("error %v, state %s, want it open", err, w.grant(t, key1).State)
	}
}

func TestUnreadReviewsExtendNothing(t *testing.T) {
	w, a, _ := active(t)
	w.pulls[7].Unread = "more than 1000 reviews"
	if all := says(t, w, a, alice, "extend", "30m", "more"); !strings.Contains(all, "more than 1000 reviews") {
		t.Errorf("extend: %q", all)
	}
	if all := says(t, w, a, bob, "revoke"); !strings.Contains(all, "revoked inc-1") {
		t.Errorf("revoke: %q", all)
	}
}

// TestMoreReviewersThanAreCounted are said, and the pull request stays readable.
func TestMoreReviewersThanAreCounted(t *testing.T) {
	w := newWorld(t)
	a := w.activities()
	w.open(3600)
	w.review(bob, access.ReviewApproved)
	for i := range maxReviews {
		w.review(access.User{ID: int64(1000 + i), Login: "someone"}, access.ReviewApproved)
	}
	follow(t, a)
	if r := approval(t, w); r.Met || !strings.Contains(r.Text, "reviews of 501 people") {
		t.Errorf("approval is %+v", r)
	}
}

// TestCommandsAreHeardThoughThePullRequestCannotBeRead: what keeps one from
// being read keeps no command from being heard.
func TestCommandsAreHeardThoughThePullRequestCannotBeRead(t *testing.T) {
	w := newWorld(t)
	e, a := env(t, w)
	a.starter = &started{}
	landed(t, w, a, 3600)
	w.unreadable = true
	e.RegisterDelayedCallback(func() { w.comment(bob, "revoke") }, time.Minute)
	e.RegisterDelayedCallback(func() {
		if g := w.grant(t, key1); g.State != access.StateRevoked {
			t.Errorf("state is %s two minutes after bob revoked it", g.State)
		}
		e.CancelWorkflow()
	}, 3*time.Minute)
	e.ExecuteWorkflow(workflowRequest, RequestInput{Ref: pr7, Poll: 30 * time.Second})
	if !e.IsWorkflowCompleted() {
		t.Error("it does not end when it is cancelled")
	}
}

// hanging is a forge that knows the people of no team for a long while.
type hanging struct{ Forge }

func (hanging) Directory(ctx context.Context, _, _ []string) (access.Directory, error) {
	<-ctx.Done()
	return access.Directory{}, access.Errorf(access.CodeUnavailable, "GitHub can't be reached: %v", ctx.Err())
}

// TestOnesOwnIsRevokedWithoutTheForge: alice's needs no look-up, so those of
// strangers, which fail or hang, delay nothing.
func TestOnesOwnIsRevokedWithoutTheForge(t *testing.T) {
	for _, hangs := range []bool{false, true} {
		t.Run(fmt.Sprintf("hangs %t", hangs), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, a, _ := active(t)
				if w.nobody = true; hangs {
					a.Forge = hanging{a.Forge}
				}
				w.comment(alice, "revoke")
				for range 2 * maxCommandsEach {
					w.comment(mallory, "revoke")
				}
				began := time.Now()
				all := heard(t, a)
				if g := w.grant(t, key1); g.State != access.StateRevoked || !strings.Contains(all, "revoked inc-1") {
					t.Errorf("state is %s, heard were %q", g.State, all)
				}
				if took := time.Since(began); took >= time.Minute {
					t.Errorf("it took %s, which is longer than the activity may", took)
				}
			})
		})
	}
}

// TestHangingLookupsAreBounded: what can't be judged waits, within the time of
// the activity.
func TestHangingLookupsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, _ := active(t)
		a.Forge, a.heard = hanging{a.Forge}, newMarks()
		for range maxCommandsEach {
			w.comment(mallory, "revoke")
			w.comment(carol, "revoke")
		}
		began := time.Now()
		if said, err := a.Commands(t.Context(), pr7); err == nil || len(said) > 0 {
			t.Errorf("said %q, %v; want an error alone", said, err)
		}
		if took := time.Since(began); took >= time.Minute {
			t.Errorf("it took %s, which is longer than the activity may", took)
		}
		if a.heard.upTo(pr7) != 0 {
			t.Error("what waits is taken for handled")
		}
	})
}

// TestOneFailsForOneself: mallory's failures are hers.
func TestOneFailsForOneself(t *testing.T) {
	w, a, _ := active(t)
	w.nobody = true
	w.comment(carol, "help")
	for range 2 * maxCommandsEach {
		w.comment(mallory, "revoke")
	}
	if all := heard(t, a); !strings.Contains(all, "@carol") {
		t.Errorf("heard were %q, want carol's", all)
	}
}

// TestStrangersRevokesKeepNoneBack, however many they are.
func TestStrangersRevokesKeepNoneBack(t *testing.T) {
	w, a, s := active(t)
	s.hints = nil
	w.comment(bob, "revoke")
	for i := range 2 * maxCommands {
		w.comment(access.User{ID: int64(100 + i%20), Login: "someone"}, "revoke")
	}
	said, err := a.Commands(t.Context(), pr7)
	if g := w.grant(t, key1); err != nil || g.State != access.StateRevoked {
		t.Errorf("state is %s, %v", g.State, err)
	}
	if len(said) > maxCommands || len(s.hints) != 0 {
		t.Errorf("%d answers, want at most %d; hints %v", len(said), maxCommands, s.hints)
	}
}

// TestWhatIsLeftIsReadAtOnce: more than a reading's commands wait for no clock.
func TestWhatIsLeftIsReadAtOnce(t *testing.T) {
	w, a, s := active(t)
	s.hints = nil
	for i := range maxCommands {
		w.comment(access.User{ID: int64(100 + i), Login: "someone"}, "help")
	}
	w.comment(bob, "hold", "inc-1", "let me look")
	heard(t, a)
	if want := []Hint{{Kind: HintComment, Ref: pr7}}; !slices.Equal(s.hints, want) {
		t.Errorf("hints %v, want %v", s.hints, want)
	}
	heard(t, a)
	if g := w.grant(t, key1); g.Paused == "" || len(s.hints) != 1 {
		t.Errorf("on hold %q, hints %v", g.Paused, s.hints)
	}
}

// stage is a pull request whose grant landed and whose workflow begins with run.
type stage struct {
	*world
	e   *testsuite.TestWorkflowEnvironment
	a   *Activities
	now bool // else histories from before a change are replayed
}

// sinceChange plays both: the workflow as it is, and as it was.
func sinceChange(t *testing.T, change string, play func(t *testing.T, s stage)) {
	t.Helper()
	for name, version := range map[string]workflow.Version{"now": 1, "as it was": workflow.DefaultVersion} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			e, a := env(t, w)
			a.starter = &started{}
			e.OnGetVersion(change, workflow.DefaultVersion, workflow.Version(1)).Return(version)
			landed(t, w, a, 3600)
			play(t, stage{w, e, a, version == 1})
		})
	}
}

// wantRevoked looks at the grant at a moment and ends the workflow: its code as
// it is has revoked it, as it was it has not.
func (s stage) wantRevoked(t *testing.T, at time.Duration) {
	t.Helper()
	s.e.RegisterDelayedCallback(func() {
		if is := s.grant(t, key1).State; s.now != (is == access.StateRevoked) {
			t.Errorf("state is %s after %s", is, at)
		}
		s.e.CancelWorkflow()
	}, at)
}

func (s stage) run(t *testing.T, poll time.Duration) {
	t.Helper()
	s.e.ExecuteWorkflow(workflowRequest, RequestInput{Ref: pr7, Poll: poll})
	if !s.e.IsWorkflowCompleted() {
		t.Error("it does not end when it is cancelled")
	}
}

// TestUnheardCommentsAreReadInTheNextTurn, whatever woke it. Histories from
// before that are replayed as they were.
func TestUnheardCommentsAreReadInTheNextTurn(t *testing.T) {
	sinceChange(t, changeUnheard, func(t *testing.T, s stage) {
		s.nobody = true
		s.comment(bob, "revoke")
		s.e.RegisterDelayedCallback(func() {
			s.mu.Lock()
			s.nobody = false
			s.mu.Unlock()
			s.e.SignalWorkflow(signalHint, Hint{Kind: HintPull, Ref: pr7})
		}, 10*time.Second)
		s.wantRevoked(t, 20*time.Second)
		s.run(t, 10*time.Minute)
	})
}

// urgency notes which readings of comments are urgent.
type urgency struct {
	fakeForge
	marked []bool
}

func (f *urgency) Comments(ctx context.Context, ref Ref, heard int64) (Talk, error) {
	f.marked = append(f.marked, IsUrgent(ctx))
	return f.fakeForge.Comments(ctx, ref, heard)
}

// TestOnlyWhatMayEndIsHeardUrgently: a pull request that is merely open has
// nothing to revoke.
func TestOnlyWhatMayEndIsHeardUrgently(t *testing.T) {
	w := newWorld(t)
	a := w.activities()
	f := &urgency{fakeForge: fakeForge{w}}
	a.starter, a.Forge = &started{}, f
	heard(t, a)
	landed(t, w, a, 3600)
	heard(t, a)
	w.mu.Lock()
	g := w.grants[key1]
	g.State, g.Closed = access.StateRevoked, w.clock()
	w.grants[key1] = g
	w.mu.Unlock()
	heard(t, a)
	if !slices.Equal(f.marked, []bool{false, true, false}) {
		t.Errorf("urgent are %v, want the reading with an open grant alone", f.marked)
	}
}

// refusing is a forge that does not let Tidegate ask.
type refusing struct {
	Forge
	code access.Code
}

func (r refusing) Directory(context.Context, []string, []string) (access.Directory, error) {
	return access.Directory{}, access.Errorf(r.code, "GitHub says: no")
}

// TestTheForgesNoIsNoAnswer: a permission that is gone for a moment loses no
// revocation.
func TestTheForgesNoIsNoAnswer(t *testing.T) {
	for _, code := range []access.Code{access.CodeDenied, access.CodeNotFound, access.CodeInvalid, access.CodeUnauthenticated} {
		t.Run(string(code), func(t *testing.T) {
			w, a, _ := active(t)
			forge := a.Forge
			a.Forge = refusing{forge, code}
			w.comment(bob, "revoke")
			if said, err := a.Commands(t.Context(), pr7); err == nil {
				t.Errorf("answered %q, want it to wait", said)
			}
			a.Forge = forge
			if all := heard(t, a); !strings.Contains(all, "revoked inc-1") {
				t.Errorf("heard were %q", all)
			}
		})
	}
}

// thrifty is a forge whose last calls are for what is urgent.
type thrifty struct{ fakeForge }

func short(ctx context.Context) error {
	if IsUrgent(ctx) {
		return nil
	}
	return access.Errorf(access.CodeUnavailable, "Less than a fifth of GitHub's calls are left.")
}

func (f thrifty) Directory(ctx context.Context, users, teams []string) (access.Directory, error) {
	if err := short(ctx); err != nil {
		return access.Directory{}, err
	}
	return f.fakeForge.Directory(ctx, users, teams)
}

func (f thrifty) Pull(ctx context.Context, ref Ref) (Pull, error) {
	if err := short(ctx); err != nil {
		return Pull{}, err
	}
	return f.fakeForge.Pull(ctx, ref)
}

// TestWhatNarrowsIsUrgent: the forge's last calls are for it.
func TestWhatNarrowsIsUrgent(t *testing.T) {
	w, a, _ := active(t)
	a.Forge = thrifty{fakeForge{w}}
	h := hold(t, w, time.Now().Add(time.Hour))
	if all := says(t, w, a, bob, "approve", "H7", h.Short()); !strings.Contains(all, "calls are left") {
		t.Errorf("approve: %q", all)
	}
	if all := says(t, w, a, bob, "deny", "H7"); !strings.Contains(all, "is denied") {
		t.Errorf("deny: %q", all)
	}
	if all := says(t, w, a, bob, "hold"); !strings.Contains(all, "is on hold") {
		t.Errorf("hold: %q", all)
	}
	if all := says(t, w, a, bob, "resume"); !strings.Contains(all, "calls are left") {
		t.Errorf("resume: %q", all)
	}
}

// TestWhatNarrowsIsNotLost: it waits for GitHub, in one person's order, and
// keeps no other command waiting.
func TestWhatNarrowsIsNotLost(t *testing.T) {
	for name, c := range map[string]struct {
		verbs  []string
		paused bool
		denied bool
	}{
		"hold":   {[]string{"hold"}, true, false},
		"lifted": {[]string{"hold", "resume"}, false, false},
		"deny":   {[]string{"deny H7"}, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			w, a, _ := active(t)
			h := hold(t, w, time.Now().Add(time.Hour))
			w.nobody = true
			for _, v := range c.verbs {
				words := strings.Fields(v)
				w.comment(bob, words[0], words[1:]...)
			}
			w.comment(carol, "help")
			if all := heard(t, a); !strings.Contains(all, "@carol") || strings.Contains(all, "@bob") {
				t.Errorf("heard were %q, want carol's alone", all)
			}
			w.nobody = false
			all := heard(t, a)
			if n := strings.Count(all, "@bob"); n != len(c.verbs) {
				t.Errorf("%d answers to bob, want %d: %q", n, len(c.verbs), all)
			}
			got, _ := w.Held(t.Context(), h.ID)
			if paused := w.grant(t, key1).Paused != ""; paused != c.paused || (got.State == access.HeldAnswered) != c.denied {
				t.Errorf("on hold %t, held is %s", paused, got.State)
			}
			if all := heard(t, a); all != "" {
				t.Errorf("heard again: %q", all)
			}
		})
	}
}

// TestRefusalsOfWhatNarrowsAreSaidOnce: they are not tried again for ever.
func TestRefusalsOfWhatNarrowsAreSaidOnce(t *testing.T) {
	w, a, _ := active(t)
	h := hold(t, w, time.Now().Add(time.Hour))
	for _, c := range []struct {
		by   access.User
		verb string
		arg  string
	}{{mallory, "hold", ""}, {alice, "hold", ""}, {mallory, "deny", "H7"}, {alice, "deny", "H7"}, {bob, "deny", "H9"}, {bob, "deny", "seven"}} {
		says(t, w, a, c.by, c.verb, c.arg)
	}
	_ = w.CancelHeld(t.Context(), h.ID, access.HeldCancelled)
	says(t, w, a, bob, "deny", "H7")
	if all := heard(t, a); all != "" {
		t.Errorf("said again: %q", all)
	}
}

// forgetful is a ledger that fails to remember a command, once.
type forgetful struct {
	Ledger
	fails int
}

func (l *forgetful) Once(ctx context.Context, kind, id string) (bool, error) {
	if l.fails++; l.fails == 1 {
		return false, access.Errorf(access.CodeUnavailable, "The ledger can't be reached.")
	}
	return l.Ledger.Once(ctx, kind, id)
}

// TestTheRepetitionTellsTheTruth: what was done and not remembered is done
// again, and said as what it was.
func TestTheRepetitionTellsTheTruth(t *testing.T) {
	for words, want := range map[string]string{
		"revoke":               "revoked inc-1.",
		"revoke odd queries":   "revoked inc-1.",
		"revoke inc-1 queries": "revoked inc-1.",
		"deny H7":              "H7 is denied.",
		"hold":                 "inc-1 is on hold",
	} {
		t.Run(words, func(t *testing.T) {
			w, a, _ := active(t)
			hold(t, w, time.Now().Add(time.Hour))
			a.Ledger = &forgetful{Ledger: w}
			command := strings.Fields(words)
			w.comment(bob, command[0], command[1:]...)
			if said, err := a.Commands(t.Context(), pr7); err == nil {
				t.Fatalf("said %q, want it to fail", said)
			}
			if all := heard(t, a); !strings.Contains(all, want) {
				t.Errorf("said %q, want %q", all, want)
			}
			if log := strings.Join(w.audits, "\n"); strings.Contains(log, "command.refused") || strings.Count(log, "bob command."+command[0]) != 1 {
				t.Errorf("the audit log is\n%s", log)
			}
		})
	}
}

// TestWhatEndedBeforeIsNotRevoked, nor said to be.
func TestWhatEndedBeforeIsNotRevoked(t *testing.T) {
	w, a, _ := active(t)
	says(t, w, a, alice, "revoke")
	if all := says(t, w, a, bob, "revoke", "inc-1"); !strings.Contains(all, "inc-1 has ended already: it is revoked") {
		t.Errorf("said %q", all)
	}
	if all := says(t, w, a, bob, "revoke"); !strings.Contains(all, "No grant of this pull request is open") {
		t.Errorf("said %q", all)
	}
}

// TestHintsWithoutEndKeepNoCommentUnread: mallory pushes every few seconds, and
// the hint of bob's comment was lost.
func TestHintsWithoutEndKeepNoCommentUnread(t *testing.T) {
	sinceChange(t, changeOverdue, func(t *testing.T, s stage) {
		for i := range 20 {
			s.e.RegisterDelayedCallback(func() { s.e.SignalWorkflow(signalHint, Hint{Kind: HintPull, Ref: pr7}) }, time.Duration(i+1)*5*time.Second)
		}
		s.e.RegisterDelayedCallback(func() { s.comment(bob, "revoke") }, 12*time.Second)
		s.wantRevoked(t, time.Minute)
		s.run(t, 30*time.Second)
	})
}
