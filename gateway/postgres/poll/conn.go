package poll

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// ErrAgain is what Read answers within a turn when nothing is there. It is a
// temporary net.Error, after which crypto/tls goes on where it stopped.
var ErrAgain net.Error = again{}

type again struct{}

func (again) Error() string   { return "nothing to read at the moment" }
func (again) Timeout() bool   { return false }
func (again) Temporary() bool { return true }

// Conn is a connection that can be taken from Go's own poller. Until Take it
// is the one that it was made of.
type Conn struct {
	net.Conn

	turn  func() (over bool)
	state atomic.Int32
	ended atomic.Bool // no further turn is to run
	over  chan struct{}

	taken    bool // the rest is of a taken one
	loop     *loop
	fdMu     sync.RWMutex // held while fd is used, so that a closed one's number is never met again
	fd       int          // -1: closed
	closed   chan struct{}
	readable gate
	writable gate
	patient  atomic.Bool // Read waits: somebody else than a turn reads
	hup      atomic.Bool // the peer is done: only the end itself says that all was read
	drained  bool        // all was read, as far as the reader knows
	reads    int         // in this turn
	gather   bool        // read more than was asked for, into held
	held     []byte      // was read and not yet asked for
	large    *[heldSize]byte
}

// The states of a connection's turns.
const (
	idle    = iota // no turn runs; an event begins one
	running        // one runs, somewhere
	asked          // and another one must follow: something happened meanwhile
	dead           // none will run any more
)

// heldSize is how much is read at once where the reader asks for little, as
// crypto/tls does.
const heldSize = 64 << 10

var heldBuffers = sync.Pool{New: func() any { return new([heldSize]byte) }}

// New wraps a connection.
func New(c net.Conn) *Conn { return &Conn{Conn: c, over: make(chan struct{})} }

// Start has turns run, one at a time, whenever there may be something to read;
// the first one at once. A turn reads until ErrAgain, and says when nothing
// more is to come.
func (c *Conn) Start(turn func() (over bool)) error {
	c.turn = turn
	c.state.Store(running)
	if c.taken {
		if err := c.watch(); err != nil {
			c.state.Store(idle)
			return err
		}
	}
	go c.run() // Stop waits for it
	return nil
}

// Over is closed when a turn said that nothing more is to come.
func (c *Conn) Over() <-chan struct{} { return c.over }

// Stop returns when no turn runs any more. What a turn waits for must have
// ended: a connection that was not taken has to be closed first.
func (c *Conn) Stop() {
	c.ended.Store(true)
	if c.state.CompareAndSwap(idle, dead) {
		return
	}
	<-c.over
}

// run runs turns until nothing happened since the last one began.
func (c *Conn) run() {
	for {
		c.drained, c.reads = false, 0
		if c.turn() {
			break
		}
		if c.state.CompareAndSwap(running, idle) {
			if c.ended.Load() && c.state.CompareAndSwap(idle, dead) {
				close(c.over)
			}
			return
		}
		c.state.Store(running)
	}
	c.state.Store(dead)
	close(c.over)
}

// ready says that there may be something to read.
func (c *Conn) ready() {
	for {
		switch c.state.Load() {
		case idle:
			if c.state.CompareAndSwap(idle, running) {
				c.run()
				return
			}
		case running:
			if c.state.CompareAndSwap(running, asked) {
				return
			}
		default:
			return
		}
	}
}

// Patient says whether Read waits. It is for the time in which a turn lets
// another goroutine read.
func (c *Conn) Patient(yes bool) {
	c.patient.Store(yes)
	c.drained = false // what came before this told nobody who waits
}

// Gather has a taken connection read as much as there is whenever it must ask
// the kernel: for a reader that asks for little.
func (c *Conn) Gather() { c.gather = true }

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	if !c.taken {
		return c.Conn.Read(p)
	}
	for {
		n, err := c.readNow(p)
		if err != ErrAgain || !c.patient.Load() {
			return n, err
		}
		if err := c.readable.wait(c.closed); err != nil {
			return 0, err
		}
		c.drained = false
	}
}

func (c *Conn) readNow(p []byte) (int, error) {
	if len(c.held) > 0 {
		n := copy(p, c.held)
		if c.held = c.held[n:]; len(c.held) == 0 {
			c.release()
		}
		return n, nil
	}
	if c.drained {
		return 0, ErrAgain
	}
	if !c.gather || len(p) >= heldSize {
		return c.receive(p)
	}
	c.large = heldBuffers.Get().(*[heldSize]byte)
	n, err := c.receive(c.large[:])
	used := copy(p, c.large[:n])
	if c.held = c.large[used:n]; len(c.held) == 0 {
		c.release()
	}
	return used, err
}

func (c *Conn) release() {
	heldBuffers.Put(c.large)
	c.large, c.held = nil, nil
}

// receive asks the kernel once.
func (c *Conn) receive(p []byte) (int, error) {
	if c.reads++; c.reads == longTurn {
		c.loop.yield()
	}
	n, err := c.sysRead(p)
	switch {
	case err != nil:
		c.drained = err == ErrAgain
	case n == 0:
		err = io.EOF
	default:
		c.drained = n < len(p) && !c.hup.Load()
	}
	return n, err
}

// longTurn is how many reads make a turn go on alone.
const longTurn = 8

// Write implements net.Conn: it writes everything, and waits if it must.
func (c *Conn) Write(p []byte) (int, error) {
	if !c.taken {
		return c.Conn.Write(p)
	}
	done, waits := 0, false
	for done < len(p) {
		n, err := c.sysWrite(p[done:])
		done += n
		switch {
		case err == ErrAgain && waits:
			err = c.writable.wait(c.closed)
		case err == ErrAgain: // first say that somebody waits, then look again
			waits, err = true, nil
			c.writable.wanted.Store(true)
			defer c.writable.wanted.Store(false)
			c.loop.yield()
		}
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// Yield says that the caller is going to wait for something, or to take long.
func (c *Conn) Yield() {
	if c.taken {
		c.loop.yield()
	}
}

// Close implements net.Conn.
func (c *Conn) Close() error {
	if !c.taken {
		return c.Conn.Close()
	}
	return c.sysClose()
}

// CloseWrite ends what is sent, as a socket's does.
func (c *Conn) CloseWrite() error {
	if c.taken {
		return c.sysCloseWrite()
	}
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return net.ErrClosed
}

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	if !c.taken {
		return c.Conn.SetDeadline(t)
	}
	c.readable.setDeadline(t)
	c.writable.setDeadline(t)
	return nil
}

// SetReadDeadline implements net.Conn. Turns don't wait, so it is nothing to
// them.
func (c *Conn) SetReadDeadline(t time.Time) error {
	if !c.taken {
		return c.Conn.SetReadDeadline(t)
	}
	c.readable.setDeadline(t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	if !c.taken {
		return c.Conn.SetWriteDeadline(t)
	}
	c.writable.setDeadline(t)
	return nil
}

// gate is where one goroutine waits until a connection can be read, or
// written.
type gate struct {
	opened chan struct{} // holds one signal
	wanted atomic.Bool
	mu     sync.Mutex
	by     time.Time
}

func (g *gate) signal() {
	select {
	case g.opened <- struct{}{}:
	default:
	}
}

func (g *gate) setDeadline(t time.Time) {
	g.mu.Lock()
	g.by = t
	g.mu.Unlock()
	g.signal() // who waits looks at it anew
}

// wait returns when there was a signal, which may be an old one.
func (g *gate) wait(closed <-chan struct{}) error {
	g.mu.Lock()
	by := g.by
	g.mu.Unlock()
	var late <-chan time.Time
	if !by.IsZero() {
		left := time.Until(by)
		if left <= 0 {
			return os.ErrDeadlineExceeded
		}
		t := time.NewTimer(left)
		defer t.Stop()
		late = t.C
	}
	select {
	case <-g.opened:
		return nil
	case <-late:
		return os.ErrDeadlineExceeded
	case <-closed:
		return net.ErrClosed
	}
}
