package ssh

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/gatewaytest"
	"github.com/tidegate/tidegate/gateway/ssh/mint"
	"github.com/tidegate/tidegate/gateway/ssh/sshtest"
)

// house is a real sshd, a real gateway with this room before it, and what a
// person with a real OpenSSH client needs.
type house struct {
	t       testing.TB
	gate    *gatewaytest.Gate
	host    *sshtest.Server
	address string // the gateway's
	hostKey gossh.Signer
	hostCA  gossh.Signer
	userCA  gossh.Signer
	dir     string
}

type houseOptions struct {
	role   map[string]string // settings of the role; accounts are filled in
	read   []string
	write  []string
	record string
	sshd   []string // more lines of sshd_config
	config Config
	gate   gatewaytest.Options
	static access.Secret // the target's static credential; empty: certificates

	// host runs another host than sshd, which trusts the user CA.
	host func(t testing.TB, userCA gossh.PublicKey) (address, hostKey string)
}

func newKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newSigner(t testing.TB) gossh.Signer {
	t.Helper()
	signer, err := gossh.NewSignerFromKey(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func newHouse(t testing.TB, o houseOptions) *house {
	t.Helper()
	ca := newSigner(t)
	h := &house{t: t, hostKey: newSigner(t), hostCA: newSigner(t), userCA: ca, dir: t.TempDir()}
	h.host = sshtest.Start(t, sshtest.Options{UserCA: ca.PublicKey(), Config: o.sshd})
	minter, err := mint.New(mint.Config{Installation: "test1", CA: func() (gossh.Signer, error) { return ca, nil }, Static: func(context.Context, access.Target) (mint.Login, error) {
		return mint.Login{User: h.host.Account, Secret: o.static}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string]string{"accounts": h.host.Account}
	for k, v := range o.role {
		settings[k] = v
	}
	o.gate.Target = access.Target{
		TargetRef: access.TargetRef{Kind: "ssh", Name: "web-1"}, Address: h.host.Address,
		Settings: map[string]string{"host_key": h.host.HostKey},
	}
	if o.host != nil {
		address, hostKey := o.host(t, ca.PublicKey())
		o.gate.Target.Address, o.gate.Target.Settings = address, map[string]string{"host_key": hostKey}
	}
	if o.static.Reveal() != "" {
		o.gate.Target.Static = "web-1-login"
	}
	o.gate.Role = access.Role{Name: "deploy", Settings: settings, Read: o.read, Write: o.write, Record: o.record}
	o.gate.Lease = func(g access.Grant, l *access.Lease) error {
		expansion, err := minter.Expand(context.Background(), g.Plan)
		if err != nil {
			return err
		}
		g.Backing = expansion.Body
		*l, err = minter.Lease(context.Background(), g, l.Session)
		return err
	}
	h.gate = gatewaytest.New(t, o.gate)
	h.serve(o.config)
	h.write("known_hosts", "@cert-authority * "+string(gossh.MarshalAuthorizedKey(h.hostCA.PublicKey())))
	return h
}

// serve opens the room's door on loopback.
func (h *house) serve(cfg Config) {
	cfg.HostKeys = func(names []string) ([]gossh.Signer, error) {
		if names != nil {
			certified, err := h.certifyHost(names...)
			return []gossh.Signer{certified}, err
		}
		certified, err := h.certifyHost("127.0.0.1")
		return []gossh.Signer{certified, h.hostKey}, err
	}
	room, err := New(cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	h.address = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.gate.Server.Serve(ctx, l, room) }()
	h.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Errorf("serve: %v", err)
		}
	})
}

func (h *house) certifyHost(names ...string) (gossh.Signer, error) {
	cert := &gossh.Certificate{
		Key: h.hostKey.PublicKey(), CertType: gossh.HostCert, ValidPrincipals: names, ValidBefore: gossh.CertTimeInfinity,
	}
	if err := cert.SignCert(rand.Reader, h.hostCA); err != nil {
		return nil, err
	}
	return gossh.NewCertSigner(cert, h.hostKey)
}

func (h *house) write(name, text string) string {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		h.t.Fatal(err)
	}
	return path
}

// options are those of each OpenSSH program: nothing of the account that runs
// the tests is read.
func (h *house) options() []string {
	_, port, _ := net.SplitHostPort(h.address)
	return []string{
		"-F", "/dev/null", "-o", "Port=" + port, "-o", "UserKnownHostsFile=" + filepath.Join(h.dir, "known_hosts"),
		"-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes", "-o", "IdentityFile=none", "-o", "NumberOfPasswordPrompts=1",
		"-o", "PreferredAuthentications=password",
	}
}

// client is an OpenSSH program that logs in with the person's token.
func (h *house) client(person, program string, args ...string) *exec.Cmd {
	h.t.Helper()
	token := h.write(person+".token", h.gate.Token(person))
	ask := h.write("ask-"+person, "#!/bin/sh\ncat "+token+"\n")
	cmd := exec.CommandContext(h.t.Context(), program, append(h.options(), args...)...)
	cmd.Env = append(os.Environ(), "SSH_ASKPASS="+ask, "SSH_ASKPASS_REQUIRE=force", "DISPLAY=", "SSH_AUTH_SOCK=")
	return cmd
}

// result is how a program ended.
type result struct {
	out, err string
	code     int
}

func (h *house) run(cmd *exec.Cmd) result {
	h.t.Helper()
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	r := result{out: out.String(), err: errOut.String(), code: cmd.ProcessState.ExitCode()}
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		h.t.Fatalf("run %s: %v", cmd.Path, err)
	}
	return r
}

// ssh runs a command at web-1 as alice.
func (h *house) ssh(args ...string) result {
	h.t.Helper()
	return h.run(h.client("alice", "ssh", append([]string{"web-1@127.0.0.1"}, args...)...))
}

// eventually waits until something is so, which another goroutine or program
// makes so: on a machine that does much else, a shell may take long to start.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if is() {
			return
		}
	}
	t.Fatalf("not within 30 s: %s", what)
}

// recorded is what the recordings hold of one direction.
func (h *house) recorded(dir access.Direction) string {
	var text strings.Builder
	for _, e := range h.gate.Tape.Events("") {
		if e.Type == access.EventData && e.Direction == dir {
			text.Write(e.Data)
		}
	}
	return text.String()
}

// events are one line for each event, without times.
func (h *house) events() string {
	var text strings.Builder
	for _, e := range h.gate.Tape.Events("") {
		fmt.Fprintf(&text, "%s", e.Type)
		if e.Operation != nil {
			fmt.Fprintf(&text, " %s %q %s", e.Operation.Kind, e.Operation.Text, e.Decision.Verdict)
		}
		if e.Outcome != nil {
			fmt.Fprintf(&text, " %s %s", e.Outcome.Status, e.Outcome.Code)
		}
		text.WriteString("\n")
	}
	return text.String()
}

// input gives a program's standard input.
func input(cmd *exec.Cmd, text string) *exec.Cmd {
	cmd.Stdin = strings.NewReader(text)
	return cmd
}
