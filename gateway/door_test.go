package gateway

import "testing"

// TestDoorForgetsWhatIsOver: through one SSH connection somebody may open
// sessions one after the other for days.
func TestDoorForgetsWhatIsOver(t *testing.T) {
	d, lasting := &door{server: &Server{}}, &session{}
	d.vouched(lasting)
	for range 10 {
		over := &session{}
		d.vouched(over)
		over.closed.Store(true)
	}
	if len(d.opened) != 2 || d.opened[0] != lasting {
		t.Errorf("it remembers %d sessions, want the one that is open and the last", len(d.opened))
	}
}
