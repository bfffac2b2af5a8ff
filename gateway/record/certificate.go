package record

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Signer is a key that signs recordings, and what vouches for it.
type Signer struct {
	Key         ed25519.PrivateKey
	Certificate string // empty where verifiers know the key itself
}

func (s Signer) id() string { return KeyID(s.Key.Public().(ed25519.PublicKey)) }

// Certificate is what an installation's recording CA says of a recorder's key.
// So a verifier needs the CA's key alone, whatever recorders there were.
type Certificate struct {
	Installation string    `json:"installation"`
	Gateway      string    `json:"gateway"`
	Key          []byte    `json:"key"` // 32 bytes, Ed25519
	From         time.Time `json:"from"`
	Until        time.Time `json:"until"` // no recording begins after it; one that began goes on
}

const maxCertificate = 4 << 10

// certified are the bytes that a certificate's signature covers.
func certified(body []byte) []byte {
	return append([]byte("tidegate recorder v1\n"), body...)
}

// Certify signs a certificate with the CA's key. Its text is the JSON and the
// signature, each in base64, with a dot between them.
func Certify(ca ed25519.PrivateKey, c Certificate) (string, error) {
	if len(c.Key) != ed25519.PublicKeySize || c.Installation == "" || c.Gateway == "" || !c.From.Before(c.Until) {
		return "", errors.New("certify recorder: want an installation, a gateway, a key of 32 bytes and a time that it is good for")
	}
	c.From, c.Until = c.From.UTC(), c.Until.UTC()
	body, err := json.Marshal(c)
	if err != nil {
		return "", fmt.Errorf("certify recorder: %w", err)
	}
	code := base64.StdEncoding.EncodeToString
	return code(body) + "." + code(ed25519.Sign(ca, certified(body))), nil
}

// Certified reads a certificate that one of the trusted keys signed.
func (k Keys) Certified(text string) (Certificate, error) {
	c, body, signature, err := readCertificate(text)
	if err != nil {
		return c, fmt.Errorf("read recorder certificate: %w", err)
	}
	for _, ca := range k {
		if ed25519.Verify(ca, certified(body), signature) {
			return c, nil
		}
	}
	return c, errors.New("no trusted key signed the recorder's certificate")
}

// ReadCertificate reads a certificate without asking who signed it.
func ReadCertificate(text string) (Certificate, error) {
	c, _, _, err := readCertificate(text)
	return c, err
}

func readCertificate(text string) (c Certificate, body, signature []byte, err error) {
	if len(text) > maxCertificate {
		return c, nil, nil, fmt.Errorf("got %d bytes, at most %d are allowed", len(text), maxCertificate)
	}
	first, second, found := strings.Cut(text, ".")
	code := base64.StdEncoding.Strict()
	body, err = code.DecodeString(first)
	if err == nil {
		signature, err = code.DecodeString(second)
	}
	switch {
	case !found || err != nil:
		return c, nil, nil, errors.New("want two parts in base64 with a dot between them")
	case len(signature) != ed25519.SignatureSize:
		return c, nil, nil, fmt.Errorf("a signature of %d bytes, want %d", len(signature), ed25519.SignatureSize)
	}
	if err := strict(body, certificateShape, &c); err != nil {
		return c, nil, nil, err
	}
	if len(c.Key) != ed25519.PublicKeySize {
		return c, nil, nil, fmt.Errorf("a key of %d bytes, want %d", len(c.Key), ed25519.PublicKeySize)
	}
	return c, body, signature, nil
}

// Covers reports whether a recording may begin then.
func (c Certificate) Covers(t time.Time) bool { return !t.Before(c.From) && t.Before(c.Until) }
