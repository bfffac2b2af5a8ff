package workflows

import (
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
