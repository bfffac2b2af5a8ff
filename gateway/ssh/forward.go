package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway"
)

// resolveTime bounds the look-up of a name.
const resolveTime = 5 * time.Second

// serveDirect leads a connection of the client to an address. One to a
// configured target ends here, and is judged as a session of its own: it is
// never led through blindly.
func (b *bridge) serveDirect(in gossh.NewChannel) {
	var p directPayload
	if err := gossh.Unmarshal(in.ExtraData(), &p); err != nil || p.Port == 0 || p.Port > 65535 || len(p.Host) > 255 {
		_ = in.Reject(gossh.ConnectionFailed, "the address is not understood")
		return
	}
	if target, ok := b.findTarget(p.Host, int(p.Port)); ok {
		b.serveInner(in, target)
		return
	}
	if err := b.ready(b.ctx); err != nil {
		_ = in.Reject(gossh.Prohibited, words(err))
		return
	}
	if err := b.forward(in, p); err != nil {
		_ = in.Reject(gossh.Prohibited, words(err))
	}
}

// forward judges a connection, opens it from the host and carries it. After an
// error the channel is not accepted yet.
func (b *bridge) forward(in gossh.NewChannel, p directPayload) error {
	host, ok := plainHost(p.Host)
	if !ok {
		return notAHost(p.Host)
	}
	generation := b.session.Generation()
	at, err := b.allowed(host, int(p.Port))
	op := b.describe(kindForward, net.JoinHostPort(host, strconv.Itoa(int(p.Port))))
	op.Facts["address"], op.Opaque = op.Text, true
	if err != nil {
		op.Guard = deny("no-forward", access.Message(err))
		at = host
	}
	open, err := b.session.Admit(b.ctx, b.atAddress(op, host, at, p.Port))
	if err != nil {
		return err
	}
	p.Host = at
	target, answers, err := b.target.OpenChannel("direct-tcpip", gossh.Marshal(p))
	if err != nil {
		_ = open.Close(access.Outcome{Status: "error"})
		return unavailable("The host does not reach that address.", err)
	}
	go gossh.DiscardRequests(answers) // ends with the channel
	b.pair(in, target, b.stands(open, generation, func() access.Operation { return b.atAddress(op, host, at, p.Port) }))
	return nil
}

// pair accepts a channel and carries it until both directions are done.
func (b *bridge) pair(in gossh.NewChannel, other gossh.Channel, open gateway.Open) {
	ch, answers, err := in.Accept()
	if err != nil {
		_ = other.Close()
		_ = open.Close(access.Outcome{Status: "cancelled"})
		return
	}
	go gossh.DiscardRequests(answers) // ends with the channel
	client, target := ch, other
	if in.ChannelType() != "direct-tcpip" { // opened by the host
		client, target = other, ch
	}
	err = carryBoth(client, target, open)
	status := "ok"
	if err != nil {
		status = "cut"
	}
	_ = open.Close(access.Outcome{Status: status})
}

// carryBoth moves bytes both ways; each direction may end before the other.
func carryBoth(client, target gossh.Channel, open gateway.Open) error {
	var work sync.WaitGroup
	var errs [2]error
	one := func(i int, dst, src gossh.Channel, dir access.Direction) {
		work.Go(func() {
			if errs[i] = move(dst, src, tap(open, dir)); errs[i] != nil {
				_ = client.Close() // the other direction is of no use without this one
				_ = target.Close()
				return
			}
			_ = dst.CloseWrite()
		})
	}
	one(0, client, target, access.ToClient)
	one(1, target, client, access.ToTarget)
	work.Wait()
	_ = client.Close()
	_ = target.Close()
	return errors.Join(errs[0], errs[1])
}

// allowed answers with the address to connect to, if the role gives it. A name
// is looked up here, and the host gets the number: what was judged is where it
// goes. The host's own loopback is judged as it is written.
func (b *bridge) allowed(host string, port int) (string, error) {
	own := strings.EqualFold(host, "localhost")
	if ip, err := netip.ParseAddr(host); err == nil {
		own = own || ip.Unmap().IsLoopback()
	}
	if own {
		if _, targetPort, err := net.SplitHostPort(b.session.Lease().Address); err == nil && targetPort == strconv.Itoa(port) {
			return "", access.Errorf(access.CodeDenied, "That is the host's own SSH: connect to it by its name.")
		}
		if !given(b.plan.Forward, host, nil, port) {
			return "", b.notGiven(host, port)
		}
		return host, nil
	}
	if !mayBe(b.plan.Forward, host, port) {
		return "", b.notGiven(host, port)
	}
	ctx, cancel := context.WithTimeout(b.ctx, resolveTime)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return "", access.Errorf(access.CodeDenied, "The name %.64q is not known here.", host)
	}
	for _, ip := range ips {
		ip = ip.Unmap() // the host's own loopback was judged above; this would be the gateway's
		if access.Dialable(ip) && !access.Translated(ip).IsLoopback() && given(b.plan.Forward, host, &ip, port) && !b.isTarget(ctx, ip, port) {
			return ip.String(), nil
		}
	}
	return "", b.notGiven(host, port)
}

func (b *bridge) notGiven(host string, port int) error {
	list := strings.Join(b.plan.Forward, ", ")
	if list == "" {
		list = "nowhere"
	}
	return access.Errorf(access.CodeDenied, "Your grant opens no connection to %.64s:%d; it opens them to %s.", host, port, list)
}

// given reports whether one of the patterns is this address: by its name as
// written, or by its number.
func given(patterns []string, host string, ip *netip.Addr, port int) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		name, number, err := net.SplitHostPort(p)
		if err != nil || number != "*" && number != strconv.Itoa(port) {
			return false
		}
		if prefix, err := netip.ParsePrefix(name); err == nil {
			return ip != nil && prefix.Contains(*ip)
		}
		return name == "*" || strings.EqualFold(name, host) || ip != nil && name == ip.String()
	})
}

// mayBe reports whether an address that a name stands for could be given. Where
// the role gives that port of a number or a prefix, every name could stand for
// it. Others are not looked up: which names the gateway knows is nobody's
// business, and its questions could carry something out.
func mayBe(patterns []string, host string, port int) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		name, number, err := net.SplitHostPort(p)
		if err != nil || number != "*" && number != strconv.Itoa(port) {
			return false
		}
		_, noPrefix := netip.ParsePrefix(name)
		_, noNumber := netip.ParseAddr(name)
		return name == "*" || strings.EqualFold(name, host) || noPrefix == nil || noNumber == nil
	})
}

// describe is an operation that belongs to no session channel.
func (b *bridge) describe(kind, text string) access.Operation {
	return (&stay{b: b}).describe(kind, text)
}

// serveFromTarget judges what the host opens towards the client: connections
// that came to a port, and uses of an agent or a display that were lent.
func (b *bridge) serveFromTarget(in gossh.NewChannel) {
	generation := b.session.Generation()
	op, ok := b.arrival(in)
	if !ok {
		_ = in.Reject(gossh.Prohibited, "nobody asked for this")
		return
	}
	open, err := b.session.Admit(b.ctx, op)
	if err != nil {
		_ = in.Reject(gossh.Prohibited, words(err))
		return
	}
	client, answers, err := b.client.OpenChannel(in.ChannelType(), in.ExtraData())
	if err != nil {
		_ = open.Close(access.Outcome{Status: "error"})
		_ = in.Reject(gossh.ConnectionFailed, "the client does not take it")
		return
	}
	go gossh.DiscardRequests(answers) // ends with the channel
	b.pair(in, client, b.stands(open, generation, func() access.Operation { return op }))
}

// arrival is what a channel of the host is; ok is false for one that the
// client did not ask for.
func (b *bridge) arrival(in gossh.NewChannel) (op access.Operation, ok bool) {
	switch in.ChannelType() {
	case "forwarded-tcpip":
		var p directPayload
		if gossh.Unmarshal(in.ExtraData(), &p) != nil || len(p.Host)+len(p.Origin) > 512 || strings.ContainsFunc(p.Host+p.Origin, odd) || !b.listensOn(p.Port) {
			return op, false
		}
		op, ok = b.describe(kindArrival, fmt.Sprintf("%s:%d from %s:%d", p.Host, p.Port, p.Origin, p.OriginPort)), true
		op.Facts["address"] = net.JoinHostPort(p.Host, strconv.Itoa(int(p.Port)))
	case "auth-agent@openssh.com":
		op, ok = b.describe(kindAgent, "the client's agent"), b.lent.agent.Load()
	case "x11":
		op, ok = b.describe(kindX11, "the client's display"), b.lent.x11.Load()
	default:
		return op, false
	}
	op.Opaque = true
	return op, ok
}

// odd reports what is in no address: a host could say more with it than where
// somebody came from.
func odd(r rune) bool { return r <= ' ' || r > '~' }

// channelConn is a channel as a connection, for the SSH inside it.
type channelConn struct {
	gossh.Channel
	local, remote net.Addr
}

func (c channelConn) LocalAddr() net.Addr  { return c.local }
func (c channelConn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline closes the channel when the time is over already, which is what
// it is used for here; a channel has no timers.
func (c channelConn) SetDeadline(t time.Time) error {
	if !t.IsZero() && t.Before(time.Now()) {
		return c.Close()
	}
	return nil
}

func (c channelConn) SetReadDeadline(t time.Time) error  { return c.SetDeadline(t) }
func (c channelConn) SetWriteDeadline(t time.Time) error { return c.SetDeadline(t) }

// serveInner ends an SSH connection that a client leads through this one
// (ProxyJump, -W): it logs in anew, and is a session of its own.
func (b *bridge) serveInner(in gossh.NewChannel, target access.Target) {
	if !b.nest.take("") {
		_ = in.Reject(gossh.ResourceShortage, fmt.Sprintf("%d connections are led through this one, the most", maxNested))
		return
	}
	defer b.nest.give("", 1)
	ch, answers, err := in.Accept()
	if err != nil {
		return
	}
	go gossh.DiscardRequests(answers) // ends with the channel
	defer ch.Close()
	b.inner.Add(1)
	defer b.inner.Add(-1)
	err = b.room.serveInner(b.ctx, channelConn{ch, b.client.LocalAddr(), b.client.RemoteAddr()}, b.door, target, b.nest)
	if err != nil && !errors.Is(err, io.EOF) {
		b.log.Info("inner connection ended", "target", target.String(), "error", err)
	}
}

func (r *Room) serveInner(ctx context.Context, conn net.Conn, door gateway.Door, target access.Target, nest *tally) error {
	host, _, _ := net.SplitHostPort(target.Address)
	b, err := r.enter(ctx, conn, door, []string{target.Name, host})
	if err != nil {
		return err
	}
	b.fixed, b.nest = target.Name, nest
	return b.run(ctx)
}
