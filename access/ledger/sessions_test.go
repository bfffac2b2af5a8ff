package ledger

import (
	"fmt"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
)

func testSessions(t *testing.T, r *rig) {
	g := r.active(t, "a")
	s := access.SessionInfo{ID: "s1", Grant: g.Key, Person: access.User{ID: 1, Login: "alice"}, Started: r.Now(), NotAfter: g.NotAfter}
	check(t, r.OpenSession(t.Context(), s))
	wantCode(t, "the same id again", r.OpenSession(t.Context(), s), access.CodeConflict)
	r.pass(time.Second)
	s2 := s
	s2.ID, s2.Started = "s2", r.Now()
	check(t, r.OpenSession(t.Context(), s2))
	check(t, r.CloseSession(t.Context(), "s1", "the client\x00left"))
	s.Ended = r.Now()
	r.pass(time.Second)
	check(t, r.CloseSession(t.Context(), "s1", "again"))
	wantCode(t, "unknown session", r.CloseSession(t.Context(), "s9", ""), access.CodeNotFound)
	got, err := r.Sessions(t.Context(), g.Key)
	check(t, err)
	equal(t, "of the grant", got, []access.SessionInfo{s, s2})
	got, err = r.Sessions(t.Context(), access.GrantKey{Repo: 1, ID: "b"})
	check(t, err)
	equal(t, "of another grant", got, []access.SessionInfo(nil))
	got, err = r.ListSessions(t.Context())
	check(t, err)
	equal(t, "all, newest first", got, []access.SessionInfo{s2, s})
	g.State = access.StateRevoked
	_, err = r.Update(t.Context(), g)
	check(t, err)
	s.ID = "s3"
	wantCode(t, "under an ended grant", r.OpenSession(t.Context(), s), access.CodeEnded)
	s.Grant.ID = "b"
	wantCode(t, "under no grant", r.OpenSession(t.Context(), s), access.CodeNotFound)
	check(t, r.VerifyAudit(t.Context()))
}

func testHeads(t *testing.T, r *rig) {
	head := func(segment uint64, hash string) access.Head {
		return access.Head{Session: "s1", Segment: segment, Hash: hash, Time: r.Now()}
	}
	check(t, r.Anchor(t.Context(), head(0, "h0")))
	check(t, r.Anchor(t.Context(), head(2, "h2"))) // heads of quick segments may be left out
	check(t, r.Anchor(t.Context(), head(2, "h2")))
	wantCode(t, "another hash", r.Anchor(t.Context(), head(2, "other")), access.CodeConflict)
	wantCode(t, "a segment between", r.Anchor(t.Context(), head(1, "h1")), access.CodeConflict)
	wantCode(t, "no number", r.Anchor(t.Context(), head(1<<63, "h")), access.CodeInvalid)
	wantCode(t, "no hash", r.Anchor(t.Context(), head(3, "")), access.CodeInvalid)
	last := head(3, "h3")
	last.Sealed = true
	check(t, r.Anchor(t.Context(), last))
	wantCode(t, "after the seal", r.Anchor(t.Context(), head(4, "h4")), access.CodeConflict)
	wantCode(t, "unsealed", r.Anchor(t.Context(), head(3, "h3")), access.CodeConflict)
	got, err := r.Heads(t.Context(), "s1")
	check(t, err)
	equal(t, "heads", got, []access.Head{head(0, "h0"), head(2, "h2"), last})
}

func testAdopted(t *testing.T, r *rig) {
	_, err := r.Adopted(t.Context())
	wantCode(t, "nothing adopted", err, access.CodeNotFound)
	for _, commit := range []string{"c1", "c2"} {
		tree := access.Tree{Commit: commit, Files: []access.File{{Path: "policies/a.hcl", Content: []byte("\x00\xff")}}}
		check(t, r.SetAdopted(t.Context(), tree, nil, ""))
		got, err := r.Adopted(t.Context())
		check(t, err)
		equal(t, "adopted", got, tree)
	}
	huge := access.Tree{Files: []access.File{{Content: make([]byte, maxRow)}}}
	check(t, r.SetAdopted(t.Context(), access.Tree{Commit: "c9"}, nil, "pr-9"))
	wantCode(t, "a second time", r.SetAdopted(t.Context(), access.Tree{Commit: "c8"}, nil, "pr-9"), access.CodeConflict)
	if got, err := r.Adopted(t.Context()); err != nil || got.Commit != "c9" {
		t.Errorf("adopted is %s, error %v, want c9", got.Commit, err)
	}
	wantCode(t, "a huge tree", r.SetAdopted(t.Context(), huge, nil, ""), access.CodeTooLarge)
}

func testReviews(t *testing.T, r *rig) {
	first := access.Review{ID: 3, User: access.User{ID: 5, Login: "bob"}, State: access.ReviewApproved, PolicyDigest: "p1", Submitted: r.Now()}
	later := first
	later.PolicyDigest = "p2"
	for _, seen := range []access.Review{first, later} {
		got, err := r.SeeReview(t.Context(), 1, 7, seen)
		check(t, err)
		equal(t, "first sight", got, first)
	}
	got, err := r.SeeReview(t.Context(), 1, 8, later)
	check(t, err)
	equal(t, "of another pull request", got, later)
}

func testPushers(t *testing.T, r *rig) {
	alice, bob := access.User{ID: 9, Login: "alice"}, access.User{ID: 5, Login: "bob"}
	check(t, r.Pushed(t.Context(), 1, []string{"c1", "c2"}, alice))
	check(t, r.Pushed(t.Context(), 1, []string{"c1", "c1"}, alice))
	check(t, r.Pushed(t.Context(), 1, []string{"c1"}, bob))
	check(t, r.Pushed(t.Context(), 1, nil, bob))
	check(t, r.Pushed(t.Context(), 2, []string{"c3"}, access.User{ID: 6, Login: "carol"}))
	commits := []string{"c3", "c1", "c2"}
	for i := range 2 * perQuery {
		commits = append(commits, fmt.Sprint("x", i))
	}
	got, err := r.Pushers(t.Context(), 1, append(commits, "c1"))
	check(t, err)
	equal(t, "pushers", got, map[string][]access.User{"c1": {bob, alice}, "c2": {alice}})
	got, err = r.Pushers(t.Context(), 1, nil)
	check(t, err)
	equal(t, "of nothing", got, map[string][]access.User{})
}

func testOnce(t *testing.T, r *rig) {
	for _, c := range []struct {
		kind, id string
		first    bool
	}{{"delivery", "1", true}, {"delivery", "1", false}, {"command", "1", true}, {"delivery", "2", true}} {
		first, err := r.Once(t.Context(), c.kind, c.id)
		check(t, err)
		done, err := r.Done(t.Context(), c.kind, c.id)
		check(t, err)
		if unknown, err := r.Done(t.Context(), c.kind, c.id+"x"); err != nil || unknown || !done {
			t.Errorf("%s %s: got done %v and %v for another, error %v, want true and false", c.kind, c.id, done, unknown, err)
		}
		if first != c.first {
			t.Errorf("%s %s: got %v, want %v", c.kind, c.id, first, c.first)
		}
	}
	id := access.Identity{Provider: "okta", Issuer: "https://i", Subject: "1", Email: "Alice@acme.test", EmailVerified: true}
	check(t, r.Pin(t.Context(), id))
	id.Email = "alice@ACME.test"
	check(t, r.Pin(t.Context(), id))
	id.Subject = "2"
	wantCode(t, "another subject", r.Pin(t.Context(), id), access.CodeDenied)
	for _, subject := range []string{"3", "4"} {
		check(t, r.Pin(t.Context(), access.Identity{Provider: "okta", Subject: subject}))
		check(t, r.Pin(t.Context(), access.Identity{Provider: "okta", Subject: subject, Email: "bob@acme.test"}))
	}
}
