package lease

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"time"

	"github.com/tidegate/tidegate/access"
)

// Where the control side answers.
const (
	Path        = "/v1/lease"
	CertifyPath = "/v1/recorder"
)

// Bounds of one question and its answer. An answer holds a room's whole plan
// from mint, and a grant's row may have 16 MiB.
const (
	maxQuestion = 4 << 10
	maxAnswer   = 32 << 20
	maxMessage  = 1 << 10
	maxID       = 1 << 10
)

var sessionID = regexp.MustCompile(`\A[A-Za-z0-9_-]{1,64}\z`)

// question names a grant and the session that opens under it.
type question struct {
	Grant   access.GrantKey `json:"grant"`
	Session string          `json:"session"`
}

func (q question) check() error {
	if q.Grant.ID == "" || len(q.Grant.ID) > maxID || q.Grant.Repo <= 0 || !sessionID.MatchString(q.Session) {
		return access.Errorf(access.CodeInvalid, "Got a question for a credential without a grant or a session, want both.")
	}
	return nil
}

// recorderKey is the key with which a gateway signs recordings.
type recorderKey struct {
	Key []byte `json:"key"`
}

// Certified is what vouches for a recorder's key.
type Certified struct {
	Certificate string `json:"certificate"` // as package record has it
	CA          []byte `json:"ca"`          // the public half of whose it is, 32 bytes
}

// credential is an [access.Lease] on the wire, where its password is text.
type credential struct {
	Grant      access.GrantKey `json:"grant"`
	Generation int             `json:"generation"`
	Session    string          `json:"session"`
	Address    string          `json:"address"`
	User       string          `json:"user"`
	Password   string          `json:"password"`
	ServerCA   []byte          `json:"server_ca,omitempty"`
	ServerName string          `json:"server_name,omitempty"`
	Backing    []byte          `json:"backing"`
	NotAfter   time.Time       `json:"not_after"`
}

// toWire is the one place where a password is made readable for the wire.
func toWire(l access.Lease) credential {
	return credential{
		Grant: l.Grant, Generation: l.Generation, Session: l.Session, Address: l.Address, User: l.User, Password: l.Password.Reveal(),
		ServerCA: l.ServerCA, ServerName: l.ServerName, Backing: l.Backing, NotAfter: l.NotAfter,
	}
}

func (c credential) lease() access.Lease {
	return access.Lease{
		Grant: c.Grant, Generation: c.Generation, Session: c.Session, Address: c.Address, User: c.User, Password: access.NewSecret(c.Password),
		ServerCA: c.ServerCA, ServerName: c.ServerName, Backing: c.Backing, NotAfter: c.NotAfter,
	}
}

// refusal is an [access.Error] on the wire, without its cause.
type refusal struct {
	Code    access.Code `json:"code"`
	Message string      `json:"message"`
}

// statuses tell a reader of HTTP logs what a code means.
var statuses = map[access.Code]int{
	access.CodeUnauthenticated: http.StatusUnauthorized,
	access.CodeDenied:          http.StatusForbidden,
	access.CodeNotFound:        http.StatusNotFound,
	access.CodeInvalid:         http.StatusBadRequest,
	access.CodeConflict:        http.StatusConflict,
	access.CodeTooLarge:        http.StatusTooManyRequests,
	access.CodeEnded:           http.StatusGone,
	access.CodeUnavailable:     http.StatusServiceUnavailable,
}

// decode reads exactly one JSON value of at most max bytes. Its errors quote
// nothing of what was read.
func decode(r io.Reader, max int64, v any) error {
	d := json.NewDecoder(io.LimitReader(r, max))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("not the JSON that was wanted: %T", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value, or more than its bound")
	}
	return nil
}
