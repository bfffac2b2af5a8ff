package backing

import (
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"

	"golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
)

// EncodeCredential puts a session's key and its certificate into one secret:
// the key in PEM, then the certificate as authorized_keys writes it.
func EncodeCredential(key ed25519.PrivateKey, cert *ssh.Certificate) (access.Secret, error) {
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		return access.Secret{}, fmt.Errorf("encode session key: %w", err)
	}
	return access.NewSecret(string(pem.EncodeToMemory(block)) + string(ssh.MarshalAuthorizedKey(cert))), nil
}

// ParseCredential makes the signer that logs in with the certificate.
func ParseCredential(s access.Secret) (ssh.Signer, error) {
	text := []byte(s.Reveal())
	block, rest := pem.Decode(text)
	if block == nil {
		return nil, errors.New("parse credential: no PEM block")
	}
	key, err := ssh.ParsePrivateKey(pem.EncodeToMemory(block))
	if err != nil {
		return nil, errors.New("parse credential: the key is not understood")
	}
	pub, _, _, _, err := ssh.ParseAuthorizedKey(rest)
	if err != nil {
		return nil, errors.New("parse credential: the certificate is not understood")
	}
	cert, ok := pub.(*ssh.Certificate)
	if !ok {
		return nil, errors.New("parse credential: a bare key, want a certificate")
	}
	signer, err := ssh.NewCertSigner(cert, key)
	if err != nil {
		return nil, fmt.Errorf("parse credential: %w", err)
	}
	return signer, nil
}
