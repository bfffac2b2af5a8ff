package ssh

import "sync"

// tally bounds how many of something there are at once: in all, and of each
// owner.
type tally struct {
	all, each int // all 0: not bounded

	mu  sync.Mutex
	sum int
	of  map[string]int
}

func newTally(all, each int) *tally { return &tally{all: all, each: each, of: map[string]int{}} }

// take counts one more, if there is room for it.
func (t *tally) take(owner string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all > 0 && t.sum >= t.all || t.of[owner] >= t.each {
		return false
	}
	t.sum++
	t.of[owner]++
	return true
}

// give takes n of them away again.
func (t *tally) give(owner string, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sum -= n
	if t.of[owner] -= n; t.of[owner] <= 0 {
		delete(t.of, owner)
	}
}
