package mint

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"fmt"

	"github.com/tidegate/tidegate/access"
)

const scramRounds = 4096 // PostgreSQL's own; the password has 256 random bits, so more rounds add nothing

// verifier is what PostgreSQL stores for SCRAM-SHA-256 instead of a password
// (RFC 5803): whoever reads it in a log can't log in with it. The salt is
// derived as well, so that the same grant always gets the same bytes.
func (m *Minter) verifier(g access.Grant) (string, error) {
	password, err := m.password(g)
	if err != nil {
		return "", err
	}
	salt, err := m.derive("salt", g, 16)
	if err != nil {
		return "", err
	}
	return scramVerifier(password, salt, scramRounds)
}

func scramVerifier(password access.Secret, salt []byte, rounds int) (string, error) {
	salted, err := pbkdf2.Key(sha256.New, password.Reveal(), salt, rounds, sha256.Size)
	if err != nil {
		return "", fmt.Errorf("compute SCRAM verifier: %w", err)
	}
	stored := sha256.Sum256(sign(salted, "Client Key"))
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", rounds, b64(salt), b64(stored[:]), b64(sign(salted, "Server Key"))), nil
}

func sign(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}
