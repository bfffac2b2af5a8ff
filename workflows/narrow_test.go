package workflows

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
)

// adoptOther brings policies into force that make of each plan what today says.
func adoptOther(w *world, today func(*access.Plan) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.today = today
	w.adopted = &access.Tree{Files: []access.File{policyFile("v2")}}
}

func TestPoliciesNarrowAnActiveGrant(t *testing.T) {
	mask := access.Mask{Name: "mail", Columns: []string{"*.email"}, With: access.MaskWith{Kind: access.MaskNull}}
	for name, c := range map[string]struct {
		today      func(*access.Plan) error
		state      access.State
		generation int           // of the row
		left       time.Duration // of the hour
	}{
		"nothing that it touches": {func(*access.Plan) error { return nil }, access.StateActive, 1, time.Hour},
		"a mask more":             {func(p *access.Plan) error { p.Masks = append(p.Masks, mask); return nil }, access.StateActive, 2, time.Hour},
		"a role that reads less":  {func(p *access.Plan) error { p.Role.Read = []string{"public.orders"}; return nil }, access.StateActive, 2, time.Hour},
		"nothing left":            {func(p *access.Plan) error { p.Role.Read = nil; return nil }, access.StateRevoked, 1, 0},
		"shorter":                 {func(p *access.Plan) error { p.Role.Longest = 1800; return nil }, access.StateActive, 1, 30 * time.Minute},
		"too short by now":        {func(p *access.Plan) error { p.Role.Longest = 1; return nil }, access.StateRevoked, 1, 0},
		"the role gone":           {func(*access.Plan) error { return errors.New("no such role") }, access.StateRevoked, 1, 0},
		"the person gone":         {func(p *access.Plan) error { p.People = []access.Person{{User: carol}}; return nil }, access.StateRevoked, 1, 0},
		"another address":         {func(p *access.Plan) error { p.Target.Address = "elsewhere:5432/x"; return nil }, access.StateRevoked, 1, 0},
		"sessions end when stale": {func(p *access.Plan) error { p.Target.WhenStale = "end"; return nil }, access.StateActive, 1, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			w, a, _ := active(t)
			before := w.grant(t, key1)
			w.mu.Lock()
			w.clock = func() time.Time { return time.Now().Add(2 * time.Second) }
			w.mu.Unlock()
			adoptOther(w, c.today)
			s := newSweeper(a)
			reconcile(t, s)
			g := w.grant(t, key1)
			if g.State != c.state || g.Generation != c.generation || g.Digest != before.Digest {
				t.Errorf("grant is %s, generation %d (%s); want %s, %d and the digest that was approved", g.State, g.Generation, g.Why, c.state, c.generation)
			}
			if c.state != access.StateActive {
				if !strings.Contains(g.Why, "policies changed") {
					t.Errorf("why %q", g.Why)
				}
				return
			}
			if got := g.NotAfter.Sub(g.NotBefore); got != c.left || !w.validUntil.Equal(g.NotAfter) {
				t.Errorf("lasts %s, want %s; the credential until %s, want %s", got, c.left, w.validUntil, g.NotAfter)
			}
			if w.generation != c.generation || !w.minted[key1] || len(g.Backing) == 0 || w.revokes != c.generation-1 {
				t.Errorf("minted is generation %d after %d revokes, want %d", w.generation, w.revokes, c.generation)
			}
			mints, seq := w.mints, g.Sequence
			reconcile(t, s)
			reconcile(t, newSweeper(a)) // another control
			if again := w.grant(t, key1); w.mints != mints || again.Sequence != seq {
				t.Errorf("narrowed again: %d mints after %d, sequence %d after %d", w.mints, mints, again.Sequence, seq)
			}
		})
	}
}

// TestNarrowingSurvivesATargetThatIsDown: while the new access can't be made
// the old one is not given either, and it is tried again, by any control.
func TestNarrowingSurvivesATargetThatIsDown(t *testing.T) {
	w, a, _ := active(t)
	adoptOther(w, func(p *access.Plan) error { p.Role.Read = []string{"public.orders"}; return nil })
	down := errors.New("connection refused")
	w.failRevoke = func(int) error { return down }
	if err := reconciled(t, newSweeper(a)); !errors.Is(err, down) {
		t.Fatalf("got %v, want the target's error", err)
	}
	if g := w.grant(t, key1); g.State != access.StateActive || g.Generation != 2 || len(g.Backing) != 0 {
		t.Errorf("with the target down: %s, generation %d, %d bytes of backing; want nothing that opens", g.State, g.Generation, len(g.Backing))
	}
	w.failRevoke, w.failMint = nil, func(int) error { return down }
	if err := reconciled(t, newSweeper(a)); !errors.Is(err, down) {
		t.Fatalf("got %v, want the target's error", err)
	}
	w.failMint = nil
	reconcile(t, newSweeper(a))
	if g := w.grant(t, key1); g.Generation != 2 || len(g.Backing) == 0 || w.generation != 2 {
		t.Errorf("with the target back: generation %d, minted %d", g.Generation, w.generation)
	}
}

// TestGrantThatEndsWhileItIsMadeAgain leaves nothing behind.
func TestGrantThatEndsWhileItIsMadeAgain(t *testing.T) {
	w, a, _ := active(t)
	adoptOther(w, func(p *access.Plan) error { p.Role.Read = []string{"public.orders"}; return nil })
	w.onMint = func() {
		w.onMint = nil
		if _, err := a.closeRow(t.Context(), CloseInput{Key: key1, Why: "enough"}, byWorkflow); err != nil {
			t.Error(err)
		}
	}
	reconcile(t, newSweeper(a))
	wantGone(t, w, access.StateRevoked)
}

// TestYieldingGrantIsMadeLater: not before its moment, and under the policies
// that came into force meanwhile; then by itself, within seconds (control's
// loop "renew"), the forge being asked for nothing.
func TestYieldingGrantIsMadeLater(t *testing.T) {
	w, a, _ := active(t)
	until := w.clock().Add(10 * time.Minute)
	_, err := a.change(t.Context(), key1, func(row *access.Grant) (bool, error) {
		row.Generation, row.Backing, row.Yields = row.Generation+1, nil, until
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	adoptOther(w, func(p *access.Plan) error { p.Role.Read = []string{"public.orders"}; return nil })
	s := newSweeper(a)
	reconcile(t, s)
	if g := w.grant(t, key1); w.mints != 1 || g.Generation != 2 {
		t.Errorf("while its target yields: %d mints, generation %d; want it left alone", w.mints, g.Generation)
	}
	later(w, 10*time.Minute)
	if err := renewed(t, a); err != nil {
		t.Fatal(err)
	}
	if g := w.grant(t, key1); len(g.Backing) == 0 || !g.Yields.IsZero() || w.generation != 2 {
		t.Errorf("after its moment: %d bytes of backing, yields %s, minted %d", len(g.Backing), g.Yields, w.generation)
	}
	reconcile(t, s)
	if g := w.grant(t, key1); g.Generation != 3 || len(g.Plan.Role.Read) != 1 {
		t.Errorf("afterwards it is generation %d and reads %v; want what the policies of today give", g.Generation, g.Plan.Role.Read)
	}
}
