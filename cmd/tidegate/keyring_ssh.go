package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"log/slog"
	"sync"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/identify"
)

// hostCertificateLasts is how long a host certificate is good.
const hostCertificateLasts = 90 * 24 * time.Hour

// The public halves that others need, in keysDir: hosts the user CA, clients
// the host CA.
const (
	userCAFile = "ssh-user-ca.pub"
	hostCAFile = "ssh-host-ca.pub"
)

// userCA is the CA that hosts trust, as it is at each moment. It is the
// minter's.
type userCA struct{ keys *liveKeys }

// openUserCA reads or makes it.
func openUserCA(dir string, now clock, log *slog.Logger) (userCA, error) {
	keys, err := openLiveKeys(dir, now, log, userCAKey)
	return userCA{keys}, err
}

// signer is who signs now.
func (u userCA) signer() (gossh.Signer, error) { return u.keys.at(userCAKey).Signs.sshSigner() }

// sshKeys are the gateway's keys for SSH, and for logins over it: host key and
// host CA, which clients trust; the login CA and its like for TLS clients, which
// this gateway alone trusts.
type sshKeys struct {
	keys  *liveKeys
	names []string // what clients call the gateway

	mu    sync.Mutex
	of    [2]keyHalf // the host key and the CA of shown
	until time.Time
	shown []gossh.Signer
}

var gatewaySSHKeys = []string{hostCAKey, hostKey, loginCAKey, clientCAKey}

// openSSHKeys reads the gateway's keys in dir and makes those that are missing.
func openSSHKeys(dir string, names []string, now clock, log *slog.Logger) (*sshKeys, error) {
	keys, err := openLiveKeys(dir, now, log, gatewaySSHKeys...)
	if err != nil {
		return nil, err
	}
	k := &sshKeys{keys: keys, names: names}
	_, err = k.hostKeys(nil)
	return k, err
}

// hostKeys are what ssh.Config wants: for the gateway's own names, or for those
// of a target.
func (k *sshKeys) hostKeys(names []string) ([]gossh.Signer, error) {
	now := k.keys.now()
	of := [2]keyHalf{k.keys.at(hostKey).Signs, k.keys.at(hostCAKey).Signs}
	if names != nil {
		certified, _, err := certifyHost(of, names, now)
		return []gossh.Signer{certified}, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.shown != nil && of[0].is(k.of[0]) && of[1].is(k.of[1]) && now.Before(k.until.Add(-hostCertificateLasts/2)) {
		return k.shown, nil
	}
	certified, bare, err := certifyHost(of, k.names, now)
	if err != nil {
		return nil, err
	}
	k.of, k.until, k.shown = of, now.Add(hostCertificateLasts), []gossh.Signer{certified, bare}
	return k.shown, nil
}

// certifyHost signs a host key by a CA for the names, and answers with the key
// as it is as well.
func certifyHost(of [2]keyHalf, names []string, now time.Time) (certified, bare gossh.Signer, err error) {
	bare, err = of[0].sshSigner()
	if err != nil {
		return nil, nil, err
	}
	by, err := of[1].sshSigner()
	if err != nil {
		return nil, nil, err
	}
	cert := &gossh.Certificate{
		Key: bare.PublicKey(), CertType: gossh.HostCert, KeyId: "tidegate gateway", ValidPrincipals: names,
		ValidAfter: uint64(now.Add(-time.Hour).Unix()), ValidBefore: uint64(now.Add(hostCertificateLasts).Unix()),
	}
	if err := cert.SignCert(rand.Reader, by); err != nil {
		return nil, nil, fmt.Errorf("certify host key: %w", err)
	}
	if certified, err = gossh.NewCertSigner(cert, bare); err != nil {
		return nil, nil, fmt.Errorf("certify host key: %w", err)
	}
	return certified, bare, nil
}

// hostCAs are those that clients should trust now: in a rotation, several.
func (k *sshKeys) hostCAs() ([]gossh.PublicKey, error) {
	return sshPublic(k.keys.at(hostCAKey).trusted())
}

// loginCertificates are those of the login CAs as they are at each moment. It
// implements gateway.Certificates.
type loginCertificates struct{ keys *liveKeys }

func (k *sshKeys) certificates() loginCertificates { return loginCertificates{k.keys} }

// present takes of the CAs before what they signed until it ends.
func (c loginCertificates) present() (identify.Certificates, error) {
	login, client := c.keys.at(loginCAKey), c.keys.at(clientCAKey)
	now := identify.Certificates{Client: &identify.ClientCA{Certificate: client.Signs.Cert, Key: client.Signs.Key}, Now: c.keys.now}
	var err error
	if now.CA, err = login.Signs.sshSigner(); err != nil {
		return now, err
	}
	if now.OldCAs, err = sshPublic(login.trusted()[1:]); err != nil {
		return now, err
	}
	for _, old := range client.trusted()[1:] {
		now.OldClients = append(now.OldClients, old.Cert)
	}
	return now, nil
}

// Certify implements gateway.Certificates.
func (c loginCertificates) Certify(id access.Identity, key []byte) ([]byte, error) {
	now, err := c.present()
	if err != nil {
		return nil, err
	}
	return now.Certify(id, key)
}

// IdentifyCertificate implements gateway.Certificates.
func (c loginCertificates) IdentifyCertificate(wire []byte) (access.Identity, error) {
	now, err := c.present()
	if err != nil {
		return access.Identity{}, err
	}
	return now.IdentifyCertificate(wire)
}

// Authority reports whether a certificate's signer is a login CA of ours.
func (c loginCertificates) Authority(signer gossh.PublicKey) bool {
	now, err := c.present()
	return err == nil && now.Authority(signer)
}

// clientCA is a certificate of the client CA, whose name each of them has; nil
// without SSH, over which alone its certificates are given.
func (d sshDoor) clientCA() *x509.Certificate {
	if d.Listen == "" {
		return nil
	}
	return d.Keys.keys.at(clientCAKey).Signs.Cert
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
