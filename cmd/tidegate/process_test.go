package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"time"
)

// builtBinary builds the command once for all tests, with the race detector
// if they have it: then the compiled packages are those of the tests.
var builtBinary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "tidegate-binary-")
	if err != nil {
		return "", err
	}
	removeAtEnd = append(removeAtEnd, dir)
	path := filepath.Join(dir, "tidegate")
	args := []string{"build", "-o", path}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race")
	}
	out, err := exec.Command("go", append(args, ".")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build tidegate: %w\n%s", err, out)
	}
	return path, nil
})

var removeAtEnd []string

func TestMain(m *testing.M) {
	testscript.Main(tidyM{m}, map[string]func(){"tidegate": main}) // for the scripts, this binary is the command
}

// tidyM runs the tests and removes what they shared. Stories that mostly wait
// are parallel, so what the environment must hold is set before any of them.
type tidyM struct{ *testing.M }

func (m tidyM) Run() int {
	if os.Getenv("TIDEGATE_TEMPORAL_BIN") == "" {
		os.Setenv("TIDEGATE_TEMPORAL_BIN", "../../bin/tidegate-temporal")
	}
	code := m.M.Run()
	for _, dir := range removeAtEnd {
		os.RemoveAll(dir)
	}
	return code
}

// binary is the path of the built command.
func binary(t *testing.T) string {
	t.Helper()
	path, err := builtBinary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// process is a tidegate of its own.
type process struct {
	cmd   *exec.Cmd
	log   *words
	ended chan struct{} // closed with the process
}

// startProcess starts one and waits until it is ready.
func startProcess(t *testing.T, config string) *process {
	t.Helper()
	p := launchProcess(t, config)
	err := eventually(t.Context(), startTimeout, func() (bool, error) {
		select {
		case <-p.ended:
			return false, fmt.Errorf("it ended with %d", p.cmd.ProcessState.ExitCode())
		default:
			return strings.Contains(p.log.String(), "msg=ready"), nil
		}
	})
	if err != nil {
		t.Fatalf("start %s: %v\n%s", filepath.Base(config), err, p.log)
	}
	return p
}

// launchProcess starts one, which ends with the test at the latest.
func launchProcess(t *testing.T, config string) *process {
	t.Helper()
	return launch(t, filepath.Base(config), "serve", "--config", config)
}

func launch(t *testing.T, name string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(binary(t), args...), log: &words{}, ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.SysProcAttr = p.log, p.log, childAttr()
	p.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TIDEGATE_TEMPORAL_BIN=" + os.Getenv("TIDEGATE_TEMPORAL_BIN")}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // its state says how it ended
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("the log of %s:\n%s", name, p.log)
		}
	})
	return p
}

// stop ends the process in order, and answers with its exit code.
func (p *process) stop(t *testing.T) int {
	t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	return p.wait(t, 30*time.Second)
}

func (p *process) wait(t *testing.T, limit time.Duration) int {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(limit):
		p.kill()
		t.Errorf("the process did not end within %s:\n%s", limit, p.log)
	}
	return p.cmd.ProcessState.ExitCode()
}

// kill ends the process as a crash does.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended by itself
	<-p.ended
}

// tool runs the built command to its end.
func tool(t *testing.T, args ...string) (code int, said string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary(t), args...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}
