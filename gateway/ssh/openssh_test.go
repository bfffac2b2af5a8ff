package ssh

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
)

// What OpenSSH does by itself, or with one option.

// with puts options before the rest of an OpenSSH command line.
func with(cmd *exec.Cmd, options ...string) *exec.Cmd {
	cmd.Args = append(append(cmd.Args[:1:1], options...), cmd.Args[1:]...)
	return cmd
}

func TestRekey(t *testing.T) {
	h := newHouse(t, houseOptions{role: map[string]string{"exec": "true"}, sshd: []string{"RekeyLimit 64K"}})
	cmd := with(h.client("alice", "ssh", "web-1@127.0.0.1", "head -c 1000000; head -c 1000000 /dev/zero"), "-v", "-o", "RekeyLimit=64K")
	cmd.Stdin = strings.NewReader(strings.Repeat("x", 1_000_000))
	r := h.run(cmd)
	if r.code != 0 || r.out != strings.Repeat("x", 1_000_000)+strings.Repeat("\x00", 1_000_000) {
		t.Errorf("got code %d, %d bytes: %.2000s", r.code, len(r.out), r.err)
	}
	if n := strings.Count(r.err, "SSH2_MSG_NEWKEYS received"); n < 10 {
		t.Errorf("new keys %d times, want them every 64 KiB", n)
	}
}

// TestKeepalive: each side asks the gateway whether it is still there, and
// would leave without an answer.
func TestKeepalive(t *testing.T) {
	h := newHouse(t, houseOptions{role: map[string]string{"exec": "true"}, sshd: []string{"ClientAliveInterval 1", "ClientAliveCountMax 1", "LogLevel DEBUG1"}})
	r := h.run(with(h.client("alice", "ssh", "web-1@127.0.0.1", "sleep 4; echo still here"), "-v", "-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=1"))
	if r.code != 0 || r.out != "still here\n" {
		t.Errorf("got %+v", r)
	}
	if log := h.host.LogText(); strings.Contains(log, "Timeout, client not responding") {
		t.Errorf("the host had no answer:\n%s", log)
	}
}

// TestControlMaster: several programs share one connection, which is one
// session.
func TestControlMaster(t *testing.T) {
	h := newHouse(t, houseOptions{role: map[string]string{"exec": "true"}})
	socket := filepath.Join(t.TempDir(), "master")
	if r := h.run(with(h.client("alice", "ssh", "web-1@127.0.0.1"), "-M", "-S", socket, "-f", "-N")); r.code != 0 {
		t.Fatalf("master: %+v", r)
	}
	through := func(args ...string) result {
		return h.run(with(h.client("alice", "ssh", append([]string{"web-1@127.0.0.1"}, args...)...), "-S", socket, "-o", "ControlMaster=no"))
	}
	var all sync.WaitGroup
	for i := range 5 {
		all.Go(func() {
			if r := through(fmt.Sprintf("echo %d; exit %d", i, i)); r.out != fmt.Sprintln(i) || r.code != i {
				t.Errorf("%d: got %+v", i, r)
			}
		})
	}
	all.Wait()
	if r := h.run(with(h.client("alice", "ssh", "web-1@127.0.0.1"), "-S", socket, "-O", "exit")); r.code != 0 {
		t.Errorf("exit: %+v", r)
	}
	eventually(t, "the session is sealed", func() bool { return len(h.gate.Tape.Unsealed()) == 0 })
	sessions := map[string]bool{}
	for _, e := range h.gate.Tape.Events("") {
		if e.Session != nil {
			sessions[e.Session.ID] = true
		}
	}
	if len(sessions) != 1 {
		t.Errorf("%d sessions, want one", len(sessions))
	}
}

// TestOutputEndsBeforeTheProgram: a program may close its output and go on;
// the client sees that, and still gets the exit status.
func TestOutputEndsBeforeTheProgram(t *testing.T) {
	h := newHouse(t, houseOptions{role: map[string]string{"exec": "true"}})
	s, err := h.mustDial().NewSession()
	if err != nil {
		t.Fatal(err)
	}
	in, _ := s.StdinPipe()
	out, _ := s.StdoutPipe()
	if err := s.Start("echo done; exec >&- 2>&-; read line; exit 7"); err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(out); err != nil || string(text) != "done\n" {
		t.Errorf("got %q, %v", text, err)
	}
	if _, err := io.WriteString(in, "go on\n"); err != nil {
		t.Error(err)
	}
	var exit *gossh.ExitError
	if err := s.Wait(); !errors.As(err, &exit) || exit.ExitStatus() != 7 {
		t.Errorf("ended with %v, want 7", err)
	}
}

// TestForwardsAlone: -N with -L and -R, and -W.
func TestForwardsAlone(t *testing.T) {
	echo := newEcho(t)
	_, port, _ := net.SplitHostPort(echo)
	h := newHouse(t, houseOptions{role: map[string]string{"forward": "localhost:" + port, "listen": "localhost:*"}})
	local := filepath.Join(t.TempDir(), "local")
	cmd := with(h.client("alice", "ssh", "web-1@127.0.0.1"), "-N", "-L", local+":localhost:"+port, "-R", "localhost:0:localhost:"+port)
	said := &heard{}
	cmd.Stderr = said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	eventually(t, "both are open", func() bool {
		_, err := os.Stat(local)
		return err == nil && strings.Contains(said.String(), "Allocated port")
	})
	var remote int
	if _, err := fmt.Sscanf(said.String()[strings.Index(said.String(), "Allocated port"):], "Allocated port %d", &remote); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	for network, address := range map[string]string{"unix": local, "tcp": fmt.Sprintf("127.0.0.1:%d", remote)} {
		conn, err := net.Dial(network, address)
		if err != nil {
			t.Fatal(err)
		}
		roundTrip(t, conn)
	}
	cmd = with(h.client("alice", "ssh", "web-1@127.0.0.1"), "-W", "localhost:"+port)
	cmd.Stdin = strings.NewReader("through\n")
	if r := h.run(cmd); r.out != "through\n" || r.code != 0 {
		t.Errorf("-W: got %+v", r)
	}
	if r := h.run(with(h.client("alice", "ssh", "web-1@127.0.0.1"), "-W", "localhost:1")); r.code == 0 || r.out != "" {
		t.Errorf("-W elsewhere: got %+v", r)
	}
	if r := h.ssh("id"); r.code != 1 || !strings.Contains(r.err, "runs no commands here") {
		t.Errorf("a command: got %+v", r)
	}
}

// TestSubsystems are given by name.
func TestSubsystems(t *testing.T) {
	h := newHouse(t, houseOptions{role: map[string]string{"subsystems": "twice"}, sshd: []string{"Subsystem twice /bin/sed p", "Subsystem thrice /bin/cat"}})
	cmd := with(h.client("alice", "ssh", "web-1@127.0.0.1", "twice"), "-s")
	cmd.Stdin = strings.NewReader("line\n")
	if r := h.run(cmd); r.out != "line\nline\n" || r.code != 0 {
		t.Errorf("got %+v", r)
	}
	if r := h.run(with(h.client("alice", "ssh", "web-1@127.0.0.1", "thrice"), "-s")); r.code != 1 || !strings.Contains(r.err, `does not give the subsystem "thrice"`) {
		t.Errorf("another: got %+v", r)
	}
	if r := h.sftp("ls /"); r.code == 0 || !strings.Contains(r.err, "moves no files") {
		t.Errorf("sftp: got %+v", r)
	}
}

// TestAgent is lent to the host where the role gives that, and each use is in
// the recording.
func TestAgent(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "agent")
	agent := exec.CommandContext(t.Context(), "ssh-agent", "-D", "-a", socket)
	if err := agent.Start(); err != nil {
		t.Skip(err)
	}
	defer func() { _ = agent.Process.Kill(); _ = agent.Wait() }()
	eventually(t, "the agent listens", func() bool { _, err := os.Stat(socket); return err == nil })
	signer, private := (&house{t: t}).newKey()
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, private, 0o600); err != nil {
		t.Fatal(err)
	}
	add := exec.CommandContext(t.Context(), "ssh-add", key)
	add.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for given, role := range map[bool]map[string]string{true: {"exec": "true", "agent": "true"}, false: {"exec": "true"}} {
		h := newHouse(t, houseOptions{role: role})
		cmd := with(h.client("alice", "ssh", "web-1@127.0.0.1", "ssh-add -L"), "-A")
		cmd.Env = append(cmd.Env, "SSH_AUTH_SOCK="+socket)
		r := h.run(cmd)
		listed := strings.Contains(r.out, strings.Fields(string(gossh.MarshalAuthorizedKey(signer.PublicKey())))[1])
		if listed != given || strings.Contains(h.events(), string(access.EventOpen)+" agent") != given {
			t.Errorf("given %v: got %+v\n%s", given, r, h.events())
		}
	}
}
