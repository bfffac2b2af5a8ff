// Package temporaltest gives a test a real Temporal server.
//
// The time-skipping environment of Temporal's SDK runs workflow code without a
// server: fast, and blind to what only a server does, such as keeping a timer
// while nobody runs, or delivering an activity twice. This package starts the
// server that `tidegate dev` uses (cmd/tidegate-temporal) as a child process,
// so that a test can kill it in the middle and bring it back on the same store
// and port:
//
//	server := temporaltest.Start(t, temporaltest.Options{})
//	c := server.Client(t)
//	// … start workflows …
//	server.Kill(t)
//	server.Restart(t) // clients and workers reconnect by themselves
//
// Everything ends with the test, and with the test process should that be
// killed.
package temporaltest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"
)

const (
	// BinEnv names the server's binary, when it is not bin/tidegate-temporal.
	BinEnv = "TIDEGATE_TEMPORAL_BIN"
	// RequireEnv, set to 1, makes a missing part a failure: a laptop may lack
	// it, continuous integration may not.
	RequireEnv = "TIDEGATE_REQUIRE_PARTS"

	startTimeout = 60 * time.Second
	stopTimeout  = 20 * time.Second
	dialTimeout  = 20 * time.Second
)

// Options say how the server is started. The zero value is a store in the
// test's own folder, which survives Kill and Restart.
type Options struct {
	DB        string       // SQLite file; default: one in t.TempDir()
	InMemory  bool         // no file: faster, and forgotten at the end
	Namespace string       // default "tidegate"
	Logger    *slog.Logger // what clients say; default: nothing
}

// Server is a running server. Its methods are for the test's own goroutine.
type Server struct {
	Address   string // host:port of the frontend, the same after Restart
	Namespace string
	PID       int

	binary string
	opts   Options
	child  *child
}

// Start starts a server that ends with the test. Without the binary the test is
// skipped, or failed where RequireEnv is 1.
func Start(t testing.TB, opts Options) *Server {
	t.Helper()
	binary, err := findBinary()
	if err != nil {
		if os.Getenv(RequireEnv) == "1" {
			t.Fatalf("find Temporal server: %v", err)
		}
		t.Skipf("find Temporal server: %v", err)
	}
	if opts.DB == "" && !opts.InMemory {
		opts.DB = filepath.Join(t.TempDir(), "temporal.db")
	}
	if opts.Namespace == "" {
		opts.Namespace = "tidegate"
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{binary: binary, opts: opts}
	t.Cleanup(func() { s.cleanup(t) })
	s.launch(t, "0")
	return s
}

// Client connects to the server; the connection ends with the test and
// outlives Kill and Restart.
func (s *Server) Client(t testing.TB) client.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), dialTimeout)
	defer cancel()
	c, err := client.DialContext(ctx, client.Options{
		HostPort:  s.Address,
		Namespace: s.Namespace,
		Logger:    sdklog.NewStructuredLogger(s.opts.Logger),
	})
	if err != nil {
		t.Fatalf("connect to Temporal at %s: %v", s.Address, err)
	}
	t.Cleanup(c.Close)
	return c
}

// Kill ends the server with SIGKILL, as a crash would.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	if s.child == nil {
		t.Fatal("kill Temporal: it does not run")
	}
	s.child.kill()
	if !s.child.wait(stopTimeout) {
		t.Fatalf("kill Temporal: process %d is still there after %s", s.PID, stopTimeout)
	}
	s.child = nil
}

// Stop ends the server as its parent's death would: its standard input ends.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
}

// Restart starts the server again on the same store and port, stopping it
// first if it runs.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	if s.opts.InMemory {
		t.Fatal("restart Temporal: a server in memory has nothing to come back to: leave Options.InMemory out")
	}
	s.Stop(t)
	_, port, _ := strings.Cut(s.Address, ":")
	s.launch(t, port)
}

func (s *Server) launch(t testing.TB, port string) {
	t.Helper()
	args := []string{"--json", "--parent-pipe", "--port", port, "--namespace", s.opts.Namespace}
	if !s.opts.InMemory {
		args = append(args, "--db", s.opts.DB)
	}
	c, line, err := startChild(s.binary, args)
	if err != nil {
		t.Fatalf("start Temporal: %v", err)
	}
	s.child, s.Address, s.Namespace, s.PID = c, line.Address, line.Namespace, line.PID
}

func (s *Server) stop() error {
	c := s.child
	if c == nil {
		return nil
	}
	s.child = nil
	c.closeStdin()
	if c.wait(stopTimeout) {
		return c.failure()
	}
	c.kill()
	c.wait(stopTimeout)
	return fmt.Errorf("stop Temporal: it did not end within %s of its standard input\n%s", stopTimeout, c.stderr)
}

func (s *Server) cleanup(t testing.TB) {
	if c := s.child; c != nil && t.Failed() {
		t.Logf("Temporal said:\n%s", c.stderr)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
}

// findBinary looks at BinEnv, then at bin/ beside the root go.mod.
func findBinary() (string, error) {
	if path := os.Getenv(BinEnv); path != "" {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("%s: %w", BinEnv, err)
		}
		return filepath.Abs(path)
	}
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	path := filepath.Join(root, "bin", "tidegate-temporal"+exeSuffix)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%w: `make build` makes it", err)
	}
	return path, nil
}

const rootModule = "module github.com/tidegate/tidegate\n"

// moduleRoot walks up to the go.mod of the root module, past nested ones.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find module root: %w", err)
	}
	for {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.Contains(strings.ReplaceAll(string(text), "\r\n", "\n"), rootModule) {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("find module root: no go.mod of github.com/tidegate/tidegate above the working directory: set " + BinEnv)
		}
		dir = parent
	}
}
