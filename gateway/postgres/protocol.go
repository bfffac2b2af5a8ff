package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway"
	"github.com/tidegate/tidegate/gateway/postgres/poll"
)

// Waits for a client.
const (
	lingerTime   = time.Second      // until it has read the last words
	copyPatience = 10 * time.Second // until a COPY is over that something else follows
)

// errLeft says that the client went away by itself.
var errLeft = errors.New("the client left")

// bridge joins one client and one target.
type bridge struct {
	room     *Room
	log      *slog.Logger
	session  gateway.Session
	plan     *planned
	client   net.Conn
	line     *poll.Conn // below client's TLS
	in       *intake    // of what the client sends
	back     *intake    // of what the target sends
	out      *outlet
	up       *upstream
	key      cancelKey
	encoding string // of the target's database

	replies        *replies
	stmts, portals *names

	ctx     context.Context // ends when the bridge must; its cause is why
	end     context.CancelCauseFunc
	hurried context.Context // has ended: who is given it does not wait

	leaving  atomic.Bool    // the client has said goodbye
	draining atomic.Bool    // the grant is over, and what runs may finish
	status   atomic.Uint32  // of the target's transaction, as it said last: I, T or E
	crash    atomic.Value   // what a turn panicked with
	talk     sync.WaitGroup // warnings that are being said
	timing   sync.WaitGroup // limits of time that run beside the client's messages

	mu      sync.Mutex
	waiting context.CancelFunc // ends the Admit that runs
	ran     history            // what ran in the transaction that is open

	// Of the turns that walk the target's messages.
	current *reply   // the first of replies, or nil: not looked up
	large   int64    // bytes to come of a message that is not kept whole
	hiding  bool     // and is not shown
	masking *masking // of what the grant's masks detect; nil: they detect nothing

	// Of the turns that handle the client's messages.
	reading bool   // and not only discard them
	discard bool   // an extended message was refused: drop up to the Sync
	copying *reply // a COPY FROM STDIN that the client feeds
	copies  int    // how many more of them the text has
	cursors cursors
	made    made
	shadows shadows

	declared map[string]access.Facts // cursors of the text that is being read
	ahead    ahead                   // and its prepared statements
	noted    string                  // the last notice
	locks    int                     // LOCK TABLE so far
}

func newBridge(r *Room, client net.Conn, s gateway.Session, up *upstream, plan *planned) *bridge {
	b := &bridge{
		room: r, log: r.log.With("session", s.Info().ID, "grant", s.Info().Grant.String()), session: s, plan: plan, client: client, up: up,
		in: newIntake(client), back: newIntake(up.conn), out: newOutlet(client), replies: newReplies(), reading: true,
		stmts: newNames('S', "tg_s"), portals: newNames('P', "tg_p"), encoding: up.params["server_encoding"],
	}
	if m := s.Masker(); m != nil {
		b.masking = &masking{masker: m}
	}
	return b
}

// welcome says that the session is ready, as the target did.
func (b *bridge) welcome(keySize int) error {
	b.key = b.room.keys.add(b, keySize)
	defer func() { b.up.params = nil }()
	msg := message('R', []byte{0, 0, 0, 0})
	for _, name := range slices.Sorted(maps.Keys(b.up.params)) {
		msg = append(msg, message('S', []byte(name+"\x00"+b.up.params[name]+"\x00"))...)
	}
	msg = append(msg, message('K', []byte(b.key))...)
	msg = append(msg, message('Z', []byte{'I'})...)
	if _, err := b.client.Write(msg); err != nil {
		b.room.keys.remove(b.key)
		return fmt.Errorf("welcome client: %w", err)
	}
	return nil
}

// run has messages carried both ways until something ends it.
func (b *bridge) run(parent context.Context) error {
	defer b.room.keys.remove(b.key)
	_ = b.client.SetDeadline(time.Time{})
	b.ctx, b.end = context.WithCancelCause(parent)
	defer b.end(nil)
	hurried, over := context.WithCancel(b.ctx)
	over()
	b.hurried = hurried
	stop := context.AfterFunc(b.session.Context(), func() { b.end(context.Cause(b.session.Context())) })
	defer stop()

	if err := b.start(); err != nil {
		b.end(&fatal{code: stateUnavailable, message: "The gateway could not watch this connection. Try again in a moment.", cause: err})
	}
	b.wait()
	b.shut(context.Cause(b.ctx))
	b.talk.Wait()
	b.timing.Wait()
	cause := context.Cause(b.ctx)
	b.replies.abandon(access.Outcome{Status: "cut"})
	err := errors.Join(worthLogging(cause), b.close(cause))
	if p := b.crash.Load(); p != nil {
		panic(p) // here the server recovers, counts and logs it
	}
	return err
}

func (b *bridge) close(cause error) error {
	b.room.closing <- struct{}{}
	defer func() { <-b.room.closing }()
	return b.session.Close(reason(cause))
}

// start has both sides read, in turns.
func (b *bridge) start() error {
	for _, side := range []struct {
		line *poll.Conn
		conn net.Conn
		in   *intake
	}{{b.line, b.client, b.in}, {b.up.line, b.up.conn, b.back}} {
		taken, err := side.line.Take()
		if err != nil {
			return err
		}
		if side.in.brief = taken; taken && side.conn != net.Conn(side.line) {
			side.line.Gather() // TLS asks for little at once
			side.in.gather = true
		}
	}
	return errors.Join(b.line.Start(b.contained(b.readClient)), b.up.line.Start(b.contained(b.readTarget)))
}

// contained lets a turn that panics end its own session alone.
func (b *bridge) contained(turn func() bool) func() bool {
	return func() (over bool) {
		defer contain(func(words string) {
			b.crash.CompareAndSwap(nil, words)
			b.end(access.Errorf(access.CodeInternal, "The gateway failed; the session ends."))
			over = true
		})
		return turn()
	}
}

// shut says the last words and closes both sides. What still runs at the
// target is cancelled: a closed connection alone would not stop it.
func (b *bridge) shut(cause error) {
	b.replies.close()
	var work sync.WaitGroup
	if !b.replies.empty() {
		work.Go(func() {
			if err := b.up.cancel(context.WithoutCancel(b.ctx)); err != nil {
				b.log.Warn("running statement not cancelled", "error", err)
			}
		})
	}
	said := b.farewell(cause)
	_ = b.up.conn.Close()
	if said {
		b.linger()
	}
	_ = b.client.Close()
	b.line.Stop()
	b.up.line.Stop()
	work.Wait()
}

// linger lets the client read the last words: a connection that is closed
// while something of the client's is still unread would be reset.
func (b *bridge) linger() {
	_ = b.client.SetReadDeadline(time.Now().Add(lingerTime))
	late := time.NewTimer(lingerTime)
	defer late.Stop()
	select {
	case <-b.line.Over():
	case <-late.C:
	}
}

// farewell sends the last words, unless they would land inside a message.
func (b *bridge) farewell(cause error) bool {
	if errors.Is(cause, errLeft) {
		return false
	}
	words := b.lastWords(cause)
	_ = b.client.SetWriteDeadline(time.Now().Add(2 * time.Second))
	if !b.out.lockWithin(500 * time.Millisecond) {
		return false
	}
	defer b.out.unlock()
	if b.out.torn || b.out.send(words) != nil {
		return false
	}
	c, ok := b.client.(interface{ CloseWrite() error })
	return ok && c.CloseWrite() == nil
}

// lastWords is the FATAL message for a cause. The minter may end the target's
// side before the session hears of it, so the target's own last words wait
// for a better sentence.
func (b *bridge) lastWords(cause error) []byte {
	if gone := (*targetGone)(nil); errors.As(cause, &gone) {
		select {
		case <-b.session.Context().Done():
			cause = context.Cause(b.session.Context())
		case <-time.After(time.Second):
			if gone.words != nil {
				return gone.words
			}
			cause = &fatal{code: "08006", message: "The target closed the connection. Connect again."}
		}
	}
	if f := (*fatal)(nil); errors.As(cause, &f) {
		return report{"FATAL", f.code, f.message, ""}.bytes('E')
	}
	return report{"FATAL", stateEnded, reason(cause), ""}.bytes('E')
}

// targetGone says that the target ended its side.
type targetGone struct {
	words []byte // its ErrorResponse, if there was one
	cause error
}

func (t *targetGone) Error() string {
	if t.cause != nil {
		return "the target closed the connection: " + t.cause.Error()
	}
	return "the target ended the connection"
}

func reason(cause error) string {
	var f *fatal
	var gone *targetGone
	switch {
	case errors.Is(cause, errLeft):
		return "The client left."
	case errors.As(cause, &f):
		return f.message
	case errors.As(cause, &gone):
		return "The target ended the connection."
	case errors.Is(cause, context.Canceled):
		return "The gateway is shutting down. Connect again in a moment."
	}
	return access.Message(cause)
}

func worthLogging(cause error) error {
	if errors.Is(cause, errLeft) || errors.Is(cause, context.Canceled) || access.CodeOf(cause) == access.CodeEnded {
		return nil
	}
	return cause
}

// wait waits for the end, and has the session's sentences said meanwhile.
func (b *bridge) wait() {
	warnings, draining := b.session.Warnings(), b.session.Draining()
	for {
		select {
		case <-b.ctx.Done():
			return
		case <-draining:
			draining = nil
			b.draining.Store(true)
			b.endIfDrained()
		case text, ok := <-warnings:
			if !ok {
				warnings = nil
				continue
			}
			b.talk.Wait() // one after another, and not here: the client may not be reading
			b.talk.Go(func() { b.say(report{"WARNING", "01000", text, ""}) })
		}
	}
}

// endIfDrained ends a session that drains once nothing runs and no
// transaction is open. What the client still has to read of it is on its way.
func (b *bridge) endIfDrained() {
	if b.draining.Load() && b.status.Load() != 'T' && b.replies.empty() {
		b.session.Drained()
	}
}

// say shows a sentence between two messages.
func (b *bridge) say(r report) {
	b.lockOut()
	defer b.out.unlock()
	if b.out.torn { // too late, or too early: a large message is on its way
		return
	}
	if err := b.out.send(r.bytes('N')); err != nil {
		b.end(errLeft)
	}
}

// lockOut takes the way to the client. Who has it may be waiting for a client
// that does not read.
func (b *bridge) lockOut() {
	select {
	case b.out.held <- struct{}{}:
	default:
		b.line.Yield()
		b.out.held <- struct{}{}
	}
}

// outlet is the way to the client. Whoever holds its lock stands between two
// messages, unless it is torn.
type outlet struct {
	held chan struct{}
	conn net.Conn
	buf  sink
	torn bool // a message was begun and not finished
}

func newOutlet(conn net.Conn) *outlet {
	return &outlet{held: make(chan struct{}, 1), conn: conn, buf: sink{w: conn}}
}

func (o *outlet) unlock() { <-o.held }

func (o *outlet) lockWithin(d time.Duration) bool {
	select {
	case o.held <- struct{}{}:
		return true
	default:
	}
	late := time.NewTimer(d)
	defer late.Stop()
	select {
	case o.held <- struct{}{}:
		return true
	case <-late.C:
		return false
	}
}

// send writes what was gathered and then p, in one write where one serves.
func (o *outlet) send(p []byte) error {
	if o.buf.empty() {
		return o.write(p)
	}
	if _, err := o.buf.Write(p); err != nil {
		return o.tear(err)
	}
	if err := o.buf.flush(); err != nil {
		return o.tear(err)
	}
	return nil
}

func (o *outlet) write(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if _, err := o.conn.Write(p); err != nil {
		return o.tear(err)
	}
	return nil
}

func (o *outlet) tear(err error) error {
	o.torn = true
	return fmt.Errorf("write to client: %w", err)
}
