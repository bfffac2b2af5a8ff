package gateway

import "sync/atomic"

// turn lets one after another do something that may hang: unlike a mutex it
// can be given up. Alone it costs an addition.
type turn struct {
	wanted atomic.Int32  // by whoever has it, and by those who wait
	free   chan struct{} // it is handed to one who waits
}

func newTurn() turn { return turn{free: make(chan struct{}, 1)} }

// take waits for the turn. It is false once gone is closed: then nobody waits
// any more, and whoever has the turn may never give it back.
func (t *turn) take(gone <-chan struct{}) bool {
	if t.wanted.Add(1) == 1 {
		return true
	}
	select {
	case <-t.free:
		return true
	case <-gone:
		return false
	}
}

func (t *turn) give() {
	if t.wanted.Add(-1) > 0 {
		t.free <- struct{}{}
	}
}
