package ssh

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
)

// maxListens bounds the ports of one grant, on all its connections together.
const maxListens = 32

// listening is a port at the host on which it listens for the client.
type listening struct {
	listenPayload
	open *standing
}

// listen judges a port and asks the host for it.
func (b *bridge) listen(req *gossh.Request) {
	var p listenPayload
	if gossh.Unmarshal(req.Payload, &p) != nil || p.Port > 65535 || len(p.Host) > 255 || b.ready(b.ctx) != nil {
		_ = req.Reply(false, nil)
		return
	}
	answer, err := b.openPort(p, req.Payload)
	if err != nil {
		b.tell(strings.TrimPrefix(words(err), "tidegate: "))
	}
	_ = req.Reply(err == nil, answer)
}

func (b *bridge) openPort(p listenPayload, payload []byte) (answer []byte, err error) {
	host, ok := plainHost(p.Host)
	if slices.Contains(anyNames, p.Host) {
		host, ok = p.Host, true
	}
	if !ok {
		return nil, notAHost(p.Host)
	}
	generation := b.session.Generation()
	op := b.describe(kindListen, net.JoinHostPort(host, strconv.Itoa(int(p.Port))))
	op.Facts["address"] = op.Text
	base := op
	op = b.atAddress(op, host, host, p.Port)
	taken := b.room.ports.take(b.grant())
	defer func() {
		if taken && err != nil {
			b.room.ports.give(b.grant(), 1)
		}
	}()
	switch {
	case !given(b.plan.Listen, host, nil, int(p.Port)):
		op.Guard = deny("no-listen", "Your grant does not let the host listen there.")
	case !taken:
		op.Guard = deny("listens", fmt.Sprintf("The hosts listen on %d ports for this grant already, the most.", maxListens))
	}
	admitted, err := b.session.Admit(b.ctx, op)
	if err != nil {
		return nil, err
	}
	open := b.stands(admitted, generation, func() access.Operation { return b.atAddress(base, host, host, p.Port) })
	// Known before the host is asked: a connection may come at once.
	l := &listening{p, open}
	b.mu.Lock()
	b.listens = append(b.listens, l)
	b.mu.Unlock()
	if answer, err = b.askPort(l, payload); err != nil {
		b.forgetPort(l, "error")
	}
	return answer, err
}

// askPort has the host listen, and notes which port it chose where that was
// left to it.
func (b *bridge) askPort(l *listening, payload []byte) ([]byte, error) {
	ok, answer, err := b.askHost("tcpip-forward", payload)
	if err != nil || !ok {
		return nil, unavailable("The host does not listen there.", err)
	}
	if l.Port != 0 {
		return answer, nil
	}
	var chosen portPayload
	if err := gossh.Unmarshal(answer, &chosen); err != nil || chosen.Port == 0 || chosen.Port > 65535 {
		err = unavailable("The host does not say on which port it listens.", err)
		b.end(err) // it could not be told to stop
		return nil, err
	}
	b.mu.Lock()
	l.Port = chosen.Port
	b.mu.Unlock()
	return answer, nil
}

// askHost sends a request about the connection itself.
func (b *bridge) askHost(kind string, payload []byte) (bool, []byte, error) {
	defer b.hurry()()
	return b.target.SendRequest(kind, true, payload)
}

func (b *bridge) unlisten(req *gossh.Request) {
	var p listenPayload
	ok := gossh.Unmarshal(req.Payload, &p) == nil && b.ready(b.ctx) == nil
	if ok {
		ok = b.closePort(p, req.Payload)
	}
	_ = req.Reply(ok, nil)
}

// closePort has the host listen no more. A port that it keeps still counts.
func (b *bridge) closePort(p listenPayload, payload []byte) bool {
	l := b.listeningAt(p)
	if l == nil {
		return false
	}
	if ok, _, err := b.askHost("cancel-tcpip-forward", payload); err != nil || !ok {
		return false
	}
	b.forgetPort(l, "ok")
	b.room.ports.give(b.grant(), 1)
	return true
}

func (b *bridge) listeningAt(p listenPayload) *listening {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range b.listens {
		if l.listenPayload == p {
			return l
		}
	}
	return nil
}

// forgetPort ends the operation of a port on which the host does not listen.
func (b *bridge) forgetPort(l *listening, status string) {
	b.mu.Lock()
	b.listens = slices.DeleteFunc(b.listens, func(o *listening) bool { return o == l })
	b.mu.Unlock()
	_ = l.open.Close(access.Outcome{Status: status}) // a failed recorder ends the session by itself
}

// leavePorts no longer counts the ports of a connection that is over: the host
// closes them with it.
func (b *bridge) leavePorts() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.listens) > 0 {
		b.room.ports.give(b.grant(), len(b.listens))
		b.listens = nil
	}
}

// grant is whose ports they are.
func (b *bridge) grant() string { return b.session.Info().Grant.String() }

// listensOn reports whether the host listens on a port for the client, and may
// go on to.
func (b *bridge) listensOn(port uint32) bool {
	b.mu.Lock()
	i := slices.IndexFunc(b.listens, func(l *listening) bool { return port != 0 && l.Port == port })
	if i < 0 {
		b.mu.Unlock()
		return false
	}
	open := b.listens[i].open
	b.mu.Unlock()
	return open.keeps() == nil
}
