// Package backing is the SSH room's plan: what a role gives on a host, how
// the host proves itself, and with what the gateway logs in. It stands alone
// so that the control side, which mints, needs no part of the room.
package backing

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
)

// MaxBytes bounds an encoded plan.
const MaxBytes = 1 << 20

// Backing is one grant's plan. What is not in it is not given.
type Backing struct {
	Accounts []string `json:"accounts"` // whom the grant may log in as; the first is the usual one
	HostKeys []string `json:"host_keys,omitempty"`
	HostCAs  []string `json:"host_cas,omitempty"`
	Static   bool     `json:"static,omitempty"` // logs in with a password or key that is not made for the grant

	Shell      bool     `json:"shell,omitempty"`
	Exec       bool     `json:"exec,omitempty"`       // any command, subject to rules
	Terminal   bool     `json:"terminal,omitempty"`   // a command may have a terminal, without a shell's being given
	Commands   []string `json:"commands,omitempty"`   // only these commands; see Matches in package ssh
	Transfers  []string `json:"transfers,omitempty"`  // scp, rsync, git: programs over exec
	Read       []string `json:"read,omitempty"`       // sftp: folders
	Write      []string `json:"write,omitempty"`      // sftp: folders
	MaxFile    int64    `json:"max_file,omitempty"`   // sftp: bytes of one file that is read or written
	Forward    []string `json:"forward,omitempty"`    // host:port, to which connections may be led
	Listen     []string `json:"listen,omitempty"`     // host:port, on which the host may listen for the client
	Env        []string `json:"env,omitempty"`        // names, * at the end for any rest
	Subsystems []string `json:"subsystems,omitempty"` // besides sftp
	Agent      bool     `json:"agent,omitempty"`
	X11        bool     `json:"x11,omitempty"`
}

// Encode checks the plan and returns its canonical JSON.
func (b Backing) Encode() ([]byte, error) {
	if err := b.Validate(); err != nil {
		return nil, err
	}
	out, err := json.Marshal(b)
	if err == nil && len(out) > MaxBytes {
		err = fmt.Errorf("%d bytes, at most %d are allowed", len(out), MaxBytes)
	}
	if err != nil {
		return nil, fmt.Errorf("encode backing: %w", err)
	}
	return out, nil
}

// Parse reads a plan and checks it. A field that it does not know is an error.
func Parse(data []byte) (Backing, error) {
	var b Backing
	if len(data) > MaxBytes {
		return b, fmt.Errorf("parse backing: %d bytes, at most %d are allowed", len(data), MaxBytes)
	}
	if err := access.Decode(data, &b); err != nil {
		return Backing{}, fmt.Errorf("parse backing: %w", err)
	}
	if err := b.Validate(); err != nil {
		return Backing{}, err
	}
	return b, nil
}

// Validate reports the first thing that is wrong with the plan.
func (b Backing) Validate() error {
	switch {
	case len(b.Accounts) == 0:
		return errors.New("validate backing: no account")
	case len(b.HostKeys)+len(b.HostCAs) == 0:
		return errors.New("validate backing: neither a host key nor a host CA: the host could not prove itself")
	case b.Shell && len(b.Commands) > 0:
		return errors.New("validate backing: a list of commands and a shell, in which it could not be enforced")
	case b.Exec && len(b.Commands) > 0:
		return errors.New("validate backing: a list of commands and exec, which is any command")
	}
	for _, text := range slices.Concat(b.HostKeys, b.HostCAs) {
		if _, err := PublicKey(text); err != nil {
			return fmt.Errorf("validate backing: %w", err)
		}
	}
	return nil
}

// RunsPrograms reports whether the plan lets any program run on the host.
func (b Backing) RunsPrograms() bool {
	return b.Shell || b.Exec || len(b.Commands) > 0 || len(b.Transfers) > 0 || len(b.Subsystems) > 0
}

// MovesFiles reports whether the plan gives sftp.
func (b Backing) MovesFiles() bool { return len(b.Read)+len(b.Write) > 0 }

// PublicKey reads a key as authorized_keys and known_hosts write it.
func PublicKey(text string) (ssh.PublicKey, error) {
	key, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(text))
	if err != nil {
		return nil, fmt.Errorf(`a host key is not understood; want "ssh-ed25519 AAAA…": %w`, err)
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("more than one key in one text")
	}
	if _, isCert := key.(*ssh.Certificate); isCert {
		return nil, errors.New("a certificate, want a plain public key")
	}
	return key, nil
}
