package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"path/filepath"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/gateway/identify"
)

// sshKeys are the gateway's keys for SSH, and for logins over it.
type sshKeys struct {
	login  gossh.Signer // the login CA: this gateway alone trusts it
	client *ca          // its like for TLS clients
	ca     gossh.Signer // the host CA: clients trust it
	host   gossh.Signer // the gateway's host key, with a certificate of ca
	bare   gossh.Signer // the same without one
}

// hostCertificateLasts is how long a host certificate is good. The gateway's
// own is made anew with each start.
const hostCertificateLasts = 90 * 24 * time.Hour

// The public halves that others need, in keysDir: hosts the user CA, clients
// the host CA.
const (
	userCAFile = "ssh-user-ca.pub"
	hostCAFile = "ssh-host-ca.pub"
)

// openUserCA reads or makes the CA that hosts trust. It is the minter's.
func openUserCA(dir string) (gossh.Signer, error) {
	path := filepath.Join(dir, "ssh-user-ca.pem")
	ca, err := sshKey(path)
	if err != nil {
		return nil, err
	}
	return turningSigner{path, time.Now, ca}, writeTrusted(path, filepath.Join(dir, userCAFile))
}

// openSSHKeys reads the gateway's keys in dir and makes those that are
// missing; names are what clients call it.
func openSSHKeys(dir string, names []string, now time.Time) (*sshKeys, error) {
	k := &sshKeys{}
	for _, one := range []struct {
		file string
		into *gossh.Signer
	}{{"ssh-login-ca.pem", &k.login}, {"ssh-host-ca.pem", &k.ca}, {"ssh-host.pem", &k.bare}} {
		key, err := sshKey(filepath.Join(dir, one.file))
		if err != nil {
			return nil, err
		}
		*one.into = key
	}
	var err error
	if k.client, err = openCA(caFiles{filepath.Join(dir, "client-ca.pem"), filepath.Join(dir, "client-ca.crt")}, "Tidegate client CA", now); err != nil {
		return nil, err
	}
	if k.host, err = k.certifyHost(names, now); err != nil {
		return nil, err
	}
	return k, writeTrusted(filepath.Join(dir, "ssh-host-ca.pem"), filepath.Join(dir, hostCAFile))
}

// sshKey reads the key that signs now, or makes it.
func sshKey(path string) (gossh.Signer, error) {
	if _, err := signingKey(path); err != nil {
		return nil, err
	}
	set, err := readKeySet(path, time.Now())
	if err != nil {
		return nil, err
	}
	return gossh.NewSignerFromKey(set.Signs)
}

// writeTrusted writes the public halves that are trusted: in a rotation, two.
func writeTrusted(path, to string) error {
	set, err := readKeySet(path, time.Now())
	if err != nil {
		return err
	}
	lines, err := set.authorizedKeys()
	if err != nil {
		return err
	}
	return writeNew(to, lines)
}

// certifyHost signs the host key for the names.
func (k *sshKeys) certifyHost(names []string, now time.Time) (gossh.Signer, error) {
	cert := &gossh.Certificate{
		Key: k.bare.PublicKey(), CertType: gossh.HostCert, KeyId: "tidegate gateway", ValidPrincipals: names,
		ValidAfter: uint64(now.Add(-time.Hour).Unix()), ValidBefore: uint64(now.Add(hostCertificateLasts).Unix()),
	}
	if err := cert.SignCert(rand.Reader, k.ca); err != nil {
		return nil, fmt.Errorf("certify host key: %w", err)
	}
	signer, err := gossh.NewCertSigner(cert, k.bare)
	if err != nil {
		return nil, fmt.Errorf("certify host key: %w", err)
	}
	return signer, nil
}

func (k *sshKeys) certificates() identify.Certificates {
	return identify.Certificates{CA: k.login, Client: &identify.ClientCA{Certificate: k.client.cert, Key: k.client.key}}
}

// clientCA is the certificate of the client CA; nil without SSH, over which
// alone its certificates are given.
func (d sshDoor) clientCA() *x509.Certificate {
	if d.Listen == "" {
		return nil
	}
	return d.Keys.client.cert
}

// newSSHKey makes a key for one login.
func newSSHKey() (ed25519.PrivateKey, gossh.Signer, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}
	signer, err := gossh.NewSignerFromKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}
	return key, signer, nil
}
