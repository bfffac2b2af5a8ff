package ssh

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway"
	"github.com/tidegate/tidegate/gateway/gatewaytest"
	"github.com/tidegate/tidegate/gateway/identify"
	"github.com/tidegate/tidegate/gateway/record"
)

// The benchmarks compare the way through the gateway, everything recorded to
// the disk, with OpenSSH's direct way and with its ProxyJump through a second
// sshd's place: the same one. `make bench` runs them.

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
}

func newTrack(b *testing.B) *track {
	b.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	store, err := record.Open(record.Config{Dir: b.TempDir(), Key: key})
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
	t := &track{house: h, config: map[string]string{}}
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

var ways = []string{"direct", "gateway", "jump"}

func each(b *testing.B, run func(b *testing.B, t *track, way string)) {
	t := newTrack(b)
	for _, way := range ways {
		b.Run(way, func(b *testing.B) { run(b, t, way) })
	}
}

func must(b *testing.B, cmd *exec.Cmd) {
	b.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v: %v: %s", cmd.Args, err, out)
	}
}

func BenchmarkLogin(b *testing.B) {
	each(b, func(b *testing.B, t *track, way string) {
		for b.Loop() {
			must(b, t.openssh("ssh", way, "host", "true"))
		}
	})
}

func BenchmarkLoginFour(b *testing.B) {
	each(b, func(b *testing.B, t *track, way string) {
		for b.Loop() {
			var all sync.WaitGroup
			for range 4 {
				all.Go(func() { _ = t.openssh("ssh", way, "host", "true").Run() })
			}
			all.Wait()
		}
	})
}

const bulk = 256 << 20

func BenchmarkDownload(b *testing.B) {
	each(b, func(b *testing.B, t *track, way string) {
		text := filepath.Join(b.TempDir(), "text")
		line := strings.Repeat("a line of text, as logs have them\n", 1<<10)
		if err := os.WriteFile(text, []byte(strings.Repeat(line, bulk/len(line))), 0o600); err != nil {
			b.Fatal(err)
		}
		b.SetBytes(bulk)
		for b.Loop() {
			cmd := t.openssh("ssh", way, "host", "cat "+text)
			cmd.Stdout = nil
			must2(b, cmd)
		}
	})
}

// must2 drops the output.
func must2(b *testing.B, cmd *exec.Cmd) {
	b.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	cmd.Stdout = null
	if err := cmd.Run(); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkUpload(b *testing.B) {
	each(b, func(b *testing.B, t *track, way string) {
		from := filepath.Join(b.TempDir(), "from")
		if err := os.WriteFile(from, make([]byte, bulk), 0o600); err != nil {
			b.Fatal(err)
		}
		to := filepath.Join(b.TempDir(), "to")
		b.SetBytes(bulk)
		for b.Loop() {
			must(b, t.openssh("scp", way, from, "host:"+to))
		}
	})
}

// BenchmarkEcho types one key after the other, and waits for each to come back.
func BenchmarkEcho(b *testing.B) {
	each(b, func(b *testing.B, t *track, way string) {
		if way == "jump" {
			b.Skip("one way is enough to compare with")
		}
		in, out := t.cat(b, way)
		var times []time.Duration
		key := []byte("x")
		for b.Loop() {
			begun := time.Now()
			if _, err := in.Write(key); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(out, key); err != nil {
				b.Fatal(err)
			}
			times = append(times, time.Since(begun))
		}
		slices.Sort(times)
		b.ReportMetric(float64(times[len(times)/2].Microseconds()), "p50-µs")
	})
}

func (t *track) dialWay(b *testing.B, way string) *gossh.Client {
	b.Helper()
	address, user, signer := t.address, "web-1", t.signer
	if way == "direct" {
		address, user, signer = t.host.Address, t.host.Account, t.direct
	}
	c, err := gossh.Dial("tcp", address, &gossh.ClientConfig{
		Config: gossh.Config{Ciphers: gcmOnly}, User: user, Auth: []gossh.AuthMethod{gossh.PublicKeys(signer)},
		HostKeyCallback: func(string, net.Addr, gossh.PublicKey) error { return nil },
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() })
	return c
}

func (t *track) cat(b *testing.B, way string) (io.Writer, io.Reader) {
	b.Helper()
	s, err := t.dialWay(b, way).NewSession()
	if err != nil {
		b.Fatal(err)
	}
	in, _ := s.StdinPipe()
	out, _ := s.StdoutPipe()
	if err := s.Start("cat"); err != nil {
		b.Fatal(err)
	}
	return in, out
}

// BenchmarkIdle is the memory of one idle shell: of the gateway's process,
// which is the client's here, too; so it is what both take, and the client's
// share, measured direct, is taken off.
func BenchmarkIdle(b *testing.B) {
	const shells = 200
	t := newTrack(b)
	use := func(way string) float64 {
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		var clients []*gossh.Client
		for range shells {
			c := t.dialWay(b, way)
			clients = append(clients, c)
			s, err := c.NewSession()
			if err != nil {
				b.Fatal(err)
			}
			if err := s.RequestPty("xterm", 24, 80, nil); err != nil {
				b.Fatal(err)
			}
			if _, err := s.StdinPipe(); err != nil {
				b.Fatal(err)
			}
			if err := s.Shell(); err != nil {
				b.Fatal(err)
			}
		}
		time.Sleep(time.Second) // idle is what is measured
		runtime.GC()
		runtime.ReadMemStats(&after)
		for _, c := range clients {
			_ = c.Close()
		}
		live := func(m runtime.MemStats) uint64 { return m.HeapInuse + m.StackInuse }
		return float64(live(after)-live(before)) / shells / 1024
	}
	for b.Loop() {
		client := use("direct")
		b.ReportMetric(use("gateway")-client, "KiB/shell")
	}
}
