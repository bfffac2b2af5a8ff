package workflows

import (
	"slices"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/access"
)

// becomesMallorys has the team's slug mean a team that mallory made.
func (w *world) becomesMallorys() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.teamID, w.team = 78, []access.User{mallory}
}

// TestNameThatMovedCountsForNobody: acme/dba was renamed, and mallory, as a
// member of the organization, made a team of that name.
func TestNameThatMovedCountsForNobody(t *testing.T) {
	w := newWorld(t)
	a := w.activities()
	a.starter, a.Rules.PolicyOwners = &started{}, []access.Principal{dba.Principal}
	reconcile(t, newSweeper(a))
	w.open(3600)
	follow(t, a) // the name is seen for the first time
	w.becomesMallorys()
	w.review(mallory, access.ReviewApproved)
	for range 2 {
		follow(t, a)
	}
	if got := approval(t, w); got.Met {
		t.Error("mallory approves as a database owner")
	}
	if owners, err := a.parties(t.Context(), a.Rules.PolicyOwners); err != nil || len(owners) != 0 {
		t.Errorf("owners of the policies are %v, error %v, want nobody", owners, err)
	}
	if n := strings.Count(strings.Join(w.audits, "\n"), "name.refused team acme/dba"); n != 1 {
		t.Errorf("the audit log says it %d times, want once", n)
	}
}

// TestNameIsTakenAnew by a person, or by policies in which it is new.
func TestNameIsTakenAnew(t *testing.T) {
	for name, take := range map[string]func(*testing.T, *world, *Activities){
		"a person": func(t *testing.T, w *world, a *Activities) {
			l := &oldLedger{world: w}
			a.Ledger = l
			if out, err := a.AdoptLedger(t.Context(), AdoptInput{By: "admin", Why: "The team was made anew."}); err != nil || out.Began || !slices.Equal(out.Names, []string{"team acme/dba is 78"}) {
				t.Errorf("adopted %+v, error %v, want the one name alone", out, err)
			}
			if !strings.Contains(strings.Join(w.audits, "\n"), "name.taken team acme/dba") {
				t.Errorf("the audit log does not say which name: %q", w.audits)
			}
		},
		"policies": func(t *testing.T, w *world, a *Activities) {
			w.adopted = &access.Tree{Commit: "none"} // which name nobody
			if done, err := a.adopt(t.Context(), w.trees["base"], adoption{why: "agreed"}); err != nil || !done {
				t.Errorf("adopted %t, error %v", done, err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			a := w.activities()
			see := func() (n int) {
				t.Helper()
				found, err := a.parties(t.Context(), []access.Principal{dba.Principal})
				if err != nil {
					t.Fatal(err)
				}
				return len(found)
			}
			first := see()
			w.becomesMallorys()
			moved := see()
			take(t, w, a)
			if got := see(); first != 1 || moved != 0 || got != 1 {
				t.Errorf("the team is found %d times at first, %d when it moved and %d when it was taken anew, want 1, 0, 1", first, moved, got)
			}
		})
	}
}
