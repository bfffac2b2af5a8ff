package postgres

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway"
	"github.com/tidegate/tidegate/gateway/postgres/poll"
)

// startupTime bounds everything before the session is ready.
const startupTime = 30 * time.Second

// maxClosing is how many sessions are closed at once. Each waits for the disk,
// on a thread of its own; when a grant ends for a thousand, the last words of
// all of them go first.
const maxClosing = 8

// alpn is the protocol's name in TLS.
const alpn = "postgresql"

// Config is what a room needs.
type Config struct {
	TLS                *tls.Config  // the gateway's certificate; required unless AllowPlainLoopback
	Log                *slog.Logger // default: none
	AllowPlainLoopback bool         // let clients on this machine come without TLS

	// ClientCA signs the certificates that clients may show in place of a
	// token; nil: none may.
	ClientCA *x509.Certificate
}

// Room serves PostgreSQL clients. It implements gateway.Room.
type Room struct {
	cfg   Config
	tls   *tls.Config
	log   *slog.Logger
	keys  keyring
	plans *plans
	roots *roots

	closing chan struct{} // one entry for each session that is being closed

	plainTarget bool // no TLS to the target: the benchmark's, to measure without it
}

var _ gateway.Room = (*Room)(nil)

// New makes a room.
func New(cfg Config) (*Room, error) {
	if cfg.TLS == nil && !cfg.AllowPlainLoopback {
		return nil, errors.New("make postgres room: TLS is missing: give a certificate, or AllowPlainLoopback on a laptop")
	}
	r := &Room{cfg: cfg, log: cfg.Log, keys: keyring{bridges: map[cancelKey]*bridge{}}, plans: newPlans(), roots: newRoots(),
		closing: make(chan struct{}, maxClosing)}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if cfg.TLS != nil {
		r.tls = cfg.TLS.Clone()
		r.tls.NextProtos = []string{alpn}
		r.tls.MinVersion = max(r.tls.MinVersion, tls.VersionTLS12)
		r.tls.DynamicRecordSizingDisabled = true // full records from the first byte on
		r.askCertificates()
	}
	return r, nil
}

// askCertificates has clients asked for a certificate. TLS itself demands and
// verifies none: libpq shows whatever lies in ~/.postgresql, and who has one of
// another CA comes with a token.
func (r *Room) askCertificates() {
	if r.cfg.ClientCA == nil {
		return
	}
	r.tls.ClientAuth, r.tls.ClientCAs = tls.RequestClientCert, x509.NewCertPool()
	r.tls.ClientCAs.AddCert(r.cfg.ClientCA)
}

// shown is the certificate of our CA that the client has proved to hold; nil
// if there is none. Whether it is good is the door's to say.
func (r *Room) shown(client net.Conn) []byte {
	c, ok := client.(interface{ ConnectionState() tls.ConnectionState })
	if r.cfg.ClientCA == nil || !ok {
		return nil
	}
	certs := c.ConnectionState().PeerCertificates
	if len(certs) == 0 || !bytes.Equal(certs[0].RawIssuer, r.cfg.ClientCA.RawSubject) {
		return nil
	}
	return certs[0].Raw
}

// Kind is the target kind that the room serves.
func (*Room) Kind() string { return "postgres" }

// Serve talks to one client until either side is done.
func (r *Room) Serve(ctx context.Context, conn net.Conn, door gateway.Door) error {
	defer conn.Close()
	line := poll.New(conn)
	var b *bridge
	var err error
	if crash := apart(func() { b, err = r.enter(ctx, line, door) }); crash != "" {
		panic(crash)
	}
	if err != nil || b == nil {
		return err
	}
	b.line = line
	return b.run(ctx)
}

// apart runs f on a stack of its own, which handshakes need and a session that
// waits for its end does not, and says with what f panicked.
func apart(f func()) (crash string) {
	var work sync.WaitGroup
	work.Go(func() {
		defer contain(func(words string) { crash = words })
		f()
	})
	work.Wait()
	return crash
}

// contain recovers from a panic, and tells what it was and where. It is to be
// deferred.
func contain(tell func(words string)) {
	if p := recover(); p != nil {
		tell(fmt.Sprintf("%v\n%s", p, debug.Stack()))
	}
}

// enter brings a client from its first byte to an open session with a
// connection to the target. It answers nil for a cancel request.
func (r *Room) enter(ctx context.Context, conn net.Conn, door gateway.Door) (*bridge, error) {
	ctx, cancel := context.WithTimeout(ctx, startupTime)
	defer cancel()
	late := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { defer close(late); _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	client, hello, err := r.greet(ctx, conn)
	if err != nil {
		return nil, reject(client, err)
	}
	if hello.cancel != nil {
		return nil, r.keys.cancel(ctx, *hello.cancel)
	}
	b, err := r.open(ctx, client, hello, door)
	if err != nil {
		return nil, reject(client, err)
	}
	if !stop() {
		<-late // run sets the deadlines anew, and says why it ends if it must
	}
	return b, nil
}

// open asks for the token where there is no certificate, opens the session and
// connects to the target.
func (r *Room) open(ctx context.Context, client net.Conn, h hello, door gateway.Door) (*bridge, error) {
	if n := h.negotiate(); n != nil {
		if _, err := client.Write(n); err != nil {
			return nil, fmt.Errorf("negotiate version: %w", err)
		}
	}
	knock := gateway.Knock{
		Target: access.TargetRef{Kind: "postgres", Name: h.target}, Choice: h.choice,
		Remote: client.RemoteAddr(), Client: h.client(),
	}
	var err error
	if knock.Certificate = r.shown(client); knock.Certificate == nil {
		if knock.Token, err = askToken(client); err != nil {
			return nil, err
		}
	}
	s, err := door.Open(ctx, knock)
	if err != nil {
		return nil, doorError(err)
	}
	b, err := r.connect(ctx, client, h, s)
	if err != nil {
		return nil, errors.Join(err, s.Close("The session did not start."))
	}
	return b, nil
}

func (r *Room) connect(ctx context.Context, client net.Conn, h hello, s gateway.Session) (*bridge, error) {
	lease := s.Lease()
	plan, err := r.plans.parse(lease.Backing)
	if err != nil {
		return nil, &fatal{code: stateUnavailable, message: "The plan for this grant was not understood; the operator's log has the reason.", cause: err}
	}
	up, err := r.dialTarget(ctx, lease, plan.Backing, h.settings)
	if err != nil {
		return nil, &fatal{code: stateUnavailable, message: "The target could not be reached or did not take the grant's credential. Try again in a moment; the operator's log has the reason.", cause: err}
	}
	b := newBridge(r, client, s, up, plan)
	if err := b.welcome(h.keySize()); err != nil {
		return nil, errors.Join(err, up.conn.Close())
	}
	return b, nil
}
