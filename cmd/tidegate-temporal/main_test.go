package main

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

const (
	mainEnv   = "TIDEGATE_TEMPORAL_TEST_MAIN"
	testLimit = 60 * time.Second
)

// TestMain lets the test binary be the program: what kills and signals do to a
// process can only be seen from outside.
func TestMain(m *testing.M) {
	if os.Getenv(mainEnv) == "1" {
		main()
		return
	}
	os.Exit(m.Run())
}

// process is the program as a child.
type process struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stderr *bytes.Buffer // read after exited
	line   ready
	exited chan error
}

func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*testLimit)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), mainEnv+"=1")
	return cmd
}

func start(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{cmd: command(t, append([]string{"--json", "--parent-pipe"}, args...)...), stderr: new(bytes.Buffer), exited: make(chan error, 1)}
	p.cmd.Stderr = p.stderr
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.cmd.Process.Kill(); p.stdin.Close() })
	reader := bufio.NewReader(stdout)
	text, err := reader.ReadBytes('\n')
	if err != nil {
		t.Fatalf("read ready line: %v, exit: %v\n%s", err, p.cmd.Wait(), p.stderr)
	}
	if err := json.Unmarshal(text, &p.line); err != nil {
		t.Fatalf("decode ready line %q: %v", text, err)
	}
	go func() {
		rest, _ := io.ReadAll(reader)
		err := p.cmd.Wait()
		if len(rest) > 0 {
			err = errors.Join(err, fmt.Errorf("standard output had more than one line: %q", rest))
		}
		p.exited <- err
	}()
	return p
}

func (p *process) await(t *testing.T) error {
	t.Helper()
	select {
	case err := <-p.exited:
		return err
	case <-time.After(testLimit):
		t.Fatalf("process %d did not end", p.cmd.Process.Pid)
		return nil
	}
}

func (p *process) dial(t *testing.T) client.Client {
	t.Helper()
	c, err := client.Dial(client.Options{HostPort: p.line.Address, Namespace: p.line.Namespace})
	if err != nil {
		t.Fatalf("dial %s: %v", p.line.Address, err)
	}
	t.Cleanup(c.Close)
	return c
}

func nap(ctx workflow.Context, d time.Duration) error { return workflow.Sleep(ctx, d) }

func startWorker(t *testing.T, c client.Client) {
	t.Helper()
	w := worker.New(c, "nap", worker.Options{})
	w.RegisterWorkflow(nap)
	if err := w.Start(); err != nil {
		t.Fatalf("start worker: %v", err)
	}
	t.Cleanup(w.Stop)
}

func TestRunsTimerInMemory(t *testing.T) {
	t.Parallel()
	p := start(t, "--namespace", "elsewhere")
	if p.line.PID != p.cmd.Process.Pid || p.line.Namespace != "elsewhere" || !strings.HasPrefix(p.line.Address, "127.0.0.1:") {
		t.Errorf("ready line is %+v, want pid %d, namespace elsewhere, on 127.0.0.1", p.line, p.cmd.Process.Pid)
	}
	c := p.dial(t)
	startWorker(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), testLimit)
	defer cancel()
	run, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{TaskQueue: "nap"}, nap, 100*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Get(ctx, nil); err != nil {
		t.Error(err)
	}
}

func TestKillKeepsWorkflow(t *testing.T) {
	t.Parallel()
	// A name that means something else to SQLite's URIs.
	dir := filepath.Join(t.TempDir(), "a b?c#d%41&e")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	db := filepath.Join(dir, "temporal.db")
	p := start(t, "--db", db)
	c := p.dial(t)
	ctx, cancel := context.WithTimeout(t.Context(), testLimit)
	defer cancel()
	run, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: "kept", TaskQueue: "nap"}, nap, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	p.await(t)
	if info, err := os.Stat(db); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the store is %v (%v), want it there for its owner only", info.Mode(), err)
	}

	p = start(t, "--db", db)
	c = p.dial(t)
	startWorker(t, c)
	if err := c.GetWorkflow(ctx, "kept", run.GetRunID()).Get(ctx, nil); err != nil {
		t.Errorf("the workflow after a kill: %v", err)
	}
}

func TestEndOfInputStops(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.stdin.Close()
	if err := p.await(t); err != nil {
		t.Errorf("got %v, want exit 0\n%s", err, p.stderr)
	}
	if conn, err := net.Dial("tcp", p.line.Address); err == nil {
		conn.Close()
		t.Errorf("something still listens at %s", p.line.Address)
	}
}

func TestInterruptStops(t *testing.T) {
	t.Parallel()
	p := start(t)
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := p.await(t); err != nil {
		t.Errorf("got %v, want exit 0\n%s", err, p.stderr)
	}
}

// refused runs the program, which must fail, and returns what it said.
func refused(t *testing.T, code int, args ...string) string {
	t.Helper()
	out, err := command(t, args...).CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != code {
		t.Fatalf("got %v, want exit code %d\n%s", err, code, out)
	}
	return string(out)
}

func expect(t *testing.T, said string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(said, word) {
			t.Errorf("got %q, want it to say %q", said, word)
		}
	}
}

func TestRefusesUsedPortAndUsedStore(t *testing.T) {
	t.Parallel()
	db := filepath.Join(t.TempDir(), "temporal.db")
	p := start(t, "--db", db)
	_, port, _ := net.SplitHostPort(p.line.Address)
	expect(t, refused(t, exitFailed, "--port", port), "port "+port, "in use", "--port")
	expect(t, refused(t, exitFailed, "--db", db), db, "another server")
}

func TestRefusesStoreThatIsNotOurs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage")
	if err := os.WriteFile(garbage, bytes.Repeat([]byte("no database "), 500), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, refused(t, exitFailed, "--db", garbage), "not a database")
	expect(t, refused(t, exitFailed, "--db", filepath.Join(dir, "absent", "t.db")), "does not exist")

	foreign := filepath.Join(dir, "foreign.db")
	execSQL(t, foreign, "CREATE TABLE grants (id TEXT)")
	expect(t, refused(t, exitFailed, "--db", foreign), "not made by tidegate-temporal")

	other := filepath.Join(dir, "other.db")
	if _, err := prepareStore(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	if _, err := prepareStore(t.Context(), other); err != nil {
		t.Errorf("open a store again: %v", err)
	}
	execSQL(t, other, "PRAGMA user_version = 7")
	expect(t, refused(t, exitFailed, "--db", other), "another schema")
}

func execSQL(t *testing.T, path, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(statement); err != nil {
		t.Fatal(err)
	}
}

// A schema that was not finished must leave a file that the next start can use.
func TestUnfinishedSchemaLeavesAnEmptyFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "temporal.db")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := prepareStore(ctx, path); !errors.Is(err, context.Canceled) {
		t.Fatalf("with a cancelled context: got %v", err)
	}
	if _, err := prepareStore(t.Context(), path); err != nil {
		t.Errorf("the next start: %v", err)
	}
}

func TestParseOptions(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		args string
		want string // part of the error; empty: accepted
	}{
		{"", ""},
		{"--host ::1 --port 7233 --db x.db --json --parent-pipe", ""},
		{"--host 127.9.9.9", ""},
		{"--host 0.0.0.0", "loopback"},
		{"--host 192.0.2.1", "loopback"},
		{"--host localhost", "loopback"},
		{"--host ::", "loopback"},
		{"--host=", "loopback"},
		{"--port -1", "0 to 65535"},
		{"--port 65536", "0 to 65535"},
		{"--namespace temporal-system", "--namespace"},
		{"--namespace a/b", "--namespace"},
		{"--host 0.0.0.0 --port -1 --namespace ?", "loopback|--port|--namespace"},
		{"serve", "unexpected argument"},
		{"--retention 1h", "not defined"},
	} {
		_, err := parseOptions(strings.Fields(tc.args), io.Discard)
		switch {
		case tc.want == "" && err != nil:
			t.Errorf("%q: %v", tc.args, err)
		case tc.want != "" && err == nil:
			t.Errorf("%q: accepted, want an error that says %q", tc.args, tc.want)
		case tc.want != "":
			expect(t, err.Error(), strings.Split(tc.want, "|")...)
		}
	}
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]int{"--host 0.0.0.0": exitUsage, "--help": exitOK} {
		if got := run(t.Context(), strings.Fields(args), stdio{in: strings.NewReader(""), out: io.Discard, err: io.Discard}); got != want {
			t.Errorf("%s: exit code %d, want %d", args, got, want)
		}
	}
}
