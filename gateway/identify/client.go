package identify

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/tidegate/tidegate/access"
)

// ClientCA signs X.509 certificates by which TLS clients say who they are. No
// server but the gateway trusts it.
type ClientCA struct {
	Certificate *x509.Certificate
	Key         crypto.Signer
}

// identityExtension holds who a client certificate is for, as the JSON of an
// access.Identity in a UTF8String. It is critical, so that a server that trusts
// the CA by mistake refuses the certificate.
var identityExtension = asn1.ObjectIdentifier{2, 25, 0x54696465, 0x67617465}

// clientName is the subject's common name, and no database's user.
const clientName = "tidegate login"

// isDER tells X.509's forms from SSH's, which begin with a length below 16 MB.
func isDER(p []byte) bool { return len(p) > 0 && p[0] == 0x30 }

// certifyClient signs a public key in PKIX form.
func (c Certificates) certifyClient(id access.Identity, key []byte) ([]byte, error) {
	if c.Client == nil {
		return nil, access.Errorf(access.CodeUnavailable, "This gateway signs no certificates for TLS clients.")
	}
	pub, err := x509.ParsePKIXPublicKey(key)
	if err != nil {
		return nil, access.Errorf(access.CodeInvalid, "The public key is not understood.")
	}
	if !goodClientKey(pub) {
		return nil, access.Errorf(access.CodeInvalid, "Got a key of type %T, want ECDSA P-256 or Ed25519.", pub)
	}
	leaf, err := c.clientTemplate(id)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, c.Client.Certificate, pub, c.Client.Key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	if len(der) > maxCertificate {
		return nil, tooLarge()
	}
	return der, nil
}

func goodClientKey(key any) bool {
	switch k := key.(type) {
	case ed25519.PublicKey:
		return true
	case *ecdsa.PublicKey:
		return k.Curve == elliptic.P256()
	}
	return false
}

func (c Certificates) clientTemplate(id access.Identity) (*x509.Certificate, error) {
	body, err := json.Marshal(id)
	if err != nil {
		return nil, fmt.Errorf("encode identity: %w", err)
	}
	value, err := asn1.MarshalWithParams(string(body), "utf8")
	if err != nil {
		return nil, fmt.Errorf("encode identity: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("make serial: %w", err)
	}
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: clientName},
		NotBefore: c.now().Add(-skew), NotAfter: c.until(id), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		ExtraExtensions: []pkix.Extension{{Id: identityExtension, Critical: true, Value: value}},
	}, nil
}

// identifyClient verifies a certificate of the client CA.
func (c Certificates) identifyClient(der []byte) (access.Identity, error) {
	if c.Client == nil {
		return access.Identity{}, errors.New("this gateway takes none of this kind")
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return access.Identity{}, errors.New("it is not understood")
	}
	root := c.clientRoot(cert)
	if root == nil {
		return access.Identity{}, errors.New("it is not of this gateway's client CA")
	}
	if until := cert.NotAfter; c.now().After(until) {
		return access.Identity{}, fmt.Errorf("it ended at %s", until.UTC().Format(time.RFC3339))
	}
	if err := c.verifyClient(cert, root); err != nil {
		return access.Identity{}, errors.New("it does not verify")
	}
	return certifiedIdentity(cert)
}

// clientRoot is the client CA that signed a certificate, the present one or one
// before; nil if none did.
func (c Certificates) clientRoot(cert *x509.Certificate) *x509.Certificate {
	for _, root := range append([]*x509.Certificate{c.Client.Certificate}, c.OldClients...) {
		if bytes.Equal(cert.RawIssuer, root.RawSubject) && cert.CheckSignatureFrom(root) == nil {
			return root
		}
	}
	return nil
}

// verifyClient leaves nothing critical unread: the identity alone may be.
func (c Certificates) verifyClient(cert, root *x509.Certificate) error {
	if cert.IsCA || len(cert.UnhandledCriticalExtensions) != 1 || !cert.UnhandledCriticalExtensions[0].Equal(identityExtension) {
		return errors.New("want a client's certificate that names an identity")
	}
	cert.UnhandledCriticalExtensions = nil
	roots := x509.NewCertPool()
	roots.AddCert(root)
	_, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: c.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return err
}

func certifiedIdentity(cert *x509.Certificate) (id access.Identity, err error) {
	for _, e := range cert.Extensions {
		if !e.Id.Equal(identityExtension) {
			continue
		}
		var body string
		rest, err := asn1.UnmarshalWithParams(e.Value, &body, "utf8")
		if err != nil || len(rest) > 0 {
			break
		}
		if err := json.Unmarshal([]byte(body), &id); err == nil && id.Issuer != "" && id.Subject != "" {
			return id, nil
		}
	}
	return access.Identity{}, errors.New("it names nobody")
}
