package ssh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/gateway"
)

// startupTime bounds everything before a client is authenticated, but for the
// time in which a person types a code elsewhere.
const startupTime = 30 * time.Second

// Bounds of one connection.
const (
	maxAuthTries = 6
	maxChannels  = 256
	maxEarly     = 16 // channels before there is a session
	maxNested    = 64 // SSH connections inside of it, and inside of those, all together
	maxToken     = 16 << 10
)

// Config is what a room needs.
type Config struct {
	// HostKeys are those by which the gateway proves itself, the ones with a
	// certificate first: for the gateway's own names (nil), or for those of a
	// target, of SSH inside SSH. It is asked for each connection, since keys are
	// rotated.
	HostKeys func(names []string) ([]gossh.Signer, error)

	HostCAs    func() ([]gossh.PublicKey, error) // those that a login is told to trust; nil: none
	Authority  func(signer gossh.PublicKey) bool // whether a client's certificate is of our login CA; nil: none is taken
	Device     DeviceLogin                       // lets a bare client log in in a browser; nil: not offered
	DeviceTime time.Duration                     // how long a person may take there; 5 min
	HostTime   time.Duration                     // how long the host may take to answer a request; 30 s
	Quiet      time.Duration                     // how long text that may be masked is withheld while nothing more comes; gateway.Quiet
	Log        *slog.Logger                      // default: none
}

// Room serves SSH clients. It implements gateway.Room.
type Room struct {
	cfg     Config
	log     *slog.Logger
	devices *tally // logins in a browser that go on, by source
	ports   *tally // at which hosts listen for clients, by grant
}

var _ gateway.Room = (*Room)(nil)

// New makes a room.
func New(cfg Config) (*Room, error) {
	if cfg.HostKeys == nil {
		return nil, errors.New("make ssh room: no host key")
	}
	r := &Room{cfg: cfg, log: cfg.Log, devices: newTally(maxDevices, maxSourceDevices), ports: newTally(0, maxListens)}
	r.cfg.Quiet = cmp.Or(r.cfg.Quiet, gateway.Quiet)
	r.cfg.DeviceTime = cmp.Or(r.cfg.DeviceTime, 5*time.Minute)
	r.cfg.HostTime = cmp.Or(r.cfg.HostTime, 30*time.Second)
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	return r, nil
}

// Kind is the target kind that the room serves.
func (*Room) Kind() string { return "ssh" }

// Serve talks to one client until either side is done.
func (r *Room) Serve(ctx context.Context, conn net.Conn, door gateway.Door) error {
	defer conn.Close()
	b, err := r.enter(ctx, conn, door, nil)
	if err != nil {
		return err
	}
	return b.run(ctx)
}

// enter authenticates a client that knows the gateway by these names.
func (r *Room) enter(ctx context.Context, conn net.Conn, door gateway.Door, names []string) (*bridge, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	late := time.AfterFunc(startupTime, cancel)
	defer late.Stop()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	keys, err := r.cfg.HostKeys(names)
	if err != nil {
		return nil, fmt.Errorf("find host keys: %w", err)
	}
	g, client, err := greet(conn)
	if err != nil {
		return nil, err
	}
	a := &authenticator{room: r, ctx: ctx, late: late, door: door}
	server, channels, requests, err := gossh.NewServerConn(g, a.config(client, keys))
	if err != nil {
		return nil, fmt.Errorf("authenticate client: %w", err)
	}
	if !stop() {
		return nil, errors.Join(fmt.Errorf("authenticate client: %w", context.Cause(ctx)), server.Close())
	}
	return newBridge(r, door, server, channels, requests), nil
}
