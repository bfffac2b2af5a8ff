package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tidegate/tidegate/policies"
)

// TestCheckReadsPlainFiles: who checks a stranger's pull request reads no file
// that it leads to, and neither all of one without an end nor waits for one.
func TestCheckReadsPlainFiles(t *testing.T) {
	for name, c := range map[string]struct {
		make func(path string) error
		say  string
	}{
		"a link to a secret": {func(path string) error {
			return os.Symlink(put(t, filepath.Join(t.TempDir(), "s"), "hunter2", 0o600), path)
		}, "a.hcl is no plain file"},
		"a link without an end":    {func(path string) error { return os.Symlink("/dev/zero", path) }, "a.hcl is no plain file"},
		"a pipe that nobody fills": {func(path string) error { return syscall.Mkfifo(path, 0o600) }, "a.hcl is no plain file"},
		"too large": {func(path string) error {
			return os.WriteFile(path, make([]byte, policies.MaxFileBytes+1), 0o600)
		}, "more than 65536 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "policies"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := c.make(filepath.Join(dir, "policies", "a.hcl")); err != nil {
				t.Fatal(err)
			}
			if s := cli(t, "", "check", dir); s.code != exitFailed || !strings.Contains(s.err, c.say) || strings.Contains(s.out+s.err, "hunter2") {
				t.Errorf("exit code %d, want %d and %q in %q", s.code, exitFailed, c.say, s.out+s.err)
			}
		})
	}
}
