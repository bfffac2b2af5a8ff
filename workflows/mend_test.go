package workflows

import (
	"errors"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
)

// TestBrokenGrantIsMadeAgain: once for each way in which it is broken, by one
// control or another, and not while nothing is wrong.
func TestBrokenGrantIsMadeAgain(t *testing.T) {
	w, a, _ := active(t)
	w.mu.Lock()
	began := w.clock()
	w.mu.Unlock()
	s, minutes := newSweeper(a), 0
	look := func(broken string, generation int) {
		t.Helper()
		minutes += 2
		w.mu.Lock()
		w.broken = broken
		w.clock = func() time.Time { return began.Add(time.Duration(minutes) * time.Minute) }
		w.mu.Unlock()
		if err := errors.Join(s.mendAll(t.Context()), renewed(t, a)); err != nil {
			t.Fatal(err)
		}
		g := w.grant(t, key1)
		if g.State != access.StateActive || g.Generation != generation || w.generation != generation || len(g.Backing) == 0 {
			t.Errorf("broken %q: the row is generation %d, %s, minted is %d; want %d", broken, g.Generation, g.State, w.generation, generation)
		}
	}
	look("", 1)
	look("public.users", 2)
	look("public.users", 2) // minting can't mend it: its sessions are left alone
	look("public.orders", 3)
	look("", 3)
	look("public.orders", 4)

	w.mu.Lock()
	w.broken = "public.users"
	w.mu.Unlock()
	if err := s.mendAll(t.Context()); err != nil || w.generation != 4 {
		t.Errorf("within a minute it looked again: generation %d, %v", w.generation, err)
	}
}

// TestMendingSurvivesATargetThatIsDown: the grant has nothing until another
// reading makes it again.
func TestMendingSurvivesATargetThatIsDown(t *testing.T) {
	w, a, _ := active(t)
	down := errors.New("connection refused")
	w.broken, w.failRevoke = "public.users", func(int) error { return down }
	if err := errors.Join(newSweeper(a).mendAll(t.Context()), renewed(t, a)); !errors.Is(err, down) {
		t.Fatalf("got %v", err)
	}
	if g := w.grant(t, key1); g.Generation != 2 || len(g.Backing) > 0 {
		t.Errorf("the row is generation %d with %d bytes of backing", g.Generation, len(g.Backing))
	}
	w.broken, w.failRevoke = "", nil
	adoptOther(w, func(*access.Plan) error { return nil })
	reconcile(t, newSweeper(a))
	if g := w.grant(t, key1); g.Generation != 2 || len(g.Backing) == 0 || w.generation != 2 {
		t.Errorf("after the target came back the row is generation %d, minted %d", g.Generation, w.generation)
	}
}
