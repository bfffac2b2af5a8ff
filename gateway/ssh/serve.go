package ssh

import (
	"time"

	gossh "golang.org/x/crypto/ssh"
)

// traffic is what comes in from both sides: an idle connection waits for all of
// it in one goroutine. What is nil is not listened to now.
type traffic struct {
	ins, fromTarget  <-chan gossh.NewChannel
	asks, targetAsks <-chan *gossh.Request
	opened           <-chan struct{}
	warnings         <-chan string

	left     int           // how many of them are still to end; warnings do not
	answered chan struct{} // a request that took time has its answer: the next one
	told     chan struct{} // a sentence is shown: the next one
}

// ended notes that one of the traffic's channels is over.
func ended[T any](t *traffic, from *<-chan T, ok bool) bool {
	if !ok {
		*from = nil
		t.left--
	}
	return !ok
}

// serve answers to what either side opens and asks until both connections are
// over, which the end of b.ctx makes them. What may take time is done beside
// it: channels at once, requests one after the other.
func (b *bridge) serve() {
	t := &traffic{
		ins: b.ins, asks: b.asks, opened: b.opened, left: 3,
		answered: make(chan struct{}, 1), told: make(chan struct{}, 1),
	}
	for t.left > 0 {
		ins := t.ins
		if b.crowded() {
			ins = nil
		}
		select {
		case in, ok := <-ins:
			if ended(t, &t.ins, ok) {
				b.end(errLeft) // how the connection broke is of no use to anybody
			} else {
				b.begin(in, b.serveChannel)
			}
		case in, ok := <-t.fromTarget:
			if ended(t, &t.fromTarget, ok) {
				b.work.Go(b.targetLeft)
			} else {
				b.begin(in, b.serveFromTarget)
			}
		case req, ok := <-t.asks:
			if !ended(t, &t.asks, ok) {
				b.asked(t, req)
			}
		case req, ok := <-t.targetAsks:
			if !ended(t, &t.targetAsks, ok) {
				_ = req.Reply(false, nil) // to keepalive@openssh.com any answer is one
			}
		case <-t.opened:
			b.openedNow(t)
		case text := <-t.warnings:
			t.warnings = nil
			b.work.Go(func() { b.tell(text); t.told <- struct{}{} })
		case <-t.told:
			t.warnings = b.session.Warnings()
		case <-t.answered:
			t.asks = b.asks
		}
	}
}

// openedNow listens to the host as well, if there is a session.
func (b *bridge) openedNow(t *traffic) {
	t.opened = nil
	t.left--
	if b.err != nil {
		return
	}
	t.fromTarget, t.targetAsks, t.warnings = b.target.channels, b.target.requests, b.session.Warnings()
	t.left += 2
}

// begin serves a channel, if there is room for one more.
func (b *bridge) begin(in gossh.NewChannel, serve func(gossh.NewChannel)) {
	if !b.takeChannel() {
		_ = in.Reject(gossh.ResourceShortage, "too many channels are open")
		return
	}
	b.work.Go(func() {
		defer b.leaveChannel()
		serve(in)
	})
}

func (b *bridge) serveChannel(in gossh.NewChannel) {
	switch in.ChannelType() {
	case "session":
		b.serveSession(in)
	case "direct-tcpip":
		b.serveDirect(in)
	default:
		_ = in.Reject(gossh.Prohibited, "channels of this type are not led through")
	}
}

// asked answers to what the client asks of the connection itself.
func (b *bridge) asked(t *traffic, req *gossh.Request) {
	var answer func(*gossh.Request)
	switch isLogin := b.client.User() == loginUser; {
	case req.Type == "tcpip-forward":
		answer = b.listen
	case req.Type == "cancel-tcpip-forward":
		answer = b.unlisten
	case isLogin && req.Type == certifyRequest:
		answer = b.certify
	case isLogin && req.Type == hostCAsRequest:
		answer = b.tellHostCAs
	case isLogin && req.Type == namedRequest:
		answer = b.tellNamed
	default: // to keepalive@openssh.com any answer is one
		_ = req.Reply(req.Type == "no-more-sessions@openssh.com", nil)
		return
	}
	t.asks = nil // answers are told apart by their order alone
	b.work.Go(func() {
		answer(req)
		t.answered <- struct{}{}
	})
}

// targetLeft ends the bridge after its host. Revoking ends the host's side,
// too, and has the better sentence.
func (b *bridge) targetLeft() {
	select {
	case <-b.session.Context().Done():
	case <-time.After(200 * time.Millisecond):
	}
	b.end(errTargetLeft)
}
