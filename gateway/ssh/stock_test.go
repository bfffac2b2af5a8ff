package ssh

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
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
)

// withLogin lets people log in with certificates of a login CA.
func withLogin(t *testing.T, o houseOptions) (houseOptions, identify.Certificates) {
	t.Helper()
	certs := identify.Certificates{CA: newSigner(t), Client: clientCA(t)}
	o.config.Authority = certs.Authority
	o.gate.Tune = func(c *gateway.Config) { c.Certificates = certs }
	return o, certs
}

func clientCA(t *testing.T) *identify.ClientCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client CA"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if root, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return &identify.ClientCA{Certificate: root, Key: key}
}

// certificate logs the person in at the gateway.
func (h *house) certificate(person string, key gossh.Signer) gossh.Signer {
	h.t.Helper()
	got, err := Login{
		Address: h.address, HostCAs: []gossh.PublicKey{h.hostCA.PublicKey()},
		Token: access.NewSecret(h.gate.Token(person)), Key: key.PublicKey(),
	}.Exchange(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	signer, err := gossh.NewCertSigner(got.Certificate, key)
	if err != nil {
		h.t.Fatal(err)
	}
	return signer
}

// dial is a Go client, which shows more than OpenSSH does.
func (h *house) dial(user string, auth ...gossh.AuthMethod) (*gossh.Client, error) {
	return gossh.Dial("tcp", h.address, &gossh.ClientConfig{
		User: user, Auth: auth, HostKeyCallback: gossh.FixedHostKey(h.hostKey.PublicKey()),
		HostKeyAlgorithms: []string{gossh.KeyAlgoED25519}, Timeout: 10 * time.Second,
	})
}

func (h *house) mustDial() *gossh.Client {
	h.t.Helper()
	c, err := h.dial("web-1", gossh.Password(h.gate.Token("alice")))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestCertificateLogin(t *testing.T) {
	o, certs := withLogin(t, houseOptions{role: map[string]string{"exec": "true"}})
	h := newHouse(t, o)
	alice := h.certificate("alice", newSigner(t))
	c, err := h.dial("web-1", gossh.PublicKeys(alice))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := s.Output("echo hi"); string(out) != "hi\n" || err != nil {
		t.Errorf("got %q, %v", out, err)
	}
	for name, signer := range map[string]gossh.Signer{
		"a bare key":          newSigner(t),
		"of another login CA": foreign(t, newSigner(t)),
		"of the user CA":      foreign(t, certs.CA), // right CA, no identity in it: judged behind the door
	} {
		c, err := h.dial("web-1", gossh.PublicKeys(signer))
		if err != nil {
			continue
		}
		s, err := c.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		if out, err := s.CombinedOutput("echo hi"); err == nil || strings.Contains(string(out), "hi\n") {
			t.Errorf("%s: got in: %q", name, out)
		}
		_ = c.Close()
	}
	if _, err := h.dial(loginUser, gossh.PublicKeys(alice)); err != nil {
		t.Fatal(err)
	}
	c, _ = h.dial(loginUser, gossh.PublicKeys(alice))
	if _, err := ask(c, newSigner(t).PublicKey()); access.CodeOf(err) != access.CodeDenied {
		t.Errorf("a certificate renewed itself: %v", err)
	}
}

// A login brings a client certificate and the names of targets as well.
func TestLoginForTLSClients(t *testing.T) {
	o, certs := withLogin(t, houseOptions{role: map[string]string{"exec": "true"}})
	h := newHouse(t, o)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	for person, want := range map[string][]string{"alice": {"web-1"}, "mallory": nil} {
		login := Login{
			Address: h.address, HostCAs: []gossh.PublicKey{h.hostCA.PublicKey()}, Token: access.NewSecret(h.gate.Token(person)),
			Key: newSigner(t).PublicKey(), ClientKey: public, Kind: "ssh",
		}
		got, err := login.Exchange(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", person, err)
		}
		if !slices.Equal(got.Named, want) {
			t.Errorf("%s can name %q, want %q", person, got.Named, want)
		}
		id, err := certs.IdentifyCertificate(got.Client.Raw)
		if err != nil || id.Email != person+"@acme.test" {
			t.Errorf("%s's certificate is of %v, %v", person, id, err)
		}
		if ends := time.Unix(int64(got.Certificate.ValidBefore), 0); !got.Client.NotAfter.Equal(ends) {
			t.Errorf("%s's certificates end at %s and %s, want the same", person, got.Client.NotAfter, ends)
		}
		login.Token = access.NewSecret("wrong")
		if _, err := login.Exchange(t.Context()); err == nil || !strings.Contains(err.Error(), "token") {
			t.Errorf("%s got %v for a wrong token, want the gateway's reason", person, err)
		}
	}
	c := h.mustDial() // under a target's name nothing of this is answered
	if _, err := askCertificate(c, public); err == nil {
		t.Error("a session got a certificate")
	}
	if _, err := askNamed(c, "ssh"); err == nil {
		t.Error("a session got the names of targets")
	}
}

// A login brings the host CAs of the moment, so that the next one is known
// before it signs; a gateway that would lock its clients out is not believed.
func TestLoginBringsHostCAs(t *testing.T) {
	o, _ := withLogin(t, houseOptions{role: map[string]string{"exec": "true"}})
	next, many := newSigner(t).PublicKey(), []gossh.PublicKey{}
	for range maxHostCAs {
		many = append(many, newSigner(t).PublicKey())
	}
	var told []gossh.PublicKey
	o.config.HostCAs = func() ([]gossh.PublicKey, error) { return told, nil }
	h := newHouse(t, o)
	present := h.hostCA.PublicKey()
	for _, c := range []struct {
		name string
		told []gossh.PublicKey
		want string
	}{
		{"a rotation", []gossh.PublicKey{present, next}, ""},
		{"not the present one", []gossh.PublicKey{next}, "is not among them"},
		{"none", nil, "is not among them"},
		{"too many", append(many, present), "want at most 8"},
	} {
		told = c.told
		login := Login{Address: h.address, HostCAs: []gossh.PublicKey{present}, Token: access.NewSecret(h.gate.Token("alice")), Key: newSigner(t).PublicKey()}
		got, err := login.Exchange(t.Context())
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: got %v, want %q", c.name, err, c.want)
			}
			continue
		}
		if err != nil || len(got.HostCAs) != 2 || !among(got.HostCAs, next) {
			t.Fatalf("%s: got %d, %v", c.name, len(got.HostCAs), err)
		}
		login.HostCAs = []gossh.PublicKey{next}
		if _, err := login.Exchange(t.Context()); err == nil || !strings.Contains(err.Error(), "--host-ca FILE") {
			t.Errorf("who knows another CA alone: %v, want it said what to do", err)
		}
	}
	c := h.mustDial()
	if ok, _, err := c.SendRequest(hostCAsRequest, true, nil); ok || err != nil {
		t.Errorf("a session is told the host CAs: %v, %v", ok, err)
	}
}

// foreign is a certificate that says nothing of who it is for.
func foreign(t *testing.T, ca gossh.Signer) gossh.Signer {
	t.Helper()
	key := newSigner(t)
	cert := &gossh.Certificate{
		Key: key.PublicKey(), CertType: gossh.UserCert, ValidPrincipals: []string{"tidegate"}, ValidBefore: gossh.CertTimeInfinity,
	}
	if err := cert.SignCert(nil2rand{}, ca); err != nil {
		t.Fatal(err)
	}
	signer, err := gossh.NewCertSigner(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// nil2rand is no randomness: Ed25519 needs none, and a nonce may be anything.
type nil2rand struct{}

func (nil2rand) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// twoKeys offers mallory's and alice's certificates in turn and proves only
// mallory's: whoever remembers the last key offered lets mallory in as alice.
type twoKeys struct {
	gossh.Signer
	show gossh.PublicKey
}

func (k twoKeys) PublicKey() gossh.PublicKey { return k.show }

func TestLastKeyOfferedIsNotTheKeyUsed(t *testing.T) {
	o, _ := withLogin(t, houseOptions{role: map[string]string{"exec": "true"}})
	h := newHouse(t, o)
	alice, mallory := h.certificate("alice", newSigner(t)), h.certificate("mallory", newSigner(t))
	// The client first asks about each key, and then signs with the one that it
	// chose: for alice's it can't sign.
	cannot := twoKeys{Signer: newSigner(t), show: alice.PublicKey()}
	for _, order := range [][]gossh.Signer{{mallory, cannot}, {cannot, mallory}} {
		c, err := h.dial("web-1", gossh.PublicKeys(order...))
		if err != nil {
			continue
		}
		s, err := c.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		out, err := s.CombinedOutput("echo hi")
		if err == nil || !strings.Contains(string(out), "mallory@acme.test has no active grant") {
			t.Errorf("got %q, %v; want mallory refused as mallory", out, err)
		}
		_ = c.Close()
	}
}

func TestProxyJumpIsJudgedInside(t *testing.T) {
	h := newHouse(t, houseOptions{role: map[string]string{"exec": "true"}})
	host, port, _ := net.SplitHostPort(h.host.Address)
	account := h.host.Account
	jump := func(person string, args ...string) result {
		// ProxyJump itself reads no -o of ours for the first hop, so it is
		// written out as what it does. The first -o of a name counts.
		proxy := "ssh " + strings.Join(h.options(), " ") + " -W " + h.host.Address + " jump@127.0.0.1"
		cmd := h.client(person, "ssh", args...)
		cmd.Args = append([]string{"ssh", "-o", "Port=" + port, "-o", "ProxyCommand=" + proxy}, cmd.Args[1:]...)
		return h.run(cmd)
	}
	if r := jump("alice", account+"@"+host, "echo inside"); r.out != "inside\n" || r.code != 0 {
		t.Errorf("alice: got %+v\n%s", r, h.events())
	}
	if r := jump("mallory", account+"@"+host, "echo inside"); r.out != "" || r.code == 0 || !strings.Contains(r.err, "no active grant") {
		t.Errorf("mallory: got %+v", r)
	}
	if !strings.Contains(h.events(), `exec "echo inside" allow`) {
		t.Errorf("the inner command is not in a recording:\n%s", h.events())
	}
}

func TestForwarding(t *testing.T) {
	echo := newEcho(t)
	_, port, _ := net.SplitHostPort(echo)
	h := newHouse(t, houseOptions{role: map[string]string{"forward": "localhost:" + port + "\n192.0.2.0/24:*", "listen": "localhost:*"}})
	c := h.mustDial()
	conn, err := c.Dial("tcp", net.JoinHostPort("localhost", port))
	if err != nil {
		t.Fatal(err)
	}
	roundTrip(t, conn)
	_, sshd, _ := net.SplitHostPort(h.host.Address)
	for _, address := range []string{"localhost:1", "127.0.0.1:" + sshd, "localhost:" + sshd, "169.254.169.254:80", "example.invalid:80", "[::1]:" + sshd, "0.0.0.0:" + port} {
		conn, err := c.Dial("tcp", address)
		if err != nil {
			continue
		}
		// An inner SSH may answer there, and nothing else.
		line := make([]byte, len(version))
		if _, err := io.ReadFull(conn, line); err != nil || string(line) != version {
			t.Errorf("%s was reached: %q, %v", address, line, err)
		}
		_ = conn.Close()
	}
	l, err := c.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatalf("remote forwarding: %v\n%s", err, h.events())
	}
	go echoAll(l)
	back, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	roundTrip(t, back)
	if !strings.Contains(h.events(), "forward \"localhost:"+port+"\" allow") || !strings.Contains(h.events(), "arrival") {
		t.Errorf("events:\n%s", h.events())
	}
	bare := newHouse(t, houseOptions{role: map[string]string{"exec": "true"}})
	c = bare.mustDial()
	if _, err := c.Dial("tcp", echo); err == nil || !strings.Contains(err.Error(), "opens them to nowhere") {
		t.Errorf("forwarding without the right: %v", err)
	}
	if _, err := c.Listen("tcp", "localhost:0"); err == nil {
		t.Error("remote forwarding without the right")
	}
}

func newEcho(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go echoAll(l)
	return l.Addr().String()
}

func echoAll(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() { _, _ = io.Copy(conn, conn); _ = conn.Close() }()
	}
}

func roundTrip(t *testing.T, conn net.Conn) {
	t.Helper()
	defer conn.Close()
	if _, err := conn.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "ping" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestTwentyChannelsAtOnce(t *testing.T) {
	h := newHouse(t, houseOptions{role: map[string]string{"exec": "true"}})
	c := h.mustDial()
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			s, err := c.NewSession()
			if err != nil {
				t.Error(err)
				return
			}
			s.Stdin = strings.NewReader(strings.Repeat("x", 100_000)) // ends: the stream is half-closed
			out, err := s.Output(fmt.Sprintf("wc -c; exit %d", i))
			var exit *gossh.ExitError
			if strings.TrimSpace(string(out)) != "100000" || i > 0 && (!errors.As(err, &exit) || exit.ExitStatus() != i) || i == 0 && err != nil {
				t.Errorf("channel %d: got %q, %v", i, out, err)
			}
		})
	}
	all.Wait()
}

func TestSignalsAndWindow(t *testing.T) {
	h := newHouse(t, houseOptions{role: map[string]string{"exec": "true", "terminal": "true", "env": "LC_*"}, sshd: []string{"LogLevel DEBUG1"}})
	c := h.mustDial()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Setenv("LC_TEST", "given"); err != nil {
		t.Errorf("a variable that the role gives: %v", err)
	}
	if err := s.Setenv("LANG", "C"); err == nil {
		t.Error("a variable that the role does not give was taken")
	}
	if err := s.RequestPty("xterm", 24, 80, gossh.TerminalModes{gossh.ECHO: 0}); err != nil {
		t.Fatal(err)
	}
	out, _ := s.StdoutPipe()
	if err := s.Start("echo $LC_TEST; stty size; read line"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	n, _ := io.ReadAtLeast(out, buf, len("given\r\n24 80\r\n"))
	if got := string(buf[:n]); got != "given\r\n24 80\r\n" {
		t.Errorf("got %q", got)
	}
	if err := s.WindowChange(50, 132); err != nil {
		t.Fatal(err)
	}
	// Not what stty says: where tests run, sshd's own change of a terminal's
	// size may not reach it, with no gateway between.
	eventually(t, "the host is told", func() bool {
		return strings.Count(h.host.LogText(), "session_input_channel_req: session 0 req window-change") == 2
	})
	resized := 0
	for _, e := range h.gate.Tape.Events("") {
		if e.Type == access.EventResize && e.Columns == 132 && e.Rows == 50 {
			resized++
		}
	}
	if resized != 1 {
		t.Errorf("the new size was recorded %d times", resized)
	}

	s, err = c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	in, err := s.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start("read line; kill -TERM $$"); err != nil {
		t.Fatal(err)
	}
	_ = s.Signal(gossh.SIGUSR1)
	eventually(t, "the host is told", func() bool { // an sshd of root's own does not deliver it
		return strings.Contains(h.host.LogText(), "req signal")
	})
	_, _ = in.Write([]byte("\n"))
	var exit *gossh.ExitError
	if err := s.Wait(); !errors.As(err, &exit) || exit.Signal() != "TERM" {
		t.Errorf("ended by a signal: got %v", err)
	}
}

func TestCommandsGiveNoShell(t *testing.T) {
	h := newHouse(t, houseOptions{role: map[string]string{"commands": "echo hello **\nuname -*\necho /var/log/*"}})
	for command, ok := range map[string]bool{
		"echo hello": true, "echo hello you": true, "'echo' \"hello\" there": true, "uname -a": true, "echo /var/log/syslog": true, "echo /var/log/a..b": true,
		"echo /var/log/../../etc/passwd": false, "echo /var/log/..": false,
		"echo hi": false, "echo hello; id": false, "echo hello $(id)": false, "echo hello > /tmp/x": false, "echo hello `id`": false,
		"X=1 echo hello": false, "echo hello &": false, "echo hello | id": false, "echo hello\nid": false, "echo hello *": false,
		"echo hello ~": false, "echo hello {a,b}": false, "echo hello \\\\": false, "uname": false, "/bin/echo hello": false, "": false,
	} {
		r := h.ssh(command)
		if ok != (r.code == 0) {
			t.Errorf("%q: got %+v, want allowed: %v", command, r, ok)
		}
	}
	rule := newHouse(t, houseOptions{role: map[string]string{"shell": "true", "exec": "true"}, gate: gatewaytest.Options{
		Judge: func(op access.Operation) access.Decision {
			if name, known := op.Facts["name"]; !known || name == "rm" {
				return access.Decision{Verdict: access.Deny, Rule: "no-rm", Say: "Nothing is removed."}
			}
			return access.Decision{Verdict: access.Allow}
		},
	}})
	if r := rule.ssh(); r.code != 1 || !strings.Contains(r.err, "could not be enforced") {
		t.Errorf("a shell beside a rule on commands: %+v", r)
	}
	if r := rule.ssh("echo fine"); r.code != 0 {
		t.Errorf("a command beside it: %+v", r)
	}
}
