package mint

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/ssh/backing"
)

func signer(t *testing.T) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// grant is an active grant of a role, minted.
func grant(t *testing.T, m *Minter, now time.Time, role access.Role) access.Grant {
	t.Helper()
	g := access.Grant{
		Key: access.GrantKey{Repo: 7, ID: "inc-1"}, Generation: 1, State: access.StateActive, NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour),
	}
	g.Plan.Role = role
	g.Plan.Target = access.Target{
		TargetRef: access.TargetRef{Kind: Kind, Name: "web-1"}, Address: "web-1.internal:22",
		Settings: map[string]string{"host_key": strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer(t).PublicKey())))},
	}
	var err error
	if g.Plan.Expansion, err = m.Expand(context.Background(), g.Plan); err != nil {
		t.Fatal(err)
	}
	minted, err := m.Mint(context.Background(), g)
	if err != nil {
		t.Fatal(err)
	}
	g.Backing = minted.Backing
	return g
}

// TestCertificateGivesWhatTheRoleGives: the first lock, role by role.
func TestCertificateGivesWhatTheRoleGives(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	m, err := New(Config{
		Installation: "acme1", CA: fixed(signer(t)), Sources: []netip.Prefix{netip.MustParsePrefix("10.0.0.5/32")}, Now: func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name       string
		role       access.Role
		force      string
		extensions []string
	}{
		{"shell", access.Role{Settings: map[string]string{"accounts": "deploy", "shell": "true"}}, "", []string{"permit-pty"}},
		{"commands", access.Role{Settings: map[string]string{"accounts": "deploy", "exec": "true"}}, "", nil},
		{"everything", access.Role{Settings: map[string]string{"accounts": "deploy", "exec": "true", "terminal": "true", "agent": "true", "x11": "true", "forward": "*:*"}}, "",
			[]string{"permit-X11-forwarding", "permit-agent-forwarding", "permit-port-forwarding", "permit-pty"}},
		{"reads files", access.Role{Read: []string{"/srv"}, Settings: map[string]string{"accounts": "deploy"}}, "internal-sftp -R", nil},
		{"writes files", access.Role{Write: []string{"/srv"}, Settings: map[string]string{"accounts": "deploy"}}, "internal-sftp", nil},
		{"tunnels", access.Role{Settings: map[string]string{"accounts": "deploy", "forward": "db:5432"}}, "false", []string{"permit-port-forwarding"}},
		{"rsync", access.Role{Settings: map[string]string{"accounts": "deploy\nweb", "transfers": "rsync"}}, "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			lease, err := m.Lease(context.Background(), grant(t, m, now, c.role), "session-1")
			if err != nil {
				t.Fatal(err)
			}
			s, err := backing.ParseCredential(lease.Password)
			if err != nil {
				t.Fatal(err)
			}
			cert := s.PublicKey().(*ssh.Certificate)
			want := map[string]string{"source-address": "10.0.0.5/32"}
			if c.force != "" {
				want["force-command"] = c.force
			}
			if diff := cmp.Diff(want, cert.CriticalOptions); diff != "" {
				t.Error(diff)
			}
			extensions := map[string]string{}
			for _, e := range c.extensions {
				extensions[e] = ""
			}
			if len(cert.Extensions)+len(extensions) > 0 {
				if diff := cmp.Diff(extensions, cert.Extensions); diff != "" {
					t.Error(diff)
				}
			}
			if got := time.Unix(int64(cert.ValidBefore), 0).Sub(now); got != 45*time.Second {
				t.Errorf("good for %s, want 45 s", got)
			}
			if want := strings.Split(c.role.Settings["accounts"], "\n"); !cmp.Equal(cert.ValidPrincipals, want) {
				t.Errorf("for %v, want %v", cert.ValidPrincipals, want)
			}
			if cert.KeyId != "tidegate/acme1/7-inc-1/session-1" || cert.Serial != Serial("session-1") {
				t.Errorf("named %q, serial %d", cert.KeyId, cert.Serial)
			}
		})
	}
}

// TestEndIsProvedWhenTheLastCertificateEnds, also after a restart.
func TestEndIsProvedWhenTheLastCertificateEnds(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	cfg := Config{Installation: "acme1", CA: fixed(signer(t)), Now: func() time.Time { return now }}
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	role := access.Role{Settings: map[string]string{"accounts": "deploy", "shell": "true"}}
	g := grant(t, m, now, role)
	now = now.Add(time.Minute) // the start is past
	if _, err := m.Lease(context.Background(), g, "one"); err != nil {
		t.Fatal(err)
	}
	if err := m.Prove(context.Background(), g); access.CodeOf(err) != access.CodeUnavailable {
		t.Errorf("with a certificate that is good: %v", err)
	}
	again, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Prove(context.Background(), g); access.CodeOf(err) != access.CodeUnavailable {
		t.Errorf("just after a restart: %v", err)
	}
	now = now.Add(45 * time.Second)
	for _, m := range []*Minter{m, again} {
		if err := m.Prove(context.Background(), g); err != nil {
			t.Errorf("after its end: %v", err)
		}
	}
	g.State = access.StateRevoked
	if _, err := m.Lease(context.Background(), g, "two"); access.CodeOf(err) != access.CodeEnded {
		t.Errorf("a certificate of a revoked grant: %v", err)
	}
	g.State = access.StateActive
	g.Plan.Role.Settings = map[string]string{"accounts": "root", "shell": "true"}
	if _, err := m.Mint(context.Background(), g); access.CodeOf(err) != access.CodeInvalid {
		t.Errorf("another role than was approved: %v", err)
	}
}

// TestStaticCredential is for the account that was approved, and no other.
func TestStaticCredential(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	login := Login{User: "admin", Secret: access.NewSecret("hunter2")}
	m, err := New(Config{Installation: "acme1", CA: fixed(signer(t)), Now: func() time.Time { return now }, Static: func(_ context.Context, t access.Target) (Login, error) {
		if t.Static != "switch" {
			return Login{}, access.Errorf(access.CodeDenied, "no such secret")
		}
		return login, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	g := grant(t, m, now, access.Role{Settings: map[string]string{"accounts": "admin", "shell": "true"}})
	g.Plan.Target.Static = "switch"
	if g.Plan.Expansion, err = m.Expand(context.Background(), g.Plan); err != nil {
		t.Fatal(err)
	}
	if said := strings.Join(g.Plan.Expansion.Summary, "\n"); !strings.Contains(said, "not made for this grant") {
		t.Errorf("the plan says\n%s", said)
	}
	minted, err := m.Mint(context.Background(), g)
	if err != nil {
		t.Fatal(err)
	}
	g.Backing = minted.Backing
	if lease, err := m.Lease(context.Background(), g, "one"); err != nil || lease.Password.Reveal() != "hunter2" || lease.User != "admin" {
		t.Errorf("got %v as %q, %v", lease.Password, lease.User, err)
	}
	if err := m.Prove(context.Background(), g); err != nil {
		t.Errorf("there is nothing to prove: %v", err)
	}
	login.User = "root"
	if _, err := m.Lease(context.Background(), g, "two"); access.CodeOf(err) != access.CodeInvalid {
		t.Errorf("the login became another account's: %v", err)
	}
	if _, err := m.Mint(context.Background(), g); access.CodeOf(err) != access.CodeInvalid {
		t.Errorf("minted for another account: %v", err)
	}
	g.Plan.Target.Static = "another"
	if _, err := m.Expand(context.Background(), g.Plan); access.CodeOf(err) != access.CodeDenied {
		t.Errorf("a secret that is not for the target: %v", err)
	}
}

func fixed(ca ssh.Signer) func() (ssh.Signer, error) {
	return func() (ssh.Signer, error) { return ca, nil }
}
