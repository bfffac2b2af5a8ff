package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/ssh/sshtest"
)

// startHost starts the SSH target, which trusts nobody yet: see trust.
func (w *serveWorld) startHost(t *testing.T) {
	t.Helper()
	_, nobody, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := gossh.NewSignerFromKey(nobody)
	if err != nil {
		t.Fatal(err)
	}
	w.host, err = sshtest.Run(t.Context(), sshtest.Options{UserCA: ca.PublicKey(), Dir: filepath.Join(w.outside, "sshd")})
	if errors.Is(err, sshtest.ErrMissing) && os.Getenv("TIDEGATE_REQUIRE_PARTS") != "1" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.host.Close() })
}

// trust gives the host the CA that control made at its first start, as an
// operator does.
func (w *serveWorld) trust(t *testing.T) {
	t.Helper()
	put(t, filepath.Join(w.outside, "sshd", "user_ca.pub"), string(contents(t, w.made(t, userCAFile))), 0o600)
}

// made is a public key that a part made at its first start.
func (w *serveWorld) made(t *testing.T, name string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(w.folder(), "*state", keysDir, name))
	if err != nil || len(found) != 1 {
		t.Fatalf("want one %s, got %v, %v", name, found, err)
	}
	return found[0]
}

// sshWorld is alice with her login.
type sshWorld struct {
	*serveWorld
	dir string // of her login
}

// sshStory: a pull request opens a host to alice, who logs in with a code in a
// browser, and whose session ends with the grant. What is given happens while
// a session is open.
func (w *serveWorld) sshStory(t *testing.T, meanwhile ...func(*testing.T, *sshWorld)) {
	w.trust(t)
	number := w.open(t, asked{"web-1", "shell", "10m"})
	a := &sshWorld{w, filepath.Join(t.TempDir(), "login")}
	a.login(t)
	out := ""
	if err := eventually(t.Context(), 20*time.Second, func() (ok bool, err error) { // the gateway hears of it a moment after the ledger has it
		out = a.ssh(t.Context(), "web-1", "echo $((40+2))")
		return out == "42\n", nil
	}); err != nil {
		t.Fatalf("want alice let in, got %q: %v", out, err)
	}
	if log := w.host.LogText(); !regexp.MustCompile(`ID tidegate/serve1/\d+-web-1/`).MatchString(log) {
		t.Errorf("sshd's log does not lead back to the grant:\n%s", log)
	}
	a.bare(t)
	a.refresh(t)
	open := a.cat(t)
	for _, play := range meanwhile {
		play(t, a)
		open.echoes(t)
	}
	if err := w.say(t.Context(), "alice", number, "/tidegate revoke"); err != nil {
		t.Fatal(err)
	}
	open.ends(t, "Your grant web-1 is revoked", "/pull/")
	w.waitGrant(t, "web-1", access.StateRevoked) // closed and proved: its certificates have run out
	if out := a.ssh(t.Context(), "web-1", "id"); !strings.Contains(out, "has no active grant") || strings.Contains(out, "uid=") {
		t.Errorf("after the end: got %q", out)
	}
}

// login is alice's first, with a code that she types in a browser elsewhere.
func (a *sshWorld) login(t *testing.T) {
	t.Helper()
	ca := put(t, filepath.Join(a.folder(), "issuer-of-alice.crt"), string(a.oidc.caPEM), 0o644)
	said, code := &words{}, make(chan int, 1)
	go func() {
		code <- run(t.Context(), []string{"login", "--login-dir", a.dir, "--device", "--issuer", a.oidc.url, "--issuer-ca", ca, "--client-id", devAudience,
			"--gateway", a.ports["@SSH@"], "--host-ca", a.made(t, hostCAFile)}, stdio{out: said, err: said})
	}()
	a.browseTo(t, said, "alice")
	if got := <-code; got != exitOK || !strings.Contains(said.String(), "Logged in until") {
		t.Fatalf("login: exit code %d:\n%s", got, said)
	}
	a.onlyHers(t)
}

var deviceLink = regexp.MustCompile(`https://[^ ]+user_code=[A-Z-]+`)

// browseTo waits for the address that somebody is shown and logs in there.
func (w *serveWorld) browseTo(t *testing.T, said *words, who string) {
	t.Helper()
	if err := eventually(t.Context(), 20*time.Second, func() (bool, error) { return deviceLink.MatchString(said.String()), nil }); err != nil {
		t.Fatalf("want an address to log in at, got %q", said)
	}
	if err := w.oidc.browse(t.Context(), deviceLink.FindString(said.String()), who); err != nil {
		t.Fatal(err)
	}
}

// onlyHers: nobody else reads the files of the login.
func (a *sshWorld) onlyHers(t *testing.T) {
	t.Helper()
	for _, name := range []string{loginFile, sshKeyFile} {
		info, err := os.Stat(filepath.Join(a.dir, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want it for its owner alone", name, info, err)
		}
	}
}

// ssh runs OpenSSH with the login's configuration and answers with all it says.
func (a *sshWorld) ssh(ctx context.Context, args ...string) string {
	args = append([]string{"-F", filepath.Join(a.dir, sshConfigFile)}, args...)
	args[len(args)-2] += "@gate"
	cmd := exec.CommandContext(ctx, "ssh", args...)
	cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK=")
	out, _ := cmd.CombinedOutput() // what it says tells how it ended
	return string(out)
}

// refresh: the next login needs nobody, and the certificate is a new one.
func (a *sshWorld) refresh(t *testing.T) {
	t.Helper()
	cert, kept := filepath.Join(a.dir, sshKeyFile+"-cert.pub"), filepath.Join(a.dir, loginFile)
	before, tokens := contents(t, cert), contents(t, kept)
	if code, said := call(t, "", "login", "--login-dir", a.dir); code != exitOK || strings.Contains(said, "logging in again") {
		t.Fatalf("renew: exit code %d:\n%s", code, said)
	}
	if string(contents(t, cert)) == string(before) || string(contents(t, kept)) == string(tokens) {
		t.Error("neither certificate nor refresh token was renewed")
	}
	a.onlyHers(t)
	if out := a.ssh(t.Context(), "web-1", "echo again"); out != "again\n" {
		t.Errorf("with the new certificate: got %q", out)
	}
}

// bare is a client without any login: it is shown an address and a code.
func (a *sshWorld) bare(t *testing.T) {
	t.Helper()
	enter := put(t, filepath.Join(t.TempDir(), "enter"), "#!/bin/sh\necho\n", 0o700)
	cmd := exec.CommandContext(t.Context(), "ssh", "-F", filepath.Join(a.dir, sshConfigFile), "-o", "IdentityFile=none",
		"-o", "PreferredAuthentications=keyboard-interactive", "web-1@gate", "echo $((20+1))")
	said := &words{}
	cmd.Stdout, cmd.Stderr = said, said
	cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK=", "SSH_ASKPASS="+enter, "SSH_ASKPASS_REQUIRE=force", "DISPLAY=")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	a.browseTo(t, said, "alice")
	if err := cmd.Wait(); err != nil || !strings.HasSuffix(said.String(), "21\n") {
		t.Errorf("a bare client: %v, %q", err, said)
	}
}

// sshTalk is a cat at the host.
type sshTalk struct {
	in  *os.File
	out *words
	cmd *exec.Cmd
	n   int
}

func (a *sshWorld) cat(t *testing.T) *sshTalk {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	k := &sshTalk{in: write, out: &words{}, cmd: exec.CommandContext(t.Context(), "ssh", "-F", filepath.Join(a.dir, sshConfigFile), "web-1@gate", "cat")}
	k.cmd.Stdin, k.cmd.Stdout, k.cmd.Stderr = read, k.out, k.out
	if err := k.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read.Close()
	t.Cleanup(func() {
		write.Close()
		_ = k.cmd.Process.Kill() // it may have ended
		_ = k.cmd.Wait()         // its output says how
	})
	k.echoes(t)
	return k
}

func (k *sshTalk) echoes(t *testing.T) {
	t.Helper()
	k.n++
	line := strings.Repeat("x", k.n) + "!\n"
	if _, err := k.in.WriteString(line); err != nil {
		t.Fatal(err)
	}
	if err := eventually(t.Context(), 20*time.Second, func() (bool, error) { return strings.Contains(k.out.String(), line), nil }); err != nil {
		t.Fatalf("want %q back, got %q", line, k.out)
	}
}

// ends waits until the session is cut, and looks for its last words.
func (k *sshTalk) ends(t *testing.T, want ...string) {
	t.Helper()
	_ = k.cmd.Wait() // its output says how
	for _, w := range want {
		if !strings.Contains(k.out.String(), w) {
			t.Errorf("want %q in its last words, got %q", w, k.out)
		}
	}
}
