package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger"
	"github.com/tidegate/tidegate/gateway"
	"github.com/tidegate/tidegate/gateway/identify"
	"github.com/tidegate/tidegate/gateway/postgres/mint"
	"github.com/tidegate/tidegate/gateway/record"
)

// house is what one process started, to be closed in reverse. dev and serve
// join the same parts in it.
type house struct {
	log     *slog.Logger
	signals *signals
	close   []func() error
	failed  chan error // parts that stopped by themselves
}

func newHouse(log *slog.Logger) house { return house{log: log, failed: make(chan error, 8)} }

func (h *house) onClose(f func() error) { h.close = append(h.close, f) }

// Close stops everything, the last started first.
func (h *house) Close() error {
	var errs []error
	for i := len(h.close) - 1; i >= 0; i-- {
		errs = append(errs, h.close[i]())
	}
	h.close = nil
	return errors.Join(errs...)
}

// fail reports a part that stopped by itself. One report is enough to end the
// process, so those that find no room are dropped.
func (h *house) fail(part string, err error) {
	select {
	case h.failed <- fmt.Errorf("the %s stopped: %w", part, err):
	default:
	}
}

// httpDoor is one HTTP listener.
type httpDoor struct {
	Part, Listen string
	TLS          *tls.Config // nil is plain HTTP
	Handler      http.Handler
	Exchange     time.Duration // bounds one request with its answer; 0 does not
}

// openDoor serves HTTP until the house closes.
func (h *house) openDoor(d httpDoor) error {
	l, err := net.Listen("tcp", d.Listen)
	if err != nil {
		return fmt.Errorf("listen for the %s: %w%s", d.Part, err, lowPort(err))
	}
	if d.TLS != nil {
		l = tls.NewListener(l, d.TLS)
	}
	return h.serveDoor(l, d)
}

// serveDoor serves HTTP at a listener until the house closes.
func (h *house) serveDoor(l net.Listener, d httpDoor) error {
	srv := &http.Server{
		Handler: d.Handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute,
		ReadTimeout: d.Exchange, WriteTimeout: d.Exchange, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(h.log.With("part", d.Part).Handler(), slog.LevelWarn),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			h.fail(d.Part, err)
		}
	}()
	h.onClose(func() error { err := srv.Close(); <-done; return err })
	return nil
}

// seenFile is where control keeps, in its state folder, how far it has seen the
// ledger.
const seenFile = "seen.json"

// watchLedger opens control's ledger with what was seen of it in the folder.
// One that is older is no reason not to start: what should be gone is taken
// away meanwhile.
func (h *house) watchLedger(ctx context.Context, dir string, c ledger.Config) (*ledger.Ledger, error) {
	var err error
	if c.Watermark, err = ledger.OpenWatermark(filepath.Join(dir, seenFile)); err != nil {
		return nil, err
	}
	l, err := ledger.Open(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	h.onClose(l.Close)
	older, err := l.Watch(ctx)
	if err != nil {
		return nil, fmt.Errorf("compare the ledger with what was seen of it: %w", err)
	}
	if older != "" {
		h.log.ErrorContext(ctx, "nothing opens", "why", older)
	}
	return l, nil
}

// anchorTime bounds how long the ledger may take for one head.
const anchorTime = 5 * time.Second

// anchors keeps the heads of recordings that a start sealed. As with those of
// sessions, one that could not be kept is logged, and keeps nobody waiting.
func (h *house) anchors(ctx context.Context, l *ledger.Ledger) func(access.Head) {
	return func(head access.Head) {
		ctx, cancel := context.WithTimeout(ctx, anchorTime)
		defer cancel()
		if err := l.Anchor(ctx, head); err != nil {
			h.log.ErrorContext(ctx, "recording's head not anchored", "session", head.Session, "segment", head.Segment, "error", err)
		}
	}
}

// openControl starts the control side with PostgreSQL's minter and those that
// cfg brings.
func (h *house) openControl(ctx context.Context, minting mint.Config, cfg controlConfig) (*control, error) {
	minter, err := mint.New(minting)
	if err != nil {
		return nil, err
	}
	cfg.Minters, cfg.Signals = append([]leaser{postgresMinter{minter, cfg.Ledger}}, cfg.Minters...), h.signals
	ctl, err := startControl(ctx, cfg)
	if err != nil {
		return nil, errors.Join(err, minter.Close())
	}
	h.onClose(ctl.Close)
	return ctl, nil
}

// gatePart is what a gateway is made of.
type gatePart struct {
	Listen  string // of the PostgreSQL room
	TLS     *tls.Config
	SSH     sshDoor
	Ledger  *ledger.Ledger
	Store   *record.Store
	Issuers []identify.Issuer
	Base    gateway.Config // name, bounds, keys, and where credentials come from
	State   string         // the folder for the gateway's own socket
}

// openGate opens the rooms' ports.
func (h *house) openGate(ctx context.Context, p gatePart) error {
	identifier, err := identify.New(p.Issuers, identify.Options{Log: h.log})
	if err != nil {
		return err
	}
	cfg := p.Base
	cfg.Ledger, cfg.Identifier, cfg.Compiler, cfg.Recorders = gatewayLedger{p.Ledger, &targetBook{}}, identifier, policy{}, recorders{p.Store}
	cfg.Log, cfg.Metrics, cfg.Tracing = h.log.With("part", "gateway"), h.signals.metrics, h.signals.tracing
	if p.SSH.Listen != "" {
		cfg.Certificates = p.SSH.Keys.certificates()
	}
	if err := h.signals.recorded(p.Store); err != nil {
		return err
	}
	srv, err := gateway.New(cfg)
	if err != nil {
		return err
	}
	rooms, err := newRooms(roomConfig{Postgres: p.Listen, TLS: p.TLS, SSH: p.SSH, Log: h.log})
	if err != nil {
		return err
	}
	if err := p.Ledger.Abandon(ctx, cfg.Name); err != nil {
		return fmt.Errorf("end what the gateway left behind: %w", err)
	}
	if err := srv.Refresh(ctx); err != nil {
		return err
	}
	listeners, err := listenAll(rooms)
	if err != nil {
		return err
	}
	h.runGate(context.WithoutCancel(ctx), srv, rooms, listeners)
	return h.openSocket(p.State, srv)
}

// listenAll opens a port for each room, or none.
func listenAll(rooms []openRoom) ([]net.Listener, error) {
	var out []net.Listener
	for _, room := range rooms {
		l, err := net.Listen("tcp", room.Listen)
		if err != nil {
			for _, open := range out {
				_ = open.Close()
			}
			return nil, fmt.Errorf("listen for the gateway (%s): %w%s", room.Kind(), err, lowPort(err))
		}
		out = append(out, l)
	}
	return out, nil
}

// runGate runs the server and its rooms until the house closes.
func (h *house) runGate(ctx context.Context, srv *gateway.Server, rooms []openRoom, listeners []net.Listener) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{}, 1+len(rooms))
	run := func(f func() error) {
		if err := f(); ctx.Err() == nil && err != nil {
			h.fail("gateway", err)
		}
		done <- struct{}{}
	}
	go run(func() error { return srv.Run(ctx) })
	for i, room := range rooms {
		go run(func() error { return srv.Serve(ctx, listeners[i], room.Room) })
	}
	h.onClose(func() error {
		stop, release := context.WithTimeout(context.Background(), 10*time.Second)
		defer release()
		err := srv.Shutdown(stop)
		cancel()
		for range cap(done) {
			<-done // each ends with ctx
		}
		return err
	})
}

// lowPort says what a listener lacks that the system lets nobody have.
func lowPort(err error) string {
	if errors.Is(err, fs.ErrPermission) {
		return "; a port below 1024 wants CAP_NET_BIND_SERVICE (AmbientCapabilities of a systemd unit), or choose a higher one"
	}
	return ""
}
