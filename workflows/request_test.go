package workflows

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidegate/tidegate/access"
)

// started records what the activities ask of Temporal.
type started struct {
	mu     sync.Mutex
	grants []access.GrantKey
	hints  []Hint
	woken  []access.GrantKey
}

func (s *started) startGrant(_ context.Context, key access.GrantKey) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grants = append(s.grants, key)
	return nil
}
func (s *started) hint(_ context.Context, h Hint) error { s.hints = append(s.hints, h); return nil }
func (s *started) wakeGrant(_ context.Context, key access.GrantKey) error {
	s.woken = append(s.woken, key)
	return nil
}

func follow(t *testing.T, a *Activities) FollowResult {
	t.Helper()
	out, err := a.Follow(t.Context(), FollowInput{Ref: pr7})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func approval(t *testing.T, w *world) access.Reason {
	t.Helper()
	r := w.lastReport(t)
	if len(r.Grants) != 1 {
		t.Fatalf("report shows %d grants (%s %v), want 1", len(r.Grants), r.Refusal, r.Diagnostics)
	}
	return r.Grants[0].Approval
}

func TestWhoseApprovalCounts(t *testing.T) {
	bot := access.User{ID: 2, Login: "bob", Bot: true}
	for name, c := range map[string]struct {
		do  func(*world)
		met bool
	}{
		"nobody's":     {func(*world) {}, false},
		"an owner's":   {func(w *world) { w.review(bob, access.ReviewApproved) }, true},
		"one's own":    {func(w *world) { w.review(alice, access.ReviewApproved) }, false},
		"a stranger's": {func(w *world) { w.review(mallory, access.ReviewApproved) }, false},
		"a bot's":      {func(w *world) { w.review(bot, access.ReviewApproved) }, false},
		"a pusher's":   {func(w *world) { w.pushed["head1"] = []access.User{bob}; w.review(bob, access.ReviewApproved) }, false},
		"an earlier pusher's": {func(w *world) {
			w.pulls[7].Commits = []string{"c0"}
			w.pushed["c0"] = []access.User{bob}
			w.review(bob, access.ReviewApproved)
		}, false},
		"a committer's": {func(w *world) {
			w.pulls[7].Excluded = map[int64]string{2: "committed"}
			w.review(bob, access.ReviewApproved)
		}, false},
		"while nobody knows who pushed": {func(w *world) { w.silent = true; w.review(bob, access.ReviewApproved) }, false},
		"while one push is not known": {func(w *world) {
			w.pulls[7].Commits = []string{"c0"}
			w.pushed["head1"], w.silent = []access.User{alice}, true
			w.review(bob, access.ReviewApproved)
		}, false},
		"of who pushed, by GitHub's log": {func(w *world) { w.movers = []access.User{alice, bob}; w.review(bob, access.ReviewApproved) }, false},
		"where only deliveries told": {func(w *world) {
			w.pushed["head1"], w.silent = []access.User{alice}, true
			w.review(bob, access.ReviewApproved)
		}, true},
		"beside an unknown":    {func(w *world) { w.pulls[7].Unknown = []string{"x@y"}; w.review(bob, access.ReviewApproved) }, false},
		"of a draft":           {func(w *world) { w.pulls[7].Draft = true; w.review(bob, access.ReviewApproved) }, false},
		"before a push":        {func(w *world) { w.review(bob, access.ReviewApproved); w.push("head2", request("inc-1", 7200)) }, false},
		"before an empty push": {func(w *world) { w.review(bob, access.ReviewApproved); w.push("head2", request("inc-1", 3600)) }, true},
		"at a lost commit":     {func(w *world) { w.review(bob, access.ReviewApproved); w.pulls[7].Reviews[0].Commit = "gone" }, false},
		"taken back":           {func(w *world) { w.review(bob, access.ReviewApproved); w.review(bob, access.ReviewChangesRequested) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.open(3600)
			c.do(w)
			follow(t, w.activities())
			if got := approval(t, w); got.Met != c.met {
				t.Errorf("approved is %t (%s), want %t", got.Met, got.Text, c.met)
			}
		})
	}
}

// TestUnknownPusherIsSaidAndLearned: a lost delivery keeps the pull request
// from being approved, says so, and mends itself once GitHub can tell.
func TestUnknownPusherIsSaidAndLearned(t *testing.T) {
	w := newWorld(t)
	a := w.activities()
	w.open(3600)
	w.silent = true
	w.review(bob, access.ReviewApproved)
	follow(t, a)
	if got := approval(t, w); got.Met || !strings.Contains(got.Text, "did not tell who pushed head1") || !strings.Contains(got.Text, "--force-with-lease") {
		t.Errorf("got %t: %s", got.Met, got.Text)
	}
	w.silent = false
	follow(t, a)
	if got := approval(t, w); !got.Met {
		t.Errorf("not approved once the pusher was known: %s", got.Text)
	}
	w.silent = true // what was learned stays
	follow(t, a)
	if got := approval(t, w); !got.Met {
		t.Errorf("forgot who pushed: %s", got.Text)
	}
}

// TestLandingWaitsForWhoPushed: a refusal is for ever, and GitHub's log may be
// some seconds behind its webhooks.
func TestLandingWaitsForWhoPushed(t *testing.T) {
	w := newWorld(t)
	a := w.activities()
	a.starter = &started{}
	w.open(7200)
	w.review(bob, access.ReviewApproved)
	w.merge()
	w.silent = true
	if out := follow(t, a); out.Done {
		t.Error("followed no further while who pushed is not known")
	}
	if g, err := w.Grant(t.Context(), key1); access.CodeOf(err) != access.CodeNotFound {
		t.Fatalf("got grant %s, error %v, want none yet", g, err)
	}
	later(w, 2*unclaimedForbid)
	follow(t, a)
	if g := w.grant(t, key1); g.State != access.StateRefused || !strings.Contains(g.Why, "who pushed") {
		t.Errorf("state is %s: %s", g.State, g.Why)
	}
}

func TestReviewStopsCountingWhenPoliciesChange(t *testing.T) {
	w := newWorld(t)
	a := w.activities()
	w.open(3600)
	w.review(bob, access.ReviewApproved)
	follow(t, a)
	if !approval(t, w).Met {
		t.Fatal("not approved at first")
	}
	w.adopted = &access.Tree{Commit: "v2", Files: []access.File{policyFile("v2")}}
	follow(t, a)
	if approval(t, w).Met {
		t.Error("an approval under the old policies still counts")
	}
}

func TestWhatLandsIsRefusedUnlessApproved(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(*world)
		want access.State
	}{
		"approved":   {func(w *world) { w.review(bob, access.ReviewApproved); w.merge() }, access.StateLanded},
		"unapproved": {func(w *world) { w.merge() }, access.StateRefused},
		"approved late": {func(w *world) {
			w.merge()
			w.review(bob, access.ReviewApproved)
			w.pulls[7].Reviews[0].Submitted = w.pulls[7].MergedAt.Add(time.Second)
		}, access.StateRefused},
		"fork": {func(w *world) { w.pulls[7].Fork = true; w.review(bob, access.ReviewApproved); w.merge() }, access.StateRefused},
		"other bytes": {func(w *world) {
			w.review(bob, access.ReviewApproved)
			w.merge()
			w.trees["merge7"] = access.Tree{Files: []access.File{grantFile(request("inc-1", 9999))}}
		}, access.StateRefused},
		"reverted already": {func(w *world) {
			w.review(bob, access.ReviewApproved)
			w.merge()
			w.pulls[7].MergedAt = w.clock().Add(-time.Minute)
			w.pulls[7].Reviews[0].Submitted = w.clock().Add(-time.Hour)
			w.main = "base"
		}, access.StateRefused},
		"over already": {func(w *world) {
			w.review(bob, access.ReviewApproved)
			w.merge()
			w.pulls[7].MergedAt = w.clock().Add(-2 * time.Hour)
			w.pulls[7].Reviews[0].Submitted = w.clock().Add(-3 * time.Hour)
		}, access.StateRefused},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			a, s := w.activities(), &started{}
			a.starter = s
			w.open(3600)
			c.do(w)
			if name == "fork" {
				follow(t, a)
				if _, err := w.Grant(t.Context(), key1); access.CodeOf(err) != access.CodeNotFound || len(s.grants) != 0 {
					t.Errorf("a fork's grant has a row: %v", err)
				}
				return
			}
			follow(t, a)
			if g := w.grant(t, key1); g.State != c.want {
				t.Errorf("state is %s (%s), want %s", g.State, g.Why, c.want)
			}
			if open := c.want == access.StateLanded; open != (len(s.grants) == 1) {
				t.Errorf("%d workflows started", len(s.grants))
			}
		})
	}
}

func TestIdsAreOneShot(t *testing.T) {
	w := newWorld(t)
	if _, err := w.Create(t.Context(), access.Grant{Key: key1, State: access.StateExpired, Closed: time.Now(), Pull: access.Pull{Repo: repoID, Number: 3}}); err != nil {
		t.Fatal(err)
	}
	w.open(3600)
	w.review(bob, access.ReviewApproved)
	a := w.activities()
	a.Rules.AutoMerge = true
	follow(t, a)
	if r := w.lastReport(t); !r.Diagnostics.HasErrors() || w.merges != 0 {
		t.Errorf("a used id is not refused: %v, %d merges", r.Diagnostics, w.merges)
	}
}

func TestRequestMergesLandsAndEndsOnce(t *testing.T) {
	w := newWorld(t)
	e, a := env(t, w)
	a.Rules.AutoMerge = true
	a.starter = &started{}
	w.open(3600)
	// Hints twice, and in the wrong order: each is only a reason to read.
	for _, d := range []time.Duration{time.Second, time.Second, 2 * time.Second} {
		e.RegisterDelayedCallback(func() {
			e.SignalWorkflow(signalHint, Hint{Kind: HintComment, Ref: pr7})
			e.SignalWorkflow(signalHint, Hint{Kind: HintPull, Ref: pr7})
		}, d)
	}
	e.RegisterDelayedCallback(func() { w.review(bob, access.ReviewApproved) }, 3*time.Second)
	e.RegisterDelayedCallback(func() {
		if g := w.grant(t, key1); g.State != access.StateLanded || w.merges != 1 {
			t.Errorf("grant is %s after %d merges", g.State, w.merges)
		}
		g := w.grant(t, key1)
		if _, err := a.closeRow(context.Background(), CloseInput{Key: g.Key, Why: "done"}, byWorkflow); err != nil {
			t.Error(err)
		}
	}, 2*time.Minute)
	e.ExecuteWorkflow(workflowRequest, RequestInput{Ref: pr7, Poll: 30 * time.Second})
	if err := e.GetWorkflowError(); err != nil || !e.IsWorkflowCompleted() {
		t.Fatalf("completed %t: %v", e.IsWorkflowCompleted(), err)
	}
	if n := strings.Count(strings.Join(w.audits, "\n"), "grant.landed"); n != 1 {
		t.Errorf("landed %d times", n)
	}
}

// says runs the commands of one comment and returns the reply.
func says(t *testing.T, w *world, a *Activities, by access.User, verb string, args ...string) string {
	t.Helper()
	w.comment(by, verb, args...)
	said, err := a.Commands(t.Context(), pr7)
	if err != nil {
		t.Fatal(err)
	}
	if len(said) != 1 {
		t.Fatalf("%d replies %q, want 1", len(said), said)
	}
	return said[0]
}

func active(t *testing.T) (*world, *Activities, *started) {
	t.Helper()
	w := newWorld(t)
	a, s := w.activities(), &started{}
	a.starter = s
	landed(t, w, a, 3600)
	if _, err := a.MintGrant(t.Context(), key1); err != nil {
		t.Fatal(err)
	}
	return w, a, s
}

func TestCommandsByWhomTheyMayBeGiven(t *testing.T) {
	operator := access.Principal{Kind: access.KindUser, Name: "carol"}
	for _, c := range []struct {
		by   access.User
		verb string
		args []string
		want string
	}{
		{mallory, "help", nil, "/tidegate extend"},
		{mallory, "explain", nil, "inc-1: approved"},
		{mallory, "dance", nil, "no such command"},
		{mallory, "revoke", nil, "Only who asked"},
		{alice, "revoke", nil, "revoked inc-1."},
		{bob, "revoke", []string{"inc-1", "suspicious"}, "revoked inc-1."},
		{carol, "revoke", nil, "revoked inc-1."},
		{bob, "extend", []string{"30m", "more"}, "Only who asked"},
		{alice, "extend", []string{"30m"}, "Say how long and why"},
		{alice, "extend", []string{"-30m", "more"}, "Say how long and why"},
		{alice, "extend", []string{"30m", "more"}, "inc-1 now ends at"},
		{alice, "extend", []string{"9h", "more"}, "at most 8h0m0s"},
		{bob, "hold", []string{"odd", "queries"}, "inc-1 is on hold"},
		{bob, "resume", nil, "inc-1 goes on"},
		{alice, "hold", nil, "You can't stop inc-1"},
		{mallory, "hold", nil, "Only who may approve"},
		{carol, "hold", nil, "Only who may approve"}, // an operator revokes
		{mallory, "retry", nil, "Only who asked"},
		{alice, "retry", nil, "trying again"},
	} {
		t.Run(c.by.Login+" "+c.verb, func(t *testing.T) {
			w, a, s := active(t)
			a.Rules.Operators = []access.Principal{operator}
			before := w.grant(t, key1)
			got := says(t, w, a, c.by, c.verb, c.args...)
			if !strings.Contains(got, c.want) {
				t.Errorf("reply %q, want %q in it", got, c.want)
			}
			after := w.grant(t, key1)
			if revoked := strings.Contains(c.want, "revoked"); revoked != (after.State == access.StateRevoked) || (revoked && len(s.woken) == 0) {
				t.Errorf("state is %s, woken %d", after.State, len(s.woken))
			}
			if extended := strings.Contains(c.want, "now ends"); extended != after.NotAfter.After(before.NotAfter) {
				t.Errorf("ends at %s, was %s", after.NotAfter, before.NotAfter)
			}
			if !w.validUntil.Equal(after.NotAfter) {
				t.Errorf("the credential ends at %s, the grant at %s", w.validUntil, after.NotAfter)
			}
			if held := c.verb == "hold" && c.by == bob; held != (after.Paused == "bob: odd queries") || held == after.Open(w.clock()) && after.State == access.StateActive {
				t.Errorf("on hold %q, open %t", after.Paused, after.Open(w.clock()))
			}
			if again, err := a.Commands(t.Context(), pr7); err != nil || len(again) != 0 {
				t.Errorf("handled again: %q %v", again, err)
			}
			if !slices.ContainsFunc(w.audits, func(s string) bool { return strings.HasPrefix(s, c.by.Login+" command.") }) {
				t.Errorf("no audit in %q", w.audits)
			}
		})
	}
}

// TestHoldIsLiftedByAnApproverOnly: whom a hold stops can't lift it, nor go
// around it by more time.
func TestHoldIsLiftedByAnApproverOnly(t *testing.T) {
	w, a, _ := active(t)
	for _, c := range []struct {
		by   access.User
		verb string
		args []string
		want string
		held bool
	}{
		{bob, "hold", []string{"inc-1", "look", "first"}, "is on hold", true},
		{alice, "resume", nil, "You can't stop inc-1 or let it go on", true},
		{mallory, "resume", nil, "Only who may approve", true},
		{alice, "extend", []string{"30m", "more"}, "on hold by bob: look first", true},
		{alice, "retry", nil, "trying again", true},
		{bob, "hold", nil, "is on hold", true},
		{bob, "resume", nil, "goes on", false},
	} {
		if got := says(t, w, a, c.by, c.verb, c.args...); !strings.Contains(got, c.want) {
			t.Errorf("%s %s: reply %q, want %q in it", c.by.Login, c.verb, got, c.want)
		}
		if g := w.grant(t, key1); c.held == g.Open(w.clock()) {
			t.Errorf("%s %s: open %t, on hold %q", c.by.Login, c.verb, g.Open(w.clock()), g.Paused)
		}
	}
	follow(t, a)
	if r := w.lastReport(t); r.Grants[0].Paused {
		t.Error("still shown on hold")
	}
}

// TestRetryOfAPullRequest is its author's, and reads it again.
func TestRetryOfAPullRequest(t *testing.T) {
	w := newWorld(t)
	a := w.activities()
	w.open(3600)
	if got := says(t, w, a, alice, "retry"); !strings.Contains(got, "reading the pull request again") {
		t.Errorf("reply %q", got)
	}
	if got := says(t, w, a, mallory, "retry"); !strings.Contains(got, "Only who opened") {
		t.Errorf("reply %q", got)
	}
}

// TestTwoCommandsInOneComment are both carried out, once.
func TestTwoCommandsInOneComment(t *testing.T) {
	w, a, _ := active(t)
	w.comment(alice, "help")
	w.comment(alice, "explain")
	w.mu.Lock()
	w.commands[len(w.commands)-1].Comment = w.commands[len(w.commands)-2].Comment
	w.mu.Unlock()
	said, err := a.Commands(t.Context(), pr7)
	if err != nil || len(said) != 2 {
		t.Errorf("said %q, %v; want two answers", said, err)
	}
	if again, err := a.Commands(t.Context(), pr7); err != nil || len(again) != 0 {
		t.Errorf("said again: %q, %v", again, err)
	}
}

func hold(t *testing.T, w *world, expires time.Time) access.Held {
	t.Helper()
	h := access.Held{ID: "5f0c", Number: 7, Grant: key1, Who: "alice", Ask: []access.Party{dba}, Expires: expires, State: access.HeldOpen,
		Operation: access.Operation{Kind: "query", Text: "DELETE FROM orders"}}
	h.Digest = h.ShownDigest()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.helds[h.ID] = h
	return h
}

// TestEditedCommentVoidsHolds: what people read in a comment that mallory
// edited may have been anything, so nothing that waits is answered by it.
func TestEditedCommentVoidsHolds(t *testing.T) {
	w, a, _ := active(t)
	reg := prometheus.NewPedanticRegistry()
	var err error
	if a.Signals, err = NewSignals(reg, nil); err != nil {
		t.Fatal(err)
	}
	h := hold(t, w, w.clock().Add(time.Minute))
	w.meddled = []Meddling{{Comment: 3, Edit: "e1", By: mallory, At: w.clock()}}
	w.comment(bob, "approve", "H7", h.Short())
	said, err := a.Commands(t.Context(), pr7)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := w.Held(t.Context(), h.ID); got.State != access.HeldCancelled {
		t.Errorf("held is %s, want it void", got.State)
	}
	words := strings.Join(said, " ")
	if !strings.Contains(words, "@mallory edited this comment") || !strings.Contains(words, "does not wait any more") {
		t.Errorf("said %q", words)
	}
	if !slices.ContainsFunc(w.audits, func(s string) bool { return strings.HasPrefix(s, "mallory comment.edited ") }) {
		t.Errorf("not audited: %v", w.audits)
	}
	other := hold(t, w, w.clock().Add(time.Minute)) // the same edit voids once
	if _, err := a.Commands(t.Context(), pr7); err != nil {
		t.Fatal(err)
	}
	alarms := number(t, reg, "tidegate_control_meddled_total", "")
	if got, _ := w.Held(t.Context(), other.ID); got.State != access.HeldOpen || alarms != 1 {
		t.Errorf("held is %s after %v alarms, want it open after one", got.State, alarms)
	}
}

func TestWhoAnswersAHold(t *testing.T) {
	for name, c := range map[string]struct {
		by    access.User
		verb  string
		spoil func(*world, *access.Held)
		want  string
	}{
		"an owner":             {by: bob, verb: "approve", want: "approved and runs once"},
		"an owner says no":     {by: bob, verb: "deny", want: "is denied"},
		"the receiver":         {by: alice, verb: "approve", want: "You can't answer"},
		"the receiver's no":    {by: alice, verb: "deny", want: "You can't answer"},
		"a stranger":           {by: mallory, verb: "approve", want: "its rule asks"},
		"who left the team":    {by: bob, verb: "approve", spoil: func(w *world, _ *access.Held) { w.team = nil }, want: "its rule asks"},
		"a pusher":             {by: bob, verb: "approve", spoil: func(w *world, _ *access.Held) { w.pushed["head1"] = []access.User{bob} }, want: "You can't answer"},
		"another digest":       {by: bob, verb: "approve", spoil: func(_ *world, h *access.Held) { h.Digest = "00000000" }, want: "digest does not match"},
		"too late":             {by: bob, verb: "approve", spoil: func(w *world, _ *access.Held) { w.clock = func() time.Time { return time.Now().Add(time.Hour) } }, want: "does not wait"},
		"cancelled by the way": {by: bob, verb: "approve", spoil: func(w *world, _ *access.Held) { _ = w.CancelHeld(context.Background(), "5f0c", access.HeldCancelled) }, want: "does not wait"},
	} {
		t.Run(name, func(t *testing.T) {
			w, a, s := active(t)
			h := hold(t, w, time.Now().Add(10*time.Minute))
			if c.spoil != nil {
				c.spoil(w, &h)
			}
			if got := says(t, w, a, c.by, c.verb, "H7", h.Short()); !strings.Contains(got, c.want) {
				t.Errorf("reply %q, want %q in it", got, c.want)
			}
			answered := strings.Contains(c.want, "is denied") || strings.Contains(c.want, "runs once")
			got, _ := w.Held(t.Context(), h.ID)
			if answered != (got.State == access.HeldAnswered) || (answered && got.Answer.Approve != (c.verb == "approve")) {
				t.Errorf("held is %s: %+v", got.State, got.Answer)
			}
			if hinted := len(s.hints) > 0 && s.hints[len(s.hints)-1].Held == h.ID; hinted != answered {
				t.Errorf("hints %+v", s.hints)
			}
		})
	}
}

func TestHoldTimesOut(t *testing.T) {
	w := newWorld(t)
	e, a := env(t, w)
	landed(t, w, a, 3600)
	h := hold(t, w, e.Now().Add(12*time.Minute))
	e.ExecuteWorkflow(workflowHold, HoldInput{ID: h.ID, Reminder: 5 * time.Minute})
	if err := e.GetWorkflowError(); err != nil || !e.IsWorkflowCompleted() {
		t.Fatalf("completed %t: %v", e.IsWorkflowCompleted(), err)
	}
	var states []access.HeldState
	for _, s := range w.shown {
		states = append(states, s.State)
	}
	want := []access.HeldState{access.HeldOpen, access.HeldOpen, access.HeldOpen, access.HeldOpen, access.HeldTimedOut}
	if !slices.Equal(states, want) {
		t.Errorf("shown %v, want %v", states, want)
	}
}

func TestHoldEndsWithItsAnswer(t *testing.T) {
	w := newWorld(t)
	e, a := env(t, w)
	landed(t, w, a, 3600)
	h := hold(t, w, e.Now().Add(time.Hour))
	e.RegisterDelayedCallback(func() {
		if err := w.AnswerHeld(context.Background(), access.Answer{Held: h.ID, Approve: true}); err != nil {
			t.Error(err)
		}
		e.SignalWorkflow(signalHint, Hint{Kind: HintHeld, Held: h.ID})
	}, time.Minute)
	begin := e.Now()
	e.ExecuteWorkflow(workflowHold, HoldInput{ID: h.ID, Reminder: 5 * time.Minute})
	if err := e.GetWorkflowError(); err != nil || e.Now().Sub(begin) > 2*time.Minute {
		t.Fatalf("ended after %s: %v", e.Now().Sub(begin), err)
	}
	if last := w.shown[len(w.shown)-1]; last.State != access.HeldAnswered {
		t.Errorf("last shown as %s", last.State)
	}
}
