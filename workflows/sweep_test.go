package workflows

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidegate/tidegate/access"
)

func sweepOnce(t *testing.T, s *sweeper) {
	t.Helper()
	if err := s.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func later(w *world, d time.Duration) { w.clock = func() time.Time { return time.Now().Add(d) } }

func TestSweepRevokesWithoutTemporal(t *testing.T) {
	w, a, _ := active(t)
	a.starter = nil // Temporal is down
	s := newSweeper(a)
	later(w, time.Hour+30*time.Second)
	sweepOnce(t, s)
	if !w.minted[key1] {
		t.Error("revoked within the grace, which is Temporal's")
	}
	later(w, time.Hour+2*time.Minute)
	sweepOnce(t, s)
	wantGone(t, w, access.StateExpired)
}

func TestSweepClosesWhatEndedEarly(t *testing.T) {
	w, a, _ := active(t)
	a.starter = nil
	s := newSweeper(a)
	if _, err := a.end(t.Context(), ending{key: key1, state: access.StateRevoked, by: "bob", why: "enough"}); err != nil {
		t.Fatal(err)
	}
	sweepOnce(t, s)
	if !w.minted[key1] {
		t.Error("revoked within the grace")
	}
	later(w, 2*time.Minute)
	sweepOnce(t, s)
	if g := wantGone(t, w, access.StateRevoked); g.Why != "enough" {
		t.Errorf("why %q", g.Why)
	}
}

func TestSweepAlertsAndTriesAgain(t *testing.T) {
	w, a, _ := active(t)
	a.starter = nil
	s := newSweeper(a)
	reg := prometheus.NewPedanticRegistry()
	var err error
	if a.Signals, err = NewSignals(reg, nil); err != nil {
		t.Fatal(err)
	}
	w.failRevoke = func(n int) error {
		if n < 3 {
			return errors.New("connection refused")
		}
		return nil
	}
	later(w, time.Hour+2*time.Minute)
	for range 2 {
		if err := s.sweep(t.Context()); err == nil {
			t.Error("a failed revocation is silent")
		}
	}
	sweepOnce(t, s)
	wantGone(t, w, access.StateExpired)
	if alerts := number(t, reg, "tidegate_control_alerts_total", ""); alerts != 2 {
		t.Errorf("%v alerts, want 2", alerts)
	}
}

func TestSweepStartsWhatTemporalLost(t *testing.T) {
	_, a, started := active(t)
	started.grants = nil
	sweepOnce(t, newSweeper(a))
	if len(started.grants) != 1 || started.grants[0] != key1 {
		t.Errorf("started %v", started.grants)
	}
}

func reconcile(t *testing.T, s *sweeper) {
	t.Helper()
	if err := reconciled(t, s); err != nil {
		t.Fatal(err)
	}
}

func renewed(t *testing.T, a *Activities) error {
	_, err := a.renewAll(t.Context())
	return err
}

// reconciled makes the ledger follow main, and what it then lacks at targets.
func reconciled(t *testing.T, s *sweeper) error {
	return errors.Join(s.endDeleted(t.Context()), s.reconcile(t.Context()), renewed(t, s.Activities))
}

func TestFileThatLeavesOrChangesOnMainRevokes(t *testing.T) {
	for name, files := range map[string][]access.File{
		"deleted": {policyFile("v1")},
		"changed": {grantFile(request("inc-1", 7200)), policyFile("v1")},
		"same":    {grantFile(request("inc-1", 3600)), policyFile("v1")},
	} {
		t.Run(name, func(t *testing.T) {
			w, a, started := active(t)
			w.trees["next"], w.main = access.Tree{Commit: "next", Files: files}, "next"
			started.woken = nil
			reconcile(t, newSweeper(a))
			want := access.StateRevoked
			if name == "same" {
				want = access.StateActive
			}
			if g := w.grant(t, key1); g.State != want || (want == access.StateRevoked) != (len(started.woken) == 1) {
				t.Errorf("state is %s (%s), want %s; woken %v", g.State, g.Why, want, started.woken)
			}
		})
	}
}

func TestDirectPushIsRefusedAndConsumesTheID(t *testing.T) {
	w := newWorld(t)
	a := w.activities()
	a.starter = &started{}
	w.trees["direct"] = access.Tree{Commit: "direct", Files: []access.File{grantFile(request("inc-1", 3600)), policyFile("v1")}}
	w.main = "direct"
	reconcile(t, newSweeper(a))
	if g := w.grant(t, key1); g.State != access.StateRefused || g.Closed.IsZero() {
		t.Errorf("state is %s", g.State)
	}
}

func TestMergeThatNobodySawLandsBesideADirectPush(t *testing.T) {
	w := newWorld(t)
	a, s := w.activities(), &started{}
	a.starter = s
	w.open(3600)
	w.review(bob, access.ReviewApproved)
	w.merge()
	pushed := request("inc-2", 3600)
	w.trees["direct"] = access.Tree{Commit: "direct", Files: append(w.trees["merge7"].Files, grantFile(pushed))}
	w.main = "direct"
	reconcile(t, newSweeper(a))
	if g := w.grant(t, key1); g.State != access.StateLanded {
		t.Errorf("the approved grant is %s (%s)", g.State, g.Why)
	}
	if g := w.grant(t, access.GrantKey{Repo: repoID, ID: "inc-2"}); g.State != access.StateRefused {
		t.Errorf("the pushed grant is %s", g.State)
	}
}

func TestRevertDoesNotBringAGrantBack(t *testing.T) {
	w, a, _ := active(t)
	if _, err := a.closeRow(t.Context(), CloseInput{Key: key1, Why: "enough"}, byWorkflow); err != nil {
		t.Fatal(err)
	}
	w.trees["revert"] = access.Tree{Commit: "revert", Files: w.trees["head1"].Files}
	w.main = "revert"
	s := newSweeper(a)
	reconcile(t, s)
	sweepOnce(t, s)
	follow(t, a)
	wantGone(t, w, access.StateRevoked)
}

func policyPull(w *world, version string) {
	w.trees["policy"] = access.Tree{Commit: "policy", Files: []access.File{policyFile(version)}}
	w.pulls[7] = &Pull{Ref: pr7, Author: alice, Base: "base", Head: "policy", Open: true}
}

func TestPoliciesComeIntoForceOnlyAgreed(t *testing.T) {
	for name, c := range map[string]struct {
		do     func(*world)
		owners []access.Principal
		want   string
	}{
		"agreed by an owner": {do: func(w *world) { policyPull(w, "v2"); w.review(bob, access.ReviewApproved); w.merge() }, owners: []access.Principal{dba.Principal}, want: "v2"},
		"lacking who the old ones ask": {do: func(w *world) {
			w.carolToo = true
			policyPull(w, "v2")
			w.review(bob, access.ReviewApproved)
			w.merge()
		}, owners: []access.Principal{dba.Principal}, want: "v1"},
		"with who the old ones ask": {do: func(w *world) {
			w.carolToo = true
			policyPull(w, "v2")
			w.review(bob, access.ReviewApproved)
			w.review(carol, access.ReviewApproved)
			w.merge()
		}, owners: []access.Principal{dba.Principal}, want: "v2"},
		"by the author":  {do: func(w *world) { policyPull(w, "v2"); w.review(alice, access.ReviewApproved); w.merge() }, owners: []access.Principal{dba.Principal}, want: "v1"},
		"by a stranger":  {do: func(w *world) { policyPull(w, "v2"); w.review(mallory, access.ReviewApproved); w.merge() }, owners: []access.Principal{dba.Principal}, want: "v1"},
		"by nobody":      {do: func(w *world) { policyPull(w, "v2"); w.merge() }, owners: []access.Principal{dba.Principal}, want: "v1"},
		"without owners": {do: func(w *world) { policyPull(w, "v2"); w.review(bob, access.ReviewApproved); w.merge() }, want: "v1"},
		"before a push": {do: func(w *world) {
			policyPull(w, "v2")
			w.review(bob, access.ReviewApproved)
			w.trees["p3"] = access.Tree{Commit: "p3", Files: []access.File{policyFile("v3")}}
			w.pulls[7].Head = "p3"
			w.merge()
		}, owners: []access.Principal{dba.Principal}, want: "v1"},
		"broken":        {do: func(w *world) { policyPull(w, "broken"); w.review(bob, access.ReviewApproved); w.merge() }, owners: []access.Principal{dba.Principal}, want: "v1"},
		"pushed direct": {do: func(w *world) { policyPull(w, "v2"); w.main = "policy" }, owners: []access.Principal{dba.Principal}, want: "v1"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			a := w.activities()
			a.starter, a.Rules.PolicyOwners = &started{}, c.owners
			c.do(w)
			if w.main == "merge7" {
				w.policy = []int{7}
			}
			reconcile(t, newSweeper(a))
			if got := w.adopted.Files[0].Blob; got != "policy-"+c.want {
				t.Errorf("in force is %s, want %s", got, c.want)
			}
		})
	}
}

func TestFirstAdoptionOpensNothingThatWasThere(t *testing.T) {
	for _, first := range []bool{true, false} {
		w := newWorld(t)
		a := w.activities()
		a.starter, a.Rules.AdoptFirst, w.adopted = &started{}, first, nil
		w.open(3600)
		w.review(bob, access.ReviewApproved)
		w.merge()
		reconcile(t, newSweeper(a))
		if first != (w.adopted != nil) {
			t.Fatalf("adopted %v with AdoptFirst %t", w.adopted, first)
		}
		follow(t, a)
		g, err := w.Grant(t.Context(), key1)
		if first && g.State != access.StateRefused {
			t.Errorf("a grant from before the ledger is %s", g.State)
		}
		if !first && access.CodeOf(err) != access.CodeNotFound {
			t.Errorf("without policies a grant landed: %v", g)
		}
	}
}

// merged puts a merged policy pull request into the world: from one version to
// another, agreed to by bob or not.
func (w *world) merged(number int, from, to string, agreed bool) {
	head, merge := fmt.Sprintf("h%d", number), fmt.Sprintf("m%d", number)
	base := fmt.Sprintf("b%d", number)
	for commit, version := range map[string]string{base: from, head: to, merge: to} {
		w.trees[commit] = access.Tree{Commit: commit, Files: []access.File{policyFile(version)}}
	}
	p := &Pull{Ref: Ref{Repo: repoID, Number: number}, Author: alice, Base: base, Head: head, Merge: merge, MergedAt: w.clock()}
	if agreed {
		p.Reviews = []access.Review{{ID: int64(number), User: bob, State: access.ReviewApproved, Commit: head, Submitted: w.clock().Add(-time.Hour)}}
	}
	w.pulls[number], w.policy, w.main = p, append(w.policy, number), merge
}

// TestPoliciesFollowStepByStep however long ago they were merged, and no step
// is left out.
func TestPoliciesFollowStepByStep(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(*world)
		want string
	}{
		"two at once":          {func(w *world) { w.merged(8, "v1", "v2", true); w.merged(9, "v2", "v3", true) }, "v3"},
		"the last not agreed":  {func(w *world) { w.merged(8, "v1", "v2", true); w.merged(9, "v2", "v3", false) }, "v2"},
		"the first not agreed": {func(w *world) { w.merged(8, "v1", "v2", false); w.merged(9, "v2", "v3", true) }, "v1"},
		"a gap":                {func(w *world) { w.merged(9, "v2", "v3", true) }, "v1"},
		"one of them broken":   {func(w *world) { w.merged(8, "v1", "broken", true); w.merged(9, "broken", "v3", true) }, "v1"},
		"a push between": {func(w *world) {
			w.merged(8, "v1", "v2", true)
			w.policy = append(w.policy, 0)
			w.merged(9, "v2", "v3", true)
		}, "v1"},
		"a push behind": {func(w *world) { w.merged(8, "v1", "v2", true); w.policy = append(w.policy, 0) }, "v1"},
		"other bytes landed": {func(w *world) {
			w.merged(8, "v1", "v2", true)
			w.trees["m8"] = access.Tree{Commit: "m8", Files: []access.File{policyFile("v9")}}
		}, "v1"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			a := w.activities()
			a.starter, a.Rules.PolicyOwners = &started{}, []access.Principal{dba.Principal}
			c.do(w)
			later(w, 30*24*time.Hour)
			reconcile(t, newSweeper(a))
			if got := w.adopted.Files[0].Blob; got != "policy-"+c.want {
				t.Errorf("in force is %s, want %s", got, c.want)
			}
		})
	}
}

// TestPoliciesAreNotPlayedAgain: what was agreed to once counts once, though
// somebody brings the very same bytes, from the very same ones, to main again.
func TestPoliciesAreNotPlayedAgain(t *testing.T) {
	w := newWorld(t)
	a := w.activities()
	a.starter, a.Rules.PolicyOwners = &started{}, []access.Principal{dba.Principal}
	w.merged(8, "v1", "v2", true)
	reconcile(t, newSweeper(a))
	w.merged(9, "v2", "v1", true)
	reconcile(t, newSweeper(a))
	if got := w.adopted.Files[0].Blob; got != "policy-v1" {
		t.Fatalf("in force is %s, want v1 again by its own pull request", got)
	}
	w.main, w.policy = "m8", []int{8} // as if the forge named the old one for it
	reconcile(t, newSweeper(a))
	if got := w.adopted.Files[0].Blob; got != "policy-v1" {
		t.Errorf("in force is %s: an old pull request brought old policies back", got)
	}
}

// TestTidyRemovesWhatEndedLongAgo and nothing that is open, fresh or unknown.
func TestTidyRemovesWhatEndedLongAgo(t *testing.T) {
	w, a, _ := active(t)
	a.Rules.Tidy = TidyPull
	s := newSweeper(a)
	reconcile(t, s)
	if len(w.tidied) != 0 {
		t.Fatalf("tidied %v of an open grant", w.tidied)
	}
	if _, err := a.closeRow(t.Context(), CloseInput{Key: key1, Why: "enough"}, ""); err != nil {
		t.Fatal(err)
	}
	later(w, 30*time.Minute)
	reconcile(t, s)
	if len(w.tidied) != 0 {
		t.Fatalf("tidied %v of a grant that just ended", w.tidied)
	}
	later(w, 2*time.Hour)
	reconcile(t, s)
	reconcile(t, s) // not at each reading
	if len(w.tidied) != 1 || w.tidied[0] != "grants/alice/inc-1.hcl" {
		t.Errorf("tidied %v, want the ended grant's file once", w.tidied)
	}
	if g := w.grant(t, key1); g.State != access.StateRevoked || g.Why != "enough" {
		t.Errorf("tidying changed the grant: %s, %s", g.State, g.Why)
	}
}

// deaf is Temporal that takes no hint at first.
type deaf struct {
	started
	times int
}

func (d *deaf) hint(ctx context.Context, h Hint) error {
	if d.times--; d.times >= 0 {
		return errors.New("temporal is down")
	}
	return d.started.hint(ctx, h)
}

func TestHintsThatTemporalDidNotTakeAreGivenAgain(t *testing.T) {
	w := newWorld(t)
	w.open(3600)
	a := w.activities()
	d := &deaf{times: 1}
	a.starter = d
	s := newSweeper(a)
	if err := s.followAll(t.Context(), []Ref{pr7}); err == nil {
		t.Error("want an error while Temporal is down")
	}
	for range 2 {
		if err := s.followAll(t.Context(), []Ref{pr7}); err != nil {
			t.Error(err)
		}
	}
	if len(d.hints) != 1 {
		t.Errorf("%d hints, want the one that was lost and no more", len(d.hints))
	}
}

// TestLoopRests: a loop that is woken all the time runs once in its rest, and
// one wake meanwhile is not lost.
func TestLoopRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		wake, runs := make(chan struct{}, 1), 0
		done := make(chan struct{})
		loop := task{name: "x", every: time.Hour, rest: time.Second, bound: time.Minute, wake: wake,
			do: func(context.Context) error { runs++; poke(wake); poke(wake); return nil }}
		go func() { defer close(done); loop.run(ctx, slog.New(slog.DiscardHandler), nil) }()
		time.Sleep(10*time.Second - time.Millisecond)
		cancel()
		<-done
		if runs != 10 {
			t.Errorf("in 10 s it ran %d times, want 10", runs)
		}
	})
}
