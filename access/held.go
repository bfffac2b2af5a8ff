package access

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
)

// Held is an operation that waits for a person. It is bound to exactly what
// is shown: Digest covers the text, its parameters, its context, the session
// and the grant's generation.
type Held struct {
	ID         string    `json:"id"`     // a UUID; the workflow is hold-<id>
	Number     int       `json:"number"` // the 7 of H7: rises for each pull request
	Grant      GrantKey  `json:"grant"`
	Generation int       `json:"generation"`
	Session    string    `json:"session"`
	Who        string    `json:"who"` // the person's login
	Target     TargetRef `json:"target"`
	Rule       string    `json:"rule"`
	Say        string    `json:"say"`
	Ask        []Party   `json:"ask"`
	Operation  Operation `json:"operation"`
	Digest     string    `json:"digest"` // hex; people quote its first 8 characters
	Opened     time.Time `json:"opened"`
	Expires    time.Time `json:"expires"` // no answer by then means no
	State      HeldState `json:"state"`
	Answer     *Answer   `json:"answer,omitempty"`
	Gateway    string    `json:"gateway"`             // the name of the gateway where it waits
	Signature  []byte    `json:"signature,omitempty"` // that gateway's, Ed25519 over SigningBytes
}

// HeldState is where a held operation is.
type HeldState string

// The states of a held operation. An answered one is consumed once, by the
// session that waits, just before it forwards.
const (
	HeldOpen      HeldState = "open"
	HeldAnswered  HeldState = "answered"
	HeldConsumed  HeldState = "consumed"
	HeldCancelled HeldState = "cancelled" // the client left or cancelled, or the grant ended
	HeldTimedOut  HeldState = "timed_out"
)

// Answer is a person's yes or no to a held operation, signed by control.
type Answer struct {
	Held      string    `json:"held"` // the id of what is answered
	Digest    string    `json:"digest"`
	Approve   bool      `json:"approve"`
	By        User      `json:"by"`
	At        time.Time `json:"at"`
	Signature []byte    `json:"signature,omitempty"` // Ed25519 over SigningBytes
}

// SigningBytes are the bytes that control signs: the answer without its
// signature, as canonical JSON, behind a label that no other signature has.
func (a Answer) SigningBytes() []byte {
	a.Signature = nil
	b, err := json.Marshal(a)
	if err != nil {
		panic(fmt.Sprintf("encode answer: %v", err)) // plain data: only a programming error gets here
	}
	return append([]byte("tidegate answer v1\n"), b...)
}

// SigningBytes are the bytes that a gateway signs for what it holds: all but
// what others add to it (number, state and answer), as canonical JSON, behind
// a label that no other signature has. They are the same before and after the
// operation was stored and read.
func (h Held) SigningBytes() []byte {
	h.Number, h.State, h.Answer, h.Signature = 0, "", nil, nil
	var stored Held
	err := json.Unmarshal(mustEncode(h), &stored) // text that is no UTF-8, and large numbers, change on their way
	if err != nil {
		panic(fmt.Sprintf("decode held operation: %v", err)) // it was encoded by us
	}
	return append([]byte("tidegate held v1\n"), mustEncode(stored)...)
}

func mustEncode(h Held) []byte {
	b, err := json.Marshal(h)
	if err != nil {
		panic(fmt.Sprintf("encode held operation: %v", err)) // plain data: only a programming error gets here
	}
	return b
}

// Name is the hold's name for people: "H7".
func (h Held) Name() string { return fmt.Sprintf("H%d", h.Number) }

// Short is the part of the digest that people quote: 8 characters.
func (h Held) Short() string { return h.Digest[:min(8, len(h.Digest))] }

// ShownDigest computes what Digest must be.
func (h Held) ShownDigest() string {
	sum := sha256.New()
	enc := json.NewEncoder(sum)
	for _, part := range []any{
		h.ID, h.Grant, h.Generation, h.Session, h.Rule, h.Operation.Kind, h.Operation.Text,
		h.Operation.Params, h.Operation.Context, h.Operation.Binding,
	} {
		if err := enc.Encode(part); err != nil {
			panic(fmt.Sprintf("encode held operation: %v", err)) // plain data, as above
		}
	}
	return hex.EncodeToString(sum.Sum(nil))
}
