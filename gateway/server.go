package gateway

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/tracing"
)

// Config is what a server needs. The ports and ControlKey are required; every
// other zero value is a good default.
type Config struct {
	Ledger     Ledger
	Minter     Minter
	Identifier Identifier
	Compiler   Compiler
	Recorders  Recorders
	ControlKey ed25519.PublicKey  // verifies grants and answers
	Key        ed25519.PrivateKey // this gateway's own: signs what it holds, so that control shows nothing else

	Certificates Certificates // who a certificate stands for; nil: nobody

	Name                 string        // this gateway's, in recordings; "gateway"
	SnapshotLease        time.Duration // how old a snapshot may be for a session to open; 60 s
	HoldTimeout          time.Duration // how long a held operation waits for an answer; 15 min
	OpenTimeout          time.Duration // how long identifying and opening may take; 20 s
	MaxSessions          int           // 10,000
	MaxSessionsPerPerson int           // 100
	MaxPending           int           // connections that have not opened a session yet; 512
	MaxPendingPerRemote  int           // the same, of one address, or of one /64 of IPv6; 64
	PendingTimeout       time.Duration // how long a connection may stay pending; 30 s
	MaxRecorded          int64         // how many bytes of one operation are kept in each direction, unless the role says "all"; 64 MiB

	Log     *slog.Logger
	Now     func() time.Time
	Metrics prometheus.Registerer // nil: numbers are kept, and nobody sees them
	Tracing *tracing.Tracer       // nil traces nothing
}

// check reports everything that is missing, at once.
func (c Config) check() error {
	var errs []error
	for name, missing := range map[string]bool{
		"Ledger": c.Ledger == nil, "Minter": c.Minter == nil, "Identifier": c.Identifier == nil,
		"Compiler": c.Compiler == nil, "Recorders": c.Recorders == nil,
	} {
		if missing {
			errs = append(errs, fmt.Errorf("gateway config: %s is missing", name))
		}
	}
	if n := len(c.ControlKey); n != ed25519.PublicKeySize {
		errs = append(errs, fmt.Errorf("gateway config: ControlKey has %d bytes, want %d", n, ed25519.PublicKeySize))
	}
	if n := len(c.Key); n != ed25519.PrivateKeySize {
		errs = append(errs, fmt.Errorf("gateway config: Key has %d bytes, want %d", n, ed25519.PrivateKeySize))
	}
	return errors.Join(errs...)
}

func (c *Config) defaults() {
	setDefault(&c.Name, "gateway")
	setDefault(&c.SnapshotLease, time.Minute)
	setDefault(&c.HoldTimeout, 15*time.Minute)
	setDefault(&c.OpenTimeout, 20*time.Second)
	setDefault(&c.MaxSessions, 10_000)
	setDefault(&c.MaxSessionsPerPerson, 100)
	setDefault(&c.MaxPending, 512)
	setDefault(&c.MaxPendingPerRemote, 64)
	setDefault(&c.PendingTimeout, 30*time.Second)
	setDefault(&c.MaxRecorded, 64<<20)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
}

// clocks are the wall's and the one that nobody can set. One look serves for
// both, unless there is another wall.
func (c *Config) clocks() func() (wall, monotonic time.Time) {
	if other := c.Now; other != nil {
		return func() (wall, monotonic time.Time) { return other().Round(0), time.Now() }
	}
	return func() (wall, monotonic time.Time) {
		now := time.Now()
		return now.Round(0), now
	}
}

func setDefault[T comparable](v *T, otherwise T) {
	var zero T
	if *v == zero {
		*v = otherwise
	}
}

// Server owns what is the same for each protocol: the snapshot of grants, the
// sessions and the bounds.
type Server struct {
	cfg     Config
	log     *slog.Logger
	book    *book
	metrics *metrics
	pulse   pulse

	withheld *Withholder

	mu       sync.Mutex
	sessions map[string]*session
	owed     map[string]string // sessions whose end the ledger did not take, and why they ended
	perUser  map[int64]int
	holding  map[int64]int // operations of a person that wait for another one
	reserved int
	pending  map[string]int // unauthenticated connections by address
	npending int
	closing  bool
	conns    sync.WaitGroup

	clocks func() (wall, monotonic time.Time)

	compiledMu sync.Mutex
	compiled   map[compiledKey]*compiled

	ballast []byte
}

// ballastSize of memory that nobody touches, so that it is none of the
// machine's, counts as alive. Go collects when garbage is as much as what is
// alive; a gateway with few sessions has so little of that, that it would
// collect many times a second what statements leave behind.
const ballastSize = 4 << 20

// New makes a server. It opens nothing before Run has read a snapshot.
func New(cfg Config) (*Server, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	clocks := cfg.clocks()
	cfg.defaults()
	s := &Server{
		cfg: cfg, log: cfg.Log, clocks: clocks, ballast: make([]byte, ballastSize), book: newBook(cfg.ControlKey),
		sessions: map[string]*session{}, owed: map[string]string{}, perUser: map[int64]int{}, holding: map[int64]int{}, pending: map[string]int{},
	}
	withheld, err := NewWithholder(cfg.Key)
	if err != nil {
		return nil, err
	}
	s.withheld = withheld
	m, err := newMetrics(cfg.Metrics, s)
	if err != nil {
		return nil, fmt.Errorf("register gateway metrics: %w", err)
	}
	s.metrics = m
	return s, nil
}

// Serve accepts connections for the room until ctx ends or the listener
// fails, and waits for the connections that it accepted.
func (s *Server) Serve(ctx context.Context, ln net.Listener, room Room) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for {
		conn, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil || s.isClosing() {
				return nil
			}
			if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() || isTransient(err) {
				s.log.Warn("accept failed; trying again", "room", room.Kind(), "error", err)
				pause(ctx, 50*time.Millisecond)
				continue
			}
			return fmt.Errorf("accept %s connection: %w", room.Kind(), err)
		}
		d, ok := s.admitConn(conn)
		if !ok {
			s.metrics.refusedConns.Inc()
			_ = conn.Close()
			continue
		}
		wg.Go(func() { s.serveConn(ctx, conn, room, d) })
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// serveConn lets the room talk to one client. A panic ends this connection
// alone.
func (s *Server) serveConn(ctx context.Context, conn net.Conn, room Room, d *door) {
	defer s.conns.Done()
	defer conn.Close()
	defer d.leave()
	late := d.closeLate(conn, s.cfg.PendingTimeout)
	defer late.Stop()
	defer func() {
		if p := recover(); p != nil {
			s.metrics.panics.Inc()
			s.log.Error("room panicked; its connection ends", "room", room.Kind(), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	if err := room.Serve(ctx, conn, d); err != nil && ctx.Err() == nil {
		s.log.Info("connection ended", "room", room.Kind(), "remote", conn.RemoteAddr().String(), "error", err)
	}
}

// admitConn counts a connection that nobody vouches for yet.
func (s *Server) admitConn(conn net.Conn) (*door, bool) {
	host := SourceOf(conn.RemoteAddr())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing || s.npending >= s.cfg.MaxPending || s.pending[host] >= s.cfg.MaxPendingPerRemote {
		return nil, false
	}
	s.npending++
	s.pending[host]++
	s.conns.Add(1)
	return &door{server: s, host: host, pending: true}, true
}

func (s *Server) leavePending(host string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.npending--
	if s.pending[host]--; s.pending[host] <= 0 {
		delete(s.pending, host)
	}
}

func hostOf(a net.Addr) string {
	if a == nil {
		return ""
	}
	host, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return host
}

// Door is a door that is not tied to a connection of Serve, for a caller that
// accepts by itself.
func (s *Server) Door() Door { return &door{server: s} }

// Ready reports why the server would open nothing now, or nil.
func (s *Server) Ready() error {
	if s.isClosing() {
		return access.Errorf(access.CodeUnavailable, "The gateway is shutting down.")
	}
	_, err := s.current()
	return err
}

func (s *Server) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// Shutdown opens nothing more, ends every session with a reason, and waits
// for the connections until ctx ends.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	s.CloseWhere(func(access.SessionInfo) bool { return true }, "The gateway is shutting down. Connect again in a moment.")
	done := make(chan struct{})
	go func() { s.conns.Wait(); close(done) }() // ends with the last connection, which its room's ctx ends
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("shut gateway down: connections are still open: %w", ctx.Err())
	}
}

// Sessions lists the open sessions.
func (s *Server) Sessions() []access.SessionInfo {
	var out []access.SessionInfo
	for _, one := range s.live() {
		out = append(out, one.Info())
	}
	return out
}

// CloseWhere ends the sessions that match, and says how many there were. It
// needs no other part: it works with everything else down.
func (s *Server) CloseWhere(match func(access.SessionInfo) bool, reason string) int {
	n := 0
	for _, one := range s.live() {
		if match(one.Info()) {
			one.end(access.Errorf(access.CodeEnded, "%s", reason))
			n++
		}
	}
	return n
}

func (s *Server) live() []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*session, 0, len(s.sessions))
	for _, one := range s.sessions {
		out = append(out, one)
	}
	return out
}

// reserve takes a place for one more session of the person.
func (s *Server) reserve(person int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closing:
		return access.Errorf(access.CodeUnavailable, "The gateway is shutting down. Connect again in a moment.")
	case s.reserved >= s.cfg.MaxSessions:
		return access.Errorf(access.CodeUnavailable, "The gateway has %d sessions open, its most. Try again later.", s.reserved)
	case s.perUser[person] >= s.cfg.MaxSessionsPerPerson:
		return access.Errorf(access.CodeTooLarge, "You have %d sessions open, the most for one person. Close one first.", s.perUser[person])
	}
	s.reserved++
	s.perUser[person]++
	return nil
}

func (s *Server) release(person int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reserved--
	if s.perUser[person]--; s.perUser[person] <= 0 {
		delete(s.perUser, person)
	}
}

// register lists the session, unless the server began to shut down.
func (s *Server) register(one *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.sessions[one.info.ID] = one
	return true
}

func (s *Server) unregister(one *session) {
	s.mu.Lock()
	delete(s.sessions, one.info.ID)
	s.mu.Unlock()
}

// maxOwed bounds what is remembered for the ledger. The gateway's next start
// ends what is beyond it.
const maxOwed = 10_000

// owe remembers that a session ended while the ledger was away.
func (s *Server) owe(id, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.owed) < maxOwed {
		s.owed[id] = reason
	}
}

// settle tells the ledger what it missed. It is not said twice at once: Run
// alone calls it.
func (s *Server) settle(ctx context.Context) {
	s.mu.Lock()
	owed := maps.Clone(s.owed)
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	for id, reason := range owed {
		err := s.cfg.Ledger.CloseSession(ctx, id, reason)
		if err != nil && access.CodeOf(err) != access.CodeNotFound {
			s.log.Warn("the end of a session is still owed to the ledger", "session", id, "error", err)
			return
		}
		s.mu.Lock()
		delete(s.owed, id)
		s.mu.Unlock()
	}
}
