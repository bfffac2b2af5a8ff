package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway"
)

// readClient reads ahead within bounds, also while a statement waits for a
// person, and so sees the client leave.
func (b *bridge) readClient() {
	for {
		f, err := readFrame(b.client)
		if e := (*access.Error)(nil); errors.As(err, &e) {
			b.end(violation("%s", e.Message))
			return
		}
		if err != nil {
			b.end(errLeft)
			return
		}
		b.frames.push(f)
		if f.kind == 'X' {
			b.leave()
			return
		}
	}
}

// handleClient is the only one that writes to the target.
func (b *bridge) handleClient() {
	for {
		f, ok := b.frames.pop()
		if !ok {
			return
		}
		err := b.handle(f)
		if err == nil && b.frames.empty() {
			err = b.flush()
		}
		if err != nil {
			b.end(err)
			return
		}
		if f.kind == 'X' {
			return
		}
	}
}

func (b *bridge) flush() error {
	if err := b.up.w.Flush(); err != nil {
		return &targetGone{cause: fmt.Errorf("write to target: %w", err)}
	}
	return nil
}

func (b *bridge) handle(f frame) error {
	if b.copying != nil {
		if done, err := b.feed(f); done || err != nil {
			return err
		}
	}
	if b.discard && f.kind != 'S' && f.kind != 'X' {
		return nil
	}
	switch f.kind {
	case 'Q':
		return b.query(f.body)
	case 'P':
		return b.parse(f.body)
	case 'B':
		return b.bind(f.body)
	case 'D':
		return b.describe(f.body)
	case 'E':
		return b.execute(f.body)
	case 'C':
		return b.closeName(f.body)
	case 'S':
		b.discard = false
		if err := b.sweep(); err != nil {
			return err
		}
		return b.send(&reply{kind: 'S'}, f)
	case 'H':
		return b.send(nil, f)
	case 'X':
		return errors.Join(b.send(nil, f), b.flush())
	case 'd', 'c', 'f':
		return nil // the rest of a COPY that failed: PostgreSQL drops it, too
	}
	return violation("Message type %q is not allowed through Tidegate.", f.kind)
}

// send expects the reply and forwards the message.
func (b *bridge) send(r *reply, f frame) error {
	if r != nil {
		if b.replies.full() {
			if err := b.flush(); err != nil {
				return err
			}
		}
		if !b.replies.push(r) {
			return context.Cause(b.ctx)
		}
	}
	if b.ctx.Err() != nil {
		return context.Cause(b.ctx)
	}
	if _, err := b.up.w.Write(message(f.kind, f.body)); err != nil {
		return &targetGone{cause: fmt.Errorf("write to target: %w", err)}
	}
	return nil
}

// query judges each statement of a text; the strictest decision decides.
func (b *bridge) query(body []byte) error {
	text, rest, ok := cutString(body)
	if !ok || len(rest) > 0 {
		return violation("A query does not end as it must.")
	}
	stmts, sent, err := b.understand(text)
	if err != nil {
		return b.refuse('Q', err)
	}
	opens, err := b.admitAll(stmts)
	if err != nil {
		return b.refuse('Q', err)
	}
	r := &reply{kind: 'Q', opens: opens}
	for _, s := range stmts {
		if c := s.node.GetCopyStmt(); c != nil && c.IsFrom {
			b.copies++
		}
	}
	if b.copies > 0 {
		r.over = make(chan struct{})
		b.copying = &reply{over: r.over}
	}
	return b.send(r, frame{'Q', append([]byte(sent), 0)})
}

// understand parses and rewrites a text. What is not understood is recorded
// as refused.
func (b *bridge) understand(text string) ([]statement, string, error) {
	stmts, err := classify(text)
	sent := text
	if err == nil {
		guardMasked(stmts, b.plan)
		sent, err = rewrite(text, stmts, b.plan)
	}
	if err != nil {
		b.recordRefusal(access.Operation{
			Kind: "query", Subject: "statement", Text: text[:min(len(text), maxText)], Facts: access.Facts{"kind": "unknown"},
			Guard: &access.Decision{Verdict: access.Deny, Rule: "not-understood", Say: access.Message(err)},
		})
		return nil, "", err
	}
	return stmts, sent, nil
}

// recordRefusal asks for what the guard already denies.
func (b *bridge) recordRefusal(op access.Operation) {
	open, err := b.admit(op)
	if err == nil {
		_ = open.Close(access.Outcome{Status: "refused"})
	}
}

// admitAll asks for each statement, first for one that is denied: nobody is
// asked about a text that will be refused anyway.
func (b *bridge) admitAll(stmts []statement) ([]gateway.Open, error) {
	for _, s := range stmts {
		if b.session.Judge(s.op).Verdict != access.Deny {
			continue
		}
		open, err := b.admit(s.op)
		if err != nil {
			return nil, err
		}
		_ = open.Close(skipped) // the rules changed in between
	}
	var opens []gateway.Open
	for _, s := range stmts {
		open, err := b.admit(s.op)
		if err != nil {
			for _, o := range opens {
				_ = o.Close(skipped)
			}
			return nil, err
		}
		opens = append(opens, open)
	}
	return opens, nil
}

// admit asks the session. It may wait for a person, so what the client sent
// before goes out first.
func (b *bridge) admit(op access.Operation) (gateway.Open, error) {
	if b.session.Judge(op).Verdict == access.Hold {
		if err := b.flush(); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithCancel(b.present)
	defer cancel()
	b.setWaiting(cancel)
	defer b.setWaiting(nil)
	return b.session.Admit(ctx, op)
}

func (b *bridge) setWaiting(cancel context.CancelFunc) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting = cancel
}

// refuse sends the target something that fails in place of what is refused,
// and has our error shown in place of the target's.
func (b *bridge) refuse(kind byte, err error) error {
	return b.refuseWith(kind, refusal(err))
}

func (b *bridge) refuseWith(kind byte, msg []byte) error {
	if kind == 'Q' {
		return b.send(&reply{kind: 'Q', instead: msg}, frame{'Q', []byte(unparsable + "\x00")})
	}
	b.discard = true
	return b.send(&reply{kind: 'P', instead: msg}, frame{'P', []byte("\x00" + unparsable + "\x00\x00\x00")})
}

// feed handles a message while the target may be in COPY FROM STDIN. There it
// would take any other message for data's end, and answers would no longer
// fit; so others wait until the COPY is over.
func (b *bridge) feed(f frame) (done bool, err error) {
	select {
	case <-b.copying.over:
		b.copying, b.copies = nil, 0
		return false, nil
	default:
	}
	switch f.kind {
	case 'd':
		return true, b.send(nil, f)
	case 'c', 'f':
		if b.copies--; b.copies == 0 {
			b.copying = nil
		}
		return true, b.send(nil, f)
	case 'H', 'S':
		return true, nil
	}
	if err := b.flush(); err != nil {
		return true, err
	}
	select {
	case <-b.copying.over:
		b.copying, b.copies = nil, 0
		return false, nil
	case <-b.present.Done():
		return false, nil
	case <-time.After(10 * time.Second):
		return true, violation("Message type %q came while the target waits for COPY data.", f.kind)
	}
}
