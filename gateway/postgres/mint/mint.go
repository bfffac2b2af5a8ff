package mint

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"sync"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/shared"
)

// Kind is the target kind that this package mints for.
const Kind = "postgres"

const minKey = 32 // bytes

// Config is what a Minter needs. Log and Now have good defaults.
type Config struct {
	Installation string // [a-z0-9]{4,12}: whose roles are ours, in a cluster that several share
	Key          []byte // at least 32 random bytes; passwords are derived from it
	KeyVersion   int    // changes with Key; a new key means a new mint of every open grant
	Admin        func(context.Context, access.Target) (AdminLogin, error)
	Log          *slog.Logger
	Now          func() time.Time
}

// AdminLogin is how the minter logs in to a target; for one with a static
// credential it is how its sessions do.
type AdminLogin struct {
	User       string
	Password   access.Secret
	ServerCA   []byte // PEM; nil means the system's roots
	ServerName string // the name that the certificate must carry; empty means the address's host
}

// Minter gives and takes access at PostgreSQL targets. It is safe for
// concurrent use. It must be closed.
type Minter struct {
	cfg    Config
	names  names
	inject func(statements []string) []string // a test's way to make a mint or a revoke fail midway

	viewsEach int // views that one transaction makes or drops
	readings  *shared.Answers[string, reading]

	mu      sync.Mutex
	pools   map[poolKey]*pool
	dropped map[access.GrantKey][]uint32 // roles that we dropped, until Prove has looked for their sessions
}

var installation = regexp.MustCompile(`\A[a-z0-9]{4,12}\z`)

// ValidInstallation reports whether the id can stand in minted names.
func ValidInstallation(id string) bool { return installation.MatchString(id) }

// New makes a Minter. It connects to nothing yet.
func New(cfg Config) (*Minter, error) {
	var errs []error
	if !ValidInstallation(cfg.Installation) {
		errs = append(errs, fmt.Errorf("installation %q: want 4 to 12 characters of a-z and 0-9", cfg.Installation))
	}
	if len(cfg.Key) < minKey {
		errs = append(errs, fmt.Errorf("key of %d bytes: want at least %d", len(cfg.Key), minKey))
	}
	if cfg.Admin == nil {
		errs = append(errs, errors.New("no Admin: want a function that finds a target's admin login"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("make minter: %w", err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Minter{
		cfg: cfg, names: names{cfg.Installation}, viewsEach: viewsEach, readings: shared.New[string, reading](),
		pools: map[poolKey]*pool{}, dropped: map[access.GrantKey][]uint32{},
	}, nil
}

// Kind is "postgres".
func (m *Minter) Kind() string { return Kind }

// Lease derives the credential of an active grant for one session, or reads
// the static one. Nothing is stored, and the target is not asked.
func (m *Minter) Lease(ctx context.Context, g access.Grant, session string) (access.Lease, error) {
	now := m.cfg.Now()
	if !g.Open(now) {
		return access.Lease{}, access.Errorf(access.CodeEnded, "Grant %s is not active: it is %s, until %s.",
			g.Key.ID, g.State, g.NotAfter.UTC().Format(time.RFC3339))
	}
	if len(g.Backing) == 0 && now.Before(g.Yields) {
		return access.Lease{}, Yielding(g.Yields)
	}
	if len(g.Backing) == 0 {
		return access.Lease{}, access.Errorf(access.CodeUnavailable, "Grant %s is not minted yet.", g.Key.ID)
	}
	login, err := m.admin(ctx, g.Plan.Target)
	if err != nil {
		return access.Lease{}, err
	}
	lease := access.Lease{
		Grant: g.Key, Generation: g.Generation, Session: session, Address: g.Plan.Target.Address,
		User: login.User, Password: login.Password, ServerCA: login.ServerCA, ServerName: login.ServerName,
		Backing: g.Backing, NotAfter: g.NotAfter,
	}
	if g.Plan.Target.Static == "" {
		lease.User = m.names.role(g)
		lease.Password, err = m.password(g)
	}
	return lease, err
}

// password is the role's password: the same for each session of a generation.
func (m *Minter) password(g access.Grant) (access.Secret, error) {
	b, err := m.derive("password", g, 32)
	return access.NewSecret(base64.RawURLEncoding.EncodeToString(b)), err
}

func (m *Minter) derive(what string, g access.Grant, n int) ([]byte, error) {
	info := fmt.Sprintf("tidegate postgres %s\n%d\n%s\n%s\n%s\n%d",
		what, m.cfg.KeyVersion, m.cfg.Installation, g.Plan.Target.Address, g.Key, g.Generation)
	b, err := hkdf.Key(sha256.New, m.cfg.Key, nil, info, n)
	if err != nil {
		return nil, fmt.Errorf("derive %s: %w", what, err)
	}
	return b, nil
}

// check refuses a grant that can't be for this minter.
func check(t access.Target) error {
	if t.Kind != Kind {
		return access.Errorf(access.CodeInvalid, "Target %s is of kind %q; this minter serves %q.", t.TargetRef, t.Kind, Kind)
	}
	return nil
}
