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

func (g sshGateway) config(dir string) ([]byte, error) { return g.options("*", "", dir) }

// options lead the names of a pattern to the gateway. The target goes into the
// user part: so scp, rsync, git, Ansible and editors need to know nothing.
func (g sshGateway) options(pattern, target, dir string) ([]byte, error) {
	host, port, err := net.SplitHostPort(g.address)
	if err != nil {
		return nil, fmt.Errorf("read the gateway's address: %w", err)
	}
	out := fmt.Appendf(nil, `Host %s
  HostName %s
  Port %s
  HostKeyAlias %s
  IdentityFile "%s"
  IdentitiesOnly yes
  PreferredAuthentications publickey
  UserKnownHostsFile "%s"
  StrictHostKeyChecking yes
`, pattern, host, port, host, filepath.Join(dir, sshKeyFile), filepath.Join(dir, sshKnownHosts))
	if target != "" {
		out = fmt.Appendf(out, "  User %s\n", target)
	}
	return out, nil
}
