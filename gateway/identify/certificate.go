package identify

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
)

const (
	// identityOption carries who the certificate is for. It is critical, so
	// that a host that trusts the login CA by mistake refuses the certificate.
	identityOption = "identity@tidegate"

	// loginPrincipal stands in every certificate, and is no account.
	loginPrincipal = "tidegate"

	// CertificateLasts is how long a certificate is good, or until its token
	// ends.
	CertificateLasts = time.Hour

	maxCertificate = 64 << 10
)

// Certificates turns a verified identity into a short certificate, and back:
// SSH's, or X.509's for TLS clients. A certificate says who somebody is and
// gives nothing: grants are asked for each time. It implements
// gateway.Certificates.
type Certificates struct {
	CA     ssh.Signer       // the login CA: no host trusts it
	Client *ClientCA        // its like for TLS clients; nil: they get none
	Now    func() time.Time // default: time.Now

	// Those that signed before: what is of them is taken until it ends.
	OldCAs     []ssh.PublicKey
	OldClients []*x509.Certificate
}

func (c Certificates) now() time.Time {
	if c.Now == nil {
		return time.Now()
	}
	return c.Now()
}

// until is when a certificate for the identity ends.
func (c Certificates) until(id access.Identity) time.Time {
	until := c.now().Add(CertificateLasts)
	if id.Expires.Before(until) {
		until = id.Expires
	}
	return until
}

func tooLarge() error {
	return access.Errorf(access.CodeTooLarge, "Your identity does not fit into a certificate of %d bytes.", maxCertificate)
}

// Certify signs a public key for the identity: one in SSH's wire form, or in
// PKIX form (DER) for an X.509 certificate.
func (c Certificates) Certify(id access.Identity, key []byte) ([]byte, error) {
	if isDER(key) {
		return c.certifyClient(id, key)
	}
	pub, err := ssh.ParsePublicKey(key)
	if err != nil {
		return nil, access.Errorf(access.CodeInvalid, "The public key is not understood.")
	}
	if t := pub.Type(); t != ssh.KeyAlgoED25519 && t != ssh.KeyAlgoECDSA256 && t != ssh.KeyAlgoSKED25519 {
		return nil, access.Errorf(access.CodeInvalid, "Got a key of type %.40q, want %s or %s.", t, ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256)
	}
	body, err := json.Marshal(id)
	if err != nil {
		return nil, fmt.Errorf("encode identity: %w", err)
	}
	var serial [8]byte
	_, _ = rand.Read(serial[:]) // never fails: the runtime ends the process instead
	cert := &ssh.Certificate{
		Key: pub, Serial: binary.BigEndian.Uint64(serial[:]), CertType: ssh.UserCert, KeyId: "tidegate login " + id.String(),
		ValidPrincipals: []string{loginPrincipal}, ValidAfter: uint64(c.now().Add(-skew).Unix()), ValidBefore: uint64(c.until(id).Unix()),
		Permissions: ssh.Permissions{CriticalOptions: map[string]string{identityOption: string(body)}},
	}
	if err := cert.SignCert(rand.Reader, c.CA); err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	if wire := cert.Marshal(); len(wire) <= maxCertificate {
		return wire, nil
	}
	return nil, tooLarge()
}

// Authority reports whether a certificate's signer is the login CA, or was.
func (c Certificates) Authority(signer ssh.PublicKey) bool {
	is := func(ca ssh.PublicKey) bool { return bytes.Equal(signer.Marshal(), ca.Marshal()) }
	return is(c.CA.PublicKey()) || slices.ContainsFunc(c.OldCAs, is)
}

// IdentifyCertificate verifies a certificate in SSH's wire form or in DER. That
// the caller holds its key is for the room to have seen.
func (c Certificates) IdentifyCertificate(wire []byte) (access.Identity, error) {
	id, err := c.identify(wire)
	if err != nil {
		return access.Identity{}, &access.Error{Code: access.CodeUnauthenticated, Message: "Your certificate was not accepted: " + err.Error() + ". Log in again: tidegate login.", Cause: err}
	}
	return id, nil
}

func (c Certificates) identify(wire []byte) (access.Identity, error) {
	var id access.Identity
	if len(wire) > maxCertificate {
		return id, errors.New("it is too large")
	}
	if isDER(wire) {
		return c.identifyClient(wire)
	}
	key, err := ssh.ParsePublicKey(wire)
	if err != nil {
		return id, errors.New("it is not understood")
	}
	cert, ok := key.(*ssh.Certificate)
	if !ok || cert.CertType != ssh.UserCert {
		return id, errors.New("it is no user's certificate")
	}
	if !c.Authority(cert.SignatureKey) {
		return id, errors.New("it is not of this gateway's login CA")
	}
	checker := ssh.CertChecker{
		SupportedCriticalOptions: []string{identityOption}, Clock: c.now,
		IsUserAuthority: c.Authority,
	}
	if err := checker.CheckCert(loginPrincipal, cert); err != nil {
		if until := time.Unix(int64(cert.ValidBefore), 0); c.now().After(until) {
			return id, fmt.Errorf("it ended at %s", until.UTC().Format(time.RFC3339))
		}
		return id, errors.New("it does not verify")
	}
	body, ok := cert.CriticalOptions[identityOption]
	if !ok || len(cert.CriticalOptions) != 1 || len(cert.ValidPrincipals) != 1 {
		return id, errors.New("it names nobody")
	}
	if err := json.Unmarshal([]byte(body), &id); err != nil || id.Issuer == "" || id.Subject == "" {
		return access.Identity{}, errors.New("it names nobody")
	}
	return id, nil
}
