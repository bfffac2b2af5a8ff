package mint

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/ssh/backing"
)

// Kind is the target kind that this package mints for.
const Kind = "ssh"

// behind lets hosts in whose clocks are a little late.
const behind = 2 * time.Minute

// Config is what a Minter needs.
type Config struct {
	Installation string                     // stands in each certificate's key id
	CA           func() (ssh.Signer, error) // the user CA that hosts trust, as it is now
	Sources      []netip.Prefix             // the gateway's addresses as hosts see them; none: not bound
	Now          func() time.Time

	// Static answers with the login of a target that has a static credential;
	// nil: there are none.
	Static func(context.Context, access.Target) (Login, error)

	// Ahead is how long a new certificate opens connections; 45 s. The gateway
	// dials at once, and the end of a grant is proved only after this time.
	Ahead time.Duration
}

// Minter signs certificates. It is safe for concurrent use.
type Minter struct {
	cfg     Config
	started time.Time

	mu   sync.Mutex
	last map[access.GrantKey]time.Time // when the newest certificate of a grant runs out
}

// New makes a Minter.
func New(cfg Config) (*Minter, error) {
	if cfg.CA == nil {
		return nil, errors.New("make ssh minter: the user CA is missing")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Ahead == 0 {
		cfg.Ahead = 45 * time.Second
	}
	return &Minter{cfg: cfg, started: cfg.Now(), last: map[access.GrantKey]time.Time{}}, nil
}

// Kind is "ssh".
func (m *Minter) Kind() string { return Kind }

// Expand says what the plan's role means.
func (m *Minter) Expand(ctx context.Context, plan access.Plan) (access.Expansion, error) {
	b, err := backing.FromRole(plan.Target, plan.Role)
	if err == nil {
		err = checkMasks(plan, b)
	}
	if err != nil {
		return access.Expansion{}, err
	}
	if plan.Target.Static != "" {
		if err := m.expandStatic(ctx, plan, &b); err != nil {
			return access.Expansion{}, err
		}
	}
	body, err := b.Encode()
	if err != nil {
		return access.Expansion{}, err
	}
	return access.Expansion{Body: body, Summary: b.Summary()}, nil
}

// checkMasks refuses columns, which a host has none of, and what moves files
// as they are: asterisks in them would damage them, and so nothing is masked.
func checkMasks(plan access.Plan, b backing.Backing) error {
	for _, m := range plan.Masks {
		if len(m.Columns) > 0 {
			return access.Errorf(access.CodeInvalid, "Mask %q names %s: columns are masked in databases only.", m.Name, plan.Target.TargetRef)
		}
		if len(m.Detect) == 0 {
			continue
		}
		for _, given := range []struct {
			what string
			is   bool
		}{{"transfers (" + strings.Join(b.Transfers, ", ") + ")", len(b.Transfers) > 0}, {"read or write, which is sftp", b.MovesFiles()}, {"subsystems", len(b.Subsystems) > 0}} {
			if given.is {
				return access.Errorf(access.CodeInvalid, "Mask %q masks what it detects on %s, and role %q gives %s: files go through as they are, and nothing in them is masked. Take it out of the role, or give it in a role of another target block.",
					m.Name, plan.Target.TargetRef, plan.Role.Name, given.what)
			}
		}
	}
	return nil
}

// Narrow lets today's masks detect more; a role that changed can't be narrowed.
func (m *Minter) Narrow(ctx context.Context, approved, today access.Plan) (access.Plan, error) {
	if !reflect.DeepEqual(approved.Role, today.Role) {
		return access.Plan{}, access.Errorf(access.CodeDenied, "Role %s changed, and access to hosts can't be narrowed.", today.Role.Name)
	}
	approved.Masks = access.AddDetect(approved.Masks, today.Masks)
	is, err := m.Expand(ctx, approved)
	if err == nil && string(is.Body) != string(approved.Expansion.Body) {
		err = access.Errorf(access.CodeDenied, "What role %s gives changed.", today.Role.Name)
	}
	return approved, err
}

// Mint makes nothing at the host: it answers with the room's plan, which must
// be what was approved.
func (m *Minter) Mint(ctx context.Context, g access.Grant) (access.Minted, error) {
	today, err := m.Expand(ctx, g.Plan)
	if err != nil {
		return access.Minted{}, err
	}
	if string(today.Body) != string(g.Plan.Expansion.Body) {
		return access.Minted{}, access.Errorf(access.CodeInvalid, "What role %q of %s gives is not what was approved: plan the request again.", g.Plan.Role.Name, g.Plan.Target.TargetRef)
	}
	return access.Minted{Backing: today.Body}, nil
}

// Lease signs a certificate for one session of an active grant.
func (m *Minter) Lease(ctx context.Context, g access.Grant, session string) (access.Lease, error) {
	now := m.cfg.Now()
	if !g.Open(now) {
		return access.Lease{}, access.Errorf(access.CodeEnded, "Grant %s is not active: it is %s, until %s.",
			g.Key.ID, g.State, g.NotAfter.UTC().Format(time.RFC3339))
	}
	if len(g.Backing) == 0 {
		return access.Lease{}, access.Errorf(access.CodeUnavailable, "Grant %s is not minted yet.", g.Key.ID)
	}
	b, err := backing.Parse(g.Backing)
	if err != nil {
		return access.Lease{}, err
	}
	var secret access.Secret
	if g.Plan.Target.Static != "" {
		secret, err = m.leaseStatic(ctx, g.Plan.Target, b)
	} else {
		secret, err = m.sign(g, b, session, now)
	}
	if err != nil {
		return access.Lease{}, err
	}
	return access.Lease{
		Grant: g.Key, Generation: g.Generation, Session: session, Address: g.Plan.Target.Address,
		User: b.Accounts[0], Password: secret, Backing: g.Backing, NotAfter: g.NotAfter,
	}, nil
}

func (m *Minter) sign(g access.Grant, b backing.Backing, session string, now time.Time) (access.Secret, error) {
	until := now.Add(m.cfg.Ahead)
	if g.NotAfter.Before(until) {
		until = g.NotAfter
	}
	cert := &ssh.Certificate{
		Serial: Serial(session), KeyId: strings.Join([]string{"tidegate", m.cfg.Installation, g.Key.String(), session}, "/"),
		ValidPrincipals: b.Accounts, ValidAfter: uint64(now.Add(-behind).Unix()), ValidBefore: uint64(until.Unix()),
		Permissions: ssh.Permissions{CriticalOptions: m.options(b), Extensions: extensions(b)},
	}
	ca, err := m.cfg.CA()
	if err != nil {
		return access.Secret{}, fmt.Errorf("find the user CA: %w", err)
	}
	secret, err := credential(ca, cert)
	if err != nil {
		return access.Secret{}, err
	}
	m.mu.Lock()
	m.last[g.Key] = until
	m.mu.Unlock()
	return secret, nil
}

// credential is a new key with its certificate, which the CA signs.
func credential(ca ssh.Signer, cert *ssh.Certificate) (access.Secret, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return access.Secret{}, fmt.Errorf("make session key: %w", err)
	}
	if cert.Key, err = ssh.NewPublicKey(public); err != nil {
		return access.Secret{}, fmt.Errorf("make session key: %w", err)
	}
	cert.CertType = ssh.UserCert
	if err := cert.SignCert(rand.Reader, ca); err != nil {
		return access.Secret{}, fmt.Errorf("sign certificate: %w", err)
	}
	return backing.EncodeCredential(private, cert)
}

// Serial is the certificate's serial for a session.
func Serial(session string) uint64 {
	sum := sha256.Sum256([]byte(session))
	return binary.BigEndian.Uint64(sum[:8])
}

// options bind the certificate: whoever does not understand one refuses it.
func (m *Minter) options(b backing.Backing) map[string]string {
	out := map[string]string{}
	if len(m.cfg.Sources) > 0 {
		list := make([]string, len(m.cfg.Sources))
		for i, p := range m.cfg.Sources {
			list[i] = p.String()
		}
		out["source-address"] = strings.Join(list, ",")
	}
	switch {
	case b.RunsPrograms():
	case len(b.Write) > 0:
		out["force-command"] = "internal-sftp"
	case len(b.Read) > 0:
		out["force-command"] = "internal-sftp -R"
	default:
		out["force-command"] = "false" // connections alone are led through
	}
	return out
}

func extensions(b backing.Backing) map[string]string {
	out := map[string]string{}
	for name, given := range map[string]bool{
		"permit-pty":              b.Shell || b.Terminal,
		"permit-port-forwarding":  len(b.Forward)+len(b.Listen) > 0,
		"permit-agent-forwarding": b.Agent,
		"permit-X11-forwarding":   b.X11,
	} {
		if given {
			out[name] = ""
		}
	}
	return out
}

// Revoke has nothing to take away at the host: no more certificates are
// signed for an ended grant, and the gateway closes its connections.
func (m *Minter) Revoke(context.Context, access.Grant) error { return nil }

// Prove returns nil when no certificate of the grant opens a connection any
// more. Of a static credential there is nothing to prove.
func (m *Minter) Prove(_ context.Context, g access.Grant) error {
	if g.Plan.Target.Static != "" {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	last, known := m.last[g.Key]
	if !known {
		last = m.started.Add(m.cfg.Ahead) // one of before the start
		if g.NotAfter.Before(last) {
			last = g.NotAfter
		}
	}
	if left := last.Sub(m.cfg.Now()); left > 0 {
		return access.Errorf(access.CodeUnavailable, "The last certificate of grant %s runs out in %s.", g.Key.ID, left.Round(time.Second))
	}
	delete(m.last, g.Key)
	return nil
}
