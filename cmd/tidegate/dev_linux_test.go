package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestDevIsKilled: what dev started ends with it, however it ends, and the
// next start finds everything where it was.
func TestDevIsKilled(t *testing.T) {
	needParts(t)
	dir := filepath.Join(openFolder(t), "state")
	p, first := startDevProcess(t, dir)
	children := offspring(t, p.cmd.Process.Pid)
	for _, want := range []string{"postgres", "tidegate-tempor"} { // as the kernel cuts names
		if !strings.Contains(fmt.Sprint(children), want) {
			t.Fatalf("want %s among the children of dev, got %v", want, children)
		}
	}
	p.kill()
	err := eventually(t.Context(), 20*time.Second, func() (bool, error) {
		for pid, name := range children {
			if alive(pid, name) {
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil {
		t.Errorf("want every child of a killed dev ended, got one of %v alive: %v", children, err)
	}
	p, second := startDevProcess(t, dir)
	if first != second {
		t.Errorf("the ports moved at a restart:\n%s\n%s", first, second)
	}
	if code := p.stop(t); code != exitOK {
		t.Errorf("exit code %d after SIGTERM, want %d", code, exitOK)
	}
}

// startDevProcess starts dev and answers with where everything is, but the
// tokens, which are new each time.
func startDevProcess(t *testing.T, dir string) (*process, string) {
	t.Helper()
	p := launch(t, "dev", "dev", "--dir", dir, "--json")
	var ready devReady
	err := eventually(t.Context(), startTimeout, func() (bool, error) {
		line, _, whole := strings.Cut(p.log.String(), "\n")
		select {
		case <-p.ended:
			return false, fmt.Errorf("it ended with %d", p.cmd.ProcessState.ExitCode())
		default:
		}
		if !whole {
			return false, nil
		}
		return true, json.Unmarshal([]byte(line), &ready)
	})
	if err != nil {
		t.Fatalf("start dev: %v\n%s\n%s", err, p.log, contents(t, filepath.Join(dir, "log")))
	}
	ready.Tokens, ready.HubTokens = nil, nil
	where, err := json.Marshal(ready)
	if err != nil {
		t.Fatal(err)
	}
	return p, string(where)
}

// offspring are the children of a process and theirs, by name.
func offspring(t *testing.T, of int) map[int]string {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	parents, names := map[int]int{}, map[int]string{}
	for _, path := range stats {
		if pid, parent, name, ok := stat(path); ok {
			parents[pid], names[pid] = parent, name
		}
	}
	found := map[int]string{}
	for pid := range parents {
		for at := parents[pid]; at > 1; at = parents[at] {
			if at == of {
				found[pid] = names[pid]
			}
		}
	}
	return found
}

// stat reads a process's line; one that ended meanwhile is not ok.
func stat(path string) (pid, parent int, name string, ok bool) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, "", false
	}
	begin, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if begin < 0 || end < begin {
		return 0, 0, "", false
	}
	state := ""
	_, err1 := fmt.Sscan(string(text[:begin]), &pid)
	_, err2 := fmt.Sscan(string(text[end+1:]), &state, &parent)
	return pid, parent, string(text[begin+1 : end]), err1 == nil && err2 == nil && state != "Z"
}

func alive(pid int, name string) bool {
	_, _, is, ok := stat(fmt.Sprintf("/proc/%d/stat", pid))
	return ok && is == name && syscall.Kill(pid, 0) == nil
}
