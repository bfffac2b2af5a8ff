package gateway

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"sync"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/tracing"
	"github.com/tidegate/tidegate/gateway/mask"
)

// openOp implements Open.
type openOp struct {
	session  *session
	id       uint64
	decision access.Decision
	opaque   bool
	span     tracing.Span

	// Events point at these, which so need no memory of their own.
	shown   access.Operation
	outcome access.Outcome

	before, after *openOp // of the session's list

	mu      sync.Mutex
	typed   *mask.Stream // of what is recorded of the client's bytes; nil: nothing is looked for
	rows    int64
	out, in flow
	closed  bool
}

// flow is what went one way in an operation.
type flow struct {
	bytes int64
	hash  hash.Hash // of what Tap passed on; nil before the first byte
	full  bool      // over the bound: no longer kept byte by byte
}

func (f *flow) add(b []byte) {
	if f.hash == nil {
		f.hash = sha256.New()
	}
	f.hash.Write(b)
	f.bytes += int64(len(b))
}

func (f *flow) sum() string {
	if f.hash == nil {
		return ""
	}
	return hex.EncodeToString(f.hash.Sum(nil))
}

// Admit implements Session.
func (s *session) Admit(ctx context.Context, op access.Operation) (Open, error) {
	if err := s.starts(op); err != nil {
		return nil, err
	}
	began := s.trace.now()
	d := s.decide(op, nil)
	s.server.metrics.judged(d.Verdict)
	o := &openOp{session: s, id: s.lastOp.Add(1), decision: d, opaque: op.Opaque}
	o.span = s.trace.operation(began, o.id, op, d)
	o.shown = s.shown(op)
	if err := s.record(access.Event{Type: access.EventOpen, Op: o.id, Operation: &o.shown, Decision: &o.decision}, d.Sync); err != nil {
		o.span.Done(err)
		return nil, err
	}
	s.list(o)
	if err := s.settle(ctx, o, op); err != nil {
		status := "refused"
		if access.CodeOf(err) == access.CodeCancelled {
			status = "cancelled"
		}
		_ = o.Close(access.Outcome{Status: status})
		return nil, err
	}
	return o, nil
}

// settle brings a decision to allow, or says why not.
func (s *session) settle(ctx context.Context, o *openOp, op access.Operation) error {
	switch o.decision.Verdict {
	case access.Allow: // the recording may have taken its time all the same
	case access.Hold:
		d, err := s.hold(ctx, o, op)
		if err != nil {
			return err
		}
		o.decision = d
	default:
		return refusal(o.decision)
	}
	return s.starts(op) // the grant may have ended meanwhile
}

func refusal(d access.Decision) *access.Error {
	say := d.Say
	if say == "" {
		say = "This is not allowed here."
	}
	return &access.Error{Code: access.CodeDenied, Message: say, Rule: d.Rule}
}

func (o *openOp) ID() uint64                { return o.id }
func (o *openOp) Decision() access.Decision { return o.decision }

// Tap implements Open. What is passed on has been recorded before.
func (o *openOp) Tap(dir access.Direction, b []byte) ([]byte, error) {
	if err := o.session.alive(); err != nil {
		return nil, err
	}
	if len(b) == 0 {
		return b, nil
	}
	if masks := o.masks(); masks != nil && dir == access.ToClient {
		masks.Mask(b)
	}
	return o.pass(dir, b)
}

// pass records bytes as they are and counts them.
func (o *openOp) pass(dir access.Direction, b []byte) ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return nil, access.Errorf(access.CodeInternal, "The operation was closed before its bytes were sent.")
	}
	if err := o.keep(dir, b); err != nil {
		return nil, err
	}
	if dir == access.ToClient {
		o.out.add(b)
	} else {
		o.in.add(b)
	}
	return b, nil
}

// keep records the bytes themselves, as far as the role asks for it.
func (o *openOp) keep(dir access.Direction, b []byte) error {
	f, role := &o.out, o.session.recording
	if dir == access.ToTarget {
		f = &o.in
		if role != access.RecordInput && role != access.RecordAll {
			return nil
		}
	}
	if f.full || o.opaque && role != access.RecordAll {
		return nil
	}
	if most := o.session.server.cfg.MaxRecorded; role != access.RecordAll && f.bytes+int64(len(b)) > most {
		f.full = true
		text := fmt.Sprintf("More than %d bytes (%s): from here on only size and hash are kept.", most, dir)
		return o.session.record(access.Event{Type: access.EventNotice, Op: o.id, Text: text}, o.decision.Sync)
	}
	return o.session.record(access.Event{Type: access.EventData, Op: o.id, Direction: dir, Data: o.withoutTyped(dir, b)}, o.decision.Sync)
}

// Resize implements Open.
func (o *openOp) Resize(columns, rows int) error {
	return o.session.record(access.Event{Type: access.EventResize, Op: o.id, Columns: columns, Rows: rows}, false)
}

// Count implements Open.
func (o *openOp) Count(rows, bytes int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.rows += rows
	o.out.bytes += bytes
}

// Close implements Open.
func (o *openOp) Close(out access.Outcome) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return nil
	}
	o.closed = true
	out.Rows += o.rows
	out.Bytes += o.out.bytes
	out.Received += o.in.bytes
	out.Hash = cmp.Or(out.Hash, o.out.sum())
	out.ReceivedHash = cmp.Or(out.ReceivedHash, o.in.sum())
	s := o.session
	s.unlist(o)
	endOperation(o.span, out)
	o.outcome = out
	return s.record(access.Event{Type: access.EventClose, Op: o.id, Outcome: &o.outcome}, false)
}
