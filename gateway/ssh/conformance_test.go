package ssh

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway"
	"github.com/tidegate/tidegate/gateway/gatewaytest"
	"github.com/tidegate/tidegate/gateway/identify"
)

// sshClient is a program of testdata/clients that uses one client library and
// prints a line for each check: "name ok", or "name failed: …".
type sshClient struct {
	name string
	run  func(t *testing.T, dir string) *exec.Cmd
}

var sshClients = []sshClient{
	{"OpenSSH", script("sh", "openssh.sh")},
	{"PuTTY plink, psftp", script("sh", "putty.sh")},
	{"libssh", compiled},
	{"paramiko", script("/usr/bin/python3", "client.py")}, // Debian's, for which the package is
	{"node ssh2", script("node", "client.mjs")},
	{"Go x/crypto/ssh", func(*testing.T, string) *exec.Cmd {
		return exec.Command(os.Args[0], "-test.run=^TestGoClient$", "-test.v")
	}},
}

func script(program, file string) func(*testing.T, string) *exec.Cmd {
	return func(t *testing.T, dir string) *exec.Cmd {
		return exec.CommandContext(t.Context(), program, filepath.Join(dir, file))
	}
}

func compiled(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	program := filepath.Join(t.TempDir(), "client")
	if out, err := exec.CommandContext(t.Context(), "gcc", "-Wall", "-o", program, filepath.Join(dir, "client.c"), "-lssh").CombinedOutput(); err != nil {
		missing(t, fmt.Errorf("compile libssh's client: %w\n%s", err, out))
	}
	return exec.CommandContext(t.Context(), program)
}

// conformed is what one client printed.
type conformed struct {
	version string
	checks  map[string]string
}

// TestClients has real client libraries do what people do, each with the
// certificate of a login where it knows certificates. With
// TIDEGATE_CONFORMANCE it writes the table of docs/ to that file.
func TestClients(t *testing.T) {
	f := newFolders(t)
	certs := identify.Certificates{CA: newSigner(t)}
	_, port, _ := net.SplitHostPort(newEcho(t))
	var h *house
	h = newHouse(t, houseOptions{
		role: map[string]string{"shell": "true", "exec": "true", "forward": "localhost:" + port}, read: []string{f.write}, write: []string{f.write},
		config: Config{Authority: certs.Authority, Device: func(context.Context) (string, func(context.Context) (access.Secret, error), error) {
			return "Open https://idp.test/device and type ABCD.", func(context.Context) (access.Secret, error) { return access.NewSecret(h.gate.Token("alice")), nil }, nil
		}},
		gate: gatewaytest.Options{
			Tune: func(c *gateway.Config) { c.Certificates = certs },
			Judge: func(op access.Operation) access.Decision {
				if op.Text == "forbidden" {
					return access.Decision{Verdict: access.Deny, Rule: "not-here", Say: "Not here."}
				}
				return access.Decision{Verdict: access.Allow}
			},
		},
	})
	dir, err := filepath.Abs("testdata/clients")
	if err != nil {
		t.Fatal(err)
	}
	env := h.clientEnv(f.write, port)
	all := map[string]conformed{}
	for _, c := range sshClients {
		t.Run(c.name, func(t *testing.T) { all[c.name] = try(t, c, dir, env) })
	}
	if path := os.Getenv("TIDEGATE_CONFORMANCE"); path != "" && !t.Failed() {
		if err := os.WriteFile(path, []byte(clientTable(all)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// clientEnv logs alice in and says what a client needs to know.
func (h *house) clientEnv(folder, echo string) []string {
	h.t.Helper()
	key, private := h.newKey()
	signer := h.certificate("alice", key)
	path := h.write("id_alice", string(private))
	if err := os.Chmod(path, 0o600); err != nil {
		h.t.Fatal(err)
	}
	h.write("id_alice-cert.pub", string(gossh.MarshalAuthorizedKey(signer.PublicKey())))
	host, port, _ := net.SplitHostPort(h.address)
	known := h.write("known_plain", fmt.Sprintf("[%s]:%s %s", host, port, gossh.MarshalAuthorizedKey(h.hostKey.PublicKey())))
	modules, err := filepath.Abs("../../.cache/parts/ssh-clients/node_modules")
	if err != nil {
		h.t.Fatal(err)
	}
	return append(os.Environ(), "GATE_HOST="+host, "GATE_PORT="+port, "GATE_USER=web-1", "GATE_KEY="+path, "GATE_KNOWN_HOSTS="+known,
		"GATE_HOST_KEY="+gossh.FingerprintSHA256(h.hostKey.PublicKey()), "GATE_FOLDER="+folder, "GATE_ECHO="+echo, "NODE_PATH="+modules)
}

// newKey is a key, and as clients read it from a file.
func (h *house) newKey() (gossh.Signer, []byte) {
	h.t.Helper()
	private := newKey(h.t)
	block, err := gossh.MarshalPrivateKey(private, "")
	if err != nil {
		h.t.Fatal(err)
	}
	signer, err := gossh.NewSignerFromKey(private)
	if err != nil {
		h.t.Fatal(err)
	}
	return signer, pem.EncodeToMemory(block)
}

func try(t *testing.T, client sshClient, dir string, env []string) conformed {
	cmd := client.run(t, dir)
	if _, err := exec.LookPath(cmd.Path); err != nil {
		missing(t, err)
	}
	cmd.Env = append(env, "GATE_WORK="+t.TempDir())
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	c := conformed{checks: map[string]string{}}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		name, result, ok := strings.Cut(lines.Text(), " ")
		switch {
		case name == "version":
			c.version = result
		case ok && result == "ok":
			c.checks[name] = "yes"
		case ok && strings.HasPrefix(result, "failed:"):
			t.Errorf("%s %s", name, result)
		}
	}
	if c.version == "" && absent.Match(out) {
		missing(t, fmt.Errorf("%s does not run: %w\n%s", client.name, err, out))
	}
	if len(c.checks) < 6 || err != nil {
		t.Errorf("%s: %d checks, %v:\n%s", client.name, len(c.checks), err, out)
	}
	return c
}

// absent is what interpreters say of a library that is not installed.
var absent = regexp.MustCompile(`ModuleNotFoundError|MODULE_NOT_FOUND`)

// missing skips, but not where every part must be there.
func missing(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("TIDEGATE_REQUIRE_PARTS") == "1" {
		t.Fatal(err)
	}
	t.Skipf("install it with .ci/parts/debian.sh test and .ci/parts/ssh-clients.sh: %v", err)
}

// clientTable is docs/reference/ssh-clients.md.
func clientTable(all map[string]conformed) string {
	columns := []string{"certificate", "keyboard-interactive", "exec", "refused", "shell", "sftp", "forward"}
	var out strings.Builder
	out.WriteString(`# SSH clients

Each row is a client that was run against the gateway; ` + "`make conformance-ssh`" + ` runs them and writes this page. A check that fails fails the tests, so an empty place is one that the client does not have.

| client | version | ` + strings.Join(columns, " | ") + " |\n|" + strings.Repeat("---|", len(columns)+2) + "\n")
	for _, c := range sshClients {
		fmt.Fprintf(&out, "| %s | %s |", c.name, all[c.name].version)
		for _, column := range columns {
			fmt.Fprintf(&out, " %s |", all[c.name].checks[column])
		}
		out.WriteString("\n")
	}
	out.WriteString(`
What the checks do: a login with the certificate that ` + "`tidegate login`" + ` gets, or, where a client knows no certificates, by keyboard-interactive, which shows the identity provider's address and code; a command with both outputs and its exit status; a command that a rule refuses (the sentence on stderr, exit status 1), after which the connection goes on; a shell at a terminal; 300,000 bytes there and back by sftp, and the folder's list; a connection through the host to an address that the role gives, half-closed.

PuTTY knows certificates since 0.78: ` + "`puttygen id_tidegate --certificate id_tidegate-cert.pub -O private -o id.ppk`" + ` makes the file for its ` + "`-i`" + `.
`)
	return out.String()
}

// TestGoClient is the client of Go's own library, in a process of its own.
func TestGoClient(t *testing.T) {
	path := os.Getenv("GATE_KEY")
	if path == "" {
		t.Skip("a part of TestClients")
	}
	fmt.Println()
	version, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Version}}", "golang.org/x/crypto").Output()
	if err != nil {
		t.Fatal(err)
	}
	fmt.Print("version ", string(version))
	check := func(name string, err error) {
		if err != nil {
			fmt.Println(name, "failed:", err)
			return
		}
		fmt.Println(name, "ok")
	}
	c, err := goLogin(path)
	check("certificate", err)
	if err != nil {
		return
	}
	defer c.Close()
	check("exec", goRun(c, "echo out; echo err >&2; exit 3", "out\n", "err\n", 3))
	check("refused", goRun(c, "forbidden", "", "tidegate: Not here. (rule not-here)\r\n", 1))
	check("shell", goShell(c))
	check("sftp", goFiles(c, os.Getenv("GATE_FOLDER")+"/there"))
	check("forward", goForward(c, os.Getenv("GATE_ECHO")))
}

func goLogin(path string) (*gossh.Client, error) {
	signer, err := certifiedKey(path)
	if err != nil {
		return nil, err
	}
	return gossh.Dial("tcp", net.JoinHostPort(os.Getenv("GATE_HOST"), os.Getenv("GATE_PORT")), &gossh.ClientConfig{
		User: os.Getenv("GATE_USER"), Auth: []gossh.AuthMethod{gossh.PublicKeys(signer)}, HostKeyAlgorithms: []string{gossh.KeyAlgoED25519},
		HostKeyCallback: func(_ string, _ net.Addr, key gossh.PublicKey) error {
			if got, want := gossh.FingerprintSHA256(key), os.Getenv("GATE_HOST_KEY"); got != want {
				return fmt.Errorf("host key %s, want %s", got, want)
			}
			return nil
		},
	})
}

// certifiedKey reads a key with the certificate beside it.
func certifiedKey(path string) (gossh.Signer, error) {
	private, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	key, err := gossh.ParsePrivateKey(private)
	if err != nil {
		return nil, err
	}
	public, err := os.ReadFile(path + "-cert.pub")
	if err != nil {
		return nil, err
	}
	cert, _, _, _, err := gossh.ParseAuthorizedKey(public)
	if err != nil {
		return nil, err
	}
	return gossh.NewCertSigner(cert.(*gossh.Certificate), key)
}

func goRun(c *gossh.Client, command, out, errOut string, status int) error {
	s, err := c.NewSession()
	if err != nil {
		return err
	}
	defer s.Close()
	var gotOut, gotErr bytes.Buffer
	s.Stdout, s.Stderr = &gotOut, &gotErr
	exit, _ := s.Run(command).(*gossh.ExitError)
	if exit == nil || exit.ExitStatus() != status || gotOut.String() != out || gotErr.String() != errOut {
		return fmt.Errorf("%v, %q, %q", exit, &gotOut, &gotErr)
	}
	return nil
}

func goShell(c *gossh.Client) error {
	s, err := c.NewSession()
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.RequestPty("xterm", 24, 80, nil); err != nil {
		return err
	}
	var out bytes.Buffer
	s.Stdin, s.Stdout = strings.NewReader("echo from $((40+2)); exit 5\n"), &out
	if err := s.Shell(); err != nil {
		return err
	}
	if exit, _ := s.Wait().(*gossh.ExitError); exit == nil || exit.ExitStatus() != 5 || !strings.Contains(out.String(), "from 42") {
		return fmt.Errorf("%v, %q", exit, &out)
	}
	return nil
}

// goFiles speaks sftp itself: the library does not.
func goFiles(c *gossh.Client, there string) error {
	s, err := c.NewSession()
	if err != nil {
		return err
	}
	defer s.Close()
	r := &rawSFTP{}
	if r.in, err = s.StdinPipe(); err == nil {
		r.out, err = s.StdoutPipe()
	}
	if err == nil {
		err = s.RequestSubsystem("sftp")
	}
	if err != nil {
		return err
	}
	if _, err := r.answer(newMessage(fxInit, fileVersion)); err != nil {
		return err
	}
	sent := make([]byte, 30_000)
	_, _ = rand.Read(sent)
	p, err := r.answer(r.message(fxOpen).text(there).uint32(openRead | openWrite&^0x24).uint32(0)) // neither append nor exclusive
	handle, ok := handleOf(p)
	if err != nil || !ok {
		return fmt.Errorf("open: packet %d, %v", p.kind, err)
	}
	if p, err = r.answer(r.message(fxWrite).text(handle).uint32(0).uint32(0).text(string(sent))); err != nil || statusCode(p) != fxOK {
		return fmt.Errorf("write: packet %d, %v", p.kind, err)
	}
	p, err = r.answer(r.message(fxRead).text(handle).uint32(0).uint32(0).uint32(uint32(len(sent))))
	f := fields{rest: p.body}
	f.uint32() // the id
	if err != nil || p.kind != fxData || !slices.Equal(f.bytes(), sent) {
		return fmt.Errorf("read: packet %d of %d bytes, %v", p.kind, len(p.body), err)
	}
	return nil
}

func goForward(c *gossh.Client, port string) error {
	conn, err := c.Dial("tcp", net.JoinHostPort("localhost", port))
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "ping"); err != nil {
		return err
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		return err
	}
	if back, err := io.ReadAll(conn); err != nil || string(back) != "ping" {
		return fmt.Errorf("%q, %v", back, err)
	}
	return nil
}
