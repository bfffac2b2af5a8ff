package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access/ledger"
	"github.com/tidegate/tidegate/gateway/ssh"
)

// turnLead is longer than a running part takes to see a rotation.
const turnLead = 2 * keysLook

// turnsKeys rotates the keys of SSH while the service runs and a session is
// open: nothing is restarted, and nobody is locked out but by a compromise.
func (w *serveWorld) turnsKeys(t *testing.T, a *sshWorld) {
	next := a.announcesUserCA(t) // the others turn in its lead
	t.Run("host CA and host key", func(t *testing.T) { a.turnsHostCA(t) })
	t.Run("the login CAs", func(t *testing.T) { a.turnsLoginCAs(t) })
	t.Run("the user CA", func(t *testing.T) { a.turnsUserCA(t, next) })
}

// keys runs the verb on the service.
func (a *sshWorld) keys(t *testing.T, args ...string) string {
	t.Helper()
	code, said := call(t, "", append([]string{"keys", "--config", a.config}, args...)...)
	if code != exitOK {
		t.Fatalf("keys %q: exit code %d:\n%s", args, code, said)
	}
	return said
}

// key is the line of a key that signs, or is next.
func (a *sshWorld) key(t *testing.T, name, state string) keyRow {
	t.Helper()
	rows := lines[keyRow](t, a.keys(t, "--json"))
	i := slices.IndexFunc(rows, func(r keyRow) bool { return r.Name == name && r.State == state })
	if i < 0 {
		t.Fatalf("no %s that is %s in %+v", name, state, rows)
	}
	return rows[i]
}

// turned waits until the next key of before signs.
func (a *sshWorld) turned(t *testing.T, name string, next keyRow) {
	t.Helper()
	if err := eventually(t.Context(), 10*turnLead, func() (bool, error) { return a.key(t, name, keySigns).ID == next.ID, nil }); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// announcesUserCA rotates it, and looks at what doctor says until hosts know
// the next one.
func (a *sshWorld) announcesUserCA(t *testing.T) (next keyRow) {
	t.Helper()
	a.keys(t, "rotate", userCAKey, "--lead", "20s") // doctor needs some of it
	next = a.key(t, userCAKey, keyNext)
	a.audited(t, userCAKey, next.ID+" signs from ")
	if code, said := call(t, "", "doctor", "--config", a.config); code != exitOK || !strings.Contains(said, "warn target ssh.web-1: it does not let "+a.host.Account+" in by one of the next user CA yet") {
		t.Errorf("doctor of a host that does not know the next CA: exit code %d:\n%s", code, said)
	}
	a.trust(t) // both lines are in the file at once
	return next
}

func (a *sshWorld) turnsUserCA(t *testing.T, next keyRow) {
	a.turned(t, userCAKey, next)
	line := strings.Split(strings.TrimSpace(a.keys(t, "print", userCAKey)), "\n")[0]
	key, _, _, _, err := gossh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	if out := a.ssh(t.Context(), "web-1", "echo turned"); out != "turned\n" {
		t.Errorf("after the user CA turned: %q", out)
	}
	if log := a.host.LogText(); !strings.Contains(log, "CA ED25519 "+gossh.FingerprintSHA256(key)) {
		t.Errorf("sshd saw no certificate of the new CA:\n%s", log)
	}
}

// audited: the audit log says who rotated a key.
func (a *sshWorld) audited(t *testing.T, name, detail string) {
	t.Helper()
	i, err := ofConfig(a.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := i.withLedger(t.Context(), func(l *ledger.Ledger) error {
		rows, _, err := l.AuditOf(t.Context(), []string{name})
		if err == nil && (len(rows) != 1 || rows[0].Action != "key.rotated" || rows[0].Actor != localUser() || !strings.HasPrefix(rows[0].Detail, detail)) {
			err = fmt.Errorf("got %+v", rows)
		}
		return err
	}); err != nil {
		t.Errorf("want who rotated %s in the audit log: %v", name, err)
	}
}

// trusts asks the gateway as one who knows these host CAs, with a login's
// certificate.
func (a *sshWorld) trusts(t *testing.T, dir string, lines string) ([]gossh.PublicKey, error) {
	t.Helper()
	signer, err := loginSigner(dir)
	if err != nil || signer == nil {
		t.Fatalf("no login in %s: %v", dir, err)
	}
	cas, err := parseHostCAs([]byte(lines))
	if err != nil {
		t.Fatal(err)
	}
	return ssh.Login{Address: a.ports["@SSH@"], HostCAs: cas, Signer: signer}.Trusted(t.Context())
}

func (a *sshWorld) turnsHostCA(t *testing.T) {
	before := string(contents(t, a.made(t, hostCAFile)))
	a.keys(t, "rotate", hostCAKey, "--lead", turnLead.String())
	a.keys(t, "rotate", hostKey, "--lead", turnLead.String())
	next := a.key(t, hostCAKey, keyNext)
	known := filepath.Join(a.dir, sshKnownHosts)
	if err := eventually(t.Context(), 10*turnLead, func() (bool, error) { // the gateway sees the rotation, and tells of it
		code, said := call(t, "", "ssh-config", "web-1", "--login-dir", a.dir)
		if code != exitOK || strings.Contains(said, "stays as it is") {
			return false, fmt.Errorf("ssh-config: exit code %d:\n%s", code, said)
		}
		return bytes.Count(contents(t, known), []byte("@cert-authority * ssh-ed25519 ")) == 2, nil
	}); err != nil {
		t.Fatal(err)
	}
	a.turned(t, hostCAKey, next)
	if out := a.ssh(t.Context(), "web-1", "echo turned"); out != "turned\n" {
		t.Errorf("after the host CA turned: %q", out)
	}
	if _, err := a.trusts(t, a.dir, before); err == nil || !strings.Contains(err.Error(), "--host-ca FILE") {
		t.Errorf("who knows the old one alone: %v, want it said what to do", err)
	}
	if cas, err := a.trusts(t, a.dir, a.keys(t, "print", hostCAKey)); err != nil || len(cas) != 2 {
		t.Errorf("who knows both is told of %d, %v", len(cas), err)
	}
	if code, said := call(t, "", "login", "--login-dir", a.dir); code != exitOK {
		t.Errorf("the next login: exit code %d:\n%s", code, said)
	}
}

func (a *sshWorld) turnsLoginCAs(t *testing.T) {
	login := func() {
		t.Helper()
		if code, said := call(t, "", "login", "--login-dir", a.dir, "--postgres", a.house.Postgres, "--postgres-ca", a.house.CA); code != exitOK {
			t.Fatalf("login: exit code %d:\n%s", code, said)
		}
	}
	login()
	old := t.TempDir()
	walk(t, a.dir, func(path string) { put(t, filepath.Join(old, filepath.Base(path)), string(contents(t, path)), 0o600) })
	hostCAs := a.keys(t, "print", hostCAKey)
	taken := func(dir string) (ssh, psql bool) {
		t.Helper()
		_, err := a.trusts(t, dir, hostCAs)
		return err == nil, a.psqlKnows(t, dir)
	}
	both := func(want bool, dir string) {
		t.Helper()
		if err := eventually(t.Context(), 10*keysLook, func() (bool, error) { s, p := taken(dir); return s == want && p == want, nil }); err != nil {
			s, p := taken(dir)
			t.Errorf("ssh takes the certificate: %v, psql's: %v; want %v", s, p, want)
		}
	}
	both(true, old)
	for _, name := range []string{loginCAKey, clientCAKey} {
		a.keys(t, "rotate", name)
	}
	newCA := func() bool {
		signer, err := loginSigner(a.dir)
		if err != nil {
			t.Fatal(err)
		}
		line, _, _ := strings.Cut(a.keys(t, "print", loginCAKey), "\n")
		return line == strings.TrimSpace(string(gossh.MarshalAuthorizedKey(signer.PublicKey().(*gossh.Certificate).SignatureKey)))
	}
	if err := eventually(t.Context(), 10*keysLook, func() (bool, error) { login(); return newCA(), nil }); err != nil {
		t.Fatalf("no certificate of the new login CA: %v", err)
	}
	both(true, old)
	both(true, a.dir)
	for _, name := range []string{loginCAKey, clientCAKey} {
		a.keys(t, "rotate", name, "--compromised")
	}
	both(false, old)
	both(false, a.dir)
	login()
	both(true, a.dir)
	if out := a.ssh(t.Context(), "web-1", "echo again"); out != "again\n" {
		t.Errorf("after the new login: %q", out)
	}
}

// psqlKnows asks by a login's client certificate. Alice has no grant there, and
// is told so when her certificate is taken.
func (a *sshWorld) psqlKnows(t *testing.T, dir string) bool {
	t.Helper()
	_, port, err := net.SplitHostPort(a.house.Postgres)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "psql", "-Xw", fmt.Sprintf("host=localhost hostaddr=127.0.0.1 port=%s dbname=orders-prod user=tidegate sslmode=verify-full sslrootcert=%s sslcert=%s sslkey=%s",
		port, a.house.CA, filepath.Join(dir, clientCertFile), filepath.Join(dir, clientKeyFile)), "-c", "select 1")
	cmd.Env = append(os.Environ(), "PGPASSFILE=/dev/null")
	out, _ := cmd.CombinedOutput() // what it says tells how it ended
	known, unknown := strings.Contains(string(out), "has no active grant"), strings.Contains(string(out), "certificate was not accepted")
	if known == unknown {
		t.Fatalf("psql says neither who it is nor that it is nobody: %s", out)
	}
	return known
}
