package workflows

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidegate/tidegate/access"
)

const aLink = "grants/mallory/x.hcl is a symbolic link"

// moves brings main to a commit with these files, which can't be read whole.
func (w *world) moves(commit string, files ...access.File) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trees[commit], w.main, w.links = access.Tree{Commit: commit, Files: files}, commit, map[string]string{commit: aLink}
}

// TestDeletedFileEndsBesideALink: mallory puts a link on main in the same push,
// or one before, that deletes alice's file.
func TestDeletedFileEndsBesideALink(t *testing.T) {
	for name, c := range map[string]struct {
		files []access.File
		want  access.State
	}{
		"deleted": {[]access.File{policyFile("v1")}, access.StateRevoked},
		"changed": {[]access.File{grantFile(request("inc-1", 7200)), policyFile("v1")}, access.StateRevoked},
		"same":    {[]access.File{grantFile(request("inc-1", 3600)), policyFile("v1")}, access.StateActive},
	} {
		t.Run(name, func(t *testing.T) {
			w, a, _ := active(t)
			w.moves("linked", c.files...)
			s := newSweeper(a)
			for range 2 {
				if err := reconciled(t, s); err == nil || !strings.Contains(err.Error(), aLink) {
					t.Errorf("got error %v, want that main can't be read", err)
				}
			}
			if g := w.grant(t, key1); g.State != c.want {
				t.Errorf("state is %s (%s), want %s", g.State, g.Why, c.want)
			}
			if n := strings.Count(strings.Join(w.audits, "\n"), "main.unreadable linked "+aLink); n != 1 {
				t.Errorf("the audit log says %d times that main can't be read, want once", n)
			}
		})
	}
}

// TestDeletedFileEndsThoughItsMergeIsGone: main was rewritten, and the merge
// with it.
func TestDeletedFileEndsThoughItsMergeIsGone(t *testing.T) {
	w, a, _ := active(t)
	delete(w.trees, "merge7")
	w.trees["other"], w.main = access.Tree{Commit: "other", Files: []access.File{grantFile(request("inc-1", 3600))}}, "other"
	s := newSweeper(a)
	if err := s.endDeleted(t.Context()); err != nil || w.grant(t, key1).State != access.StateActive {
		t.Fatalf("error %v, state %s, want it open: its bytes are on main", err, w.grant(t, key1).State)
	}
	delete(w.trees, "head1")
	w.trees["none"], w.main = access.Tree{Commit: "none"}, "none"
	if err := newSweeper(a).endDeleted(t.Context()); err != nil || w.grant(t, key1).State != access.StateRevoked {
		t.Errorf("error %v, state %s, want it revoked", err, w.grant(t, key1).State)
	}
}

// TestPullIsFollowedBesideALink: what main holds keeps no pull request from
// being read, and a merged one says why it does not land, until it does.
func TestPullIsFollowedBesideALink(t *testing.T) {
	w := newWorld(t)
	a, s := w.activities(), &started{}
	a.starter = s
	w.open(3600)
	w.review(bob, access.ReviewApproved)
	w.merge()
	w.links = map[string]string{"merge7": aLink}
	if err := newSweeper(a).reconcile(t.Context()); err == nil || len(s.hints) != 1 {
		t.Errorf("error %v, %d pull requests are followed, want one", err, len(s.hints))
	}
	if out := follow(t, a); out.Done || w.lastReport(t).Refusal != aLink {
		t.Errorf("done %t, refused with %q, want to be told of the link and read again", out.Done, w.lastReport(t).Refusal)
	}
	w.links = nil
	follow(t, a)
	if g := w.grant(t, key1); g.State != access.StateLanded {
		t.Errorf("state is %s (%s), want landed", g.State, g.Why)
	}
}

// TestLinkInAPullRequestIsSaid to whoever pushed it, and opens nothing.
func TestLinkInAPullRequestIsSaid(t *testing.T) {
	w := newWorld(t)
	a := w.activities()
	a.starter = &started{}
	w.open(3600)
	w.review(bob, access.ReviewApproved)
	w.links = map[string]string{"head1": aLink}
	follow(t, a)
	if r := w.lastReport(t); r.Refusal != aLink {
		t.Errorf("refused with %q, want %q", r.Refusal, aLink)
	}
	w.merge()
	follow(t, a)
	if g, err := w.Grant(t.Context(), key1); access.CodeOf(err) != access.CodeNotFound {
		t.Errorf("a grant that can't be read whole is %s", g.State)
	}
}

// crowd is main or a branch with many files, all of them slow to read.
func crowd(commit string, n int) access.Tree {
	t := access.Tree{Commit: commit, Files: []access.File{policyFile("v1")}}
	for i := range n {
		t.Files = append(t.Files, access.File{Path: fmt.Sprintf("grants/mallory/slow-%d.hcl", i), Blob: fmt.Sprint("blob", i), Content: []byte("[[[[")})
	}
	return t
}

// TestCrowdOnMainIsConsumedByName: thousands of files that are slow to read are
// read once, and later pull requests that bring their names open nothing.
func TestCrowdOnMainIsConsumedByName(t *testing.T) {
	w := newWorld(t)
	a := w.activities()
	a.starter = &started{}
	w.trees["crowd"], w.main = crowd("crowd", 300), "crowd"
	s := newSweeper(a)
	for range 3 {
		reconcile(t, s)
	}
	if w.judged != 300 || len(w.grants) != 300 {
		t.Errorf("%d files were read and %d ids consumed, want each of 300 once", w.judged, len(w.grants))
	}
	for key, g := range w.grants {
		if g.State != access.StateRefused || g.Plan.Request.File != "grants/mallory/"+key.ID+".hcl" {
			t.Fatalf("%s is %s of %s", key, g.State, g.Plan.Request.File)
		}
	}
}

// TestCrowdThatIsMergedIsNotRead: protection may let a merge through that
// Tidegate refuses.
func TestCrowdThatIsMergedIsNotRead(t *testing.T) {
	w := newWorld(t)
	a := w.activities()
	a.starter = &started{}
	w.open(3600)
	w.trees["crowd"] = crowd("crowd", maxGrantsPerPR+1)
	w.pulls[7].Head = "crowd"
	w.review(bob, access.ReviewApproved)
	w.merge()
	follow(t, a)
	if r := w.lastReport(t); !strings.Contains(r.Refusal, "Split it") || w.judged != 0 {
		t.Errorf("refused with %q after %d evaluations", r.Refusal, w.judged)
	}
	if n := len(w.grants); n != maxGrantsPerPR+1 {
		t.Errorf("%d ids are consumed, want all", n)
	}
}

// TestCrowdOfPoliciesIsNotRead again in each reading of main: whoever may merge
// needs nobody's approval for that.
func TestCrowdOfPoliciesIsNotRead(t *testing.T) {
	w := newWorld(t)
	a := w.activities()
	a.starter, a.Rules.PolicyOwners = &started{}, []access.Principal{dba.Principal}
	w.merged(8, "v1", "v2", true)
	for _, commit := range []string{"h8", "m8"} {
		tree := w.trees[commit]
		for i := range maxPolicyFiles {
			tree.Files = append(tree.Files, access.File{Path: fmt.Sprintf("policies/slow-%d.hcl", i), Blob: "slow"})
		}
		w.trees[commit] = tree
	}
	reconcile(t, newSweeper(a))
	if w.judged != 0 || w.adopted.Files[0].Blob != "policy-v1" {
		t.Errorf("%d evaluations, in force is %s", w.judged, w.adopted.Files[0].Blob)
	}
}

// TestAdoptingEndsFirst: what a restored ledger has open ends, whatever lies on
// main.
func TestAdoptingEndsFirst(t *testing.T) {
	w, a, _ := active(t)
	a.Ledger = &oldLedger{world: w, why: "it is old"}
	w.moves("linked", policyFile("v1"))
	out, err := a.AdoptLedger(t.Context(), AdoptInput{By: "admin", Why: "restored"})
	if err == nil || out.Began {
		t.Errorf("error %v, began %t, want to hear of the link", err, out.Began)
	}
	if g := w.grant(t, key1); g.State != access.StateRevoked {
		t.Errorf("state is %s, want revoked", g.State)
	}
}

// TestOneThatCannotEndHidesNoOther: errors are gathered.
func TestOneThatCannotEndHidesNoOther(t *testing.T) {
	w, a, _ := active(t)
	s := newSweeper(a)
	w.moves("linked", policyFile("v1"))
	w.Create(t.Context(), access.Grant{Key: access.GrantKey{Repo: repoID, ID: "inc-0"}, State: access.StateActive,
		Plan: access.Plan{Request: request("inc-0", 3600)}, Pull: access.Pull{Repo: repoID, Number: 7, Head: "lost"}})
	w.trees["linked"] = access.Tree{Commit: "linked", Files: []access.File{grantFile(request("inc-0", 3600))}}
	err := s.endDeleted(t.Context())
	if e := (*access.Error)(nil); !errors.As(err, &e) || e.Code != access.CodeNotFound {
		t.Errorf("got error %v, want that the lost head is said", err)
	}
	if g := w.grant(t, key1); g.State != access.StateRevoked {
		t.Errorf("state is %s, want revoked", g.State)
	}
}

// TestWhatCannotBeToldAlerts: the head that was approved can't be read, so
// whether main has its bytes is not known.
func TestWhatCannotBeToldAlerts(t *testing.T) {
	w, a, _ := active(t)
	reg := prometheus.NewPedanticRegistry()
	var err error
	if a.Signals, err = NewSignals(reg, nil); err != nil {
		t.Fatal(err)
	}
	s := newSweeper(a)
	head := w.trees["head1"]
	delete(w.trees, "head1")
	alerts := func(after time.Duration) float64 {
		t.Helper()
		later(w, after)
		if err := s.endDeleted(t.Context()); err == nil {
			t.Error("no error, want that the head can't be read")
		}
		return number(t, reg, "tidegate_control_alerts_total", "")
	}
	if n := alerts(0); n != 0 {
		t.Errorf("%v alerts at once, want none: GitHub may only be late", n)
	}
	if n := alerts(2 * time.Minute); n != 1 {
		t.Errorf("%v alerts after two minutes, want one", n)
	}
	alerts(3 * time.Minute)
	if n := strings.Count(strings.Join(w.audits, "\n"), "grant.alert"); n != 1 {
		t.Errorf("the audit log has it %d times, want once", n)
	}
	w.trees["head1"] = head
	if err := s.endDeleted(t.Context()); err != nil || len(s.doubted) > 0 || w.grant(t, key1).State != access.StateActive {
		t.Errorf("error %v, %d in doubt, state %s, want all well", err, len(s.doubted), w.grant(t, key1).State)
	}
}

// TestDeletedFileEndsThoughItCameBack: alice's approver deletes her file on main,
// and before anybody reads main mallory reverts that.
func TestDeletedFileEndsThoughItCameBack(t *testing.T) {
	for name, c := range map[string]struct {
		passed []access.File
		want   access.State
	}{
		"deleted":   {[]access.File{policyFile("v1")}, access.StateRevoked},
		"changed":   {[]access.File{grantFile(request("inc-1", 7200)), policyFile("v1")}, access.StateRevoked},
		"untouched": {[]access.File{grantFile(request("inc-1", 3600)), policyFile("v2")}, access.StateActive},
	} {
		t.Run(name, func(t *testing.T) {
			w, a, _ := active(t)
			s := newSweeper(a)
			look := func() {
				t.Helper()
				if err := s.endDeleted(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			look()
			w.trees["passed"] = access.Tree{Commit: "passed", Files: c.passed}
			w.trees["back"] = access.Tree{Commit: "back", Files: w.trees["merge7"].Files}
			w.main, w.gaps = "back", true
			look() // the log does not have it yet
			w.was, w.gaps = []string{"passed"}, false
			look()
			if g := w.grant(t, key1); g.State != c.want {
				t.Errorf("state is %s (%s), want %s", g.State, g.Why, c.want)
			}
		})
	}
}

// TestGrantIsNotMissedBeforeItLanded: main was without it, before.
func TestGrantIsNotMissedBeforeItLanded(t *testing.T) {
	w, a, _ := active(t)
	s := newSweeper(a)
	w.trees["passed"], w.was = access.Tree{Commit: "passed"}, []string{"passed"}
	if err := s.endDeleted(t.Context()); err != nil || w.grant(t, key1).State != access.StateActive {
		t.Fatalf("error %v, state %s, want it open", err, w.grant(t, key1).State)
	}
	w.was, w.gaps = nil, true
	if err := s.endDeleted(t.Context()); err != nil || s.watched.mark != 1 {
		t.Errorf("error %v, followed to %d, want no further than the log leads", err, s.watched.mark)
	}
	later(w, passedAgain+time.Second)
	if err := s.endDeleted(t.Context()); err != nil || s.watched.mark != 2 {
		t.Errorf("error %v, followed to %d, want on, with a line in the log", err, s.watched.mark)
	}
}
