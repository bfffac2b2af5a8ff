package ssh

import (
	"bufio"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway"
	"github.com/tidegate/tidegate/gateway/gatewaytest"
	"github.com/tidegate/tidegate/gateway/identify"
	"github.com/tidegate/tidegate/gateway/record"
)

// recorders is the folder of recordings as a gateway fills it.
type recorders struct{ *record.Store }

func (r recorders) Record(s access.SessionInfo, anchor func(access.Head)) (gateway.Recorder, error) {
	return r.Store.Record(s, anchor)
}

// track is a house with one configuration of OpenSSH for each way.
type track struct {
	*house
	config map[string]string // way -> file for -F
	signer gossh.Signer      // of alice, at the gateway
	direct gossh.Signer      // at the host
	spool  string            // where the recordings lie
	key    ed25519.PrivateKey
}

func newTrack(b testing.TB) *track {
	b.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	spool := b.TempDir()
	store, err := record.Open(record.Config{Dir: spool, Key: key})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = store.Close() })
	certs := identify.Certificates{CA: newSigner(b)}
	h := newHouse(b, houseOptions{
		role: map[string]string{"shell": "true", "exec": "true"}, read: []string{"/"}, write: []string{"/tmp"},
		config: Config{Authority: certs.Authority},
		gate: gatewaytest.Options{Recorders: recorders{store}, Tune: func(c *gateway.Config) {
			c.Certificates, c.MaxSessionsPerPerson = certs, 1000
		}},
	})
	t := &track{house: h, config: map[string]string{}, spool: spool, key: key}
	t.signer = t.keys("gateway", func(key gossh.Signer) *gossh.Certificate {
		return t.certificate("alice", key).PublicKey().(*gossh.Certificate)
	})
	t.direct = t.keys("direct", func(key gossh.Signer) *gossh.Certificate {
		c := &gossh.Certificate{
			Key: key.PublicKey(), CertType: gossh.UserCert, ValidPrincipals: []string{h.host.Account}, ValidBefore: gossh.CertTimeInfinity,
			Permissions: gossh.Permissions{Extensions: map[string]string{"permit-pty": "", "permit-port-forwarding": ""}},
		}
		if err := c.SignCert(rand.Reader, h.userCA); err != nil {
			b.Fatal(err)
		}
		return c
	})
	h.write("known_hosts", "* "+h.host.HostKey+"\n@cert-authority * "+string(gossh.MarshalAuthorizedKey(h.hostCA.PublicKey())))
	t.configure("gateway", h.address, "web-1", "gateway", "")
	t.configure("direct", h.host.Address, h.host.Account, "direct", "")
	t.configure("jump", h.host.Address, h.host.Account, "direct",
		"ProxyCommand ssh -F "+t.config["direct"]+" -W "+h.host.Address+" host")
	return t
}

// keys writes a key with a certificate for OpenSSH.
func (t *track) keys(name string, certify func(gossh.Signer) *gossh.Certificate) gossh.Signer {
	t.t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.t.Fatal(err)
	}
	key, err := gossh.NewSignerFromKey(private)
	if err != nil {
		t.t.Fatal(err)
	}
	block, err := gossh.MarshalPrivateKey(private, "")
	if err != nil {
		t.t.Fatal(err)
	}
	cert := certify(key)
	path := t.write("id_"+name, string(pem.EncodeToMemory(block)))
	if err := os.Chmod(path, 0o600); err != nil {
		t.t.Fatal(err)
	}
	t.write("id_"+name+"-cert.pub", string(gossh.MarshalAuthorizedKey(cert)))
	signer, err := gossh.NewCertSigner(cert, key)
	if err != nil {
		t.t.Fatal(err)
	}
	return signer
}

func (t *track) configure(way, address, user, key, more string) {
	host, port, _ := net.SplitHostPort(address)
	t.config[way] = t.write("config_"+way, fmt.Sprintf("Host host\nHostName %s\nPort %s\nUser %s\nIdentityFile %s\nIdentitiesOnly yes\n"+
		"UserKnownHostsFile %s\nStrictHostKeyChecking yes\nLogLevel ERROR\n%s\n",
		host, port, user, filepath.Join(t.dir, "id_"+key), filepath.Join(t.dir, "known_hosts"), more))
}

func (t *track) openssh(program, way string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, append([]string{"-F", t.config[way]}, args...)...)
	cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK=")
	return cmd
}

// benchClient is a client in a process of its own, so that the memory of this
// one is the gateway's.
type benchClient struct {
	t     testing.TB
	cmd   *exec.Cmd
	in    io.Writer
	lines *bufio.Scanner
}

// helper starts one that comes by a way; see TestBenchClient.
func (t *track) helper(way, what string) *benchClient {
	t.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.t.Fatal(err)
	}
	address, user, key := t.address, "web-1", "id_gateway"
	if way == "direct" {
		address, user, key = t.host.Address, t.host.Account, "id_direct"
	}
	cmd := exec.Command(exe, "-test.run=^TestBenchClient$")
	cmd.Env = append(os.Environ(), "TIDEGATE_BENCH_CLIENT="+what, "TIDEGATE_BENCH_ADDRESS="+address, "TIDEGATE_BENCH_USER="+user,
		"TIDEGATE_BENCH_KEY="+filepath.Join(t.dir, key))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe() // it stays until this is closed
	if err != nil {
		t.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.t.Fatal(err)
	}
	t.t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() }) // it may have been waited for
	return &benchClient{t: t.t, cmd: cmd, in: in, lines: bufio.NewScanner(out)}
}

// turn has it do once more what it does, and answers with the number that it
// says of it.
func (c *benchClient) turn(word string) int64 {
	c.t.Helper()
	if _, err := io.WriteString(c.in, "\n"); err != nil {
		c.t.Fatal(err)
	}
	return c.expect(word)
}

// expect waits for a line "word number".
func (c *benchClient) expect(word string) (n int64) {
	c.t.Helper()
	for c.lines.Scan() {
		if _, err := fmt.Sscanf(c.lines.Text(), word+" %d", &n); err == nil {
			return n
		}
	}
	c.t.Fatalf("the bench's client said no %q", word)
	return 0
}
