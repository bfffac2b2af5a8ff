// Package sshtest runs a throwaway sshd on loopback that trusts one user CA:
// the host that `tidegate dev` gives access to, and that tests talk to. It
// runs as whoever starts it, and lets only that account in.
package sshtest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// ErrMissing says that there is no sshd.
var ErrMissing = errors.New("find sshd: none in PATH, /usr/sbin or /usr/local/sbin; install the openssh-server package")

// wait bounds start and stop.
const wait = 15 * time.Second

// Options say what host to run.
type Options struct {
	UserCA ssh.PublicKey // whose certificates it takes
	Dir    string        // keeps key and log; empty is a temporary one
	Port   int           // 0 is a free one
	Config []string      // more lines of sshd_config; the first value of a setting counts
}

// Server is a running sshd.
type Server struct {
	Address string // host:port
	Account string // the one that may log in
	HostKey string // as a policy pins it
	Log     string // path of its log

	dir  string
	temp bool
	cmd  *exec.Cmd
	done chan struct{}
}

// Find is the path of an sshd.
func Find() (string, error) {
	for _, path := range []string{"/usr/sbin/sshd", "/usr/local/sbin/sshd"} {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	if path, err := exec.LookPath("sshd"); err == nil {
		return filepath.Abs(path) // sshd wants to be started by its whole path
	}
	return "", ErrMissing
}

// Run starts a host.
func Run(ctx context.Context, o Options) (_ *Server, err error) {
	program, err := Find()
	if err != nil {
		return nil, err
	}
	who, err := user.Current()
	if err != nil {
		return nil, fmt.Errorf("start sshd: %w", err)
	}
	s := &Server{Account: who.Username, dir: o.Dir}
	if s.dir == "" {
		s.temp = true
		if s.dir, err = os.MkdirTemp("", "sshtest-"); err != nil {
			return nil, fmt.Errorf("start sshd: %w", err)
		}
	}
	defer func() {
		if err != nil && s.temp {
			err = errors.Join(err, os.RemoveAll(s.dir))
		}
	}()
	if err := s.prepare(o); err != nil {
		return nil, err
	}
	if err := s.launch(program); err != nil {
		return nil, err
	}
	if err := s.await(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// prepare writes host key, CA and configuration.
func (s *Server) prepare(o Options) error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("prepare sshd: %w", err)
	}
	if os.Getuid() == 0 { // sshd insists on it
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			return fmt.Errorf("prepare sshd: %w", err)
		}
	}
	if o.Port == 0 {
		port, err := freePort()
		if err != nil {
			return err
		}
		o.Port = port
	}
	s.Address, s.Log = net.JoinHostPort("127.0.0.1", strconv.Itoa(o.Port)), filepath.Join(s.dir, "sshd.log")
	signer, err := hostKey(filepath.Join(s.dir, "host_key"))
	if err != nil {
		return err
	}
	s.HostKey = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
	if err := os.WriteFile(filepath.Join(s.dir, "user_ca.pub"), ssh.MarshalAuthorizedKey(o.UserCA), 0o600); err != nil {
		return fmt.Errorf("prepare sshd: %w", err)
	}
	return os.WriteFile(filepath.Join(s.dir, "sshd_config"), s.config(o), 0o600)
}

func (s *Server) config(o Options) []byte {
	lines := slices.Clone(o.Config)
	if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, "Subsystem sftp ") }) { // it may not stand there twice
		lines = append(lines, "Subsystem sftp internal-sftp")
	}
	lines = append(lines,
		"ListenAddress 127.0.0.1", fmt.Sprintf("Port %d", o.Port), "HostKey "+filepath.Join(s.dir, "host_key"),
		"TrustedUserCAKeys "+filepath.Join(s.dir, "user_ca.pub"), "AllowUsers "+s.Account,
		"PasswordAuthentication no", "KbdInteractiveAuthentication no", "AuthorizedKeysFile none", "UsePAM no",
		"PermitRootLogin prohibit-password", "StrictModes no", "PidFile none", "LogLevel VERBOSE", "UseDNS no",
		"AllowTcpForwarding yes", "AllowAgentForwarding yes", "X11Forwarding yes", "PermitUserRC no", "PrintMotd no", "PrintLastLog no",
		"AcceptEnv LANG LC_*", "MaxStartups 500", "MaxSessions 300",
	)
	return []byte(strings.Join(lines, "\n") + "\n")
}

func hostKey(path string) (ssh.Signer, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("make host key: %w", err)
		}
		block, err := ssh.MarshalPrivateKey(key, "")
		if err != nil {
			return nil, fmt.Errorf("make host key: %w", err)
		}
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			return nil, fmt.Errorf("make host key: %w", err)
		}
		return ssh.NewSignerFromKey(key)
	}
	if err != nil {
		return nil, fmt.Errorf("read host key: %w", err)
	}
	return ssh.ParsePrivateKey(text)
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("choose a port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// launch starts sshd on a thread that lives as long as it does: the kernel's
// parent-death signal is sent when the starting thread ends.
func (s *Server) launch(program string) error {
	s.cmd = exec.Command(program, "-D", "-f", filepath.Join(s.dir, "sshd_config"), "-E", s.Log)
	s.cmd.SysProcAttr = dieWithParent()
	s.done = make(chan struct{})
	started := make(chan error, 1)
	go func() {
		defer close(s.done)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := s.cmd.Start()
		started <- err
		if err == nil {
			_ = s.cmd.Wait() // how it ended is in its log
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start sshd: %w", err)
	}
	return nil
}

// await waits until it greets.
func (s *Server) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		if greets(s.Address) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("start sshd: it does not answer; its log says: %s", s.LogText())
		case <-s.done:
			return fmt.Errorf("start sshd: it ended; its log says: %s", s.LogText())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func greets(address string) bool {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	line := make([]byte, 7)
	n, _ := conn.Read(line)
	return bytes.Equal(line[:n], []byte("SSH-2.0"))
}

// LogText is what sshd has logged so far.
func (s *Server) LogText() string {
	text, err := os.ReadFile(s.Log)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Close ends sshd. Connections that are open end with their clients.
func (s *Server) Close() error {
	select {
	case <-s.done:
	default:
		_ = s.cmd.Process.Kill() // it keeps nothing that a signal would save
		<-s.done
	}
	if s.temp {
		return os.RemoveAll(s.dir)
	}
	return nil
}
