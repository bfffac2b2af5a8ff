package postgres

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway"
	"github.com/tidegate/tidegate/gateway/postgres/poll"
)

// readClient takes the client's messages one by one. It is the only one that
// writes to the target, and writes before it waits for the next read. It is a
// turn: see package poll.
func (b *bridge) readClient() (over bool) {
	for b.reading {
		f, size, err := b.nextFrame()
		if err == poll.ErrAgain {
			return false
		}
		if err == nil {
			err = b.handle(f)
			b.in.use(size)
		}
		if err == nil && f.kind == 'X' {
			b.leaving.Store(true) // the target ends the rest
			if err = b.flush(); err == nil {
				b.in.release()
				return true
			}
		}
		if err != nil {
			b.end(err)
			b.reading = false
			b.in.release()
		}
	}
	return b.discardRest()
}

// discardRest reads what nobody wants any more. It ends with the connection:
// see shut.
func (b *bridge) discardRest() (over bool) {
	var buf [smallSize]byte
	for {
		if _, err := b.client.Read(buf[:]); err != nil {
			return err != poll.ErrAgain
		}
	}
}

func (b *bridge) nextFrame() (frame, int, error) {
	for {
		f, size, ok, err := takeFrame(b.in.bytes())
		if err != nil {
			return f, 0, violation("%s", access.Message(err))
		}
		if ok {
			return f, size, nil
		}
		if err := b.flush(); err != nil {
			return f, 0, err
		}
		switch err := b.in.fill(); err {
		case nil:
		case poll.ErrAgain:
			return f, 0, err
		default:
			return f, 0, errLeft
		}
	}
}

func (b *bridge) flush() error {
	if err := b.up.out.flush(); err != nil {
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
		return b.send(shortReply('S'), 'S')
	case 'H', 'X':
		return b.forward(f)
	case 'd', 'c', 'f':
		return nil // the rest of a COPY that failed: PostgreSQL drops it, too
	}
	return violation("Message type %q is not allowed through Tidegate.", f.kind)
}

// send expects the reply and sends a message made of the pieces.
func (b *bridge) send(r *reply, kind byte, pieces ...string) error {
	if b.replies.full() {
		if err := b.flush(); err != nil {
			return err
		}
		b.line.Yield()
	}
	if !b.replies.push(r) || b.ctx.Err() != nil {
		return context.Cause(b.ctx)
	}
	if err := b.up.out.message(kind, pieces...); err != nil {
		return &targetGone{cause: fmt.Errorf("write to target: %w", err)}
	}
	return nil
}

// forward sends a message that has no reply, as it is.
func (b *bridge) forward(f frame) error {
	if b.ctx.Err() != nil {
		return context.Cause(b.ctx)
	}
	if err := b.up.out.bytes(f.kind, f.body); err != nil {
		return &targetGone{cause: fmt.Errorf("write to target: %w", err)}
	}
	return nil
}

// query judges each statement of a text; the strictest decision decides.
func (b *bridge) query(body []byte) error {
	end := len(body) - 1
	if end < 0 || bytes.IndexByte(body, 0) != end {
		return violation("A query does not end as it must.")
	}
	read, effects, err := b.understand(body[:end], 'Q')
	if err != nil {
		return b.refuse('Q', err)
	}
	b.follow(&read)
	r := &reply{kind: 'Q'}
	var one [1]request
	if err := b.admitAll(read.requests(one[:0]), r); err != nil {
		return b.refuse('Q', err)
	}
	limits := limitsOf(r.opens)
	if err := read.limitable(limits); err != nil {
		r.drop(notSent)
		return b.refuse('Q', err)
	}
	if err := r.expect(effects); err != nil {
		r.drop(skipped)
		return b.refuse('Q', err)
	}
	r.keep(limits)
	if alone(limits) {
		return b.queryAlone(read, r, limits)
	}
	if read.copies > 0 {
		r.over = make(chan struct{})
		b.copying, b.copies = &reply{over: r.over}, read.copies
	}
	return b.send(r, 'Q', read.sent, "\x00")
}

// understand parses and rewrites a text. What is not understood is recorded
// as refused.
func (b *bridge) understand(text []byte, kind byte) (reading, []effect, error) {
	if len(text) > largeText {
		b.line.Yield() // it waits for its turn, and takes long
	}
	var effects []effect
	read, err := b.read(text, kind)
	unread := err != nil
	if err == nil {
		read.withhold(b.session.Withhold)
		effects, err = b.resolve(&read)
	}
	if err != nil && access.CodeOf(err) != access.CodeDenied { // a denial is recorded where it is found
		shown, say := b.plan.refusedText(string(text[:min(len(text), maxText)]), access.Message(err), unread, b.session.Withhold)
		b.recordRefusal(access.Operation{
			Kind: "query", Subject: "statement", Text: shown, Facts: access.Facts{"kind": "unknown"},
			Guard: &access.Decision{Verdict: access.Deny, Rule: "not-understood", Say: say},
		})
	}
	if err == nil && read.notice != "" {
		b.note(read.notice)
	}
	return read, effects, err
}

// note tells the client something about its statement, once in a session.
func (b *bridge) note(text string) {
	if b.noted == text {
		return
	}
	b.noted = text
	b.say(report{"NOTICE", "00000", text, ""})
}

// recordRefusal asks for what the guard already denies.
func (b *bridge) recordRefusal(op access.Operation) {
	open, err := b.admit(op, b.session.Judge(op))
	if err == nil {
		_ = open.Close(access.Outcome{Status: "refused"})
	}
}

// admitAll asks for each statement, of several first for one that is denied:
// nobody is asked about a text that will be refused anyway.
func (b *bridge) admitAll(requests []request, r *reply) error {
	if len(requests) > 1 {
		var ops []access.Operation
		for i := range requests {
			requests[i], _ = b.weigh(requests[i])
			ops = append(ops, requests[i].op)
		}
		if err := b.admitDenied(ops); err != nil {
			return err
		}
	}
	r.opens = r.first[:0]
	for _, q := range requests {
		open, err := b.admitRequest(q)
		if err != nil {
			for _, o := range r.opens {
				_ = o.Close(skipped)
			}
			r.opens = nil
			return err
		}
		r.opens = append(r.opens, open)
	}
	for _, q := range requests {
		b.remember(q.op)
	}
	return nil
}

// admitDenied finds one that is denied, and has it recorded and refused.
func (b *bridge) admitDenied(ops []access.Operation) error {
	for _, op := range ops {
		d := b.session.Judge(op)
		if d.Verdict != access.Deny || b.undecided(op) {
			continue
		}
		open, err := b.admit(op, d)
		if err != nil {
			return err
		}
		_ = open.Close(skipped) // the rules changed in between
	}
	return nil
}

// undecided reports whether a denial may rest on nobody knowing the rows yet.
func (b *bridge) undecided(op access.Operation) bool {
	_, known := op.Facts["rows"]
	return !known && op.Guard == nil && b.session.Reads("rows")
}

// admit asks the session, whose Judge expects d. It may wait for a person: then
// what the client sent before goes out first, and the client is watched
// meanwhile.
func (b *bridge) admit(op access.Operation, d access.Decision) (gateway.Open, error) {
	if d.Sync || d.Verdict == access.Hold {
		b.line.Yield() // it waits for the disk, or for a person
	}
	if d.Verdict != access.Hold {
		open, err := b.session.Admit(b.hurried, op)
		if err == nil || access.CodeOf(err) != access.CodeCancelled {
			return open, err
		} // else the rules changed in between: it waits after all
	}
	if err := b.flush(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	b.setWaiting(cancel)
	defer b.setWaiting(nil)
	defer b.watch(cancel)()
	return b.session.Admit(ctx, op)
}

func (b *bridge) setWaiting(cancel context.CancelFunc) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting = cancel
}

// watch reads ahead, and cancels when the client leaves. The function that it
// returns ends the watch.
func (b *bridge) watch(cancel context.CancelFunc) (stop func()) {
	done := make(chan struct{})
	b.line.Patient(true)
	go func() {
		defer close(done)
		b.in.readAhead(cancel)
	}()
	return func() {
		_ = b.client.SetReadDeadline(time.Unix(1, 0))
		<-done
		b.line.Patient(false)
		_ = b.client.SetReadDeadline(time.Time{})
		if b.ctx.Err() != nil { // shut may have set its own in between
			_ = b.client.SetReadDeadline(time.Now().Add(lingerTime))
		}
	}
}

// refuse sends the target something that fails in place of what is refused,
// and has our error shown in place of the target's.
func (b *bridge) refuse(kind byte, err error) error {
	return b.refuseWith(kind, refusal(err))
}

func (b *bridge) refuseWith(kind byte, msg []byte) error {
	if kind == 'Q' {
		return b.send(&reply{kind: 'Q', instead: msg}, 'Q', unparsable+"\x00")
	}
	b.discard = true
	return b.send(&reply{kind: 'P', instead: msg}, 'P', "\x00"+unparsable+"\x00\x00\x00")
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
		return true, b.forward(f)
	case 'c', 'f':
		if b.copies--; b.copies == 0 {
			b.copying = nil
		}
		return true, b.forward(f)
	case 'H', 'S':
		return true, nil
	}
	if err := b.flush(); err != nil {
		return true, err
	}
	b.line.Yield()
	select {
	case <-b.copying.over:
		b.copying, b.copies = nil, 0
		return false, nil
	case <-b.ctx.Done():
		return true, context.Cause(b.ctx)
	case <-time.After(copyPatience):
		return true, violation("Message type %q came while the target waits for COPY data.", f.kind)
	}
}
