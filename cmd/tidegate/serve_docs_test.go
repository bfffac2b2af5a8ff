package main

import (
	"bytes"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// guideConfig is the block of a guide that begins so, with its files in dir.
func guideConfig(t *testing.T, guide, begins, dir string) string {
	t.Helper()
	text := string(contents(t, guide))
	m := regexp.MustCompile("(?s)```text\n(" + begins + ".*?)```").FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("%s has no block that begins with %s", guide, begins)
	}
	return strings.NewReplacer("/etc/tidegate", dir, "/var/lib/tidegate", filepath.Join(dir, "state")).Replace(m[1])
}

// guideFiles are what the guides' configurations name, as an operator makes them.
func guideFiles(t *testing.T, dir string) {
	t.Helper()
	t.Chdir(dir)
	configFiles(t, dir)
	for name, text := range map[string]string{
		"webhook-secret": "0123456789abcdef0123456789abcdef", "temporal-key": "key", "orders-admin": "password", "console-secret": "secret",
		"ledger-url": "postgres://tidegate@ledger.internal/tidegate?sslmode=verify-full", "otel-headers": "Authorization: Bearer x",
		"console.crt": string(contents(t, "gateway.crt")), "console.key": string(contents(t, "gateway.key")),
		"orders-ca.crt": string(contents(t, "ca.crt")),
	} {
		put(t, filepath.Join(dir, name), text, 0o600)
	}
}

// TestGuidesConfigure: who copies the guides' configurations and makes the
// files that they name has one that is right.
func TestGuidesConfigure(t *testing.T) {
	dir := t.TempDir()
	guides, err := filepath.Abs(filepath.Join("..", "..", "docs", "guides"))
	if err != nil {
		t.Fatal(err)
	}
	serveGuide, consoleGuide := filepath.Join(guides, "serve.md"), filepath.Join(guides, "console.md")
	guideFiles(t, dir)
	whole := guideConfig(t, serveGuide, `installation = "acme1"`, dir)
	issuer := regexp.MustCompile(`(?s)\nissuer "okta" \{.*?\n\}\n`).FindString(whole)
	console := guideConfig(t, consoleGuide, `console \{`, dir)
	consoleOut := regexp.MustCompile(`(?s)\nconsole \{.*?\n\}\n`)
	for name, text := range map[string]string{
		"serve.md":   whole,
		"console.md": consoleOut.ReplaceAllString(strings.Replace(whole, issuer, "", 1), "\n") + console,
		"apart":      strings.Replace(guideConfig(t, serveGuide, `parts        = \["gateway"\]`, dir), `issuer "okta" { … }`, issuer, 1),
	} {
		t.Run(name, func(t *testing.T) {
			path := put(t, filepath.Join(dir, name+".hcl"), text, 0o600)
			var out bytes.Buffer
			code := run(t.Context(), []string{"serve", "--config", path, "--check"}, stdio{out: &out, err: &out})
			if code != exitOK || strings.Contains(out.String(), "warning") {
				t.Errorf("code %d:\n%s\n%s", code, out.String(), text)
			}
		})
	}
}
