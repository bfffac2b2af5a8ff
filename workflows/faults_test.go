package workflows

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"go.temporal.io/sdk/testsuite"

	"github.com/tidegate/tidegate/access"
)

// lame fails each nth call for a while, as a part does that comes and goes
// before it stays.
type lame struct {
	every int64
	calls atomic.Int64
}

func (l *lame) fails() error {
	if n := l.calls.Add(1); n < 30 && n%l.every == 0 {
		return access.Errorf(access.CodeUnavailable, "It does not answer.")
	}
	return nil
}

type lameLedger struct {
	*world
	lame *lame
}

func (l lameLedger) Grant(ctx context.Context, key access.GrantKey) (access.Grant, error) {
	if err := l.lame.fails(); err != nil {
		return access.Grant{}, err
	}
	return l.world.Grant(ctx, key)
}

func (l lameLedger) Update(ctx context.Context, g access.Grant) (access.Grant, error) {
	if err := l.lame.fails(); err != nil {
		return g, err
	}
	return l.world.Update(ctx, g)
}

func (l lameLedger) Audit(ctx context.Context, actor, action, subject, detail string) error {
	if err := l.lame.fails(); err != nil {
		return err
	}
	return l.world.Audit(ctx, actor, action, subject, detail)
}

type lameForge struct {
	fakeForge
	lame *lame
}

func (f lameForge) Pull(ctx context.Context, ref Ref) (Pull, error) {
	if err := f.lame.fails(); err != nil {
		return Pull{}, err
	}
	return f.fakeForge.Pull(ctx, ref)
}

type lameMinter struct {
	fakeMinter
	lame *lame
}

func (m lameMinter) Mint(ctx context.Context, g access.Grant) (access.Minted, error) {
	minted, err := m.fakeMinter.Mint(ctx, g)
	if fault := m.lame.fails(); fault != nil {
		return access.Minted{}, fault // it was made all the same
	}
	return minted, err
}

func (m lameMinter) Revoke(ctx context.Context, g access.Grant) error {
	if err := m.lame.fails(); err != nil {
		return err
	}
	return m.fakeMinter.Revoke(ctx, g)
}

func (m lameMinter) Prove(ctx context.Context, g access.Grant) error {
	if err := m.lame.fails(); err != nil {
		return err
	}
	return m.fakeMinter.Prove(ctx, g)
}

// TestEachPartFailsNowAndThen: whatever part stops and comes back, nothing
// approved is lost, and what was given is taken away at its end.
func TestEachPartFailsNowAndThen(t *testing.T) {
	for name, spoil := range map[string]func(*world, *Activities, *lame){
		"the ledger": func(w *world, a *Activities, l *lame) { a.Ledger = lameLedger{w, l} },
		"the forge":  func(w *world, a *Activities, l *lame) { a.Forge = lameForge{fakeForge{w}, l} },
		"the target": func(w *world, a *Activities, l *lame) { a.Minters["postgres"] = lameMinter{fakeMinter{w}, l} },
		"all of them": func(w *world, a *Activities, l *lame) {
			a.Ledger, a.Forge = lameLedger{w, l}, lameForge{fakeForge{w}, l}
			a.Minters["postgres"] = lameMinter{fakeMinter{w}, l}
		},
	} {
		for _, every := range []int64{3, 5} {
			t.Run(fmt.Sprintf("%s, each %dth call", name, every), func(t *testing.T) {
				w := newWorld(t)
				e, a := env(t, w)
				landed(t, w, a, 3600)
				spoil(w, a, &lame{every: every})
				runGrant(t, e)
				g := wantGone(t, w, access.StateExpired)
				if late := g.Closed.Sub(g.NotAfter); late > 2*time.Minute {
					t.Errorf("closed %s after its end", late)
				}
			})
		}
	}
}

// TestHintsTwiceLateAndInAnyOrder: they only shorten waits.
func TestHintsTwiceLateAndInAnyOrder(t *testing.T) {
	w := newWorld(t)
	var suite testsuite.WorkflowTestSuite
	e := suite.NewTestWorkflowEnvironment()
	e.SetTestTimeout(20 * time.Second)
	a := w.activities()
	s := &started{}
	a.starter = s
	Register(e, a)
	RegisterRevoke(e, a)
	w.clock = e.Now
	w.open(3600)
	w.review(bob, access.ReviewApproved)
	kinds := []HintKind{HintComment, HintPull, HintPush, HintPull, HintHeld, HintPull}
	hints := func() {
		for i := range 30 {
			e.SignalWorkflow(signalHint, Hint{Kind: kinds[i%len(kinds)], Ref: pr7})
		}
	}
	e.RegisterDelayedCallback(hints, time.Second) // of a merge that is yet to come
	e.RegisterDelayedCallback(func() { w.merge(); hints() }, 10*time.Second)
	e.RegisterDelayedCallback(hints, 11*time.Second)
	e.RegisterDelayedCallback(func() {
		if _, err := a.MintGrant(context.Background(), key1); err != nil {
			t.Error(err)
		}
		hints()
	}, 20*time.Second)
	e.RegisterDelayedCallback(func() {
		if _, err := a.closeRow(context.Background(), CloseInput{Key: key1, Why: "enough"}, byWorkflow); err != nil {
			t.Error(err)
		}
		hints()
	}, 30*time.Second)
	e.ExecuteWorkflow(workflowRequest, RequestInput{Ref: pr7, Poll: time.Minute})
	if err := e.GetWorkflowError(); !e.IsWorkflowCompleted() || err != nil {
		t.Fatalf("completed %t: %v", e.IsWorkflowCompleted(), err)
	}
	wantGone(t, w, access.StateRevoked)
	if w.mints != 1 || w.seq > 4 || len(w.reports) > 20 {
		t.Errorf("%d mints, sequence %d, %d reports for 120 hints", w.mints, w.seq, len(w.reports))
	}
}

// TestManyGrantsAskTheTargetOnce: a pull request of 50 grants that mean the
// same is one question to the target in a reading, and each lands and starts.
func TestManyGrantsAskTheTargetOnce(t *testing.T) {
	w := newWorld(t)
	a, s := w.activities(), &started{}
	a.starter = s
	w.open(3600)
	head := w.trees["head1"]
	for i := 1; i < maxGrantsPerPR; i++ {
		head.Files = append(head.Files, grantFile(request(fmt.Sprintf("inc-%d", i+1), 3600)))
	}
	w.trees["head1"] = head
	w.review(bob, access.ReviewApproved)
	w.merge()
	follow(t, a)
	if len(s.grants) != maxGrantsPerPR || w.expands != 1 {
		t.Errorf("%d grants started with %d questions to the target, want %d and 1", len(s.grants), w.expands, maxGrantsPerPR)
	}
}

// cross is a forge that takes Tidegate's questions for wrong ones: a 403 for
// want of a permission, GitHub's 422.
type cross struct {
	fakeForge
	tree, directory, pull access.Code
}

func sayOf(code access.Code) error {
	if code == "" {
		return nil
	}
	return access.Errorf(code, "GitHub says: no")
}

func (f *cross) Pull(ctx context.Context, ref Ref) (Pull, error) {
	if err := sayOf(f.pull); err != nil {
		return Pull{}, err
	}
	return f.fakeForge.Pull(ctx, ref)
}

func (f *cross) Tree(ctx context.Context, commit string) (access.Tree, error) {
	if err := sayOf(f.tree); err != nil {
		return access.Tree{}, err
	}
	return f.fakeForge.Tree(ctx, commit)
}

func (f *cross) Directory(ctx context.Context, users, teams []string) (access.Directory, error) {
	if err := sayOf(f.directory); err != nil {
		return access.Directory{}, err
	}
	return f.fakeForge.Directory(ctx, users, teams)
}

// TestForgesNoIsNoRefusal: what was approved waits for a forge that does not
// answer as it should, before it lands and before it opens.
func TestForgesNoIsNoRefusal(t *testing.T) {
	for name, bad := range map[string]cross{
		"tree: 422":      {tree: access.CodeInvalid},
		"tree too long":  {tree: access.CodeTooLarge},
		"directory: 422": {directory: access.CodeInvalid},
		"too many names": {directory: access.CodeTooLarge},
		"pull: 403":      {pull: access.CodeDenied},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			a := w.activities()
			a.starter = &started{}
			w.open(3600)
			w.review(bob, access.ReviewApproved)
			w.merge()
			good := a.Forge
			bad.fakeForge = fakeForge{w}
			a.Forge = &bad
			if _, err := a.Follow(t.Context(), FollowInput{Ref: pr7}); err == nil || len(w.grants) > 0 {
				t.Errorf("error %v, %d grants, want none before the forge answers", err, len(w.grants))
			}
			a.Forge = good
			follow(t, a)
			a.Forge = &bad
			if _, err := a.MintGrant(t.Context(), key1); err == nil || w.grant(t, key1).State != access.StateLanded {
				t.Errorf("error %v, state %s, want it to wait", err, w.grant(t, key1).State)
			}
			a.Forge = good
			if _, err := a.MintGrant(t.Context(), key1); err != nil || w.grant(t, key1).State != access.StateActive {
				t.Errorf("error %v, state %s, want it open", err, w.grant(t, key1).State)
			}
		})
	}
}
