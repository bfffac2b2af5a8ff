package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/pem"
	"fmt"
	"net"
	"path/filepath"

	gossh "golang.org/x/crypto/ssh"
)

// files writes key, certificate, known hosts and configuration into dir.
func (g sshGateway) files(dir string, key ed25519.PrivateKey, cert *gossh.Certificate) error {
	block, err := gossh.MarshalPrivateKey(key, "")
	if err != nil {
		return fmt.Errorf("encode key: %w", err)
	}
	config, err := g.config(dir)
	if err != nil {
		return err
	}
	for name, text := range map[string][]byte{
		sshKeyFile: pem.EncodeToMemory(block), sshKeyFile + "-cert.pub": gossh.MarshalAuthorizedKey(cert),
		sshKnownHosts: g.knownHosts(), sshConfigFile: config,
	} {
		if err := writeNew(filepath.Join(dir, name), text); err != nil {
			return err
		}
	}
	return nil
}

// knownHosts trusts the gateway's CA for every name that it speaks for.
func (g sshGateway) knownHosts() []byte {
	var out bytes.Buffer
	for line := range bytes.Lines(g.hostCA) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			fmt.Fprintf(&out, "@cert-authority * %s\n", line)
		}
	}
	return out.Bytes()
}

func (g sshGateway) config(dir string) ([]byte, error) {
	host, port, err := net.SplitHostPort(g.address)
	if err != nil {
		return nil, fmt.Errorf("read the gateway's address: %w", err)
	}
	return fmt.Appendf(nil, `Host *
  HostName %s
  Port %s
  IdentityFile "%s"
  IdentitiesOnly yes
  PreferredAuthentications publickey
  UserKnownHostsFile "%s"
  StrictHostKeyChecking yes
`, host, port, filepath.Join(dir, sshKeyFile), filepath.Join(dir, sshKnownHosts)), nil
}
