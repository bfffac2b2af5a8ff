package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// keyring holds the keys of one installation, each in a 0600 file that is
// made on the first start.
type keyring struct {
	control  ed25519.PrivateKey // signs grants and answers
	recorder ed25519.PrivateKey // a gateway's: signs held operations, and recordings until there were certificates
	mint     []byte             // derives the passwords of minted roles
	webhook  []byte             // the webhook's shared secret
}

// openKeyring reads a dev's own keys in dir and makes those that are missing.
func openKeyring(dir string) (*keyring, error) {
	k, err := openOwnKeys(dir)
	if err != nil {
		return nil, err
	}
	k.webhook, err = randomKey(filepath.Join(dir, "webhook.pem"))
	return k, err
}

// openOwnKeys reads or makes the keys that nobody else may choose.
func openOwnKeys(dir string) (*keyring, error) {
	k, err := openControlKeys(dir)
	if err != nil {
		return nil, err
	}
	k.recorder, err = signingKey(filepath.Join(dir, "recorder.pem"))
	return k, err
}

// openControlKeys reads or makes the keys of the control side alone.
func openControlKeys(dir string) (*keyring, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make key folder: %w", err)
	}
	var k keyring
	var err error
	if k.control, err = signingKey(filepath.Join(dir, "control.pem")); err != nil {
		return nil, err
	}
	if k.mint, err = randomKey(filepath.Join(dir, "mint.pem")); err != nil {
		return nil, err
	}
	ca, err := signingKey(filepath.Join(dir, recordingCAFile))
	if err != nil {
		return nil, err
	}
	return &k, addPublicKey(dir, ca.Public().(ed25519.PublicKey))
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
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.new") // 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Sync() // or a machine that loses power now has the name without the bytes
	}
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(err, os.Remove(tmp.Name())))
	}
	return nil
}

func signingKey(path string) (ed25519.PrivateKey, error) {
	key, err := privateKey(path, newSigningKey)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("read key %s: got %T, want Ed25519", path, key)
	}
	return signer, nil
}

// pemBlocks are those of a text, in order.
func pemBlocks(text []byte) iter.Seq[*pem.Block] {
	return func(yield func(*pem.Block) bool) {
		for block, rest := pem.Decode(text); block != nil && yield(block); block, rest = pem.Decode(rest) {
		}
	}
}

func parseSigner(der []byte) (crypto.Signer, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a %T cannot sign", key)
	}
	return signer, nil
}

func newSigningKey() (crypto.Signer, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	return key, err
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
	signer, err := parseSigner(der)
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", path, err)
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

// ca is a certificate authority of ours.
type ca struct {
	cert *x509.Certificate
	key  crypto.Signer
}

type caFiles struct{ key, certificate string }

// openCA reads a CA, or makes it, for ten years.
func openCA(files caFiles, name string, now time.Time) (*ca, error) {
	key, err := privateKey(files.key, newCAKey)
	if err != nil {
		return nil, err
	}
	der, err := pemFile(files.certificate, "CERTIFICATE", func() ([]byte, error) {
		cert, err := selfSigned(key, name, now)
		if err != nil {
			return nil, err
		}
		return cert.Raw, nil
	})
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read CA certificate %s: %w", files.certificate, err)
	}
	return &ca{cert, key}, nil
}

func newCAKey() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

// selfSigned is the certificate of a new CA. One subject has several keys when
// they are rotated: key ids tell which.
func selfSigned(key crypto.Signer, name string, now time.Time) (*x509.Certificate, error) {
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign CA certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

func (c *ca) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.cert.Raw})
}

// sign makes a certificate of this CA for a key.
func (c *ca) sign(leaf *x509.Certificate, key crypto.PublicKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("make serial: %w", err)
	}
	leaf.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, leaf, c.cert, key, c.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	return der, nil
}
