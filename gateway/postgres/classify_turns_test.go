package postgres

import (
	"strings"
	"sync/atomic"
	"testing"
)

// TestLargeTextsTakeTurns: of all sessions' large texts only some are read at
// once; small ones do not wait for them.
func TestLargeTextsTakeTurns(t *testing.T) {
	for range cap(largeTurns) {
		largeTurns <- struct{}{}
	}
	var free atomic.Bool
	done := make(chan error, 1)
	go func() {
		_, err := classify("select 1"+strings.Repeat(",1", largeText/2), &catalog{})
		if !free.Load() {
			t.Error("a large text did not wait for its turn")
		}
		done <- err
	}()
	for range 20 { // takes longer than the large one alone
		if _, err := classify("select 1"+strings.Repeat(",1", 1_000), &catalog{}); err != nil {
			t.Fatal(err)
		}
	}
	free.Store(true)
	for range cap(largeTurns) {
		<-largeTurns
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
