package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/access"
)

// TestPlan plans the working tree of a clone whose main has moved on.
func TestPlan(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../../policies/example/repo")); err != nil {
		t.Fatal(err)
	}
	git := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=alice", "-c", "user.email=alice@acme.test"}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v\n%s", args[0], err, out)
		}
	}
	write := func(path, text string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o755), os.WriteFile(filepath.Join(dir, path), []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	says := func(code int, words ...string) {
		t.Helper()
		got, out := call(t, "", "plan", "--dir", dir)
		for _, w := range words {
			if got != code || !strings.Contains(out, w) {
				t.Errorf("code %d, want %d and %q:\n%s", got, code, w, out)
			}
		}
	}
	git("init", "-q", "-b", "main")
	git("add", ".")
	git("commit", "-q", "-m", "Policies")
	says(exitOK, "nothing changes")
	git("checkout", "-q", "-b", "work")
	git("checkout", "-q", "main")
	write("grants/bob/inc-9.hcl", grantFile("inc-9", "bob", "readonly", "30m"))
	git("add", ".")
	git("commit", "-q", "-m", "Somebody else's")
	git("checkout", "-q", "work")
	says(exitOK, "nothing changes") // main's newer grant is not "removed" here
	write("grants/alice/inc-1.hcl", grantFile("inc-1", "alice", "operator", "45m"))
	says(exitOK, "added inc-1", "who    alice", "operator on postgres.orders-prod", "45m0s from the merge",
		"mask   emails", "hold if", "needs  1 of team(\"acme/data-owners\")")
	code, out := call(t, "", "plan", "--dir", dir, "--json", "--base", "main")
	if code != exitOK || !strings.Contains(out, `"kind":"added"`) || !strings.Contains(out, `"plans":{"inc-1"`) {
		t.Errorf("code %d: %s", code, out)
	}
	write("grants/alice/inc-1.hcl", grantFile("inc-1", "alice", "operator", "5h"))
	says(exitFailed, "grants/alice/inc-1.hcl:")
	write("grants/alice/inc-1.hcl", "grant {")
	says(exitFailed, "grants/alice/inc-1.hcl:")
	if err := os.RemoveAll(filepath.Join(dir, "grants")); err != nil {
		t.Fatal(err)
	}
	write("policies/more.hcl", "person \"dave\" { identity = oidc(\"dev\", \"dave@acme.test\") }\n")
	says(exitOK, "policies change", "acme/dba", "the server's policy owners")
	write("policies/people.hcl", "")
	says(exitFailed, "a data owner is asked")
	if code, out := call(t, "", "plan", "--dir", dir, "--base", "--output=x"); code != exitFailed || !strings.Contains(out, "find the base") {
		t.Errorf("a base that is an option: code %d: %s", code, out)
	}
}

// TestPlanSaysAllThatARuleDoes: a rule that only limits was told as "deny if"
// with nothing behind it.
func TestPlanSaysAllThatARuleDoes(t *testing.T) {
	for want, r := range map[string]access.Rule{
		"deny if statement.ddl":                       {Deny: "statement.ddl"},
		"hold if statement.writes":                    {Hold: "statement.writes"},
		"deny if statement.ddl; at most 10 rows":      {Deny: "statement.ddl", LimitRows: 10},
		"at most 30s if a; record results if a":       {When: "a", LimitTime: 30, Record: access.RecordResults},
		"deny if a; hold if b; at most 5 rows if a.b": {Deny: "a", Hold: "b", When: "a.b", LimitRows: 5},
	} {
		if got := strings.Join(ruleWords(r), "; "); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
