package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// keyring holds the keys of one installation, each in a 0600 file that is
// made on the first start.
type keyring struct {
	control  ed25519.PrivateKey // signs grants and answers
	recorder ed25519.PrivateKey // signs recordings
	mint     []byte             // derives the passwords of minted roles
	webhook  []byte             // the webhook's shared secret
	caPEM    []byte             // what clients trust
	server   tls.Certificate    // the gateway's, of our CA
}

// openKeyring reads all keys in dir and makes those that are missing.
func openKeyring(dir string, now time.Time) (*keyring, error) {
	k, err := openOwnKeys(dir)
	if err != nil {
		return nil, err
	}
	if k.webhook, err = randomKey(filepath.Join(dir, "webhook.pem")); err != nil {
		return nil, err
	}
	return k, k.openTLS(dir, now)
}

// openOwnKeys reads or makes the keys that nobody else may choose.
func openOwnKeys(dir string) (*keyring, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make key folder: %w", err)
	}
	var k keyring
	var err error
	if k.control, err = signingKey(filepath.Join(dir, "control.pem")); err != nil {
		return nil, err
	}
	if k.recorder, err = signingKey(filepath.Join(dir, "recorder.pem")); err != nil {
		return nil, err
	}
	if k.mint, err = randomKey(filepath.Join(dir, "mint.pem")); err != nil {
		return nil, err
	}
	return &k, nil
}

// pemFile reads one PEM block, or makes the file with what create returns.
func pemFile(path, kind string, create func() ([]byte, error)) ([]byte, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		der, err := create()
		if err != nil {
			return nil, fmt.Errorf("make %s: %w", path, err)
		}
		return der, writeNew(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("read key %s: want a PEM block %q; move the file away to have a new one made", path, kind)
	}
	return block.Bytes, nil
}

// writeNew writes a file that only we may read, whole or not at all.
func writeNew(path string, data []byte) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(tmp, path)
}

func signingKey(path string) (ed25519.PrivateKey, error) {
	key, err := privateKey(path, func() (crypto.Signer, error) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	})
	if err != nil {
		return nil, err
	}
	signer, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("read key %s: got %T, want Ed25519", path, key)
	}
	return signer, nil
}

func privateKey(path string, create func() (crypto.Signer, error)) (crypto.Signer, error) {
	der, err := pemFile(path, "PRIVATE KEY", func() ([]byte, error) {
		key, err := create()
		if err != nil {
			return nil, err
		}
		return x509.MarshalPKCS8PrivateKey(key)
	})
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", path, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("read key %s: a %T cannot sign", path, key)
	}
	return signer, nil
}

func randomKey(path string) ([]byte, error) {
	return pemFile(path, "TIDEGATE SECRET", func() ([]byte, error) {
		b := make([]byte, 32)
		_, err := rand.Read(b)
		return b, err
	})
}

// openTLS makes a CA for the gateway's own certificate, both kept.
func (k *keyring) openTLS(dir string, now time.Time) error {
	ec := func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }
	caKey, err := privateKey(filepath.Join(dir, "ca.pem"), ec)
	if err != nil {
		return err
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Tidegate gateway CA"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, MaxPathLenZero: true,
	}
	caDER, err := pemFile(filepath.Join(dir, "ca.crt"), "CERTIFICATE", func() ([]byte, error) {
		return x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	})
	if err != nil {
		return err
	}
	k.caPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})
	if ca, err = x509.ParseCertificate(caDER); err != nil {
		return fmt.Errorf("read CA certificate: %w", err)
	}
	return k.issueServer(ca, caKey, now)
}

// issueServer makes the gateway's certificate anew with each start: it lives
// for 90 days and nobody pins it.
func (k *keyring) issueServer(ca *x509.Certificate, caKey crypto.Signer, now time.Time) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make server key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return fmt.Errorf("make serial: %w", err)
	}
	leaf := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "localhost"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(0, 0, 90),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		return fmt.Errorf("sign server certificate: %w", err)
	}
	k.server = tls.Certificate{Certificate: [][]byte{der, ca.Raw}, PrivateKey: key}
	return nil
}
