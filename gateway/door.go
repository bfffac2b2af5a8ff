package gateway

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/mask"
)

// door is one connection's way in. It remembers the sessions that it opened,
// so that none outlives its connection.
type door struct {
	server  *Server
	host    string
	mu      sync.Mutex
	pending bool
	opened  []*session
	late    *time.Timer // closes a connection that stays pending
}

// Linger implements Door.
func (d *door) Linger(more time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pending && d.late != nil {
		d.late.Reset(min(more, maxLinger))
	}
}

// maxLinger bounds how long a room can keep a connection pending.
const maxLinger = 10 * time.Minute

// closeLate closes the connection if nobody known stands behind it by then.
func (d *door) closeLate(conn net.Conn, after time.Duration) *time.Timer {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.late = time.AfterFunc(after, func() {
		if d.isPending() {
			_ = conn.Close()
		}
	})
	return d.late
}

func (d *door) isPending() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.pending
}

// vouched says that somebody known stands behind the connection.
func (d *door) vouched(s *session) {
	d.mu.Lock()
	was := d.pending
	d.pending = false
	// A connection that leads others through it may open sessions for days.
	d.opened = append(slices.DeleteFunc(d.opened, func(o *session) bool { return o.closed.Load() }), s)
	d.mu.Unlock()
	if was {
		d.server.leavePending(d.host)
	}
}

// leave ends what the connection left open.
func (d *door) leave() {
	d.mu.Lock()
	was, opened := d.pending, d.opened
	d.pending, d.opened = false, nil
	d.mu.Unlock()
	if was {
		d.server.leavePending(d.host)
	}
	for _, s := range opened {
		if err := s.Close("The connection ended."); err != nil {
			s.log.Error("session not closed cleanly", "error", err)
		}
	}
}

// Open implements Door.
func (d *door) Open(ctx context.Context, k Knock) (Session, error) {
	open, cancel := context.WithTimeout(ctx, d.server.cfg.OpenTimeout)
	defer cancel()
	s, err := d.server.open(open, k)
	if err != nil {
		code := access.CodeOf(err)
		d.server.metrics.opened.WithLabelValues(string(code)).Inc()
		d.server.log.Info("session refused", "target", k.Target.String(), "remote", hostOf(k.Remote), "code", string(code), "error", err)
		return nil, shown(err)
	}
	d.server.metrics.opened.WithLabelValues("ok").Inc()
	s.log.Info("session opened", "remote", hostOf(k.Remote))
	d.vouched(s)
	return s, nil
}

// Vouch implements Door. The connection stays pending: nothing is open.
func (d *door) Vouch(ctx context.Context, k Knock) error {
	ctx, cancel := context.WithTimeout(ctx, d.server.cfg.OpenTimeout)
	defer cancel()
	if _, err := d.server.identify(ctx, k); err != nil {
		d.server.log.Info("caller not identified", "remote", hostOf(k.Remote), "code", string(access.CodeOf(err)), "error", err)
		return shown(err)
	}
	return nil
}

// Certify implements Door. A certificate does not renew itself: that takes a
// token, so the identity provider keeps its say.
func (d *door) Certify(ctx context.Context, k Knock, key []byte) ([]byte, error) {
	s := d.server
	if s.cfg.Certificates == nil || len(k.Certificate) > 0 {
		return nil, access.Errorf(access.CodeUnauthenticated, "A certificate is given for a token alone. Log in again: tidegate login.")
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.OpenTimeout)
	defer cancel()
	id, err := s.identify(ctx, k)
	if err == nil {
		err = classified(s.cfg.Ledger.Pin(ctx, id), access.CodeUnavailable, "The gateway could not check who you are against its ledger. Try again in a moment.")
	}
	if err != nil {
		s.log.Info("certificate refused", "remote", hostOf(k.Remote), "code", string(access.CodeOf(err)), "error", err)
		return nil, shown(err)
	}
	cert, err := s.cfg.Certificates.Certify(id, key)
	if err != nil {
		return nil, shown(err)
	}
	s.log.Info("certificate issued", "remote", hostOf(k.Remote))
	return cert, nil
}

// maxNamed bounds what Named answers with.
const maxNamed = 1000

// Named implements Door.
func (d *door) Named(ctx context.Context, k Knock, kind string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, d.server.cfg.OpenTimeout)
	defer cancel()
	v, err := d.server.current()
	if err != nil {
		return nil, shown(err)
	}
	id, err := d.server.identify(ctx, k)
	if err != nil {
		return nil, shown(err)
	}
	grants := map[string][]string{} // by target
	for _, g := range v.grants {
		will := g.State == access.StateLanded || g.State == access.StateActive
		if _, ok := g.Holder(id); ok && will && g.Plan.Target.Kind == kind && d.server.cfg.Now().Before(g.NotAfter) {
			grants[g.Plan.Target.Name] = append(grants[g.Plan.Target.Name], g.Key.ID)
		}
	}
	var names []string
	for target, ids := range grants {
		names = append(names, target)
		if len(ids) > 1 {
			for _, id := range ids {
				names = append(names, target+"+"+id)
			}
		}
	}
	slices.Sort(names)
	return names[:min(len(names), maxNamed)], nil
}

// Targets implements Door. Those of grants count besides those of today's
// policies: a target that was just taken out of them may still be open.
func (d *door) Targets(kind string) []access.Target {
	v := d.server.book.view.Load()
	if v == nil {
		return nil
	}
	all := slices.Clone(v.targets)
	for _, g := range v.grants {
		all = append(all, g.Plan.Target)
	}
	return slices.DeleteFunc(all, func(t access.Target) bool { return t.Kind != kind })
}

// shown makes sure that a room gets an *access.Error.
func shown(err error) error {
	if access.CodeOf(err) != access.CodeInternal {
		return err
	}
	return &access.Error{Code: access.CodeInternal, Message: access.Message(err), Cause: err}
}

// open walks the road in; whatever was begun is undone when a step fails.
func (s *Server) open(ctx context.Context, k Knock) (_ *session, err error) {
	v, err := s.current()
	if err != nil {
		return nil, err
	}
	id, err := s.identify(ctx, k)
	if err != nil {
		return nil, err
	}
	g, person, err := choose(v, id, k, s.cfg.Now())
	if err != nil {
		return nil, err
	}
	if err := s.cfg.Ledger.Pin(ctx, id); err != nil {
		return nil, classified(err, access.CodeUnavailable, "The gateway could not check who you are against its ledger. Try again in a moment.")
	}
	if err := s.reserve(person.ID); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.release(person.ID)
		}
	}()
	return s.begin(ctx, v, s.describe(k, id, g, person), g)
}

// identify finds out who knocks: by the certificate if there is one.
func (s *Server) identify(ctx context.Context, k Knock) (access.Identity, error) {
	if len(k.Certificate) == 0 {
		id, err := s.cfg.Identifier.Identify(ctx, k.Token)
		return id, classified(err, access.CodeUnauthenticated, "Your token was not accepted. Log in again.")
	}
	if s.cfg.Certificates == nil {
		return access.Identity{}, access.Errorf(access.CodeUnauthenticated, "This gateway takes no certificates. Log in with a token.")
	}
	id, err := s.cfg.Certificates.IdentifyCertificate(k.Certificate)
	return id, classified(err, access.CodeUnauthenticated, "Your certificate was not accepted. Log in again: tidegate login.")
}

func (s *Server) describe(k Knock, id access.Identity, g access.Grant, p access.Person) access.SessionInfo {
	remote := ""
	if k.Remote != nil {
		remote = k.Remote.String()
	}
	return access.SessionInfo{
		ID: newID(), Grant: g.Key, Digest: g.Digest, PullURL: g.Pull.URL, Person: p.User, Identity: id,
		Target: k.Target, Role: g.Plan.Role.Name, Remote: remote, Client: bounded(k.Client, 256),
		Gateway: s.cfg.Name, Started: s.cfg.Now().UTC(), NotAfter: g.NotAfter.UTC(),
	}
}

// begin fetches the lease, compiles the judge, starts the recording and lists
// the session.
func (s *Server) begin(ctx context.Context, v *view, info access.SessionInfo, g access.Grant) (_ *session, err error) {
	trace := s.traceSession(info, g)
	defer func() {
		if err != nil {
			trace.done(err)
		}
	}()
	leased := trace.lease()
	lease, err := s.cfg.Minter.Lease(ctx, g.Key, info.ID)
	leased.Done(err)
	if err != nil {
		return nil, classified(err, access.CodeUnavailable, "The credential for this grant could not be fetched. Try again in a moment.")
	}
	if lease.Grant != g.Key || lease.Generation != g.Generation || lease.Session != info.ID {
		return nil, &access.Error{Code: access.CodeConflict, Message: "This grant is being changed at the moment. Try again in a few seconds.",
			Cause: fmt.Errorf("lease is of grant %s generation %d, want %s generation %d", lease.Grant, lease.Generation, g.Key, g.Generation)}
	}
	if bytes.Equal(lease.Backing, g.Backing) {
		lease.Backing = g.Backing // one copy for all sessions of a grant: it may be large
	}
	one := newSession(s, info, g, lease)
	one.trace = trace
	if one.masks, err = mask.For(g.Plan.Detect()); err != nil {
		return nil, &access.Error{Code: access.CodeUnavailable, Message: "This gateway does not know all that the grant's masks detect, so nothing opens. The operator must bring it up to date.", Cause: err}
	}
	if one.limits, err = roleLimits(g.Plan.Role); err != nil {
		return nil, err
	}
	if err := one.compile(v); err != nil {
		return nil, err
	}
	rec, err := s.cfg.Recorders.Record(info, one.anchor)
	if err != nil {
		s.metrics.recorderErrors.Inc()
		return nil, &access.Error{Code: access.CodeUnavailable, Message: "This session cannot be recorded, so it does not open. The operator's log has the reason.", Cause: err}
	}
	one.rec = rec
	if f, ok := rec.(FailingRecorder); ok {
		f.OnFailure(one.recorderFailed)
	}
	if err := one.start(ctx); err != nil {
		one.cancel(err)
		_, sealErr := rec.Seal("The session did not open.")
		if sealErr != nil {
			one.log.Error("recording not sealed", "error", sealErr)
		}
		return nil, err
	}
	return one, nil
}

// choose finds the one grant that the session runs under.
func choose(v *view, id access.Identity, k Knock, now time.Time) (access.Grant, access.Person, error) {
	type match struct {
		g access.Grant
		p access.Person
	}
	var all, picked []match
	for _, g := range v.grants {
		p, ok := g.Holder(id)
		if !ok || g.Plan.Target.TargetRef != k.Target || !g.Open(now) {
			continue
		}
		all = append(all, match{*g, p})
		if k.Choice == "" || k.Choice == g.Key.ID || k.Choice == g.Plan.Role.Name {
			picked = append(picked, match{*g, p})
		}
	}
	if len(picked) == 1 {
		return picked[0].g, picked[0].p, nil
	}
	slices.SortFunc(all, func(a, b match) int { return cmp.Compare(a.g.Key.ID, b.g.Key.ID) })
	var names []string
	for _, m := range all[:min(len(all), 10)] {
		names = append(names, k.Target.Name+"+"+m.g.Key.ID)
	}
	list := strings.Join(names, " or ")
	switch {
	case len(all) == 0:
		return access.Grant{}, access.Person{}, access.Errorf(access.CodeDenied,
			"%s has no active grant on %s. Ask for one by a pull request to the access repository.", id, k.Target)
	case len(picked) == 0:
		return access.Grant{}, access.Person{}, access.Errorf(access.CodeDenied,
			"%q is neither the id nor the role of a grant that %s has on %s. Connect to %s.", bounded(k.Choice, 64), id, k.Target, list)
	}
	return access.Grant{}, access.Person{}, access.Errorf(access.CodeDenied,
		"You have %d grants here: connect to %s.", len(all), list)
}

// classified keeps an error that may be shown and wraps any other.
func classified(err error, code access.Code, message string) error {
	if err == nil || access.CodeOf(err) != access.CodeInternal {
		return err
	}
	return &access.Error{Code: code, Message: message, Cause: err}
}

func bounded(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

// newID is a random UUID.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: the runtime ends the process instead
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
