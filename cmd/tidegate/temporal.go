package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// temporalChild is the embedded Temporal server, running as our child.
type temporalChild struct {
	Address   string `json:"address"`
	Namespace string `json:"namespace"`

	cmd   *exec.Cmd
	stdin io.Closer // its end tells the child that we are gone
}

// startTemporal starts tidegate-temporal on a database file and a port, and
// waits until it serves.
func startTemporal(ctx context.Context, db string, port int, log io.Writer) (*temporalChild, error) {
	program, err := findTemporal()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, "--db", db, "--port", strconv.Itoa(port), "--json", "--parent-pipe")
	cmd.Stderr, cmd.SysProcAttr = log, childAttr()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start temporal: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start temporal: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start temporal: %w", err)
	}
	child := &temporalChild{cmd: cmd, stdin: stdin}
	if err := child.waitReady(ctx, stdout); err != nil {
		child.Close()
		return nil, err
	}
	return child, nil
}

func (c *temporalChild) waitReady(ctx context.Context, stdout io.Reader) error {
	line := make(chan error, 1)
	go func() { // ends with the line, or with the child's standard output
		text, err := bufio.NewReader(stdout).ReadBytes('\n')
		if err == nil {
			err = json.Unmarshal(text, c)
		}
		line <- err
	}()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	select {
	case err := <-line:
		if err != nil {
			return fmt.Errorf("start temporal: it ended before it was ready (its log is above): %w", err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("start temporal: not ready in time: %w", ctx.Err())
	}
}

// Close stops the child and waits for it.
func (c *temporalChild) Close() {
	_ = c.stdin.Close()
	_ = c.cmd.Process.Signal(os.Interrupt)
	kill := time.AfterFunc(10*time.Second, func() { _ = c.cmd.Process.Kill() })
	defer kill.Stop()
	_ = c.cmd.Wait() // its exit status says nothing that its log does not
}

// findTemporal looks beside our own binary, then on the PATH.
func findTemporal() (string, error) {
	const name = "tidegate-temporal"
	if path := os.Getenv("TIDEGATE_TEMPORAL_BIN"); path != "" {
		return path, nil
	}
	if self, err := os.Executable(); err == nil {
		if beside := filepath.Join(filepath.Dir(self), name); isFile(beside) {
			return beside, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("find %s: it is neither beside this binary nor on the PATH; `make build` makes it", name)
	}
	return path, nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}
