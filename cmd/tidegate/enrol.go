package main

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/record"
)

// A gateway of another process is known by one Ed25519 key, made when it is
// enrolled: with it the gateway proves itself to the control side, and signs
// what it holds for an answer. The control side keeps the certificate, and
// takes no other for that name.

// Names of control's state for enrolments.
const (
	enrolmentCAKey  = "enrolment-ca.pem" // in keysDir
	enrolmentCACert = "enrolment-ca.crt"
	gatewaysDir     = "gateways" // in state_dir: one <name>.pem for each enrolled gateway
)

// Files of an enrolment, in the gateway's folder.
const (
	enrolCertificate = "certificate.pem"
	enrolKey         = "key.pem"
	enrolCA          = "ca.pem"
	enrolControl     = "control.pub.pem"
)

// doorName is the name in the certificate of control's door. Whoever has it
// from the enrolments' CA is control, at whatever address.
const doorName = "control.tidegate.internal"

const (
	enrolmentLasts = 365 * 24 * time.Hour
	doorCertLasts  = 30 * 24 * time.Hour
)

// enrolment is what a gateway of another process holds.
type enrolment struct {
	Name        string
	Certificate tls.Certificate
	Key         ed25519.PrivateKey
	CA          *x509.CertPool
	Control     ed25519.PublicKey // signs grants and answers
}

// openEnrolment reads a folder that setup gateway wrote.
func openEnrolment(dir string, now time.Time) (*enrolment, error) {
	text := map[string][]byte{}
	var errs []error
	for _, name := range []string{enrolCertificate, enrolKey, enrolCA, enrolControl} {
		s, err := readSecret(filepath.Join(dir, name))
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
		text[name] = []byte(s.Reveal())
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(text[enrolCertificate], text[enrolKey])
	if err != nil {
		return nil, fmt.Errorf("read %s with %s: %w", enrolCertificate, enrolKey, err)
	}
	e := &enrolment{Name: pair.Leaf.Subject.CommonName, Certificate: pair, CA: x509.NewCertPool()}
	var ok bool
	if e.Key, ok = pair.PrivateKey.(ed25519.PrivateKey); !ok {
		return nil, fmt.Errorf("read %s: got %T, want Ed25519", enrolKey, pair.PrivateKey)
	}
	if e.Control, err = publicKey(text[enrolControl]); err != nil {
		return nil, fmt.Errorf("read %s: %w", enrolControl, err)
	}
	e.CA.AppendCertsFromPEM(text[enrolCA]) // without one, verify refuses
	return e, e.verify(now)
}

func (e *enrolment) verify(now time.Time) error {
	_, err := e.Certificate.Leaf.Verify(x509.VerifyOptions{
		Roots: e.CA, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return fmt.Errorf("verify %s: %w; enrol the gateway again", enrolCertificate, err)
	}
	if !namePattern.MatchString(e.Name) {
		return fmt.Errorf("got the name %q in %s, want small letters, digits, '.', '_' and '-'", e.Name, enrolCertificate)
	}
	return nil
}

// tls is how the gateway reaches control's door.
func (e *enrolment) tls() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: e.CA, ServerName: doorName, Certificates: []tls.Certificate{e.Certificate},
	}
}

func publicKey(text []byte) (ed25519.PublicKey, error) {
	keys, err := record.ParseKeys(text)
	if err != nil {
		return nil, err
	}
	if len(keys) != 1 {
		return nil, fmt.Errorf("got %d keys, want one", len(keys))
	}
	for _, key := range keys {
		return key, nil
	}
	return nil, nil // not reached
}

// gateways are those that control knows.
type gateways struct {
	dir  string
	keys string
	ca   *ca
	now  clock

	mu   sync.Mutex
	door *tls.Certificate // of control's door, made anew in time
}

// openGateways opens what control keeps of its gateways.
func openGateways(stateDir string, now clock) (*gateways, error) {
	g := &gateways{dir: filepath.Join(stateDir, gatewaysDir), keys: filepath.Join(stateDir, keysDir), now: now}
	if err := os.MkdirAll(g.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder for gateways: %w", err)
	}
	var err error
	g.ca, err = openCA(caFiles{filepath.Join(g.keys, enrolmentCAKey), filepath.Join(g.keys, enrolmentCACert)}, "Tidegate enrolment CA", now())
	return g, err
}

func (g *gateways) file(name string) string { return filepath.Join(g.dir, name+".pem") }

// find is the certificate of an enrolled gateway. It reads the file each
// time, so that a removal holds from the next question on.
func (g *gateways) find(name string) (*x509.Certificate, error) {
	unknown := access.Errorf(access.CodeDenied, "The gateway is not enrolled at this control side.")
	if !namePattern.MatchString(name) {
		return nil, unknown
	}
	text, err := readBounded(g.file(name), maxSecret)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, unknown
	}
	if err != nil {
		return nil, fmt.Errorf("read enrolment of gateway %s: %w", name, err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("read enrolment of gateway %s: no PEM in %s", name, g.file(name))
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read enrolment of gateway %s: %w", name, err)
	}
	return cert, nil
}

// key is the key by which an enrolled gateway signs.
func (g *gateways) key(name string) (ed25519.PublicKey, error) {
	cert, err := g.find(name)
	if err != nil {
		return nil, err
	}
	key, ok := cert.PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("enrolment of gateway %s: got a key of %T, want Ed25519", name, cert.PublicKey)
	}
	return key, nil
}

// identify says which gateway sent a request, by the certificate that TLS has
// verified; it must be the one that the name was enrolled with.
func (g *gateways) identify(r *http.Request) (string, error) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return "", access.Errorf(access.CodeUnauthenticated, "No certificate was shown, want that of an enrolled gateway.")
	}
	cert := r.TLS.PeerCertificates[0]
	name := cert.Subject.CommonName
	known, err := g.find(name)
	if err != nil {
		return name, err
	}
	if !bytes.Equal(known.Raw, cert.Raw) {
		return name, access.Errorf(access.CodeDenied, "The gateway was enrolled again since; it must use its newer enrolment.")
	}
	return name, nil
}

// tls is the configuration of control's door.
func (g *gateways) tls() *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(g.ca.cert)
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots, SessionTicketsDisabled: true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return g.doorCertificate() },
	}
}

// doorCertificate lives in memory alone; half its life before its end a new
// one takes its place.
func (g *gateways) doorCertificate() (*tls.Certificate, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	if g.door != nil && now.Before(g.door.Leaf.NotAfter.Add(-doorCertLasts/2)) {
		return g.door, nil
	}
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key of the door: %w", err)
	}
	leaf := &x509.Certificate{
		Subject: pkix.Name{CommonName: doorName}, DNSNames: []string{doorName},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(doorCertLasts),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := g.ca.sign(leaf, pub)
	if err != nil {
		return nil, err
	}
	if leaf, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("read certificate of the door: %w", err)
	}
	g.door = &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
	return g.door, nil
}

// enrol makes a gateway known, and writes its files into a new folder. Its
// private key is written there and kept nowhere else.
func (g *gateways) enrol(name, out string, control ed25519.PublicKey) error {
	if _, err := os.Lstat(g.file(name)); err == nil {
		return fmt.Errorf("enrol gateway: %s is enrolled already; run with --remove first, which ends the enrolment that it has", name)
	}
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("make the gateway's key: %w", err)
	}
	now := g.now()
	der, err := g.ca.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(enrolmentLasts),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, pub)
	if err != nil {
		return err
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := g.hand(out, certificate, key, control); err != nil {
		return err
	}
	return writeNew(g.file(name), certificate)
}

// hand writes the gateway's folder.
func (g *gateways) hand(out string, certificate []byte, key crypto.Signer, control ed25519.PublicKey) error {
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode the gateway's key: %w", err)
	}
	if err := os.Mkdir(out, 0o700); err != nil {
		return fmt.Errorf("make folder for the enrolment: %w; --out names a new folder", err)
	}
	for name, text := range map[string][]byte{
		enrolCertificate: certificate, enrolKey: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
		enrolCA: g.ca.pem(), enrolControl: record.MarshalKey(control),
	} {
		if err := writeNew(filepath.Join(out, name), text); err != nil {
			return err
		}
	}
	return nil
}

// remove ends an enrolment. Its certificate is kept under another name: the
// gateway's recordings stay to be verified.
func (g *gateways) remove(name string) error {
	key, err := g.key(name)
	if err != nil {
		return fmt.Errorf("remove gateway %s: %w", name, err)
	}
	if err := os.Rename(g.file(name), filepath.Join(g.dir, name+"."+record.KeyID(key)+".removed")); err != nil {
		return fmt.Errorf("remove gateway: %w", err)
	}
	return nil
}
