package access

import (
	"log/slog"
	"time"
)

// Lease is the credential for one session under one active grant. The minter
// makes it when a session opens; the gateway keeps it in memory and never
// hands it to the client.
type Lease struct {
	Grant      GrantKey  `json:"grant"`
	Generation int       `json:"generation"`
	Session    string    `json:"session"`
	Address    string    `json:"address"` // the target's, as the minter resolved it from policy
	User       string    `json:"user"`
	Password   Secret    `json:"password"`              // or whatever the kind logs in with: for ssh a private key and its certificate
	ServerCA   []byte    `json:"server_ca,omitempty"`   // PEM; the roots that the target's certificate must chain to (nil: the system's)
	ServerName string    `json:"server_name,omitempty"` // the name that the certificate must carry
	Backing    []byte    `json:"backing"`               // the room's own plan from mint
	NotAfter   time.Time `json:"not_after"`
}

// Minted is what a mint leaves: no secret, only what a gateway's room needs.
type Minted struct {
	Backing []byte `json:"backing"`
}

// Secret is a string that does not print itself. Reveal is the one way to it,
// so that a search for Reveal finds every place that uses secrets.
type Secret struct{ value string }

// NewSecret wraps a value.
func NewSecret(value string) Secret { return Secret{value} }

// Reveal returns the value, for the one place that must use it.
func (s Secret) Reveal() string { return s.value }

// IsZero reports whether there is no secret.
func (s Secret) IsZero() bool { return s.value == "" }

// String hides the value, and so do Format verbs through it.
func (Secret) String() string { return "[secret]" }

// GoString hides the value from %#v.
func (Secret) GoString() string { return "access.Secret{[secret]}" }

// LogValue hides the value from slog.
func (Secret) LogValue() slog.Value { return slog.StringValue("[secret]") }

// MarshalText hides the value from every encoder. A credential crosses a
// process boundary only where code reveals it by name.
func (Secret) MarshalText() ([]byte, error) { return []byte("[secret]"), nil }
