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
	each  func(kind byte, msg []byte) (show bool)
	kept  *results               // where the rows are recorded, too
	late  atomic.Pointer[[]byte] // the error to show when the target was told to stop
	short bool                   // see shortReplies

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
	list     []*reply // with what was taken off it in front: see cut
	from     int
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

// shortReplies are those of messages that run nothing: most of those that a
// prepared statement needs. Nobody keeps one that was taken off the list.
var shortReplies = sync.Pool{New: func() any { return new(reply) }}

func shortReply(kind byte) *reply {
	r := shortReplies.Get().(*reply)
	r.kind, r.short = kind, true
	return r
}

// owed are the replies that are still to come.
func (l *replies) owed() []*reply { return l.list[l.from:] }

// push adds a reply before its message is sent. It is false when the bridge
// is ending.
func (l *replies) push(r *reply) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.owed()) >= maxReplies && !l.closed {
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
	return len(l.owed()) >= maxReplies
}

// settle waits until nothing is owed any more.
func (l *replies) settle() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.owed()) > 0 && !l.closed {
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
	return len(l.owed()) == 0
}

func (l *replies) head() *reply {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first()
}

func (l *replies) first() *reply {
	if l.from == len(l.list) {
		return nil
	}
	return l.list[l.from]
}

// pop takes off the first, and answers with the one after it.
func (l *replies) pop() *reply {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.list[l.from]
	r.end()
	l.cut(1)
	if r.short {
		*r = reply{}
		shortReplies.Put(r)
	}
	return l.first()
}

// fail drops what the target skips after an error, last first, so that each
// undo finds what it left.
func (l *replies) fail() {
	l.mu.Lock()
	defer l.mu.Unlock()
	owed := l.owed()
	n := slices.IndexFunc(owed, func(r *reply) bool { return r.kind == 'S' })
	if n < 0 {
		n, l.skipping = len(owed), true
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
	l.dropFirst(len(l.owed()), o)
}

func (l *replies) dropFirst(n int, o access.Outcome) {
	for _, r := range slices.Backward(l.owed()[:n]) {
		r.drop(o)
	}
	l.cut(n)
}

// cut forgets the first n: an idle session is not to keep what it last did.
// The same few bytes serve one query after another.
func (l *replies) cut(n int) {
	clear(l.owed()[:n])
	l.from += n
	switch rest := l.owed(); {
	case len(rest) == 0 && cap(l.list) > keptReplies:
		l.list, l.from = nil, 0
	case len(rest) == 0 || l.from >= keptReplies:
		kept := append(l.list[:0], rest...)
		clear(l.list[len(kept):])
		l.list, l.from = kept, 0
	}
	l.changed.Broadcast()
}
