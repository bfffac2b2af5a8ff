package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/identify"
)

// TestSignerTurns: the minter's next certificate is of the key whose time it is.
func TestSignerTurns(t *testing.T) {
	w := newKeysWorld(t, userCAKey)
	ca := userCA{w.live}
	first, err := ca.signer()
	if err != nil {
		t.Fatal(err)
	}
	w.rotate(t, userCAKey, rotation{lead: time.Hour})
	w.live.look()
	w.now = w.now.Add(time.Hour)
	second, err := ca.signer()
	if err != nil || bytes.Equal(first.PublicKey().Marshal(), second.PublicKey().Marshal()) {
		t.Errorf("the old key signs on: %v", err)
	}
}

// TestHostKeysTurn: the gateway shows the host key whose time it is, with a
// certificate of the CA whose time it is, and one that has not ended.
func TestHostKeysTurn(t *testing.T) {
	w := &keysWorld{dir: t.TempDir(), now: keysNoon}
	k, err := openSSHKeys(w.dir, []string{"gate.acme.test"}, func() time.Time { return w.now }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	w.live = k.keys
	shows := func(names []string, principal string) *gossh.Certificate {
		t.Helper()
		keys, err := k.hostKeys(names)
		if err != nil {
			t.Fatal(err)
		}
		cert := keys[0].PublicKey().(*gossh.Certificate)
		cas, err := k.hostCAs()
		if err != nil {
			t.Fatal(err)
		}
		check := gossh.CertChecker{Clock: func() time.Time { return w.now }, IsHostAuthority: func(key gossh.PublicKey, _ string) bool {
			return bytes.Equal(key.Marshal(), cas[0].Marshal())
		}}
		if !check.IsHostAuthority(cert.SignatureKey, "") {
			t.Error("another CA signed than the one that signs now")
		}
		if err := check.CheckCert(principal, cert); err != nil {
			t.Error(err)
		}
		return cert
	}
	first := shows(nil, "gate.acme.test")
	if again := shows(nil, "gate.acme.test"); again != first {
		t.Error("each connection has a certificate made")
	}
	w.now = keysNoon.Add(hostCertificateLasts * 3)
	shows(nil, "gate.acme.test")
	for _, name := range []string{hostCAKey, hostKey} {
		w.rotate(t, name, rotation{})
		w.live.look()
		shows(nil, "gate.acme.test")
		shows([]string{"web-1"}, "web-1")
	}
	if last := shows(nil, "gate.acme.test"); bytes.Equal(last.Key.Marshal(), first.Key.Marshal()) {
		t.Error("the host key did not turn")
	}
}

// TestLoginsOutliveTheirCA: certificates of the CA before are taken until they
// end, SSH's and TLS's; after a compromise none is.
func TestLoginsOutliveTheirCA(t *testing.T) {
	w := &keysWorld{dir: t.TempDir(), now: keysNoon}
	k, err := openSSHKeys(w.dir, []string{"gate"}, func() time.Time { return w.now }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	w.live = k.keys
	certs := k.certificates()
	id := access.Identity{Issuer: "https://okta.test", Subject: "1", Expires: keysNoon.Add(100 * time.Hour)}
	_, signer, err := newSSHKey()
	if err != nil {
		t.Fatal(err)
	}
	client, err := newClientKey()
	if err != nil {
		t.Fatal(err)
	}
	issue := func() (all [][]byte) {
		for _, key := range [][]byte{signer.PublicKey().Marshal(), client.public} {
			cert, err := certs.Certify(id, key)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, cert)
		}
		return all
	}
	taken := func(when string, all [][]byte, want bool) {
		t.Helper()
		for i, cert := range all {
			if _, err := certs.IdentifyCertificate(cert); (err == nil) != want {
				t.Errorf("%s: certificate %d: %v, want it taken: %v", when, i, err, want)
			}
		}
	}
	both := func(r rotation) {
		w.rotate(t, loginCAKey, r)
		w.rotate(t, clientCAKey, r)
		w.live.look()
	}
	first := issue()
	both(rotation{})
	second := issue()
	taken("after a rotation", append(first, second...), true)
	w.now = keysNoon.Add(59 * time.Minute)
	both(rotation{})
	taken("after two", append(first, second...), true)
	third := issue()
	w.now = keysNoon.Add(identify.CertificateLasts + time.Second)
	taken("after an hour", append(first, second...), false)
	taken("after an hour", third, true)
	both(rotation{compromised: true})
	taken("after a compromise", third, false)
	taken("after a compromise", issue(), true)
}

// TestTLSTurns: a client that has the file with both is served before and after.
func TestTLSTurns(t *testing.T) {
	w := newKeysWorld(t, tlsCAKey)
	own := &ownTLS{keys: w.live}
	w.rotate(t, tlsCAKey, rotation{lead: time.Hour})
	w.live.look()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(contents(t, filepath.Join(w.dir, "gateway-ca.pem")))
	var seen []*tls.Certificate
	for _, after := range []time.Duration{0, time.Hour, 80 * 24 * time.Hour} {
		w.now = keysNoon.Add(after)
		cert, err := own.certificate()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cert.Leaf.Verify(x509.VerifyOptions{DNSName: "localhost", Roots: roots, CurrentTime: w.now}); err != nil {
			t.Errorf("after %s: %v", after, err)
		}
		seen = append(seen, cert)
	}
	if seen[0] == seen[1] || seen[1] == seen[2] {
		t.Error("the certificate did not change with its CA, or in time")
	}
}
