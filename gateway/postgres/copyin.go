package postgres

import (
	"context"

	"github.com/tidegate/tidegate/access"
)

// Once the target has begun COPY FROM STDIN, it takes nothing but data, and
// passes over what asks for an answer; any other message ends the COPY. So the
// room knows at each moment on which side of that beginning and of that end
// the client's next message is: see feed.

// feedInTime runs a COPY FROM STDIN of a simple query under a limit of time.
func (b *bridge) feedInTime(read reading, r *reply, l access.Limits) error {
	r.over = make(chan struct{})
	b.copying, b.copies = &reply{over: r.over}, read.copies
	b.stopLate(r, l)
	return b.send(r, 'Q', read.sent, "\x00")
}

// stopLate has the target told to stop what runs longer than it may, beside
// the client's messages.
func (b *bridge) stopLate(r *reply, l access.Limits) {
	if l.Time == 0 {
		return
	}
	over, words := r.over, tooLong(l)
	b.timing.Go(func() {
		if b.over(over, l.Time.Duration()) {
			return
		}
		r.late.Store(&words)
		if err := b.up.cancel(b.ctx); err != nil {
			b.log.Warn("statement not cancelled", "error", err)
		}
	})
}

// executeCopy runs a portal that copies from the client, and waits until the
// target asks for the data or has failed. libpq sends a Sync at once: a target
// that copies passes over it, one that failed waits for it.
func (b *bridge) executeCopy(v *named, r *reply, l access.Limits) error {
	r.over = make(chan struct{})
	over, asked, before := r.over, make(chan struct{}), r.each
	r.each = func(kind byte, msg []byte) bool {
		if kind == 'G' {
			close(asked)
		}
		return before == nil || before(kind, msg)
	}
	b.stopLate(r, l)
	if err := b.send(r, 'E', v.name, "\x00\x00\x00\x00\x00"); err != nil {
		return err
	}
	if err := b.forward(frame{kind: 'H'}); err != nil {
		return err
	}
	if err := b.either(asked, over); err != nil {
		return err
	}
	select {
	case <-asked:
		b.copying, b.copies = &reply{over: over}, 1
	default:
	}
	return nil
}

// either waits for one of two, while it is watched whether the client leaves.
func (b *bridge) either(one, other <-chan struct{}) error {
	if err := b.flush(); err != nil {
		return err
	}
	b.line.Yield()
	defer b.watch(func() { b.end(errLeft) })()
	select {
	case <-one:
	case <-other:
	case <-b.ctx.Done():
	}
	return context.Cause(b.ctx)
}
