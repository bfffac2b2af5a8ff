package temporaltest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

const (
	queue     = "temporaltest"
	testLimit = 60 * time.Second
)

// napInput says what the test workflow does: a timer, then activities in a row.
type napInput struct {
	Sleep      time.Duration
	Activities int
}

// napResult is how late the timer fired, by the server's clock, and how many
// activities ran.
type napResult struct {
	Slept time.Duration
	Ran   int
}

func nap(ctx workflow.Context, in napInput) (napResult, error) {
	start := workflow.Now(ctx)
	if err := workflow.Sleep(ctx, in.Sleep); err != nil {
		return napResult{}, err
	}
	out := napResult{Slept: workflow.Now(ctx).Sub(start)}
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: 10 * time.Second})
	for range in.Activities {
		if err := workflow.ExecuteActivity(ctx, "touch").Get(ctx, nil); err != nil {
			return out, err
		}
		out.Ran++
	}
	return out, nil
}

func startWorker(t testing.TB, c client.Client) {
	t.Helper()
	w := worker.New(c, queue, worker.Options{WorkerStopTimeout: time.Second})
	w.RegisterWorkflowWithOptions(nap, workflow.RegisterOptions{Name: "nap"})
	w.RegisterActivityWithOptions(func(context.Context) error { return nil }, activity.RegisterOptions{Name: "touch"})
	if err := w.Start(); err != nil {
		t.Fatalf("start worker: %v", err)
	}
	t.Cleanup(w.Stop)
}

func startNap(t testing.TB, c client.Client, id string, in napInput) client.WorkflowRun {
	t.Helper()
	run, err := c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
		ID:                                       id,
		TaskQueue:                                queue,
		WorkflowIDConflictPolicy:                 enums.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
		WorkflowExecutionErrorWhenAlreadyStarted: true,
	}, "nap", in)
	if err != nil {
		t.Fatalf("start workflow %s: %v", id, err)
	}
	return run
}

func await(t testing.TB, run client.WorkflowRun) napResult {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testLimit)
	defer cancel()
	var out napResult
	if err := run.Get(ctx, &out); err != nil {
		t.Fatalf("await workflow %s: %v", run.GetID(), err)
	}
	return out
}

func TestTimerAndActivities(t *testing.T) {
	t.Parallel()
	s := Start(t, Options{InMemory: true})
	c := s.Client(t)
	startWorker(t, c)
	out := await(t, startNap(t, c, "nap", napInput{Sleep: 300 * time.Millisecond, Activities: 2}))
	if out.Ran != 2 || out.Slept < 300*time.Millisecond {
		t.Errorf("got %+v, want 2 activities after 300ms", out)
	}
}

// A timer that is due while nobody serves fires when the server is back, and a
// timer still to come is kept; both kill -9 and an orderly stop.
func TestRestartKeepsTimers(t *testing.T) {
	t.Parallel()
	s := Start(t, Options{})
	c := s.Client(t)
	startWorker(t, c)
	due := startNap(t, c, "due", napInput{Sleep: time.Second, Activities: 1})
	later := startNap(t, c, "later", napInput{Sleep: 6 * time.Second, Activities: 1})
	awaitTimer(t, c, due)
	awaitTimer(t, c, later)

	address, pid := s.Address, s.PID
	s.Kill(t)
	if conn, err := net.Dial("tcp", address); err == nil {
		conn.Close()
		t.Fatalf("something still listens at %s after Kill", address)
	}
	s.Restart(t)
	if s.Address != address || s.PID == pid {
		t.Errorf("restarted at %s with pid %d, want %s and a pid other than %d", s.Address, s.PID, address, pid)
	}
	if out := await(t, due); out.Ran != 1 || out.Slept < time.Second {
		t.Errorf("the workflow that was due: got %+v", out)
	}
	s.Restart(t)
	if out := await(t, later); out.Ran != 1 || out.Slept < 6*time.Second {
		t.Errorf("the workflow due later: got %+v", out)
	}
}

// awaitTimer returns when the run's history has its timer, so that a kill
// cannot come before it.
func awaitTimer(t testing.TB, c client.Client, run client.WorkflowRun) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testLimit)
	defer cancel()
	history := c.GetWorkflowHistory(ctx, run.GetID(), run.GetRunID(), true, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for history.HasNext() {
		event, err := history.Next()
		if err != nil {
			t.Fatalf("read history of %s: %v", run.GetID(), err)
		}
		if event.GetEventType() == enums.EVENT_TYPE_TIMER_STARTED {
			return
		}
	}
	t.Fatalf("history of %s ended without a timer", run.GetID())
}

func TestSecondServerOnOneStoreIsRefused(t *testing.T) {
	t.Parallel()
	s := Start(t, Options{})
	_, _, err := startChild(s.binary, []string{"--json", "--parent-pipe", "--db", s.opts.DB})
	if err == nil || !strings.Contains(err.Error(), "another server") {
		t.Fatalf("second server on the same store: got %v, want it refused with the reason", err)
	}
}

func TestFindBinary(t *testing.T) {
	t.Run("named and missing", func(t *testing.T) {
		t.Setenv(BinEnv, filepath.Join(t.TempDir(), "absent"))
		if path, err := findBinary(); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), BinEnv) {
			t.Errorf("got %q, %v, want an error that names %s", path, err, BinEnv)
		}
	})
	t.Run("past a nested module", func(t *testing.T) {
		t.Setenv(BinEnv, "")
		root := t.TempDir()
		nested := filepath.Join(root, "cmd", "tidegate-temporal")
		write(t, filepath.Join(root, "go.mod"), rootModule)
		write(t, filepath.Join(nested, "go.mod"), strings.TrimSpace(rootModule)+"/cmd/tidegate-temporal\n")
		t.Chdir(nested)
		if path, err := findBinary(); err == nil || !strings.Contains(err.Error(), "make build") {
			t.Errorf("without the binary: got %q, %v, want an error that says how to build it", path, err)
		}
		want := filepath.Join(root, "bin", "tidegate-temporal"+exeSuffix)
		write(t, want, "")
		if path, err := findBinary(); err != nil || path != want {
			t.Errorf("got %q, %v, want %q", path, err, want)
		}
	})
	t.Run("outside", func(t *testing.T) {
		t.Setenv(BinEnv, "")
		t.Chdir(t.TempDir())
		if path, err := findBinary(); err == nil {
			t.Errorf("got %q, want an error", path)
		}
	})
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	var w tail
	for i := range 20_000 {
		fmt.Fprintf(&w, "line %d\n", i)
	}
	if s := w.String(); len(s) > tailSize || !strings.HasSuffix(s, "line 19999\n") {
		t.Errorf("kept %d bytes ending in %q", len(s), s[max(0, len(s)-20):])
	}
}

// BenchmarkActivities times a workflow from its start to its result, one after
// another. Six activities in a row are about what opening a grant needs.
//
//	go test -run '^$' -bench . -benchtime 200x ./workflows/temporaltest
func BenchmarkActivities(b *testing.B) {
	for _, n := range []int{1, 6} {
		b.Run(fmt.Sprint(n), func(b *testing.B) { benchmark(b, napInput{Activities: n}) })
	}
}

// BenchmarkTimer times how late a timer of 500 ms is.
func BenchmarkTimer(b *testing.B) {
	benchmark(b, napInput{Sleep: 500 * time.Millisecond})
}

func benchmark(b *testing.B, in napInput) {
	s := Start(b, Options{})
	c := s.Client(b)
	startWorker(b, c)
	await(b, startNap(b, c, "warm-up", napInput{Activities: 1}))
	took := make([]time.Duration, 0, b.N)
	b.ResetTimer()
	for i := range b.N {
		start := time.Now()
		await(b, startNap(b, c, fmt.Sprintf("run-%d", i), in))
		took = append(took, time.Since(start)-in.Sleep)
	}
	b.StopTimer()
	slices.Sort(took)
	for _, p := range []int{50, 99} {
		b.ReportMetric(float64(took[(len(took)-1)*p/100].Microseconds())/1000, fmt.Sprintf("p%d-ms", p))
	}
}
