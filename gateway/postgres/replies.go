package postgres

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway"
)

// maxReplies bounds what may be on its way. The target sends what it has when
// its buffer of 8 KiB is full, so fewer replies than this are always moving.
const maxReplies = 4096

// keptReplies is for how many an idle session keeps room.
const keptReplies = 64

// reply is what the target owes for one message that was sent to it.
type reply struct {
	kind    byte           // the message's type: Q P B C D E S
	opens   []gateway.Open // the operations that it runs, in order
	first   [1]gateway.Open
	instead []byte // the error to show in place of the target's
	hidden  bool   // the room asked, not the client
	loud    bool   // the client sees its error all the same
	streams bool   // rows or COPY data may come, and need no second look
	undo    func() // the message was not carried out
	done    func() // it was

	// steps are undo and done of each statement of a simple query, in order:
	// when a later one fails, PREPARE and its like stay done.
	steps []*reply

	// each looks at every message that is not the reply's end, and says
	// whether the client is to see it. One too large to be kept has no bytes.
	each func(kind byte, msg []byte) (show bool)
	kept *results               // where the rows are recorded, too
	late atomic.Pointer[[]byte] // the error to show when the target was told to stop

	rows, bytes int64 // of the running operation, not yet counted
	counted     int64
	over        chan struct{} // closed when nothing more comes
}

// finish closes the running operation.
func (r *reply) finish(o access.Outcome, tagRows int64) error {
	if len(r.opens) == 0 {
		return nil
	}
	r.count()
	open := r.opens[0]
	if more := tagRows - r.counted; more > 0 {
		open.Count(more, 0)
	}
	r.step(o.Status == "ok")
	r.opens, r.counted = r.opens[1:], 0
	return open.Close(o)
}

func (r *reply) count() {
	if r.kept != nil {
		r.bytes = 0 // what is recorded is counted there
		r.kept.record()
	}
	if len(r.opens) > 0 && r.rows+r.bytes > 0 {
		r.opens[0].Count(r.rows, r.bytes)
		r.counted += r.rows
	}
	r.rows, r.bytes = 0, 0
}

// expect takes on what the statements of a simple query do to the session's
// names.
func (r *reply) expect(effects []effect) error {
	for _, do := range effects {
		s := &reply{}
		r.steps = append(r.steps, s)
		if do == nil {
			continue
		}
		if err := do(s); err != nil {
			return err
		}
	}
	return nil
}

// step says how the running statement ended. Behind one that failed none runs.
func (r *reply) step(ok bool) {
	if !ok {
		r.revert()
	}
	if len(r.steps) > 0 {
		r.steps[0].carried()
		r.steps = r.steps[1:]
	}
}

// revert undoes what is left, last first, so that each undo finds what it left.
func (r *reply) revert() {
	for _, s := range slices.Backward(r.steps) {
		if s.undo != nil {
			s.undo()
		}
	}
	r.steps = nil
}

// carried says that the message was carried out.
func (r *reply) carried() {
	if r.done != nil {
		r.done()
	}
	r.done, r.undo = nil, nil
}

// drop ends a reply that will not come.
func (r *reply) drop(o access.Outcome) {
	for len(r.opens) > 0 {
		_ = r.finish(o, 0) // the session reports its recorder's failure itself
	}
	r.revert()
	if r.undo != nil {
		r.undo()
	}
	r.end()
}

func (r *reply) end() {
	if r.over != nil {
		close(r.over)
		r.over = nil
	}
}

// replies is the list of what the target owes, in order.
type replies struct {
	mu       sync.Mutex
	changed  *sync.Cond
	list     []*reply
	skipping bool // the target failed, and skips everything up to a Sync
	closed   bool
}

func newReplies() *replies {
	r := &replies{}
	r.changed = sync.NewCond(&r.mu)
	return r
}

var (
	skipped = access.Outcome{Status: "cancelled"}
	notSent = access.Outcome{Status: "refused"}
)

// push adds a reply before its message is sent. It is false when the bridge
// is ending.
func (l *replies) push(r *reply) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.list) >= maxReplies && !l.closed {
		l.changed.Wait()
	}
	switch {
	case l.closed:
		r.drop(skipped)
		return false
	case l.skipping && r.kind != 'S':
		r.drop(skipped)
		return true
	}
	l.skipping = false
	l.list = append(l.list, r)
	return true
}

func (l *replies) full() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.list) >= maxReplies
}

// settle waits until nothing is owed any more.
func (l *replies) settle() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.list) > 0 && !l.closed {
		l.changed.Wait()
	}
}

func (l *replies) isSkipping() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.skipping
}

func (l *replies) empty() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.list) == 0
}

func (l *replies) head() *reply {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.list) == 0 {
		return nil
	}
	return l.list[0]
}

func (l *replies) pop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list[0].end()
	l.cut(1)
}

// fail drops what the target skips after an error, last first, so that each
// undo finds what it left.
func (l *replies) fail() {
	l.mu.Lock()
	defer l.mu.Unlock()
	sync := slices.IndexFunc(l.list, func(r *reply) bool { return r.kind == 'S' })
	n := sync
	if sync < 0 {
		n, l.skipping = len(l.list), true
	}
	l.dropFirst(n, skipped)
}

// close drops everything; nothing is added any more.
func (l *replies) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.changed.Broadcast()
}

// abandon ends what no reply will end. Only when nobody walks the list.
func (l *replies) abandon(o access.Outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropFirst(len(l.list), o)
}

func (l *replies) dropFirst(n int, o access.Outcome) {
	for _, r := range slices.Backward(l.list[:n]) {
		r.drop(o)
	}
	l.cut(n)
}

// cut forgets the first n: an idle session is not to keep what it last did.
func (l *replies) cut(n int) {
	clear(l.list[:n])
	switch {
	case n < len(l.list):
		l.list = l.list[n:]
	case cap(l.list) > keptReplies:
		l.list = nil
	default:
		l.list = l.list[:0] // the same few bytes serve one query after another
	}
	l.changed.Broadcast()
}
