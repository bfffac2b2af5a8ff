package postgres

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/identify"
)

// clientCA is a CA for clients' certificates.
func clientCA(t *testing.T, name string) *identify.ClientCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if root, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return &identify.ClientCA{Certificate: root, Key: key}
}

// certified is a client's key and certificate as libpq reads them.
func certified(t *testing.T, certs identify.Certificates, expires time.Time) (params string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	der, err := certs.Certify(access.Identity{Provider: "dev", Issuer: "https://dev.test", Subject: "alice", Expires: expires}, public)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, block := range map[string]*pem.Block{"crt": {Type: "CERTIFICATE", Bytes: der}, "key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return fmt.Sprintf(" sslcert=%s sslkey=%s", filepath.Join(dir, "crt"), filepath.Join(dir, "key"))
}

func loginCA(t *testing.T) gossh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := gossh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// TestClientCertificate: psql comes with a certificate and no token. One of our
// CA decides, good or not; one of another CA neither helps nor hurts.
func TestClientCertificate(t *testing.T) {
	ours := identify.Certificates{CA: loginCA(t), Client: clientCA(t, "Tidegate client CA")}
	r := newRig(t, Config{ClientCA: ours.Client.Certificate})
	r.door.certs = ours
	forged, other := ours, ours
	forged.Client, other.Client = clientCA(t, "Tidegate client CA"), clientCA(t, "another CA")
	past := ours
	past.Now = func() time.Time { return time.Now().Add(-2 * time.Hour) }
	hour := time.Now().Add(time.Hour)
	dsn := fmt.Sprintf("host=localhost port=%s dbname=orders user=me sslmode=verify-full sslrootcert=%s", r.port, r.ca)
	for _, c := range []struct {
		name, params string
		in           bool
		says         string
	}{
		{"a good one", certified(t, ours, hour), true, "v2"},
		{"a good one and a wrong token", certified(t, ours, hour) + " password=wrong", true, "v2"},
		{"none and no token", "", false, "no password supplied"},
		{"one that has ended", certified(t, past, hour), false, "Log in again: tidegate login."},
		{"one that has ended and a good token", certified(t, past, hour) + " password=" + goodToken, false, "it ended at"},
		{"a forged one", certified(t, forged, hour), false, "not of this gateway's client CA"},
		{"a forged one and a good token", certified(t, forged, hour) + " password=" + goodToken, false, "not of this gateway's client CA"},
		{"another CA's", certified(t, other, hour), false, "no password supplied"},
		{"another CA's and a good token", certified(t, other, hour) + " password=" + goodToken, true, "v2"},
	} {
		out, err := r.psql(dsn+c.params, "select v from t where id=2;\n", "-w")
		if (err == nil) != c.in || !strings.Contains(out, c.says) {
			t.Errorf("%s: got in: %t, %q; want %t, %q", c.name, err == nil, out, c.in, c.says)
		}
	}
	if k := r.door.knocks[0]; !k.Token.IsZero() || len(k.Certificate) == 0 {
		t.Errorf("the knock is %+v, want a certificate alone", k)
	}
}

// A room that knows no client CA asks for no certificate, and takes a token.
func TestClientCertificateWhereNoneIsTaken(t *testing.T) {
	certs := identify.Certificates{CA: loginCA(t), Client: clientCA(t, "Tidegate client CA")}
	r := newRig(t, Config{})
	dsn := fmt.Sprintf("host=localhost port=%s dbname=orders user=me sslmode=verify-full sslrootcert=%s%s", r.port, r.ca, certified(t, certs, time.Now().Add(time.Hour)))
	if out, err := r.psql(dsn, "select 1;\n", "-w"); err == nil || !strings.Contains(out, "no password supplied") {
		t.Errorf("got %v, %q; want it to be asked for a token", err, out)
	}
	if out, err := r.psql(dsn+" password="+goodToken, "select v from t where id=2;\n", "-w"); err != nil || !strings.Contains(out, "v2") {
		t.Errorf("with a token: %v, %q", err, out)
	}
	plain := &Room{cfg: Config{ClientCA: certs.Client.Certificate}}
	if got := plain.shown(&net.TCPConn{}); got != nil {
		t.Errorf("a connection without TLS shows a certificate: %x", got)
	}
}
