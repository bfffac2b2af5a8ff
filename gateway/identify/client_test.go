package identify

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
)

func newClientCA(t *testing.T) *ClientCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client CA"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Unix(0, 0), NotAfter: time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &ClientCA{Certificate: cert, Key: key}
}

func newClientKey(t *testing.T, curve elliptic.Curve) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestClientCertificate(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	at := func(after time.Duration) func() time.Time { return func() time.Time { return now.Add(after) } }
	ours := Certificates{CA: newSSHSigner(t), Client: newClientCA(t), Now: at(0)}
	id := access.Identity{
		Provider: "okta", Issuer: "https://okta.test", Subject: "1", Email: "alicé@acme.test", EmailVerified: true,
		Groups: []string{"dba"}, Claims: map[string]string{"site": "b"}, Expires: now.Add(10 * time.Minute),
	}
	key := newClientKey(t, elliptic.P256())
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
	if _, err := parse(t, cert).Verify(x509.VerifyOptions{Roots: pool(ours.Client.Certificate), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err == nil {
		t.Error("a server that trusts the CA takes the certificate for its own")
	}
	signed := func(edit func(*x509.Certificate)) []byte { return resigned(t, ours, id, edit) }
	other := Certificates{CA: ours.CA, Client: newClientCA(t), Now: ours.Now}
	foreign, err := other.Certify(id, key)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		cert  []byte
		after time.Duration
		want  string
	}{
		{"of another CA of the same name", foreign, 0, "not of this gateway's client CA"},
		{"changed", bytes.Replace(cert, []byte("@acme"), []byte("@evil"), 1), 0, "not of this gateway's client CA"},
		{"ended with its token", cert, 11 * time.Minute, "ended at 2026-11-28T12:10:00Z"},
		{"from the future", cert, -time.Hour, "does not verify"},
		{"the CA itself", ours.Client.Certificate.Raw, 0, "does not verify"},
		{"no certificate", key, 0, "not understood"},
		{"for a server", signed(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), 0, "does not verify"},
		{"without an identity", signed(func(c *x509.Certificate) { c.ExtraExtensions = nil }), 0, "does not verify"},
		{"with another critical extension", signed(func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}})
		}), 0, "does not verify"},
		{"of nobody", signed(func(c *x509.Certificate) { c.ExtraExtensions[0].Value = []byte{12, 2, '{', '}'} }), 0, "names nobody"},
		{"of no text", signed(func(c *x509.Certificate) { c.ExtraExtensions[0].Value = []byte{5, 0} }), 0, "names nobody"},
	} {
		t.Run(c.name, func(t *testing.T) {
			late := ours
			late.Now = at(c.after)
			_, err := late.IdentifyCertificate(c.cert)
			if access.CodeOf(err) != access.CodeUnauthenticated || !strings.Contains(access.Message(err), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	bare := Certificates{CA: ours.CA, Now: ours.Now}
	if _, err := bare.IdentifyCertificate(cert); access.CodeOf(err) != access.CodeUnauthenticated {
		t.Errorf("without a client CA: got %v", err)
	}
	if _, err := bare.Certify(id, key); access.CodeOf(err) != access.CodeUnavailable {
		t.Errorf("without a client CA: got %v", err)
	}
}

func parse(t *testing.T, der []byte) *x509.Certificate {
	t.Helper()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func pool(cert *x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(cert)
	return p
}

// resigned is a certificate of the right CA with something else in it.
func resigned(t *testing.T, c Certificates, id access.Identity, edit func(*x509.Certificate)) []byte {
	t.Helper()
	leaf, err := c.clientTemplate(id)
	if err != nil {
		t.Fatal(err)
	}
	edit(leaf)
	der, err := x509.CreateCertificate(rand.Reader, leaf, c.Client.Certificate, c.Client.Key.Public(), c.Client.Key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestCertifyRefusesClientKeys(t *testing.T) {
	c := Certificates{CA: newSSHSigner(t), Client: newClientCA(t)}
	id := access.Identity{Issuer: "https://okta.test", Subject: "1", Expires: time.Now().Add(time.Hour)}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	short, err := x509.MarshalPKIXPublicKey(weak.Public())
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string][]byte{"RSA": short, "another curve": newClientKey(t, elliptic.P224()), "no key": {0x30, 0}} {
		if _, err := c.Certify(id, key); access.CodeOf(err) != access.CodeInvalid {
			t.Errorf("%s: got %v, want it refused", name, err)
		}
	}
	id.Groups = []string{strings.Repeat("g", maxCertificate)}
	if _, err := c.Certify(id, newClientKey(t, elliptic.P256())); access.CodeOf(err) != access.CodeTooLarge {
		t.Errorf("a huge identity: got %v", err)
	}
}

func FuzzIdentifyCertificate(f *testing.F) {
	f.Add([]byte{0x30, 0x82, 1, 0})
	f.Add([]byte{0, 0, 0, 7, 's', 's', 'h'})
	c := Certificates{Client: &ClientCA{Certificate: &x509.Certificate{}}, CA: nobodysSigner(f)}
	f.Fuzz(func(t *testing.T, cert []byte) {
		if id, err := c.IdentifyCertificate(cert); err == nil {
			t.Errorf("%x is taken for %v", cert, id)
		}
	})
}

func nobodysSigner(f *testing.F) ssh.Signer {
	f.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		f.Fatal(err)
	}
	return signer
}
