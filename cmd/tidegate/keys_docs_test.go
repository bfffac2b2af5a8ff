package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// docsConfig is the configuration that the guide's examples name.
const docsConfig = "/etc/tidegate/tidegate.hcl"

// keysGuide is docs/guides/keys.md with an installation behind its examples.
type keysGuide struct {
	text, config, dir string
	env               []string
}

func newKeysGuide(t *testing.T) *keysGuide {
	t.Helper()
	dir := t.TempDir()
	g := &keysGuide{text: string(contents(t, filepath.Join("..", "..", "docs", "guides", "keys.md"))), dir: filepath.Join(dir, "state", keysDir)}
	g.config = put(t, filepath.Join(dir, "tidegate.hcl"), fmt.Sprintf("installation = \"acme1\"\nstate_dir = %q\nledger { url_file = \"url\" }\n", filepath.Join(dir, "state")), 0o600)
	put(t, filepath.Join(dir, "url"), "sqlite:"+filepath.Join(dir, "ledger.db"), 0o600)
	names := append([]string{userCAKey}, gatewaySSHKeys...)
	if _, err := openLiveKeys(g.dir, time.Now, slog.New(slog.DiscardHandler), names...); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(binary(t), filepath.Join(bin, "tidegate")); err != nil {
		t.Fatal(err)
	}
	g.env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	return g
}

// blocks are the guide's fenced blocks of a language, about this installation.
func (g *keysGuide) blocks(t *testing.T, language string) (out []string) {
	t.Helper()
	for _, m := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(g.text, -1) {
		out = append(out, strings.ReplaceAll(m[1], docsConfig, g.config))
	}
	if len(out) == 0 {
		t.Fatalf("the guide has no block of %s", language)
	}
	return out
}

// run runs a program of the guide's, where it is installed.
func (g *keysGuide) run(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(g.env, "ANSIBLE_LOCALHOST_WARNING=False", "ANSIBLE_HOME="+t.TempDir(), "LC_ALL=C.UTF-8")
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s%s", name, args, err, out, said.String())
	}
	return out
}

// needs skips where a program is missing, or fails where parts are required.
func needs(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		if os.Getenv("TIDEGATE_REQUIRE_PARTS") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// TestKeysGuide runs what the guide tells to paste: the verbs, the playbook on
// this machine, and the program of Terraform's data source.
func TestKeysGuide(t *testing.T) {
	g := newKeysGuide(t)
	for _, script := range g.blocks(t, "sh") {
		g.run(t, "sh", "-euc", script)
	}
	printed := strings.TrimSpace(string(g.run(t, "tidegate", "keys", "print", "user-ca", "--config", g.config)))
	if strings.Count(printed, "ssh-ed25519 ") != 2 {
		t.Fatalf("after the guide's rotation want two lines, got\n%s", printed)
	}
	t.Run("known hosts", func(t *testing.T) {
		all := g.blocks(t, "sh")
		if out := string(g.run(t, "sh", "-euc", all[len(all)-1])); !strings.HasPrefix(out, "@cert-authority gate.acme.test ssh-ed25519 ") {
			t.Errorf("got %q", out)
		}
	})
	t.Run("ansible", func(t *testing.T) { g.ansible(t, printed) })
	t.Run("terraform", func(t *testing.T) { g.terraform(t, printed) })
}

func (g *keysGuide) ansible(t *testing.T, printed string) {
	needs(t, "ansible-playbook")
	dest := filepath.Join(t.TempDir(), "tidegate-user-ca.pub")
	play := g.blocks(t, "yaml")[0]
	for from, to := range map[string]string{"/etc/ssh/tidegate-user-ca.pub": dest, "tidegate.internal": "localhost"} {
		if !strings.Contains(play, from) {
			t.Fatalf("the playbook does not name %s", from)
		}
		play = strings.ReplaceAll(play, from, to)
	}
	path := put(t, filepath.Join(t.TempDir(), "play.yml"), play, 0o600)
	hosts := put(t, filepath.Join(t.TempDir(), "hosts"), "[ssh_targets]\nlocalhost ansible_connection=local ansible_python_interpreter=/usr/bin/python3\n", 0o600)
	g.run(t, "ansible-playbook", "-i", hosts, path)
	if is := string(contents(t, dest)); is != printed+"\n" {
		t.Errorf("the host has\n%swant\n%s", is, printed)
	}
}

// terraform reads the block as Terraform does, and keeps the protocol of the
// data source external: one object of strings on standard output.
func (g *keysGuide) terraform(t *testing.T, printed string) {
	needs(t, "jq")
	file, diags := hclsyntax.ParseConfig([]byte(g.blocks(t, "terraform")[0]), "main.tf", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	attr := file.Body.(*hclsyntax.Body).Blocks[0].Body.Attributes["program"]
	if attr == nil {
		t.Fatal("the data source has no program")
	}
	list, diags := attr.Expr.Value(nil)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	var program []string
	for _, word := range list.AsValueSlice() {
		program = append(program, word.AsString())
	}
	var result map[string]string
	if err := json.Unmarshal(g.run(t, program[0], program[1:]...), &result); err != nil {
		t.Fatalf("Terraform wants an object of strings: %v", err)
	}
	if result["user-ca"] != printed {
		t.Errorf("got %q, want %q", result["user-ca"], printed)
	}
}
