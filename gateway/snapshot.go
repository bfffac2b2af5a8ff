package gateway

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tidegate/tidegate/access"
)

// staleEnd is how old a snapshot may be before sessions end whose target says
// when_stale = "end".
const staleEnd = 5 * time.Minute

// view is what a snapshot said, verified. It never changes once published.
type view struct {
	read   time.Time                         // when the read began
	grants map[access.GrantKey]*access.Grant // shared by all sessions
	rules  []access.Rule

	targets []access.Target
	key     string // equal for equal rules
	behind  int64  // how far the ledger went back in time; 0: it did not
}

// seen is the newest row that this process ever believed of a grant.
type seen struct {
	sequence int64
	payload  [sha256.Size]byte
}

// book turns what the ledger answers into views. It remembers the highest
// sequence of each grant, so that an old row, although signed, is refused.
type book struct {
	key     ed25519.PublicKey
	mu      sync.Mutex // one refresh at a time: an older answer never follows a newer
	highest map[access.GrantKey]seen
	latest  int64                               // the highest sequence of the whole ledger
	known   map[[sha256.Size]byte]*access.Grant // the rows of the last view: most are the same in the next
	view    atomic.Pointer[view]
}

func newBook(key ed25519.PublicKey) *book {
	return &book{key: key, highest: map[access.GrantKey]seen{}}
}

// read builds a view. A row that cannot be believed is left out: nothing
// opens under it, and the error says so for the log.
func (b *book) read(snap Snapshot, at time.Time) (*view, error) {
	v := &view{read: at, grants: make(map[access.GrantKey]*access.Grant, len(snap.Grants)), rules: snap.Rules, targets: snap.Targets}
	b.latest = max(b.latest, snap.Sequence)
	v.behind = b.latest - snap.Sequence
	var errs []error
	if v.behind > 0 {
		errs = append(errs, fmt.Errorf("the ledger went back in time: got sequence %d, have seen %d; nothing opens", snap.Sequence, b.latest))
	}
	bad := map[access.GrantKey]bool{}
	known := make(map[[sha256.Size]byte]*access.Grant, len(snap.Grants))
	for _, row := range snap.Grants {
		g, err := b.believe(row, known)
		if _, twice := v.grants[g.Key]; err == nil && twice {
			err = fmt.Errorf("grant %s: two rows in one snapshot", g.Key)
		}
		if err != nil {
			errs, bad[g.Key] = append(errs, err), true
			continue
		}
		v.grants[g.Key] = g
	}
	b.known = known
	for k := range bad {
		delete(v.grants, k)
	}
	enc, err := json.Marshal(snap.Rules)
	if err != nil {
		return nil, fmt.Errorf("encode today's rules: %w", err)
	}
	v.key = string(enc)
	return v, errors.Join(errs...)
}

// believe verifies one row and holds it against what was seen before.
func (b *book) believe(row SignedGrant, known map[[sha256.Size]byte]*access.Grant) (*access.Grant, error) {
	sum := sha256.Sum256(row.Payload)
	mark := sha256.Sum256(append(sum[:], row.Signature...))
	g, ok := b.known[mark]
	if !ok {
		g = &access.Grant{}
		if !ed25519.Verify(b.key, access.GrantSigningBytes(row.Payload), row.Signature) {
			return g, errors.New("a grant's row is not signed by control: refused")
		}
		if err := json.Unmarshal(row.Payload, g); err != nil {
			return g, fmt.Errorf("parse signed grant: %w", err)
		}
	}
	old, seenBefore := b.highest[g.Key]
	if seenBefore && g.Sequence < old.sequence {
		return g, fmt.Errorf("grant %s: got sequence %d, have seen %d: the row was rolled back", g.Key, g.Sequence, old.sequence)
	}
	if seenBefore && g.Sequence == old.sequence && sum != old.payload {
		return g, fmt.Errorf("grant %s: two different rows with sequence %d", g.Key, g.Sequence)
	}
	b.highest[g.Key], known[mark] = seen{g.Sequence, sum}, g
	return g, nil
}

// Refresh reads the ledger now and re-judges every live session.
func (s *Server) Refresh(ctx context.Context) error {
	s.book.mu.Lock()
	defer s.book.mu.Unlock()
	at := s.cfg.Now() // before the read: the answer is at least as new as this
	ctx, cancel := context.WithTimeout(ctx, s.cfg.SnapshotLease)
	defer cancel()
	snap, err := s.cfg.Ledger.Snapshot(ctx)
	if err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	v, err := s.book.read(snap, at)
	if err != nil {
		s.metrics.badRows.Inc()
		s.log.Error("the ledger holds rows that cannot be believed; nothing opens under them", "error", err)
	}
	if v == nil {
		return err
	}
	s.book.view.Store(v)
	for _, one := range s.live() {
		one.apply(v)
	}
	return nil
}

// current is the view to open sessions by, or why there is none.
func (s *Server) current() (*view, error) {
	v := s.book.view.Load()
	if v == nil {
		return nil, access.Errorf(access.CodeUnavailable, "The gateway has not read the grants yet. Try again in a moment.")
	}
	if age := s.cfg.Now().Sub(v.read); age > s.cfg.SnapshotLease {
		return nil, access.Errorf(access.CodeUnavailable,
			"The gateway has not heard from its ledger for %s, so it opens nothing new. Try again later; the operator can see why in the gateway's log.", age.Round(time.Second))
	}
	if v.behind > 0 {
		return nil, access.Errorf(access.CodeUnavailable,
			"The gateway's ledger went back in time, so it opens nothing. The operator must look: was it restored from a backup?")
	}
	return v, nil
}

// Run keeps the snapshot fresh until ctx ends: on each change, and on a poll
// behind it.
func (s *Server) Run(ctx context.Context) error {
	changed, err := s.cfg.Ledger.Changed(ctx)
	if err != nil {
		s.log.Warn("no change notices from the ledger; polling alone", "error", err)
	}
	poll := time.NewTicker(s.cfg.SnapshotLease / 4)
	defer poll.Stop()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	s.refreshLogged(ctx)
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-changed:
			if !ok {
				changed = nil // the poll goes on
				continue
			}
			s.pulse.beat()
			s.refreshLogged(ctx)
		case <-poll.C:
			s.refreshLogged(ctx)
		case <-tick.C:
			s.endOverdue()
		}
	}
}

func (s *Server) refreshLogged(ctx context.Context) {
	err := s.Refresh(ctx)
	if err == nil {
		s.settle(ctx)
	} else if ctx.Err() == nil {
		s.log.Error("snapshot not refreshed", "error", err)
	}
}

// endOverdue catches what the sessions' own timers cannot: a wall clock that
// was set forward, and a snapshot that went stale.
func (s *Server) endOverdue() {
	v := s.book.view.Load()
	stale := v != nil && s.cfg.Now().Sub(v.read) > staleEnd
	for _, one := range s.live() {
		if stale && one.grantNow().Plan.Target.WhenStale == access.WhenStaleEnd {
			one.end(access.Errorf(access.CodeUnavailable, "The gateway has not heard from its ledger for %s, and this target ends sessions then.", staleEnd))
			continue
		}
		_ = one.alive()
	}
}

// pulse wakes everybody who waits for a change.
type pulse struct {
	mu sync.Mutex
	ch chan struct{}
}

func (p *pulse) wait() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ch == nil {
		p.ch = make(chan struct{})
	}
	return p.ch
}

func (p *pulse) beat() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ch != nil {
		close(p.ch)
		p.ch = nil
	}
}

// isTransient tells a shortage from a listener that is gone.
func isTransient(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ECONNABORTED)
}
