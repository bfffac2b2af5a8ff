package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/mask"
)

// closeTimeout bounds what a session tells the ledger when it ends.
const closeTimeout = 5 * time.Second

// session implements Session.
type session struct {
	server *Server
	log    *slog.Logger
	trace  *sessionTrace      // nil when nothing is traced
	info   access.SessionInfo // NotAfter in it is the first one: see Info
	lease  access.Lease
	ctx    context.Context
	cancel context.CancelCauseFunc
	judges atomic.Pointer[judges]
	warn   chan string
	lastOp atomic.Uint64

	recording string        // what the role says of recordings
	limits    access.Limits // what the role says of everything that runs
	masks     *mask.Set     // what the grant's masks detect in text; nil: nothing

	recTurn turn          // one event at a time, in the order that they happened
	recGone chan struct{} // closed when the recorder failed, perhaps in the midst of an event
	recOnce sync.Once
	rec     Recorder

	mu       sync.Mutex
	grant    *access.Grant // shared, and never changed
	deadline time.Time     // monotonic: a wall clock set back does not move it
	drain    time.Duration // after the end; 0 until the room asks for it
	timers   []*time.Timer
	open     *openOp // the first of those

	drainOnce sync.Once
	draining  chan struct{}

	closeOnce sync.Once
	closeErr  error
	closed    atomic.Bool // Close is over
}

func newSession(s *Server, info access.SessionInfo, g access.Grant, l access.Lease) *session {
	// The connection's context is not the parent: a room may bound Open's.
	ctx, cancel := context.WithCancelCause(context.Background())
	return &session{server: s, log: s.logOf(info, g), info: info, grant: &g, lease: l, ctx: ctx, cancel: cancel,
		recording: g.Plan.Role.Record, recTurn: newTurn(), recGone: make(chan struct{}),
		warn: make(chan string, 8), draining: make(chan struct{})}
}

// start records and lists the session, and sets its clocks.
func (s *session) start(ctx context.Context) error {
	info := s.info
	if err := s.record(access.Event{Type: access.EventSessionStart, Session: &info}, true); err != nil {
		return err
	}
	if err := s.server.cfg.Ledger.OpenSession(ctx, info); err != nil {
		return classified(err, access.CodeUnavailable, "The session could not be entered in the ledger, so it does not open. Try again in a moment.")
	}
	s.setEnd(s.info.NotAfter)
	if !s.server.register(s) {
		s.stopTimers()
		s.tellClosed("The gateway is shutting down.")
		return access.Errorf(access.CodeUnavailable, "The gateway is shutting down. Connect again in a moment.")
	}
	s.apply(s.server.book.view.Load()) // what changed between the choice and the listing
	return nil
}

// Info implements Session.
func (s *session) Info() access.SessionInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	info := s.info
	info.NotAfter = s.grant.NotAfter.UTC()
	return info
}

func (s *session) Lease() access.Lease      { return s.lease }
func (s *session) Context() context.Context { return s.ctx }
func (s *session) Warnings() <-chan string  { return s.warn }

// Withhold implements Session.
func (s *session) Withhold(value []byte) string { return s.server.withheld.Withhold(value) }

func (s *session) grantNow() access.Grant {
	s.mu.Lock()
	defer s.mu.Unlock()
	return *s.grant
}

// setEnd sets one timer for the end and one for each warning. What is past is
// not set again.
func (s *session) setEnd(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.timers {
		t.Stop()
	}
	left := at.Sub(s.server.cfg.Now().Round(0))
	s.deadline = time.Now().Add(left + s.drain)
	s.timers = append(s.timers[:0], time.AfterFunc(left+s.drain, func() { s.end(s.overError()) }))
	if s.drain > 0 {
		s.timers = append(s.timers, time.AfterFunc(left, s.beginDrain))
	}
	for _, before := range Warn {
		if left > before {
			s.timers = append(s.timers, time.AfterFunc(left-before, func() { s.warnEnd(before) }))
		}
	}
}

func (s *session) stopTimers() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.timers {
		t.Stop()
	}
}

func (s *session) warnEnd(before time.Duration) {
	g := s.grantNow()
	left := "1 minute"
	if before != time.Minute {
		left = fmt.Sprintf("%d minutes", before/time.Minute)
	}
	s.notice(0, fmt.Sprintf("Your grant %s ends in %s, at %s.", g.Key.ID, left, clock(g.NotAfter)))
}

func clock(t time.Time) string { return t.UTC().Format("15:04 UTC") }

// notice tells the user something and records it. A room that does not read
// its warnings loses the oldest, never the session.
func (s *session) notice(op uint64, text string) {
	if s.record(access.Event{Type: access.EventNotice, Op: op, Text: text}, false) != nil {
		return
	}
	for {
		select {
		case s.warn <- text:
			return
		default:
		}
		select {
		case <-s.warn:
		default:
		}
	}
}

func (s *session) overError() *access.Error {
	g := s.grantNow()
	return access.Errorf(access.CodeEnded, "Your grant %s ended at %s. Ask again: %s", g.Key.ID, clock(g.NotAfter), g.Pull.URL)
}

// end cuts the session; the first cause stays.
func (s *session) end(cause error) { s.cancel(cause) }

// alive is nil while the session may go on.
func (s *session) alive() error {
	_, err := s.drains()
	return err
}

// drains reports whether the grant is over and the session goes on for what
// still runs. It looks at both clocks, and not at the timers, which may be
// late: the earlier clock ends the session.
func (s *session) drains() (yes bool, err error) {
	if s.ctx.Err() != nil {
		return false, context.Cause(s.ctx)
	}
	s.mu.Lock()
	notAfter, drain, deadline := s.grant.NotAfter, s.drain, s.deadline
	s.mu.Unlock()
	wall, monotonic := s.server.clocks()
	if !wall.Before(notAfter.Add(drain)) || !monotonic.Before(deadline) {
		s.end(s.overError())
		return false, context.Cause(s.ctx)
	}
	return !wall.Before(notAfter), nil
}

// apply judges the session again by a newer view.
func (s *session) apply(v *view) {
	if v == nil || s.ctx.Err() != nil {
		return
	}
	old := s.grantNow()
	g := v.grants[s.info.Grant]
	if err := continues(&old, g); err != nil {
		s.end(err)
		return
	}
	s.mu.Lock()
	s.grant = g
	s.mu.Unlock()
	if !g.NotAfter.Equal(old.NotAfter) {
		s.setEnd(g.NotAfter)
	}
	if err := s.compile(v); err != nil {
		s.end(err)
	}
}

// continues says why a session under old may not go on under its new row; nil
// is none.
func continues(old, g *access.Grant) error {
	switch {
	case g == nil:
		return access.Errorf(access.CodeEnded, "Your grant %s is no longer in the ledger. See %s", old.Key.ID, old.Pull.URL)
	case g.Sequence < old.Sequence:
		return access.Errorf(access.CodeUnavailable, "The ledger went back in time for your grant %s. See %s", old.Key.ID, old.Pull.URL)
	case g.State != access.StateActive:
		return access.Errorf(access.CodeEnded, "Your grant %s is %s: %s See %s", g.Key.ID, g.State, why(*g), g.Pull.URL)
	case g.Paused != "":
		return access.Errorf(access.CodeEnded, "Your grant %s was put on hold by %s. See %s", g.Key.ID, g.Paused, g.Pull.URL)
	case g.Generation != old.Generation && !g.Yields.IsZero():
		return access.Errorf(access.CodeUnavailable, "The target of your grant %s makes room for a migration, until %s at most. Connect again then.", g.Key.ID, g.Yields.UTC().Format(time.RFC3339))
	case g.Generation != old.Generation:
		return access.Errorf(access.CodeEnded, "Your grant %s was made anew. Connect again; see %s", g.Key.ID, g.Pull.URL)
	case g.Digest != old.Digest:
		return access.Errorf(access.CodeEnded, "Your grant %s changed. Connect again; see %s", g.Key.ID, g.Pull.URL)
	}
	return nil
}

func why(g access.Grant) string {
	if g.Why == "" {
		return "no reason was given."
	}
	return g.Why
}

// anchor keeps the recording's head outside. A head that could not be kept is
// logged: the next one covers it.
func (s *session) anchor(h access.Head) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := s.server.cfg.Ledger.Anchor(ctx, h); err != nil {
		s.log.Error("recording's head not anchored", "segment", h.Segment, "error", err)
	}
}

// record appends one event. An error ends the session.
func (s *session) record(e access.Event, sync bool) error {
	if !s.recTurn.take(s.recGone) {
		return unrecorded(nil)
	}
	e.Time = s.server.cfg.Now().UTC()
	err := s.rec.Append(e, sync)
	s.recTurn.give()
	if err == nil {
		return nil
	}
	s.recorderFailed(err)
	return unrecorded(err)
}

// recorderFailed ends the session. Recorders that can fail by themselves, or
// hang in the midst of an event, call it.
func (s *session) recorderFailed(err error) {
	s.recOnce.Do(func() {
		s.server.metrics.recorderErrors.Inc()
		s.log.Error("recording failed; the session ends", "error", err)
		s.end(unrecorded(err))
		close(s.recGone)
	})
}

func unrecorded(err error) *access.Error {
	return &access.Error{Code: access.CodeUnavailable, Message: "This session can no longer be recorded, so it ends. Connect again, or ask the operator.", Cause: err}
}

// seal ends the recording. A disk that hangs keeps nobody: then the goroutine
// stays until it answers, and the recording is sealed at the next start.
func (s *session) seal(reason string) (head access.Head, err error) {
	if !s.recTurn.take(s.recGone) {
		return head, unrecorded(nil)
	}
	sealed := make(chan struct{})
	var got access.Head
	var failed error
	go func() {
		defer close(sealed)
		got, failed = s.rec.Seal(reason)
		s.recTurn.give()
	}()
	select {
	case <-sealed:
		return got, failed
	case <-s.recGone:
		return head, unrecorded(nil)
	}
}

// Close implements Session.
func (s *session) Close(reason string) error {
	s.closeOnce.Do(func() { s.closeErr = s.close(reason); s.closed.Store(true) })
	return s.closeErr
}

func (s *session) close(reason string) error {
	var cut error
	if s.ctx.Err() != nil { // it was cut: that is the reason
		cut = context.Cause(s.ctx)
		reason = access.Message(cut)
	}
	s.end(access.Errorf(access.CodeEnded, "The session was closed."))
	s.stopTimers()
	s.server.unregister(s)
	s.server.release(s.info.Person.ID)
	for _, o := range s.openOps() {
		_ = o.Close(access.Outcome{Status: "cut"})
	}
	head, err := s.seal(reason)
	if err == nil {
		s.anchor(head)
	}
	err = errors.Join(err, s.tellClosed(reason))
	s.over(cut, err)
	return err
}

// list and unlist keep the operations that are open. A list of their own costs
// nothing but two pointers, and each operation comes and goes.
func (s *session) list(o *openOp) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o.after = s.open; o.after != nil {
		o.after.before = o
	}
	s.open = o
}

func (s *session) unlist(o *openOp) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o.after != nil {
		o.after.before = o.before
	}
	if o.before != nil {
		o.before.after = o.after
	} else if s.open == o {
		s.open = o.after
	}
	o.before, o.after = nil, nil
}

func (s *session) openOps() (all []*openOp) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for o := s.open; o != nil; o = o.after {
		all = append(all, o)
	}
	return all
}

func (s *session) tellClosed(reason string) error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := s.server.cfg.Ledger.CloseSession(ctx, s.info.ID, reason)
	if err != nil {
		s.server.owe(s.info.ID, reason)
	}
	return err
}
