package postgres

import "sync"

// maxQueued bounds what was read of a client and not yet handled; one more
// message may be added to it.
const maxQueued = 1 << 20

// queue holds a client's messages while an earlier one waits for a person, so
// that the reader goes on and sees the client leave.
type queue struct {
	mu      sync.Mutex
	changed *sync.Cond
	frames  []frame
	bytes   int
	closed  bool
}

func newQueue() *queue {
	q := &queue{}
	q.changed = sync.NewCond(&q.mu)
	return q
}

// push adds a message; into a closed queue it is lost.
func (q *queue) push(f frame) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.bytes >= maxQueued && !q.closed {
		q.changed.Wait()
	}
	q.frames, q.bytes = append(q.frames, f), q.bytes+cost(f)
	if q.closed {
		q.frames, q.bytes = nil, 0
	}
	q.changed.Broadcast()
}

func cost(f frame) int { return len(f.body) + 64 }

// pop waits for a message; false when the queue was closed.
func (q *queue) pop() (frame, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.frames) == 0 && !q.closed {
		q.changed.Wait()
	}
	if q.closed {
		return frame{}, false
	}
	f := q.frames[0]
	q.frames, q.bytes = q.frames[1:], q.bytes-cost(f)
	q.changed.Broadcast()
	return f, true
}

func (q *queue) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.frames) == 0
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed, q.frames, q.bytes = true, nil, 0
	q.changed.Broadcast()
}
