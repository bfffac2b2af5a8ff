package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/gateway/identify"
	"github.com/tidegate/tidegate/gateway/record"
)

// usualLead is how long before it signs a new key is made known; usualOverlap
// how long the old one is printed beside it after that, for whoever brings
// public halves to others once a day.
const (
	usualLead    = 24 * time.Hour
	usualOverlap = 24 * time.Hour
)

// loginOverlap is how long what a login CA signed can be good: its certificates
// last for an hour, and clocks may be a little apart.
const loginOverlap = identify.CertificateLasts + 5*time.Minute

// keyForm is how a key's public half is written.
type keyForm int

const (
	formSSH  keyForm = iota // a line of authorized_keys
	formPEM                 // a public key in PEM
	formX509                // a CA's certificate in PEM
)

// keyKind is one of the installation's keys that people may rotate.
type keyKind struct {
	name, file string
	form       keyForm
	public     string        // the file with its public halves, kept up to date; none if empty
	lead       time.Duration // others must learn of a new one before it signs
	overlap    time.Duration // the old one is trusted for so long after it signed last
	forever    bool          // the old ones are trusted for ever
	about      string
	after      string // what is to be done after a rotation
	now        string // and where the new one signs at once

	keepsPrivate bool   // of old ones as well: they end what a crash left open
	subject      string // of a CA's certificate
}

// The names of the kinds.
const (
	userCAKey      = "user-ca"
	hostCAKey      = "host-ca"
	hostKey        = "host"
	loginCAKey     = "login-ca"
	clientCAKey    = "client-ca"
	tlsCAKey       = "tls-ca"
	recordingCAKey = "recording-ca"
	recorderKey    = "recorder"
)

// What is told after a rotation.
const (
	nothingLeft = "Nothing is left to do: the running gateway takes it within seconds."
	oldTaken    = " Certificates of the old one are taken until they end."
	oldRefused  = "Nothing of the old one is taken here any more: take its public half out wherever else it is trusted."
)

func keyKinds() []keyKind {
	return []keyKind{
		{
			name: userCAKey, file: "ssh-user-ca.pem", form: formSSH, public: userCAFile, lead: usualLead, overlap: usualOverlap,
			about: "signs the certificates with which sessions log in at hosts",
			after: "Bring both lines to TrustedUserCAKeys of every host before then (`tidegate doctor` says which host does not know it yet), and what `tidegate keys print user-ca` prints a day later; nothing is restarted.",
			now:   "It signs within seconds, and hosts refuse it until TrustedUserCAKeys has what `tidegate keys print user-ca` prints.",
		},
		{
			name: hostCAKey, file: "ssh-host-ca.pem", form: formSSH, public: hostCAFile, lead: usualLead, overlap: usualOverlap,
			about: "vouches for the gateway's SSH host key",
			after: "Whoever logs in before then by `tidegate login` gets both; give the others what `tidegate keys print host-ca` prints, for known_hosts. Nothing is restarted.",
			now:   "It signs within seconds: give your people what `tidegate keys print host-ca` prints, for known_hosts and for `tidegate login --host-ca FILE`.",
		},
		{
			name: hostKey, file: "ssh-host.pem", form: formSSH, lead: usualLead,
			about: "the gateway's SSH host key",
			after: "Who trusts the host CA notices nothing; give both lines to who has pinned the key itself. Nothing is restarted.",
			now:   "Who trusts the host CA notices nothing; give its line to who has pinned the key itself.",
		},
		{
			name: loginCAKey, file: "ssh-login-ca.pem", form: formSSH, overlap: loginOverlap,
			about: "signs the certificates of `tidegate login`", now: nothingLeft + oldTaken,
		},
		{
			name: clientCAKey, file: "client-ca.pem", form: formX509, public: "client-ca.crt", overlap: loginOverlap, subject: "Tidegate client CA",
			about: "signs the certificates with which psql logs in", now: nothingLeft + oldTaken,
		},
		{
			name: tlsCAKey, file: "ca.pem", form: formX509, public: "gateway-ca.pem", lead: usualLead, overlap: usualOverlap, subject: "Tidegate gateway CA",
			about: "vouches for the TLS certificate of a tidegate dev",
			after: "Give clients gateway-ca.pem again before then: it has both. Nothing is restarted.",
			now:   "It signs within seconds: give clients gateway-ca.pem again.",
		},
		{
			name: recordingCAKey, file: recordingCAFile, form: formPEM, public: publicKeys, forever: true,
			about: "vouches for recorders", now: "Nothing is restarted. Give auditors the new public keys; the old ones still verify old recordings.",
		},
		{
			name: recorderKey, file: recorderFile, form: formPEM, forever: true, keepsPrivate: true,
			about: "signs recordings", now: "Nothing is restarted: the next session is signed with it, and old recordings verify as before.",
		},
	}
}

// keyKindOf is the kind of a name that is written in the program.
func keyKindOf(name string) keyKind {
	kinds := keyKinds()
	return kinds[slices.IndexFunc(kinds, func(k keyKind) bool { return k.name == name })]
}

// fixedKeys are those that are not rotated, and why.
func fixedKeys() []keyKind {
	return []keyKind{
		{name: "control", file: "control.pem", about: "signs grants and answers: every grant that there is stands on it"},
		{name: "mint", file: "mint.pem", about: "the passwords of minted roles are derived from it"},
		{name: "gateway", file: "recorder.pem", about: "signs held operations; of a gateway apart its enrolment, which is made again, does"},
		{name: "enrolment-ca", file: enrolmentCAKey, about: "vouches for gateways apart and for control; enrol them again after it was moved away"},
	}
}

// trustedUntil is when a key is trusted no more that signs until then.
func (k keyKind) trustedUntil(then time.Time) time.Time {
	if k.forever {
		return time.Time{} // nothing ends
	}
	return then.Add(k.overlap).Truncate(time.Second)
}

// make makes a new key of the kind.
func (k keyKind) make(now time.Time) (keyHalf, error) {
	h := keyHalf{Made: now.Truncate(time.Second)}
	var err error
	if k.form == formX509 {
		if h.Key, err = newCAKey(); err == nil {
			h.Cert, err = selfSigned(h.Key, k.subject, now)
		}
	} else {
		h.Key, err = newSigningKey()
	}
	if err != nil {
		return h, fmt.Errorf("make key: %w", err)
	}
	h.Public = h.Key.Public()
	return h, nil
}

// ensure makes the key where there is none yet.
func (k keyKind) ensure(dir string, now time.Time) error {
	path := filepath.Join(dir, k.file)
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	fresh, err := k.make(now)
	if err != nil {
		return err
	}
	return writeHalf(path, fresh)
}

// id is how a public half is named in lists.
func (h keyHalf) id() string {
	if key, ok := h.Public.(ed25519.PublicKey); ok {
		return record.KeyID(key)
	}
	der, err := x509.MarshalPKIXPublicKey(h.Public)
	if err != nil {
		return "-"
	}
	return record.KeyID(der)
}

// publicHalf is a half as others are given it, without a line's end.
func (k keyKind) publicHalf(h keyHalf) (string, error) {
	var text []byte
	switch k.form {
	case formSSH:
		key, err := gossh.NewPublicKey(h.Public)
		if err != nil {
			return "", fmt.Errorf("read SSH key: %w", err)
		}
		text = gossh.MarshalAuthorizedKey(key)
	case formX509:
		if h.Cert == nil {
			return "", fmt.Errorf("read key %s: one has no certificate", k.name)
		}
		text = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.Cert.Raw})
	default:
		key, ok := h.Public.(ed25519.PublicKey)
		if !ok {
			return "", fmt.Errorf("read key %s: got %T, want Ed25519", k.name, h.Public)
		}
		text = record.MarshalKey(key)
	}
	return strings.TrimSpace(string(text)), nil
}

func (v keyView) publicHalves() (out []string, err error) {
	for _, h := range v.trusted() {
		text, err := v.kind.publicHalf(h)
		if err != nil {
			return nil, err
		}
		out = append(out, text)
	}
	return out, nil
}

// publish brings the file with the public halves up to date. Recordings'
// outlive every key: there, none is ever taken out.
func (v keyView) publish(dir string) error {
	switch {
	case v.kind.public == "":
		return nil
	case v.kind.forever:
		return addPublicKey(dir, v.Signs.Public.(ed25519.PublicKey))
	}
	text, err := v.publicText()
	if err != nil {
		return err
	}
	return writeNew(filepath.Join(dir, v.kind.public), text)
}

// published reports whether that file says what it should.
func (v keyView) published(dir string) (bool, error) {
	if v.kind.public == "" || v.kind.forever {
		return true, nil
	}
	text, err := v.publicText()
	if err != nil {
		return false, err
	}
	is, err := readBounded(filepath.Join(dir, v.kind.public), maxSecret)
	return err == nil && bytes.Equal(is, text), nil
}

func (v keyView) publicText() ([]byte, error) {
	halves, err := v.publicHalves()
	return []byte(strings.Join(halves, "\n") + "\n"), err
}

// sshSigner is a private half for SSH.
func (h keyHalf) sshSigner() (gossh.Signer, error) {
	if h.Key == nil {
		return nil, errors.New("read SSH key: its private half is gone")
	}
	signer, err := gossh.NewSignerFromKey(h.Key)
	if err != nil {
		return nil, fmt.Errorf("read SSH key: %w", err)
	}
	return signer, nil
}

// sshPublic are public halves for SSH.
func sshPublic(halves []keyHalf) (out []gossh.PublicKey, err error) {
	for _, h := range halves {
		key, err := gossh.NewPublicKey(h.Public)
		if err != nil {
			return nil, fmt.Errorf("read SSH key: %w", err)
		}
		out = append(out, key)
	}
	return out, nil
}
