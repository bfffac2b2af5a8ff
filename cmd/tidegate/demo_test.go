package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/access/ledger"
)

// needParts skips on a machine without the programs that the story starts,
// and fails where they must be.
func needParts(t *testing.T) {
	t.Helper()
	var missing []string
	for _, program := range []string{"git", "psql"} {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, program)
		}
	}
	if bin := os.Getenv("TIDEGATE_TEMPORAL_BIN"); !isFile(bin) {
		missing = append(missing, "tidegate-temporal (make build)")
	}
	if len(missing) == 0 {
		return
	}
	if os.Getenv("TIDEGATE_REQUIRE_PARTS") == "1" {
		t.Fatalf("missing %v", missing)
	}
	t.Skipf("missing %v", missing)
}

// TestDemo plays the whole story on real parts.
func TestDemo(t *testing.T) {
	needParts(t)
	var out, errs bytes.Buffer
	code := run(t.Context(), []string{"demo"}, stdio{out: &out, err: &errs})
	t.Log(out.String())
	if code != exitOK || !strings.Contains(out.String(), "demo: 12 steps, 12 ok") {
		t.Fatalf("demo ended with %d: %s", code, errs.String())
	}
}

func TestCommandLine(t *testing.T) {
	cases := []struct {
		name  string
		args  []string
		code  int
		words string // on either output
	}{
		{"no verb shows help", nil, exitUsage, "tidegate demo"},
		{"unknown verb", []string{"open-sesame"}, exitUsage, `there is no "open-sesame"`},
		{"unknown flag", []string{"ls", "--colour"}, exitUsage, "usage: tidegate ls"},
		{"too much", []string{"version", "now"}, exitUsage, `got "now", want flags alone`},
		{"no recording named", []string{"verify"}, exitUsage, "want a session id or a file"},
		{"no ledger", []string{"ls", "--dir", t.TempDir()}, exitFailed, "there is none in"},
		{"a path as session id", []string{"replay", "--dir", t.TempDir(), "../../etc/passwd.tgr"}, exitFailed, "there is no file"},
		{"no session id", []string{"replay", "--dir", t.TempDir(), "a b"}, exitFailed, "is not a session id"},
		{"setup prints SQL", []string{"setup", "postgres", "--installation", "prod1", "--database", "orders"}, exitOK, "CREATEROLE"},
		{"setup of nothing", []string{"setup", "mysql"}, exitUsage, "want setup postgres"},
		{"setup with a bad id", []string{"setup", "postgres", "--installation", "x; DROP", "--database", "orders"}, exitUsage, "want an installation of"},
		{"version", []string{"version"}, exitOK, "tidegate "},
		{"the example is right", []string{"check", "../../policies/example/repo"}, exitOK, "0 failed"},
		{"no repository", []string{"check", t.TempDir()}, exitFailed, "no .hcl files"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			if code := run(t.Context(), c.args, stdio{out: &out, err: &out}); code != c.code {
				t.Errorf("exit code %d, want %d\n%s", code, c.code, out.String())
			}
			if !strings.Contains(out.String(), c.words) {
				t.Errorf("want %q in\n%s", c.words, out.String())
			}
		})
	}
}

// TestRelativeFolder: a relative --dir names the same folder as its absolute
// path, in URLs too.
func TestRelativeFolder(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if _, err := openDevState(filepath.Join(dir, "s")); err != nil {
		t.Fatal(err)
	}
	l, err := ledger.Open(t.Context(), ledger.Config{URL: "sqlite:" + filepath.Join(dir, "s", ledgerFile)})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"ls", "--dir", "s"}, {"sessions", "--dir=s"}} {
		var out bytes.Buffer
		if code := run(t.Context(), args, stdio{out: &out, err: &out}); code != exitOK {
			t.Errorf("%v: exit code %d\n%s", args, code, out.String())
		}
	}
}
