package gateway

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// Withholder writes what is recorded and shown in the place of a value that
// must not be: a masked column's, a password, a secret that was detected. Its
// length stays, and a keyed hash by which equal values can be told: without
// the key nobody can try out values against it.
type Withholder struct{ key []byte }

// NewWithholder derives its key from the gateway's own, so that all sessions
// of a gateway write the same for the same value, also after a restart.
func NewWithholder(key ed25519.PrivateKey) (*Withholder, error) {
	derived, err := hkdf.Key(sha256.New, key.Seed(), nil, "tidegate withheld values v1", sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("derive key for withheld values: %w", err)
	}
	return &Withholder{key: derived}, nil
}

// Withhold answers with, for example, "[withheld: 9 bytes, 3fa9c2d10b7e6a54]".
func (w *Withholder) Withhold(value []byte) string {
	mac := hmac.New(sha256.New, w.key)
	mac.Write(value)
	return fmt.Sprintf("[withheld: %d bytes, %s]", len(value), hex.EncodeToString(mac.Sum(nil)[:8]))
}
