package gateway

import (
	"sync"
	"testing"
	"testing/synctest"
)

func TestTurnsComeOneByOne(t *testing.T) {
	turn, inside := newTurn(), 0
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 1000 {
				if !turn.take(nil) {
					t.Error("a turn was given up that nobody asked to be")
				}
				inside++ // the race detector looks on
				turn.give()
			}
		})
	}
	all.Wait()
	if inside != 8000 {
		t.Errorf("%d turns, want 8000", inside)
	}
}

// Whoever has the turn may hang: those who wait are told to go, then and later,
// and nothing blocks should it come back after all.
func TestATurnThatHangsIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turn, gone := newTurn(), make(chan struct{})
		if !turn.take(gone) {
			t.Fatal("the first has no turn")
		}
		left := make(chan bool)
		for range 3 {
			go func() { left <- turn.take(gone) }()
		}
		synctest.Wait()
		close(gone)
		for range 3 {
			if <-left {
				t.Error("somebody has a turn that was never given back")
			}
		}
		if turn.take(gone) {
			t.Error("somebody has a turn after all was given up")
		}
		turn.give()
		if turn.take(gone) {
			turn.give() // either is right: nothing is recorded any more
		}
	})
}
