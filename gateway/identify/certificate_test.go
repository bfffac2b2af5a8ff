package identify

import (
	"crypto/ed25519"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
)

func newSSHSigner(t *testing.T) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func TestCertificate(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	ours := Certificates{CA: newSSHSigner(t), Now: func() time.Time { return now }}
	id := access.Identity{
		Provider: "okta", Issuer: "https://okta.test", Subject: "1", Email: "alice@acme.test", EmailVerified: true,
		Groups: []string{"dba"}, Claims: map[string]string{"site": "b"}, Expires: now.Add(10 * time.Minute),
	}
	key := newSSHSigner(t).PublicKey().Marshal()
	cert, err := ours.Certify(id, key)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ours.IdentifyCertificate(cert)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(id, got); diff != "" {
		t.Errorf("the identity changed on its way:\n%s", diff)
	}

	parsed, err := ssh.ParsePublicKey(cert)
	if err != nil {
		t.Fatal(err)
	}
	edited := func(edit func(*ssh.Certificate)) []byte {
		c := *parsed.(*ssh.Certificate)
		edit(&c)
		if err := c.SignCert(rand.Reader, ours.CA); err != nil {
			t.Fatal(err)
		}
		return c.Marshal()
	}
	other := Certificates{CA: newSSHSigner(t), Now: ours.Now}
	foreign, err := other.Certify(id, key)
	if err != nil {
		t.Fatal(err)
	}
	changed := []byte(strings.Replace(string(cert), "alice@acme", "carol@acme", 1))
	for _, c := range []struct {
		name  string
		cert  []byte
		after time.Duration
		want  string
	}{
		{"of another CA", foreign, 0, "not of this gateway's login CA"},
		{"changed", changed, 0, "does not verify"},
		{"ended with its token", cert, 11 * time.Minute, "ended at 2026-11-28T12:10:00Z"},
		{"a bare key", key, 0, "no user's certificate"},
		{"nothing", nil, 0, "not understood"},
		{"for a host", edited(func(c *ssh.Certificate) { c.CertType = ssh.HostCert }), 0, "no user's certificate"},
		{"for another principal", edited(func(c *ssh.Certificate) { c.ValidPrincipals = []string{"root"} }), 0, "does not verify"},
		{"for any principal", edited(func(c *ssh.Certificate) { c.ValidPrincipals = nil }), 0, "names nobody"},
		{"with another critical option", edited(func(c *ssh.Certificate) {
			c.CriticalOptions = map[string]string{identityOption: "{}", "force-command": "x"}
		}), 0, "does not verify"},
		{"of nobody", edited(func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{identityOption: "{}"} }), 0, "names nobody"},
	} {
		t.Run(c.name, func(t *testing.T) {
			late := Certificates{CA: ours.CA, Now: func() time.Time { return now.Add(c.after) }}
			_, err := late.IdentifyCertificate(c.cert)
			if access.CodeOf(err) != access.CodeUnauthenticated || !strings.Contains(access.Message(err), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestCertifyRefuses(t *testing.T) {
	c := Certificates{CA: newSSHSigner(t)}
	id := access.Identity{Issuer: "https://okta.test", Subject: "1", Expires: time.Now().Add(time.Hour)}
	if _, err := c.Certify(id, []byte("no key")); access.CodeOf(err) != access.CodeInvalid {
		t.Errorf("no key: got %v", err)
	}
	id.Groups = []string{strings.Repeat("g", maxCertificate)}
	if _, err := c.Certify(id, newSSHSigner(t).PublicKey().Marshal()); access.CodeOf(err) != access.CodeTooLarge {
		t.Errorf("a huge identity: got %v", err)
	}
}
