package workflows

import (
	"context"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
)

// unsigned is a ledger whose held operations no gateway signed.
type unsigned struct{ Ledger }

func (unsigned) Held(context.Context, string) (access.Held, error) {
	return access.Held{}, access.Errorf(access.CodeDenied, "not as a gateway wrote it")
}

// TestUnsignedHoldIsNotShown: who waits for it hears no, and the workflow ends.
func TestUnsignedHoldIsNotShown(t *testing.T) {
	w, a, _ := active(t)
	h := hold(t, w, w.clock().Add(time.Minute))
	shown := len(w.shown)
	a.Ledger = unsigned{a.Ledger}
	for range 2 { // the second time it is over already
		if v, err := a.ShowHeld(t.Context(), h.ID); err != nil || v.Open {
			t.Errorf("got %+v, %v, want it closed", v, err)
		}
	}
	if got, err := w.Held(t.Context(), h.ID); err != nil || got.State != access.HeldCancelled {
		t.Errorf("got %s, %v, want it cancelled", got.State, err)
	}
	if len(w.shown) != shown {
		t.Error("it was shown")
	}
}
