package workflows

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

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

// TestReviewIsBoundToWhatItGives: a table that came into a role's pattern after
// the review is none that the reviewer agreed to. Once the grant has landed it
// keeps its own list, and what the target gets later costs it nothing.
func TestReviewIsBoundToWhatItGives(t *testing.T) {
	w := newWorld(t)
	a := w.activities()
	a.starter = &started{}
	w.open(3600)
	w.review(bob, access.ReviewApproved)
	follow(t, a)
	w.tables = `,"public.salaries"`
	follow(t, a)
	if got := approval(t, w); got.Met {
		t.Error("approved with a table that bob never saw")
	}
	w.review(bob, access.ReviewApproved)
	follow(t, a)
	if got := approval(t, w); !got.Met {
		t.Errorf("not approved after another look: %v", got)
	}
	w.merge()
	follow(t, a)
	w.tables = ""
	if err := a.stillApproved(t.Context(), w.grant(t, key1)); err != nil {
		t.Errorf("a landed grant does not open: %v", err)
	}
}

// TestReviewIsBoundToItsDifference: mallory has a difference from a branch of
// her own approved, in which nothing is to be seen, and then turns the pull
// request to main, or rewrites main.
func TestReviewIsBoundToItsDifference(t *testing.T) {
	w := newWorld(t)
	a := w.activities()
	a.starter = &started{}
	w.open(3600)
	w.review(bob, access.ReviewApproved)
	w.pulls[7].Retargeted = w.pulls[7].Reviews[0].Submitted // whole seconds: it may have been just after
	follow(t, a)
	if got := approval(t, w); got.Met {
		t.Error("approved by who saw another difference")
	}
	w.review(bob, access.ReviewApproved)
	w.pulls[7].Reviews[1].Submitted = w.pulls[7].Retargeted.Add(time.Second)
	follow(t, a)
	if got := approval(t, w); !got.Met {
		t.Errorf("not approved after another look: %v", got)
	}
}

// TestPoliciesAreBoundToTheirDifference: the same, with policies.
func TestPoliciesAreBoundToTheirDifference(t *testing.T) {
	for late, want := range map[time.Duration]string{0: "v1", -time.Second: "v2"} {
		w := newWorld(t)
		w.merged(8, "v1", "v2", true)
		w.pulls[8].Retargeted = w.pulls[8].Reviews[0].Submitted.Add(late)
		a := w.activities()
		a.starter, a.Rules.PolicyOwners = &started{}, []access.Principal{dba.Principal}
		reconcile(t, newSweeper(a))
		if got := string(w.adopted.Files[0].Content); got != want {
			t.Errorf("turned to main %s after the review: %s is in force, want %s", late, got, want)
		}
	}
}

// TestWhoLeftTheTeamDoesNotExtendForThemselves: a grant to a team is its
// members' of the day when it landed; one who leaves the team keeps it, and so
// agrees to no more of it.
func TestWhoLeftTheTeamDoesNotExtendForThemselves(t *testing.T) {
	w := newWorld(t)
	w.team = []access.User{bob, carol}
	w.people = []access.Person{{User: alice}, {User: carol}}
	a := w.activities()
	a.starter = &started{}
	w.open(3600)
	w.review(bob, access.ReviewApproved)
	w.merge()
	follow(t, a)
	if v, err := a.MintGrant(t.Context(), key1); err != nil || v.State != access.StateActive {
		t.Fatalf("got %s, error %v, want it active", v.State, err)
	}
	w.people = []access.Person{{User: alice}} // carol left
	w.review(carol, access.ReviewApproved)
	before := w.grant(t, key1)
	in := ExtendInput{Key: key1, By: carol, Why: "more", Until: before.NotAfter.Add(time.Hour)}
	if _, err := a.extend(t.Context(), in); access.CodeOf(err) != access.CodeDenied || !w.grant(t, key1).NotAfter.Equal(before.NotAfter) {
		t.Errorf("carol extends what she has by her own word: %v", err)
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

// TestTooManyFilesAreNotParsed: who may push to a branch could otherwise have
// thousands of files parsed that are made to be slow, again in each reading, and
// for each commit that somebody reviewed.
func TestTooManyFilesAreNotParsed(t *testing.T) {
	for folder, most := range map[string]int{"grants/mallory/": maxGrantsPerPR, "policies/": maxPolicyFiles} {
		w := newWorld(t)
		a := w.activities()
		w.open(3600)
		crowd := access.Tree{Commit: "crowd", Files: w.trees["head1"].Files}
		for i := range most + 1 {
			crowd.Files = append(crowd.Files, access.File{Path: fmt.Sprint(folder, i, ".hcl"), Blob: fmt.Sprint("blob", i), Content: []byte("[[[[")})
		}
		w.trees["crowd"] = crowd
		w.pulls[7].Head = "crowd"
		w.review(bob, access.ReviewApproved)
		follow(t, a)
		if r := w.lastReport(t); !strings.Contains(r.Refusal, "Split it") || w.judged != 0 {
			t.Errorf("%s: refused with %q after %d evaluations, want to be asked to split it after none", folder, r.Refusal, w.judged)
		}
		w.pulls[7].Head = "head1"
		w.review(carol, access.ReviewApproved)
		follow(t, a)
		if r := w.lastReport(t); r.Refusal != "" || w.judged != 1 {
			t.Errorf("%s: refused with %q after %d evaluations, want the new head's alone, whoever reviewed the one before", folder, r.Refusal, w.judged)
		}
	}
}

// tooManyPeople is more names than are looked up at once.
func tooManyPeople() (names []string) {
	for i := range MaxNames + 1 {
		names = append(names, fmt.Sprint("someone-", i))
	}
	return names
}

// TestTooManyNamesAreRefused in the pull request: its author was told nothing
// and it was read again for ever. What was reviewed before counts no more.
func TestTooManyNamesAreRefused(t *testing.T) {
	w := newWorld(t)
	a := w.activities()
	a.starter = &started{}
	w.open(3600)
	w.review(bob, access.ReviewApproved)
	w.named = tooManyPeople()
	follow(t, a)
	if r := w.lastReport(t); !strings.Contains(r.Refusal, "name 501 people and teams, and at most 500") || w.judged != 0 {
		t.Errorf("refused with %q after %d evaluations", r.Refusal, w.judged)
	}
	w.merge()
	follow(t, a)
	if g := w.grant(t, key1); g.State != access.StateRefused || !strings.Contains(g.Why, "501 people") {
		t.Errorf("landed as %s: %s", g.State, g.Why)
	}
}

// TestPoliciesThatNameTooManyStayOut, and the audit log says why.
func TestPoliciesThatNameTooManyStayOut(t *testing.T) {
	w := newWorld(t)
	a := w.activities()
	w.adopted, w.named = nil, tooManyPeople()
	a.Rules.AdoptFirst = true
	reconcile(t, newSweeper(a))
	if log := strings.Join(w.audits, "\n"); w.adopted != nil || !strings.Contains(log, "policies.refused base they name 501 people") {
		t.Errorf("in force is %v, the audit log is\n%s", w.adopted, log)
	}
}

// TestManyPeopleAreNarrowed: how many receive what is active is no bound.
func TestManyPeopleAreNarrowed(t *testing.T) {
	w, a, _ := active(t)
	w.mu.Lock()
	g := w.grants[key1]
	for _, name := range tooManyPeople() {
		g.Plan.Request.To = append(g.Plan.Request.To, access.Principal{Kind: access.KindUser, Name: name})
	}
	w.grants[key1] = g
	w.mu.Unlock()
	adoptOther(w, func(p *access.Plan) error { p.Role.Read = nil; return nil })
	reconcile(t, newSweeper(a))
	if g := w.grant(t, key1); g.State != access.StateRevoked {
		t.Errorf("the grant is %s", g.State)
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

// TestMergeBringsNothingElse: what merges by itself is what was agreed to, and
// nothing that mallory or alice pushed beside it after the approval.
func TestMergeBringsNothingElse(t *testing.T) {
	other := request("inc-0", 600)
	cases := map[string]struct {
		push   func(*world)
		merges int
	}{
		"the grant alone":           {func(*world) {}, 1},
		"a workflow file beside it": {func(w *world) { w.outside = map[string]bool{"head2": true} }, 0},
		"an open grant's file goes": {func(w *world) { w.without(other) }, 0},
		"nothing but its file goes": {func(w *world) {
			w.without(other)
			w.trees["head2"] = access.Tree{Commit: "head2", Files: []access.File{policyFile("v1")}}
		}, 0},
		"a closed grant's file goes": {func(w *world) { w.without(other); w.over(other.ID) }, 1},
		"a file that no grant has":   {func(w *world) { w.without(other); delete(w.grants, access.GrantKey{Repo: repoID, ID: other.ID}) }, 0},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			a := w.activities()
			a.Rules.AutoMerge = true
			w.open(600)
			w.review(bob, access.ReviewApproved)
			w.push("head2", request("inc-1", 600))
			c.push(w)
			if _, err := a.Follow(t.Context(), FollowInput{Ref: pr7}); err != nil {
				t.Fatal(err)
			}
			if w.merges != c.merges {
				t.Errorf("merged %d times, want %d", w.merges, c.merges)
			}
		})
	}
}

// without lets main have the file of an active grant, which the head has not.
func (w *world) without(r access.Request) {
	base := w.trees["base"]
	base.Files = append(slices.Clone(base.Files), grantFile(r))
	w.trees["base"] = base
	key := access.GrantKey{Repo: repoID, ID: r.ID}
	w.grants[key] = access.Grant{Key: key, State: access.StateActive, NotAfter: time.Now().Add(time.Hour)}
}

func (w *world) over(id string) {
	key := access.GrantKey{Repo: repoID, ID: id}
	g := w.grants[key]
	g.State, g.Closed = access.StateExpired, time.Now()
	w.grants[key] = g
}
