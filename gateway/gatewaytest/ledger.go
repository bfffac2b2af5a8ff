package gatewaytest

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"slices"
	"strings"
	"sync"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway"
)

// Ledger implements gateway.Ledger in memory.
type Ledger struct {
	gate   *Gate
	opened chan access.Held // each hold as it opens; see NextHeld

	mu       sync.Mutex
	sequence int64
	grants   []access.Grant
	rows     []gateway.SignedGrant // of grants, or what SetRows put there
	rules    []access.Rule
	held     []access.Held
	pins     map[string]string // provider and e-mail -> subject
	sessions map[string]access.SessionInfo
	closed   map[string]string // session -> reason
	heads    []access.Head
	watchers []chan struct{}
}

func newLedger(g *Gate) *Ledger {
	return &Ledger{gate: g, opened: make(chan access.Held, 1024), pins: map[string]string{},
		sessions: map[string]access.SessionInfo{}, closed: map[string]string{}}
}

// put replaces or adds grants, and signs each anew.
func (l *Ledger) put(grants ...access.Grant) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, g := range grants {
		l.sequence++
		g.Sequence = l.sequence
		payload, err := json.Marshal(g)
		if err != nil {
			panic("gatewaytest: encode grant: " + err.Error()) // plain data
		}
		row := l.gate.Sign(payload)
		if i := slices.IndexFunc(l.grants, func(x access.Grant) bool { return x.Key == g.Key }); i >= 0 {
			l.grants[i], l.rows[i] = g, row
			continue
		}
		l.grants, l.rows = append(l.grants, g), append(l.rows, row)
	}
	l.tell()
}

// Grant is the newest row of the grant.
func (l *Ledger) Grant(id string) (access.Grant, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, g := range l.grants {
		if g.Key.ID == id {
			return g, true
		}
	}
	return access.Grant{}, false
}

// Rows is a copy of what the next snapshot will hold.
func (l *Ledger) Rows() []gateway.SignedGrant {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]gateway.SignedGrant, len(l.rows))
	for i, r := range l.rows {
		out[i] = gateway.SignedGrant{Payload: slices.Clone(r.Payload), Signature: slices.Clone(r.Signature)}
	}
	return out
}

// SetRows makes the next snapshots hold any rows: rolled back, forged,
// doubled. A later Put of a grant that isn't among them is not foreseen.
func (l *Ledger) SetRows(rows ...gateway.SignedGrant) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rows = rows
}

// Restore makes the ledger what it was: its rows, and the sequence after them.
func (l *Ledger) Restore(rows []gateway.SignedGrant, sequence int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rows, l.sequence = rows, sequence
}

func (l *Ledger) setRules(rules []access.Rule) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rules = rules
	l.tell()
}

// tell notifies who waits for changes; the caller has the lock.
func (l *Ledger) tell() {
	for _, ch := range l.watchers {
		select {
		case ch <- struct{}{}:
		default: // one is waiting there already
		}
	}
}

// Snapshot implements gateway.Ledger.
func (l *Ledger) Snapshot(context.Context) (gateway.Snapshot, error) {
	if err := l.gate.faults.of(PortSnapshot); err != nil {
		return gateway.Snapshot{}, err
	}
	l.mu.Lock()
	rules, sequence := slices.Clone(l.rules), l.sequence
	l.mu.Unlock()
	return gateway.Snapshot{Grants: l.Rows(), Rules: rules, Sequence: sequence}, nil
}

// Changed implements gateway.Ledger.
func (l *Ledger) Changed(ctx context.Context) (<-chan struct{}, error) {
	ch := make(chan struct{}, 1)
	l.mu.Lock()
	l.watchers = append(l.watchers, ch)
	l.mu.Unlock()
	context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.watchers = slices.DeleteFunc(l.watchers, func(c chan struct{}) bool { return c == ch })
		close(ch)
	})
	return ch, nil
}

// Pin implements gateway.Ledger.
func (l *Ledger) Pin(_ context.Context, id access.Identity) error {
	if err := l.gate.faults.of(PortPin); err != nil {
		return err
	}
	if !id.EmailVerified || id.Email == "" {
		return nil // not named by e-mail: its subject is its name
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	key := id.Provider + "\n" + strings.ToLower(id.Email)
	if was, known := l.pins[key]; known && was != id.Subject {
		return access.Errorf(access.CodeDenied, "%s belongs to another subject since its first login.", id)
	}
	l.pins[key] = id.Subject
	return nil
}

// OpenSession implements gateway.Ledger.
func (l *Ledger) OpenSession(_ context.Context, s access.SessionInfo) error {
	if err := l.gate.faults.of(PortOpenSession); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sessions[s.ID] = s
	return nil
}

// CloseSession implements gateway.Ledger.
func (l *Ledger) CloseSession(_ context.Context, id, reason string) error {
	if err := l.gate.faults.of(PortCloseSession); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, listed := l.sessions[id]; !listed {
		return access.Errorf(access.CodeNotFound, "no session %s is open", id)
	}
	delete(l.sessions, id)
	l.closed[id] = reason
	return nil
}

// Sessions are the open sessions as people would see them listed.
func (l *Ledger) Sessions() []access.SessionInfo {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []access.SessionInfo
	for _, s := range l.sessions {
		out = append(out, s)
	}
	return out
}

// Closed is the reason that a closed session was given; ok is false for one
// that was never closed.
func (l *Ledger) Closed(session string) (reason string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	reason, ok = l.closed[session]
	return reason, ok
}

// Anchor implements gateway.Ledger.
func (l *Ledger) Anchor(_ context.Context, h access.Head) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heads = append(l.heads, h)
	return nil
}

// Heads are the anchored heads, in order.
func (l *Ledger) Heads() []access.Head {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.heads)
}

// OpenHeld implements gateway.Ledger.
func (l *Ledger) OpenHeld(_ context.Context, h access.Held) (access.Held, error) {
	if err := l.gate.faults.of(PortOpenHeld); err != nil {
		return h, err
	}
	if !ed25519.Verify(l.gate.known, h.SigningBytes(), h.Signature) {
		return h, access.Errorf(access.CodeDenied, "the gateway did not sign what it holds") // control would void it
	}
	l.mu.Lock()
	h.Number = len(l.held) + 1
	l.held = append(l.held, h)
	l.mu.Unlock()
	l.opened <- h
	if reply := l.gate.opts.OnHeld; reply != nil {
		if r := reply(h); r != nil {
			return h, l.answer(h, l.gate.signed(h, *r))
		}
	}
	return h, nil
}

// Held implements gateway.Ledger.
func (l *Ledger) Held(_ context.Context, id string) (access.Held, error) {
	return l.turn(id, func(*access.Held) error { return nil })
}

// AllHeld are all held operations, in order.
func (l *Ledger) AllHeld() []access.Held {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.held)
}

// ConsumeHeld implements gateway.Ledger.
func (l *Ledger) ConsumeHeld(_ context.Context, id string) (access.Held, error) {
	if err := l.gate.faults.of(PortConsumeHeld); err != nil {
		return access.Held{}, err
	}
	if l.gate.opts.OnConsume != nil {
		l.gate.opts.OnConsume(l.gate, id)
	}
	return l.turn(id, func(h *access.Held) error {
		if h.State != access.HeldAnswered {
			return access.Errorf(access.CodeConflict, "%s is %s, want answered", h.Name(), h.State)
		}
		h.State = access.HeldConsumed
		return nil
	})
}

// CancelHeld implements gateway.Ledger.
func (l *Ledger) CancelHeld(_ context.Context, id string, state access.HeldState) error {
	_, err := l.turn(id, func(h *access.Held) error {
		if h.State != access.HeldOpen && h.State != access.HeldAnswered {
			return access.Errorf(access.CodeConflict, "%s is %s, want open or answered", h.Name(), h.State)
		}
		h.State = state
		return nil
	})
	return err
}

func (l *Ledger) answer(h access.Held, a access.Answer) error {
	_, err := l.turn(h.ID, func(h *access.Held) error {
		if h.State != access.HeldOpen {
			return access.Errorf(access.CodeConflict, "%s is %s, want open", h.Name(), h.State)
		}
		h.State, h.Answer = access.HeldAnswered, &a
		l.tell()
		return nil
	})
	return err
}

// turn changes one held operation under the lock.
func (l *Ledger) turn(id string, f func(*access.Held) error) (access.Held, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.held {
		if l.held[i].ID == id {
			err := f(&l.held[i])
			return l.held[i], err
		}
	}
	return access.Held{}, access.Errorf(access.CodeNotFound, "no held operation %s", id)
}
