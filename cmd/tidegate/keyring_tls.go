package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"sync"
	"time"
)

// ownTLS is a certificate for loopback that a CA of ours signs: that of
// `tidegate dev`. Serve has the operator's files.
type ownTLS struct {
	keys *liveKeys

	mu    sync.Mutex
	by    keyHalf // who signed shown
	shown *tls.Certificate
}

const ownTLSLasts = 90 * 24 * time.Hour

// config shows the certificate of the CA that signs at the moment.
func (o *ownTLS) config() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return o.certificate() },
	}
}

// certificate lives in memory alone; half its life before its end, or when
// another CA signs, a new one takes its place.
func (o *ownTLS) certificate() (*tls.Certificate, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	root, now := o.keys.at(tlsCAKey).Signs, o.keys.now()
	if o.shown != nil && o.by.is(root) && now.Before(o.shown.Leaf.NotAfter.Add(-ownTLSLasts/2)) {
		return o.shown, nil
	}
	cert, err := issueLoopback(&ca{root.Cert, root.Key}, now)
	if err != nil {
		return nil, err
	}
	o.by, o.shown = root, cert
	return cert, nil
}

// issueLoopback makes a key with a certificate for this machine's own names.
func issueLoopback(root *ca, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make server key: %w", err)
	}
	der, err := root.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "localhost"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(ownTLSLasts),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, key.Public())
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read server certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der, root.cert.Raw}, PrivateKey: key, Leaf: leaf}, nil
}
