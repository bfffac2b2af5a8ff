package workflows

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
)

// oldLedger is a ledger of which more was seen than is in it.
type oldLedger struct {
	*world
	why   string
	began time.Time
}

func (l *oldLedger) Watch(context.Context) (string, error)    { return l.why, nil }
func (l *oldLedger) Began(context.Context) (time.Time, error) { return l.began, nil }
func (l *oldLedger) Rebase(_ context.Context, _, why string) error {
	l.why, l.began = "", l.clock()
	return nil
}

func TestOlderLedgerOnlyTakesAway(t *testing.T) {
	w, a, started := active(t)
	l := &oldLedger{world: w, why: "The ledger is older."}
	a.Ledger, started.grants = l, nil
	w.trees["next"], w.main = access.Tree{Commit: "next", Files: []access.File{policyFile("v2"), grantFile(request("inc-2", 60))}}, "next"
	s := newSweeper(a)
	if err := reconciled(t, s); err == nil || !strings.Contains(err.Error(), l.why) {
		t.Errorf("reconciling says %v", err)
	}
	if g := w.grant(t, key1); g.State != access.StateRevoked {
		t.Errorf("a grant whose file left main is %s", g.State)
	}
	if g, err := w.Grant(t.Context(), access.GrantKey{Repo: repoID, ID: "inc-2"}); err == nil {
		t.Errorf("inc-2 has a row: %s", g.Why)
	}
	if err := s.sweep(t.Context()); err != nil || len(started.grants) > 0 {
		t.Errorf("the sweep started %v, error %v", started.grants, err)
	}
	follow(t, a)
	if r := w.lastReport(t); r.Refusal != l.why {
		t.Errorf("the pull request says %q", r.Refusal)
	}
	if w.adopted.Files[0].Blob != "policy-v1" {
		t.Errorf("in force is %s", w.adopted.Files[0].Blob)
	}
}

// TestMergedBeforeTheLedger: what was merged before a person adopted the
// ledger may have been ended; it does not land, also where its file comes back.
func TestMergedBeforeTheLedger(t *testing.T) {
	for name, c := range map[string]struct {
		after time.Duration
		want  access.State
	}{"before": {time.Second, access.StateRefused}, "after": {-time.Second, access.StateLanded}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			a := w.activities()
			a.starter, a.Ledger = &started{}, &oldLedger{world: w, began: w.clock().Add(c.after)}
			w.open(3600)
			w.review(bob, access.ReviewApproved)
			w.merge()
			follow(t, a)
			if g := w.grant(t, key1); g.State != c.want {
				t.Errorf("state is %s (%s), want %s", g.State, g.Why, c.want)
			}
		})
	}
}

func TestAdoptLedger(t *testing.T) {
	w, a, _ := active(t)
	l := &oldLedger{world: w, why: "The ledger is older."}
	a.Ledger = l
	w.trees["next"], w.main = access.Tree{Commit: "next", Files: []access.File{policyFile("v1"), grantFile(request("inc-1", 3600)), grantFile(request("inc-2", 60))}}, "next"
	if _, err := a.AdoptLedger(t.Context(), AdoptInput{By: "admin"}); access.CodeOf(err) != access.CodeInvalid {
		t.Errorf("without a reason: %v", err)
	}
	in := AdoptInput{By: "admin", Why: "A restore."}
	got, err := a.AdoptLedger(t.Context(), in)
	if err != nil || !got.Older || !got.Began || strings.Join(got.Revoked, " ") != "inc-1" || strings.Join(got.Refused, " ") != "inc-2" || got.Policies != "" {
		t.Errorf("adopted %+v, error %v", got, err)
	}
	if got, err = a.AdoptLedger(t.Context(), in); err != nil || got.Began {
		t.Errorf("again: %+v, error %v", got, err)
	}
	w.adopted = nil
	if got, err = a.AdoptLedger(t.Context(), in); err != nil || got.Policies != "next" || w.adopted == nil {
		t.Errorf("without policies: %+v, error %v", got, err)
	}
}
