package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/ssh"
)

// toSSH reports whether a command line of connect names an SSH target.
func toSSH(args []string) bool {
	if i := slices.Index(args, "--"); i >= 0 {
		args = args[:i]
	}
	return slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "ssh.") })
}

// connectSSH runs ssh with a certificate of its own. What stands behind -- runs
// at the host.
func connectSSH(ctx context.Context, args []string, io stdio) error {
	command := []string{"ssh"}
	if i := slices.Index(args, "--"); i >= 0 {
		args, command = args[:i], append(command, args[i:]...)
	}
	d, err := parseDial(args, io)
	if err != nil {
		return err
	}
	d.target = strings.TrimPrefix(d.target, "ssh.")
	files, err := os.MkdirTemp("", "tidegate-connect-") // 0700
	if err != nil {
		return fmt.Errorf("make folder for the connection: %w", err)
	}
	defer os.RemoveAll(files)
	to, err := d.sshGateway(io)
	if err != nil {
		return err
	}
	if err := to.write(ctx, files); err != nil {
		return err
	}
	line := append([]string{command[0], "-F", filepath.Join(files, sshConfigFile), to.user(d)}, command[1:]...)
	return runClient(line, os.Environ(), io)
}

// sshGateway is a gateway's SSH port, and with what to log in there.
type sshGateway struct {
	address string
	hostCA  []byte // authorized_keys lines
	token   access.Secret
}

func (d dial) sshGateway(std stdio) (to sshGateway, err error) {
	if d.gateway == "" {
		return d.sshOnDev()
	}
	to.address = d.gateway
	if to.hostCA, err = readBounded(d.ca, maxSecret); err != nil {
		return to, fmt.Errorf("read the gateway's host CA: %w", err)
	}
	to.token, err = d.readToken(std)
	return to, err
}

func (d dial) sshOnDev() (sshGateway, error) {
	if !isFile(filepath.Join(d.dir, devFile)) {
		return sshGateway{}, fmt.Errorf("find the gateway: no dev.json in %s; is `tidegate dev` running there?", d.dir)
	}
	state, err := openDevState(d.dir)
	if err != nil {
		return sshGateway{}, err
	}
	ca, err := os.ReadFile(filepath.Join(d.dir, keysDir, hostCAFile))
	if errors.Is(err, fs.ErrNotExist) {
		return sshGateway{}, fmt.Errorf("find the gateway: the dev in %s has no SSH; install openssh-server, and start it again", d.dir)
	}
	if err != nil {
		return sshGateway{}, fmt.Errorf("read the gateway's host CA: %w", err)
	}
	token, err := d.token(state)
	return sshGateway{address: state.addr("gateway-ssh"), hostCA: ca, token: token}, err
}

// user is the address that ssh is given.
func (g sshGateway) user(d dial) string {
	host, _, _ := net.SplitHostPort(g.address)
	if d.choice != "" {
		return d.target + "+" + d.choice + "@" + host
	}
	return d.target + "@" + host
}

// Files of an SSH login.
const (
	sshConfigFile = "config"
	sshKeyFile    = "id_tidegate"
	sshKnownHosts = "known_hosts"
)

// write logs in and writes what OpenSSH reads: a key with its certificate, the
// gateway's CA, a configuration.
func (g sshGateway) write(ctx context.Context, dir string) error {
	_, err := g.exchange(ctx, dir, ssh.Login{})
	return err
}

// exchange does the same, and asks for what else is wanted.
func (g sshGateway) exchange(ctx context.Context, dir string, want ssh.Login) (got ssh.Exchanged, err error) {
	if want.HostCAs, err = parseHostCAs(g.hostCA); err != nil {
		return got, err
	}
	key, signer, err := newSSHKey()
	if err != nil {
		return got, err
	}
	want.Address, want.Token, want.Key = g.address, g.token, signer.PublicKey()
	if got, err = want.Exchange(ctx); err != nil {
		return got, err
	}
	g.hostCA = hostCALines(got.HostCAs)
	return got, g.files(dir, key, got.Certificate)
}

// hostCALines are host CAs as authorized_keys lines.
func hostCALines(keys []gossh.PublicKey) (out []byte) {
	for _, key := range keys {
		out = append(out, gossh.MarshalAuthorizedKey(key)...)
	}
	return out
}

func parseHostCAs(text []byte) (out []gossh.PublicKey, err error) {
	for len(text) > 0 {
		key, _, _, rest, err := gossh.ParseAuthorizedKey(text)
		if err != nil {
			break
		}
		out, text = append(out, key), rest
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("read the gateway's host CA: got no public key, want a line such as \"ssh-ed25519 AAAA…\"")
	}
	return out, nil
}
