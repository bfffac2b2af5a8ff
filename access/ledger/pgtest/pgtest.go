// Package pgtest runs a throwaway PostgreSQL: a fresh cluster in its own
// directory, on loopback, with scram-sha-256 passwords, gone when it is
// closed. Tests use Start; a program that needs a cluster for as long as it
// runs uses Run. With Options.Dir the cluster stays, and the next Run with that
// directory finds its data, password and certificates again.
//
// PostgreSQL refuses to run as root, so a root caller's cluster runs as the
// user postgres, or nobody where that does not exist.
package pgtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// ErrMissing says that no PostgreSQL programs were found.
var ErrMissing = errors.New("find PostgreSQL: no initdb in /usr/lib/postgresql/*/bin or PATH; install the postgresql package")

// Files beside the data directory.
const (
	passwordFile = "superuser-password"
	settingsFile = "pgtest.conf"
)

// wait bounds every start and every stop.
const wait = 30 * time.Second

// Options say what cluster to run. The zero value is the newest PostgreSQL
// installed, without TLS.
type Options struct {
	Version string            // major version: "15"; empty is the newest installed
	SSL     bool              // ssl=on, with a certificate of the cluster's own CA
	Config  map[string]string // more settings, as in postgresql.conf
	Dir     string            // use this directory, and keep it; empty is a temporary one
	Port    int               // 0 is a free one
}

// Server is a running cluster.
type Server struct {
	Dir   string // holds the data directory, the log and the certificates
	Port  int
	DSN   string // of the superuser, database postgres
	Log   string // path of the server's log
	CAPEM []byte // of the CA that signed the server's certificate, with SSL

	bin      string
	keep     bool // Dir outlives the server
	password string
	options  Options

	mu   sync.Mutex
	proc *process
}

// Run starts a cluster, and makes it first unless Options.Dir holds one. The
// caller closes it.
func Run(ctx context.Context, o Options) (*Server, error) {
	bin, err := programs(o.Version)
	if err != nil {
		return nil, err
	}
	dir, err := directory(o.Dir)
	if err != nil {
		return nil, err
	}
	s := &Server{Dir: dir, Log: filepath.Join(dir, "log"), bin: bin, keep: o.Dir != "", options: o}
	if err := s.setUp(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Server) setUp(ctx context.Context) error {
	if err := own(s.Dir); err != nil {
		return err
	}
	if err := s.initialize(ctx); err != nil {
		return err
	}
	if s.options.SSL {
		if err := s.certify(); err != nil {
			return err
		}
	}
	s.Port = s.options.Port
	if s.Port == 0 {
		port, err := freePort()
		if err != nil {
			return err
		}
		s.Port = port
	}
	s.DSN = s.dsn("postgres")
	if err := s.configure(); err != nil {
		return err
	}
	return s.start(ctx)
}

// Close ends the server. A temporary cluster is killed at once and removed; a
// kept one stops in order.
func (s *Server) Close() error {
	if s.keep {
		return s.Stop()
	}
	return errors.Join(s.Kill(), os.RemoveAll(s.Dir))
}

// Stop ends the server as an operator would: sessions end, nothing is lost.
func (s *Server) Stop() error { return s.end(syscall.SIGINT) }

// Kill ends the server with no chance to tidy up, as a crash does.
func (s *Server) Kill() error { return s.end(syscall.SIGKILL) }

// Restart starts the server again, on the same port and data, stopping it
// first if it runs.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.Stop(); err != nil {
		return err
	}
	return s.start(ctx)
}

func (s *Server) end(sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		return nil
	}
	err := s.proc.end(sig)
	s.proc = nil
	return err
}

// CreateDatabase makes an empty database and answers with the superuser's DSN for it.
func (s *Server) CreateDatabase(ctx context.Context) (string, error) {
	name := "db_" + strings.ToLower(rand.Text())
	conn, err := pgx.Connect(ctx, s.DSN)
	if err != nil {
		return "", fmt.Errorf("connect to cluster: %w", err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, "create database "+name); err != nil {
		return "", fmt.Errorf("create database: %w", err)
	}
	return s.dsn(name), nil
}

func (s *Server) dsn(database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword("postgres", s.password),
		Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port)), Path: database,
	}
	q := url.Values{"sslmode": {"disable"}, "connect_timeout": {"20"}}
	if s.options.SSL {
		q = url.Values{"sslmode": {"verify-full"}, "sslrootcert": {s.path("ca.pem")}, "connect_timeout": {"20"}}
	}
	u.RawQuery = q.Encode()
	return u.String()
}

func (s *Server) path(name string) string { return filepath.Join(s.Dir, name) }

// initialize runs initdb unless there is a cluster. The data directory gets
// its name only when it is whole, so an interrupted run is simply repeated.
func (s *Server) initialize(ctx context.Context) error {
	if err := s.readPassword(); err != nil {
		return err
	}
	if _, err := os.Stat(s.path("data")); err == nil {
		return nil
	}
	if err := os.RemoveAll(s.path("data.new")); err != nil {
		return fmt.Errorf("remove half a cluster: %w", err)
	}
	if err := s.initdb(ctx); err != nil {
		return err
	}
	f, err := os.OpenFile(s.path("data.new/postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("configure cluster: %w", err)
	}
	_, err = f.WriteString("\ninclude = '../" + settingsFile + "'\n")
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("configure cluster: %w", err)
	}
	return os.Rename(s.path("data.new"), s.path("data"))
}

// readPassword finds the superuser's password, or makes one.
func (s *Server) readPassword() error {
	b, err := os.ReadFile(s.path(passwordFile))
	if errors.Is(err, fs.ErrNotExist) {
		s.password = rand.Text()
		return s.write(passwordFile, []byte(s.password))
	}
	if err != nil {
		return fmt.Errorf("read the cluster's password: %w", err)
	}
	s.password = string(b)
	return nil
}

func (s *Server) initdb(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*wait)
	defer cancel()
	args := []string{"-D", s.path("data.new"), "-U", "postgres", "--pwfile", s.path(passwordFile),
		"--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"}
	if !s.keep {
		args = append(args, "--no-sync")
	}
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, "initdb"), args...)
	cmd.Dir = s.Dir
	attr, err := attributes()
	if err != nil {
		return err
	}
	cmd.SysProcAttr = attr
	out, err := run(cmd)
	if attr.Credential != nil && errors.Is(err, fs.ErrPermission) { // it did not even start there
		return fmt.Errorf("make cluster: got %s, a folder above which is closed to the user that PostgreSQL runs as for root; want one that everybody can enter, such as below /tmp", s.Dir)
	}
	if err != nil {
		return fmt.Errorf("run initdb: %w: %s", err, out)
	}
	return nil
}

// configure writes the settings that postgresql.conf includes at its end,
// where the last word on a setting counts.
func (s *Server) configure() error {
	settings := map[string]string{
		"listen_addresses": "127.0.0.1", "port": strconv.Itoa(s.Port), "unix_socket_directories": "",
		"password_encryption": "scram-sha-256", "fsync": "off", "shared_buffers": "16MB",
	}
	if s.keep {
		delete(settings, "fsync")
	}
	if s.options.SSL {
		maps.Copy(settings, map[string]string{
			"ssl": "on", "ssl_cert_file": s.path("server.pem"), "ssl_key_file": s.path("server.key"),
		})
	}
	maps.Copy(settings, s.options.Config)
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&b, "%s = '%s'\n", name, strings.ReplaceAll(settings[name], "'", "''"))
	}
	return s.write(settingsFile, []byte(b.String()))
}

func (s *Server) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		p, err := s.launch()
		if err != nil {
			return err
		}
		err = s.ready(ctx, p)
		if err == nil {
			s.mu.Lock()
			s.proc = p
			s.mu.Unlock()
			return nil
		}
		// After a kill the old backends hold the shared memory for a moment,
		// and a new server refuses until they are gone.
		if endErr := p.end(syscall.SIGKILL); endErr != nil || ctx.Err() != nil {
			return errors.Join(err, endErr)
		}
	}
}

func (s *Server) launch() (*process, error) {
	log, err := os.OpenFile(s.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open server log: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(s.bin, "postgres"), "-D", s.path("data"))
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.Dir, log, log
	attr, err := attributes()
	if err != nil {
		return nil, err
	}
	cmd.SysProcAttr = attr
	return launch(cmd)
}

// ready waits until the server answers, or p ends.
func (s *Server) ready(ctx context.Context, p *process) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := pgx.Connect(ctx, s.DSN)
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-p.done:
			return errors.Join(errors.New("start PostgreSQL: the server ended"), pause(ctx), s.tail())
		case <-ctx.Done():
			return fmt.Errorf("start PostgreSQL: no answer in time: %w", errors.Join(err, s.tail()))
		case <-tick.C:
		}
	}
}

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(200 * time.Millisecond):
		return nil
	}
}

// tail is the end of the server's log as an error.
func (s *Server) tail() error {
	b, err := os.ReadFile(s.Log)
	if err != nil {
		return err
	}
	return fmt.Errorf("the server's log ends: %s", b[max(0, len(b)-1000):])
}

func (s *Server) write(name string, data []byte) error {
	if err := os.WriteFile(s.path(name), data, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return own(s.path(name))
}

// directory makes the server's directory. It is given to PostgreSQL's user,
// so one that holds anything but a cluster of ours is refused.
func directory(name string) (string, error) {
	if name == "" {
		dir, err := os.MkdirTemp("", "pgtest-")
		if err != nil {
			return "", fmt.Errorf("make cluster directory: %w", err)
		}
		return dir, nil
	}
	dir, err := filepath.Abs(name)
	if err != nil {
		return "", fmt.Errorf("find cluster directory: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make cluster directory: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("read cluster directory: %w", err)
	}
	if _, err := os.Stat(filepath.Join(dir, passwordFile)); len(entries) > 0 && err != nil {
		return "", fmt.Errorf("use cluster directory %s: it is not empty and holds no cluster made here; name another", dir)
	}
	return dir, nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// programs finds the directory of initdb and postgres.
func programs(version string) (string, error) {
	if version == "" {
		version = "*"
	}
	found, err := filepath.Glob("/usr/lib/postgresql/" + version + "/bin/initdb")
	if err != nil {
		return "", fmt.Errorf("find PostgreSQL %q: %w", version, err)
	}
	if dir := fetched(version); len(found) == 0 && dir != "" {
		return dir, nil
	}
	if len(found) > 0 {
		newest := slices.MaxFunc(found, func(a, b string) int { return major(a) - major(b) })
		return filepath.Dir(newest), nil
	}
	if path, err := exec.LookPath("initdb"); err == nil && version == "*" {
		return filepath.Dir(path), nil
	}
	return "", ErrMissing
}

// fetched is where .ci/parts/postgres-versions.sh put a version, in a folder
// above the current one; empty if it did not.
func fetched(version string) string {
	dir, err := os.Getwd()
	for err == nil && version != "*" {
		bin := filepath.Join(dir, ".cache", "parts", "postgres-"+version, "native", "bin")
		if _, missing := os.Stat(filepath.Join(bin, "initdb")); missing == nil {
			return bin
		}
		if dir == filepath.Dir(dir) {
			break
		}
		dir = filepath.Dir(dir)
	}
	return ""
}

func major(initdb string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(initdb)))) // not a number: oldest
	return n
}
