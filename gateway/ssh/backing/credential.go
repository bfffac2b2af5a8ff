package backing

import (
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

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

// AuthMethods are the ways to log in with a session's credential.
func (b Backing) AuthMethods(s access.Secret) ([]ssh.AuthMethod, error) {
	if b.Static {
		return staticMethods(s)
	}
	signer, err := ParseCredential(s)
	if err != nil {
		return nil, err
	}
	return []ssh.AuthMethod{ssh.PublicKeys(signer)}, nil
}

// staticMethods log in with a private key, or with a password where the text
// is none. Many devices ask for the password by keyboard-interactive alone.
func staticMethods(s access.Secret) ([]ssh.AuthMethod, error) {
	text := s.Reveal()
	if block, _ := pem.Decode([]byte(text)); block != nil || strings.Contains(text, "-----BEGIN") {
		key, err := ssh.ParsePrivateKey([]byte(text))
		if err != nil {
			return nil, errors.New("parse static credential: the private key is not understood; want one in PEM without a passphrase")
		}
		return []ssh.AuthMethod{ssh.PublicKeys(key)}, nil
	}
	answer := func(_, _ string, questions []string, echos []bool) ([]string, error) {
		switch {
		case len(questions) == 0:
			return nil, nil
		case len(questions) > 1 || echos[0]:
			return nil, errors.New("the host asks for more than a password")
		}
		return []string{text}, nil
	}
	return []ssh.AuthMethod{ssh.Password(text), ssh.KeyboardInteractive(answer)}, nil
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
