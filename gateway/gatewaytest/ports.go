package gatewaytest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway"
)

// minter implements gateway.Minter.
type minter struct{ gate *Gate }

// Lease implements gateway.Minter.
func (m minter) Lease(_ context.Context, key access.GrantKey, session string) (access.Lease, error) {
	if err := m.gate.faults.of(PortLease); err != nil {
		return access.Lease{}, err
	}
	g, ok := m.gate.Ledger.Grant(key.ID)
	if !ok || g.Key != key || g.State != access.StateActive {
		return access.Lease{}, access.Errorf(access.CodeDenied, "grant %s is not active", key)
	}
	lease := access.Lease{Grant: key, Generation: g.Generation, Session: session, Address: g.Plan.Target.Address, Backing: g.Backing, NotAfter: g.NotAfter}
	if m.gate.opts.Lease == nil {
		return lease, nil
	}
	err := m.gate.opts.Lease(g, &lease)
	return lease, err
}

// compiler implements gateway.Compiler. A rule's deny and hold are not HCL
// here, but a piece of the operation's text that they bite on; "" bites on
// nothing. What no rule decides, Options.Judge does.
type compiler struct{ gate *Gate }

// Compile implements gateway.Compiler.
func (c compiler) Compile(rules []access.Rule, g access.Grant, _ access.Identity) (access.Judge, error) {
	if err := c.gate.faults.of(PortCompile); err != nil {
		return nil, err
	}
	var ours []access.Rule
	for _, r := range rules {
		if len(r.On) == 0 || slices.Contains(r.On, g.Plan.Target.TargetRef) {
			ours = append(ours, r)
		}
	}
	return access.JudgeFunc(func(op access.Operation) access.Decision {
		ds := []access.Decision{c.gate.opts.Judge(op)}
		for _, r := range ours {
			ds = append(ds, judge(r, op))
		}
		return access.Strictest(ds...)
	}), nil
}

func judge(r access.Rule, op access.Operation) access.Decision {
	d := access.Decision{Verdict: access.Allow}
	switch {
	case r.Deny != "" && strings.Contains(op.Text, r.Deny):
		d = access.Decision{Verdict: access.Deny, Rule: r.Name, Say: r.Say, Sync: r.Sync}
	case r.Hold != "" && strings.Contains(op.Text, r.Hold):
		d = access.Decision{Verdict: access.Hold, Rule: r.Name, Say: r.Say, Ask: r.Ask, Sync: r.Sync}
	}
	return d
}

// Tape implements gateway.Recorders: it keeps every session's events.
type Tape struct {
	gate *Gate

	mu     sync.Mutex
	order  []string // sessions, in the order that they began
	events map[string][]access.Event
	sealed map[string]string // session -> reason
}

// Record implements gateway.Recorders.
func (t *Tape) Record(s access.SessionInfo, anchor func(access.Head)) (gateway.Recorder, error) {
	if err := t.gate.faults.of(PortRecord); err != nil {
		return nil, err
	}
	t.mu.Lock()
	t.order = append(t.order, s.ID)
	t.mu.Unlock()
	anchor(access.Head{Session: s.ID, Time: s.Started})
	return track{t, s.ID}, nil
}

// Events are what a session's recording holds, or with "" everybody's, one
// session after the other.
func (t *Tape) Events(session string) []access.Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	if session != "" {
		return slices.Clone(t.events[session])
	}
	var out []access.Event
	for _, id := range t.order {
		out = append(out, t.events[id]...)
	}
	return out
}

// Types are the types of a session's events, in order.
func (t *Tape) Types(session string) []access.EventType {
	var out []access.EventType
	for _, e := range t.Events(session) {
		out = append(out, e.Type)
	}
	return out
}

// Sealed is the reason that the session's recording was sealed with.
func (t *Tape) Sealed(session string) (reason string, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	reason, ok = t.sealed[session]
	return reason, ok
}

// Unsealed are the sessions whose recording was begun and never sealed.
func (t *Tape) Unsealed() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(t.order), func(id string) bool { _, ok := t.sealed[id]; return ok })
}

// track is one session's recording.
type track struct {
	tape    *Tape
	session string
}

// Append implements gateway.Recorder.
func (r track) Append(e access.Event, _ bool) error {
	if err := r.tape.gate.faults.of(PortAppend); err != nil {
		return err
	}
	e.Data = slices.Clone(e.Data) // the room uses its buffer again
	r.tape.mu.Lock()
	defer r.tape.mu.Unlock()
	if _, sealed := r.tape.sealed[r.session]; sealed {
		return fmt.Errorf("append %s: the recording is sealed", e.Type)
	}
	r.tape.events[r.session] = append(r.tape.events[r.session], e)
	return nil
}

// Seal implements gateway.Recorder.
func (r track) Seal(reason string) (access.Head, error) {
	if err := r.tape.gate.faults.of(PortSeal); err != nil {
		return access.Head{}, err
	}
	r.tape.mu.Lock()
	defer r.tape.mu.Unlock()
	end := access.Event{Type: access.EventSessionEnd, Time: time.Now().UTC(), Text: reason}
	r.tape.events[r.session] = append(r.tape.events[r.session], end)
	r.tape.sealed[r.session] = reason
	return access.Head{Session: r.session, Segment: uint64(len(r.tape.events[r.session])), Sealed: true}, nil
}
