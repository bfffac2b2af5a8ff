package record

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// Version is the format that this package writes. It reads every one before.
const Version = 2

// Bounds of the format. A reader refuses what is larger.
const (
	maxLine    = 4 << 20
	maxSegment = 64 << 20
)

const hashHex = 2 * sha256.Size

// header is the body of an H line.
type header struct {
	Version int       `json:"v"`
	Session string    `json:"session"`
	Segment uint64    `json:"segment"`
	Prev    string    `json:"prev"` // hash of the segment before; empty in the first
	Key     string    `json:"key"`  // KeyID of the signer
	Opened  time.Time `json:"opened"`

	// Certificate vouches for the key. It stands where the key is new in the
	// file, from version 2 on, unless verifiers know the key itself.
	Certificate string `json:"certificate,omitempty"`
}

// closing is the body of a C line.
type closing struct {
	Segment uint64    `json:"segment"`
	Events  int       `json:"events"`
	Closed  time.Time `json:"closed"`
	Last    bool      `json:"last"`
}

// signed are the bytes that a segment's signature covers: its hash behind a
// label that no other signature of ours has.
func signed(version int, hash []byte) []byte {
	return append(fmt.Appendf(nil, "tidegate segment v%d\n", version), hash...)
}

// KeyID names a public key: the first 16 hex digits of its SHA-256.
func KeyID(pub ed25519.PublicKey) string {
	sum := sha256.Sum256(pub)
	return hex.EncodeToString(sum[:8])
}

// Keys are the public keys that a verifier trusts, by KeyID: the installation's
// recording CA, and recorders that signed before there was one.
type Keys map[string]ed25519.PublicKey

// NewKeys trusts the given keys.
func NewKeys(pubs ...ed25519.PublicKey) Keys {
	keys := make(Keys, len(pubs))
	for _, p := range pubs {
		keys[KeyID(p)] = p
	}
	return keys
}

// MarshalKey is a public key as PEM.
func MarshalKey(pub ed25519.PublicKey) []byte {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		panic(fmt.Sprintf("encode public key: %v", err)) // an Ed25519 key always encodes
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// ParseKeys reads every public key of a PEM text.
func ParseKeys(text []byte) (Keys, error) {
	keys := Keys{}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse public key: %w", err)
		}
		pub, ok := key.(ed25519.PublicKey)
		if !ok {
			return nil, fmt.Errorf("parse public key: got %T, want Ed25519", key)
		}
		keys[KeyID(pub)] = pub
	}
	if len(keys) == 0 {
		return nil, errors.New(`parse public key: no PEM block "PUBLIC KEY" found`)
	}
	return keys, nil
}
