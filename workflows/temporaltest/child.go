package temporaltest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"time"
)

// child is one run of the server's process.
type child struct {
	cmd    *exec.Cmd
	stdin  *os.File // its other end is the child's: closing it says "stop"
	stderr *tail
	done   chan struct{} // closed when the process is gone
	err    error         // how it ended; read after done
}

// readyLine is what the server prints when it can serve.
type readyLine struct {
	Address   string `json:"address"`
	Namespace string `json:"namespace"`
	PID       int    `json:"pid"`
}

// startChild starts the server and waits for its line.
func startChild(binary string, args []string) (*child, readyLine, error) {
	stdinR, stdinW, err := os.Pipe()
	if err != nil {
		return nil, readyLine{}, fmt.Errorf("make pipe: %w", err)
	}
	stdoutR, stdoutW, err := os.Pipe()
	if err != nil {
		return nil, readyLine{}, errors.Join(fmt.Errorf("make pipe: %w", err), stdinR.Close(), stdinW.Close())
	}
	defer stdoutR.Close()

	c := &child{cmd: exec.Command(binary, args...), stdin: stdinW, stderr: &tail{}, done: make(chan struct{})}
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = stdinR, stdoutW, c.stderr
	c.cmd.SysProcAttr = childAttributes()
	err = c.spawn()
	// The child has its own copies now. Ours would keep its end from showing.
	_ = stdinR.Close()
	_ = stdoutW.Close()
	if err != nil {
		_ = stdinW.Close()
		return nil, readyLine{}, err
	}
	line, err := c.awaitLine(stdoutR)
	if err != nil {
		c.kill()
		c.wait(stopTimeout)
		return nil, readyLine{}, fmt.Errorf("%w\n%s", err, c.stderr)
	}
	return c, line, nil
}

// spawn starts the process from a thread that lives as long as it does: Linux
// sends the parent-death signal when the thread that forked ends, not when the
// process does.
func (c *child) spawn() error {
	started := make(chan error, 1)
	go func() {
		defer close(c.done)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := c.cmd.Start(); err != nil {
			started <- fmt.Errorf("start %s: %w", c.cmd.Path, err)
			return
		}
		started <- nil
		c.err = c.cmd.Wait()
	}()
	return <-started
}

func (c *child) awaitLine(stdout io.Reader) (readyLine, error) {
	// Killing the child ends the read, on every system.
	timer := time.AfterFunc(startTimeout, c.kill)
	defer timer.Stop()
	text, err := bufio.NewReader(io.LimitReader(stdout, 4096)).ReadBytes('\n')
	if err != nil {
		return readyLine{}, fmt.Errorf("wait up to %s for its line: %w", startTimeout, err)
	}
	var line readyLine
	if err := json.Unmarshal(text, &line); err != nil {
		return readyLine{}, fmt.Errorf("read its line %q: %w", text, err)
	}
	if line.Address == "" || line.PID != c.cmd.Process.Pid {
		return readyLine{}, fmt.Errorf("read its line %q: want an address, and pid %d", text, c.cmd.Process.Pid)
	}
	return line, nil
}

func (c *child) kill() { _ = c.cmd.Process.Kill() }

func (c *child) closeStdin() { _ = c.stdin.Close() }

// wait reports whether the process was gone in time.
func (c *child) wait(limit time.Duration) bool {
	select {
	case <-c.done:
		_ = c.stdin.Close()
		return true
	case <-time.After(limit):
		return false
	}
}

// failure says how a process that was asked to stop failed, if it did.
func (c *child) failure() error {
	if c.err == nil {
		return nil
	}
	return fmt.Errorf("stop Temporal: %w\n%s", c.err, c.stderr)
}

// tail keeps the last that was written.
type tail struct {
	mu   sync.Mutex
	text []byte
}

const tailSize = 64 << 10

func (w *tail) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = append(w.text, p...)
	if extra := len(w.text) - tailSize; extra > 0 {
		w.text = append(w.text[:0], w.text[extra:]...)
	}
	return len(p), nil
}

func (w *tail) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.text)
}
