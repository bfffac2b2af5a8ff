package workflows

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/testsuite"

	"github.com/tidegate/tidegate/access"
)

// env is Temporal's test environment, whose clock the world reads.
func env(t *testing.T, w *world) (*testsuite.TestWorkflowEnvironment, *Activities) {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	e := suite.NewTestWorkflowEnvironment()
	e.SetTestTimeout(20 * time.Second)
	a := w.activities()
	Register(e, a)
	RegisterRevoke(e, a)
	w.clock = e.Now
	return e, a
}

// landed brings pull request 7 to a landed grant.
func landed(t *testing.T, w *world, a *Activities, lasts access.Seconds) {
	t.Helper()
	w.open(lasts)
	w.review(bob, access.ReviewApproved)
	w.merge()
	if _, err := a.Follow(context.Background(), FollowInput{Ref: pr7}); err != nil {
		t.Fatal(err)
	}
	if g := w.grant(t, key1); g.State != access.StateLanded {
		t.Fatalf("state is %s (%s), want landed", g.State, g.Why)
	}
}

func runGrant(t *testing.T, e *testsuite.TestWorkflowEnvironment) {
	t.Helper()
	e.ExecuteWorkflow(workflowGrant, GrantInput{Key: key1, Queue: "revoke", AlertAfter: time.Minute})
	if !e.IsWorkflowCompleted() {
		t.Fatal("the workflow did not complete")
	}
	if err := e.GetWorkflowError(); err != nil {
		t.Fatal(err)
	}
}

// wantGone fails unless the grant is closed in the given state with nothing
// left at the target.
func wantGone(t *testing.T, w *world, state access.State) access.Grant {
	t.Helper()
	g := w.grant(t, key1)
	if g.State != state || g.Closed.IsZero() {
		t.Errorf("grant is %s, closed %v (%s); want %s and closed", g.State, g.Closed, g.Why, state)
	}
	if w.minted[key1] {
		t.Error("the access is still at the target")
	}
	return g
}

func TestGrantLivesAndEnds(t *testing.T) {
	w := newWorld(t)
	e, a := env(t, w)
	landed(t, w, a, 3600)
	e.RegisterDelayedCallback(func() {
		if g := w.grant(t, key1); !g.Open(e.Now()) || !w.minted[key1] {
			t.Errorf("half an hour in, grant is %s and minted %t", g.State, w.minted[key1])
		}
	}, 30*time.Minute)
	start := e.Now()
	runGrant(t, e)
	g := wantGone(t, w, access.StateExpired)
	if late := g.Closed.Sub(g.NotAfter); late < 0 || late > time.Second {
		t.Errorf("closed %s after its end", late)
	}
	if got := g.NotAfter.Sub(start); got < 59*time.Minute || got > time.Hour {
		t.Errorf("it lasts %s, want an hour from the merge", got)
	}
}

func TestGrantWaitsForItsStart(t *testing.T) {
	w := newWorld(t)
	e, a := env(t, w)
	r := request("inc-1", 0)
	r.From, r.Until = e.Now().Add(24*time.Hour).UTC(), e.Now().Add(25*time.Hour).UTC()
	w.push("head1", r)
	w.review(bob, access.ReviewApproved)
	w.merge()
	if _, err := a.Follow(t.Context(), FollowInput{Ref: pr7}); err != nil {
		t.Fatal(err)
	}
	e.RegisterDelayedCallback(func() {
		if w.mints != 0 {
			t.Error("minted before its start")
		}
	}, 23*time.Hour)
	runGrant(t, e)
	wantGone(t, w, access.StateExpired)
	if w.mints != 1 {
		t.Errorf("minted %d times, want once", w.mints)
	}
}

func TestMintThatTimedOutButMintedIsRevoked(t *testing.T) {
	w := newWorld(t)
	e, a := env(t, w)
	landed(t, w, a, 60)
	w.failMint = func(int) error { return context.DeadlineExceeded }
	runGrant(t, e)
	g := wantGone(t, w, access.StateRevoked)
	if w.mints == 0 || !strings.Contains(g.Why, "could not be opened") {
		t.Errorf("%d mints, why %q", w.mints, g.Why)
	}
}

func TestRefusedMintIsRevokedAndSaysWhy(t *testing.T) {
	w := newWorld(t)
	e, a := env(t, w)
	landed(t, w, a, 3600)
	w.failMint = func(int) error { return access.Errorf(access.CodeInvalid, "The table is gone.") }
	runGrant(t, e)
	if g := wantGone(t, w, access.StateRefused); g.Why != "The table is gone." || w.mints != 1 {
		t.Errorf("why %q after %d mints", g.Why, w.mints)
	}
}

func TestTwelveFailedRevokesThenSuccessWithAlert(t *testing.T) {
	w := newWorld(t)
	e, a := env(t, w)
	landed(t, w, a, 60)
	w.failRevoke = func(n int) error {
		switch {
		case n == 3: // one that Temporal does not retry
			return access.Errorf(access.CodeInvalid, "no such role")
		case n <= 12:
			return errors.New("connection refused")
		}
		return nil
	}
	runGrant(t, e)
	wantGone(t, w, access.StateExpired)
	if w.revokes != 13 {
		t.Errorf("%d revokes, want 13", w.revokes)
	}
	var alerts []time.Duration
	for _, line := range w.audits {
		if _, after, ok := strings.Cut(line, "not revoked after "); ok {
			late, err := time.ParseDuration(after)
			if err != nil {
				t.Fatal(err)
			}
			alerts = append(alerts, late)
		}
	}
	if len(alerts) == 0 || alerts[0] < time.Minute || alerts[0] > 2*time.Minute {
		t.Errorf("alerts %v, want the first after a minute", alerts)
	}
}

func TestCancelRevokes(t *testing.T) {
	w := newWorld(t)
	e, a := env(t, w)
	landed(t, w, a, 3600)
	e.RegisterDelayedCallback(e.CancelWorkflow, 10*time.Minute)
	runGrant(t, e)
	g := wantGone(t, w, access.StateRevoked)
	if left := g.NotAfter.Sub(g.Closed); left < 45*time.Minute {
		t.Errorf("closed %s before its end, want at the cancellation", left)
	}
}

// caller collects what an update came to.
type caller struct{ rejected, failed error }

func (c *caller) Accept()          {}
func (c *caller) Reject(err error) { c.rejected = err }
func (c *caller) Complete(_ any, err error) {
	c.failed = err
}

func TestUpdateRevoke(t *testing.T) {
	w := newWorld(t)
	e, a := env(t, w)
	landed(t, w, a, 3600)
	var anonymous, good caller
	e.RegisterDelayedCallback(func() {
		e.UpdateWorkflow(updateRevoke, "1", &anonymous, EndInput{Key: key1})
		e.UpdateWorkflow(updateRevoke, "2", &good, EndInput{Key: key1, By: "bob", Why: "Not needed any more."})
	}, 10*time.Minute)
	runGrant(t, e)
	g := wantGone(t, w, access.StateRevoked)
	if anonymous.rejected == nil || good.rejected != nil || good.failed != nil {
		t.Errorf("anonymous %v, good %v %v", anonymous.rejected, good.rejected, good.failed)
	}
	if g.Why != "Not needed any more." || g.NotAfter.Sub(g.Closed) < 45*time.Minute {
		t.Errorf("why %q, closed %s", g.Why, g.Closed)
	}
}

func TestExtendUpToTheLongestAndNoFurther(t *testing.T) {
	w := newWorld(t)
	e, a := env(t, w)
	landed(t, w, a, 3600)
	start := w.grant(t, key1).NotBefore
	extend := func(id string, until time.Duration) *caller {
		c := &caller{}
		e.UpdateWorkflow(updateExtend, id, c, ExtendInput{Key: key1, By: alice, Why: "still at it", Until: start.Add(until)})
		return c
	}
	var further, longest, shorter *caller
	e.RegisterDelayedCallback(func() {
		further = extend("1", 8*time.Hour+time.Second)
		longest = extend("2", 8*time.Hour)
	}, 10*time.Minute)
	e.RegisterDelayedCallback(func() { shorter = extend("3", 2*time.Hour) }, 20*time.Minute)
	runGrant(t, e)
	g := wantGone(t, w, access.StateExpired)
	if further.rejected == nil || shorter.rejected == nil || longest.rejected != nil || longest.failed != nil {
		t.Errorf("further %v, shorter %v, longest %v %v", further.rejected, shorter.rejected, longest.rejected, longest.failed)
	}
	if got := g.NotAfter.Sub(g.NotBefore); got != 8*time.Hour || g.Closed.Before(g.NotAfter) {
		t.Errorf("lasted %s, closed %s", got, g.Closed)
	}
}

func TestExtensionNeedsTheApprovalsOfTheTotalLength(t *testing.T) {
	w := newWorld(t)
	e, a := env(t, w)
	w.longNeeds2 = true
	w.team = []access.User{alice, bob, carol}
	landed(t, w, a, 3600)
	until := w.grant(t, key1).NotBefore.Add(2 * time.Hour)
	in := ExtendInput{Key: key1, By: alice, Why: "still at it", Until: until}
	var lacking, agreed caller
	e.RegisterDelayedCallback(func() {
		w.review(alice, access.ReviewApproved) // the receiver's own agreement is none
		e.UpdateWorkflow(updateExtend, "1", &lacking, in)
	}, 10*time.Minute)
	e.RegisterDelayedCallback(func() {
		w.review(carol, access.ReviewApproved)
		e.UpdateWorkflow(updateExtend, "2", &agreed, in)
	}, 20*time.Minute)
	runGrant(t, e)
	if lacking.failed == nil || !strings.Contains(lacking.failed.Error(), "1 of 2") {
		t.Errorf("without a second approval: %v", lacking.failed)
	}
	if g := wantGone(t, w, access.StateExpired); agreed.failed != nil || !g.NotAfter.Equal(until) {
		t.Errorf("with it: %v, until %s", agreed.failed, g.NotAfter)
	}
}

func TestApprovalWithdrawnBeforeTheStart(t *testing.T) {
	for name, spoil := range map[string]func(*world){
		"dismissed":       func(w *world) { w.pulls[7].Reviews[0].State = access.ReviewDismissed },
		"left the team":   func(w *world) { w.team = nil },
		"policies change": func(w *world) { w.adopted = &access.Tree{Files: []access.File{policyFile("v2")}} },
		"objection":       func(w *world) { w.review(bob, access.ReviewChangesRequested) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			e, a := env(t, w)
			landed(t, w, a, 3600)
			spoil(w)
			runGrant(t, e)
			wantGone(t, w, access.StateRefused)
			if w.mints != 0 {
				t.Error("minted all the same")
			}
		})
	}
}

func TestMintThatFinishesAfterTheEndTakesBack(t *testing.T) {
	w := newWorld(t)
	w.clock = time.Now
	a := w.activities()
	landed(t, w, a, 3600)
	w.failMint = func(int) error { // the grant ends and is closed while the mint is under way
		g := w.grants[key1]
		w.seq++
		g.State, g.Sequence, g.Closed = access.StateRevoked, w.seq, time.Now()
		w.grants[key1] = g
		return nil
	}
	if _, err := a.MintGrant(t.Context(), key1); err != nil {
		t.Fatal(err)
	}
	if w.minted[key1] || w.revokes != 1 {
		t.Errorf("left at the target: %t after %d revokes", w.minted[key1], w.revokes)
	}
}

func TestAuditTellsTheLife(t *testing.T) {
	w := newWorld(t)
	e, a := env(t, w)
	landed(t, w, a, 60)
	runGrant(t, e)
	last := -1
	for _, action := range []string{"grant.landed", "grant.active", "grant.expired", "grant.closed"} {
		at := slices.IndexFunc(w.audits, func(s string) bool { return strings.Contains(s, " "+action+" ") })
		if at <= last {
			t.Errorf("%s is at %d, want after %d in %q", action, at, last, w.audits)
		}
		last = at
	}
}

// What runs at a grant's end keeps its role until it is over, or its time for
// that is; a revocation waits for nothing.
func TestRoleGoesWhenWhatRanIsOver(t *testing.T) {
	for what, c := range map[string]struct {
		drain            string
		ends             time.Duration // of the session; 0: never
		revoked          time.Duration
		earliest, latest time.Duration
	}{
		"no drain":              {"", 0, 0, time.Hour, time.Hour + time.Second},
		"a session that ends":   {"5m", time.Hour + time.Minute, 0, time.Hour + time.Minute, time.Hour + time.Minute + 5*time.Second},
		"one that does not":     {"5m", 0, 0, time.Hour + 5*time.Minute, time.Hour + 5*time.Minute + time.Second},
		"one that ended before": {"5m", time.Minute, 0, time.Hour, time.Hour + 5*time.Second},
		"a revocation":          {"5m", 0, time.Hour + time.Minute, time.Hour + time.Minute, time.Hour + time.Minute + 5*time.Second},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			w.drain = c.drain
			e, a := env(t, w)
			landed(t, w, a, 3600)
			began := w.grant(t, key1).NotBefore
			w.sessions = []access.SessionInfo{{ID: "s"}}
			var gone time.Time
			w.onRevoke = func() { gone = e.Now() }
			if c.ends > 0 {
				e.RegisterDelayedCallback(func() {
					w.mu.Lock()
					defer w.mu.Unlock()
					w.sessions[0].Ended = e.Now()
				}, c.ends)
			}
			if c.revoked > 0 {
				e.RegisterDelayedCallback(func() {
					e.UpdateWorkflow(updateRevoke, "u", &caller{}, EndInput{Key: key1, By: "bob", Why: "Enough."})
				}, c.revoked)
			}
			runGrant(t, e)
			if after := gone.Sub(began); after < c.earliest || after > c.latest {
				t.Errorf("the role went %s after the start, want %s to %s", after, c.earliest, c.latest)
			}
		})
	}
}
