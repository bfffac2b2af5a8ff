package workflows

import (
	"context"
	"testing"

	"github.com/tidegate/tidegate/access"
)

// TestReviewIsBoundToWhomItSaw: a name that means somebody else by the time of
// the merge was not what the reviewer agreed to.
func TestReviewIsBoundToWhomItSaw(t *testing.T) {
	for name, change := range map[string]func(*world){
		"the receiver became another": func(w *world) { w.people = []access.Person{{User: mallory}} },
		"the team grew":               func(w *world) { w.people = []access.Person{{User: alice}, {User: mallory}} },
		"the approvers became others": func(w *world) { w.teamID = 78 },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			a := w.activities()
			a.starter = &started{}
			w.open(3600)
			w.review(bob, access.ReviewApproved)
			follow(t, a)
			if !approval(t, w).Met {
				t.Fatal("not approved at first")
			}
			change(w)
			w.merge()
			follow(t, a)
			if got := w.grant(t, key1); got.State != access.StateRefused {
				t.Errorf("landed as %s for %v, want refused", got.State, got.Plan.People)
			}
		})
	}
}

// TestObjectionIsNotPushedOutOfSight: comments are reviews too, and anybody can
// write many.
func TestObjectionIsNotPushedOutOfSight(t *testing.T) {
	w := newWorld(t)
	w.open(3600)
	w.review(bob, access.ReviewChangesRequested)
	for range maxReviews {
		w.review(mallory, access.ReviewCommented)
	}
	a := w.activities()
	s, err := a.assess(t.Context(), *w.pulls[7])
	if err != nil {
		t.Fatal(err)
	}
	seen, err := a.boundReviews(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if len(seen.reviews) != 1 || seen.reviews[0].User != bob {
		t.Errorf("counted are %d reviews, want bob's objection alone", len(seen.reviews))
	}
}

// signedWorld is a ledger that knows which rows control signed.
type signedWorld struct {
	*world
	tampered bool
}

func (w *signedWorld) SignedGrant(ctx context.Context, key access.GrantKey) (access.Grant, error) {
	if w.tampered {
		return access.Grant{}, access.Errorf(access.CodeDenied, "not signed")
	}
	return w.Grant(ctx, key)
}

// TestUnsignedRowIsNotMinted: a row that somebody wrote past control makes
// nothing at the target, neither at first nor by an extension.
func TestUnsignedRowIsNotMinted(t *testing.T) {
	w := newWorld(t)
	a := w.activities()
	l := &signedWorld{world: w, tampered: true}
	a.Ledger, a.starter = l, &started{}
	w.open(3600)
	w.review(bob, access.ReviewApproved)
	w.merge()
	follow(t, a)
	v, err := a.MintGrant(t.Context(), key1)
	if err != nil || v.State != access.StateRefused || w.mints != 0 {
		t.Errorf("got %s, error %v and %d mints, want it refused and none", v.State, err, w.mints)
	}
	if err := a.prolong(t.Context(), w.grant(t, key1), w.clock()); access.CodeOf(err) != access.CodeDenied || w.mints != 0 {
		t.Errorf("got error %v and %d mints by an extension, want it denied", err, w.mints)
	}
}
