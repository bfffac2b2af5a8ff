package poll

import (
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// patience is how long a turn may last before it is taken for one that
// blocks.
const patience = 10 * time.Millisecond

// loop is one epoll and its leader.
type loop struct {
	epoll int

	mu    sync.Mutex
	conns map[int32]*Conn

	turns atomic.Uint64 // odd while the leader is in a turn

	// Of the leader, and between its turns only.
	events  [128]unix.EpollEvent
	next, n int
}

// loops run as long as the process, as Go's own poller does. Half of the
// processors are left to what is not done in turns, and to the peers.
var loops = sync.OnceValues(func() ([]*loop, error) {
	all := make([]*loop, max(1, runtime.GOMAXPROCS(0)/2))
	for i := range all {
		fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
		if err != nil {
			return nil, fmt.Errorf("make epoll: %w", err)
		}
		all[i] = &loop{epoll: fd, conns: map[int32]*Conn{}}
		go all[i].lead()
		go all[i].supervise()
	}
	return all, nil
})

var nextLoop atomic.Uint32

// turnsInARow is how many turns the leader takes before it steps back in Go's
// scheduler: about 2 ms of short ones. Whoever runs for 10 ms has its processor
// taken away in a system call, and the runtime's monitor, once it has found
// one, looks for more every 20 µs.
const turnsInARow = 64

// lead deals with events until somebody else does.
func (l *loop) lead() {
	for n := 1; ; n++ {
		if n%turnsInARow == 0 {
			runtime.Gosched()
		}
		c, what := l.take()
		turn := l.turns.Add(1)
		c.happened(what)
		if !l.turns.CompareAndSwap(turn, turn+1) {
			return // it was given away
		}
	}
}

// take waits for the next event.
func (l *loop) take() (*Conn, uint32) {
	for {
		for l.next < l.n {
			e := l.events[l.next]
			l.next++
			l.mu.Lock()
			c := l.conns[e.Fd]
			l.mu.Unlock()
			if c != nil { // else it was closed since
				return c, e.Events
			}
		}
		n, err := unix.EpollWait(l.epoll, l.events[:], -1)
		if err != nil && err != unix.EINTR {
			panic(fmt.Sprintf("wait for connections: %v", err)) // the epoll is ours, and never closed
		}
		l.next, l.n = 0, max(n, 0)
	}
}

// yield gives the leadership away if its holder is in a turn. It does no harm
// if that is another turn than the caller's.
func (l *loop) yield() {
	if turn := l.turns.Load(); turn&1 == 1 {
		l.takeFrom(turn)
	}
}

func (l *loop) takeFrom(turn uint64) {
	if l.turns.CompareAndSwap(turn, turn+1) {
		go l.lead()
	}
}

// supervise takes the leadership from a turn that lasts too long.
func (l *loop) supervise() {
	last := uint64(0)
	for range time.Tick(patience) {
		now := l.turns.Load()
		if now == last && now&1 == 1 {
			l.takeFrom(now)
		}
		last = now
	}
}

// happened deals with what epoll says of a connection. Events come once for
// each change: what is not remembered here is lost.
func (c *Conn) happened(what uint32) {
	if what&unix.EPOLLOUT != 0 && c.writable.wanted.Load() {
		c.writable.signal()
	}
	if what&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		c.hup.Store(true)
		c.writable.signal()
	}
	if what&^unix.EPOLLOUT == 0 {
		return
	}
	if c.patient.Load() {
		c.readable.signal()
	}
	c.ready()
}

// Take takes the connection from Go's poller, so that Start can have it
// watched here. It is not ok for what is no socket.
func (c *Conn) Take() (ok bool, err error) {
	s, ok := c.Conn.(syscall.Conn)
	if !ok {
		return false, nil
	}
	if _, tcp := c.Conn.(*net.TCPConn); !tcp {
		return false, nil
	}
	all, err := loops()
	if err != nil {
		return false, err
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return false, fmt.Errorf("take connection: %w", err)
	}
	fd, failed := -1, error(nil)
	if err := raw.Control(func(old uintptr) { fd, failed = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return false, fmt.Errorf("take connection: %w", err)
	}
	if failed != nil {
		return false, fmt.Errorf("take connection: %w", failed)
	}
	_ = c.Conn.Close() // the socket lives on under its other number
	c.fd, c.closed, c.taken = fd, make(chan struct{}), true
	c.readable.opened, c.writable.opened = make(chan struct{}, 1), make(chan struct{}, 1)
	c.loop = all[int(nextLoop.Add(1))/2%len(all)] // two in turn: both sides of a session
	return true, nil
}

func (c *Conn) watch() error {
	l := c.loop
	l.mu.Lock()
	l.conns[int32(c.fd)] = c
	l.mu.Unlock()
	e := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(c.fd)}
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, c.fd, &e); err != nil {
		return fmt.Errorf("watch connection: %w", err)
	}
	return nil
}

// sysRead and sysWrite never block, so Go's scheduler need not know of them.

func (c *Conn) sysRead(p []byte) (int, error)  { return c.call(unix.SYS_READ, p) }
func (c *Conn) sysWrite(p []byte) (int, error) { return c.call(unix.SYS_WRITE, p) }

func (c *Conn) call(trap uintptr, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.fdMu.RLock()
	defer c.fdMu.RUnlock()
	if c.fd < 0 {
		return 0, net.ErrClosed
	}
	for {
		n, _, errno := syscall.RawSyscall(trap, uintptr(c.fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
		switch errno {
		case 0:
			return int(n), nil
		case unix.EAGAIN:
			return 0, ErrAgain
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

func (c *Conn) sysCloseWrite() error {
	c.fdMu.RLock()
	defer c.fdMu.RUnlock()
	if c.fd < 0 {
		return net.ErrClosed
	}
	return unix.Shutdown(c.fd, unix.SHUT_WR)
}

func (c *Conn) sysClose() error {
	c.fdMu.Lock()
	defer c.fdMu.Unlock()
	if c.fd < 0 {
		return net.ErrClosed
	}
	close(c.closed)
	c.loop.mu.Lock()
	if c.loop.conns[int32(c.fd)] == c {
		delete(c.loop.conns, int32(c.fd))
	}
	c.loop.mu.Unlock()
	err := unix.Close(c.fd) // the epoll forgets it with that
	c.fd = -1
	return err
}
