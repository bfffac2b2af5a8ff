package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/access"
)

var update = flag.Bool("update", false, "write the golden files")

// put writes a file of a test's own.
func put(t *testing.T, path, text string, mode os.FileMode) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask is
		t.Fatal(err)
	}
	return path
}

// pemText is one block as text.
func pemText(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// configFiles fills the working folder with what the configurations name.
func configFiles(t *testing.T, dir string) {
	t.Helper()
	put(t, "secret", "0123456789abcdef0123456789abcdef\n", 0o600)
	put(t, "world-readable", "hunter2", 0o644)
	put(t, "empty", "\n", 0o600)
	put(t, "ledger-url", "postgres://tidegate:hunter2@ledger.internal/tidegate?sslmode=require", 0o600)
	put(t, "dev/dev.json", `{"mark": "tidegate-dev"}`, 0o600)
	put(t, "dev/keys/password", "hunter2", 0o600)
	app, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	put(t, "sqlite-url", "sqlite:/var/lib/tidegate-config-test/ledger.db", 0o600)
	enrolFiles(t)
	put(t, "app.pem", pemText("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(app)), 0o600)
	gatewayFiles(t, dir)
}

// enrolFiles enrols gateway-1 at a control side of the test's own, and leaves
// a second enrolment open to others.
func enrolFiles(t *testing.T) {
	t.Helper()
	keys, err := openControlKeys(filepath.Join("control-state", keysDir))
	if err != nil {
		t.Fatal(err)
	}
	g, err := openGateways("control-state", time.Now)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"gateway-1", "open-enrolment"} {
		if err := g.enrol(name, name, keys.control.Public().(ed25519.PublicKey)); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"control-state", filepath.Join("control-state", keysDir)} {
		if err := os.Chmod(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join("open-enrolment", enrolKey), 0o644); err != nil {
		t.Fatal(err)
	}
}

// gatewayFiles writes a gateway's certificate, key and CA.
func gatewayFiles(t *testing.T, dir string) {
	t.Helper()
	cert, caPEM := loopbackTLS(t, filepath.Join(dir, "test-ca"))
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "gateway.crt"), pemText("CERTIFICATE", cert.Certificate[0]), 0o644)
	put(t, filepath.Join(dir, "gateway.key"), pemText("PRIVATE KEY", key), 0o600)
	put(t, filepath.Join(dir, "ca.crt"), string(caPEM), 0o644)
}

// loopbackTLS is a certificate for this machine, with its CA, which stays in dir.
func loopbackTLS(t *testing.T, dir string) (*tls.Certificate, []byte) {
	t.Helper()
	live, err := openLiveKeys(dir, time.Now, slog.New(slog.DiscardHandler), tlsCAKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := (&ownTLS{keys: live}).certificate()
	if err != nil {
		t.Fatal(err)
	}
	return cert, contents(t, filepath.Join(dir, live.at(tlsCAKey).kind.public))
}

// TestConfigGolden holds every complaint about a configuration, with its place.
func TestConfigGolden(t *testing.T) {
	testdata, err := filepath.Abs("testdata/config")
	if err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(filepath.Join(testdata, "*.hcl"))
	if err != nil || len(names) < 5 {
		t.Fatalf("list configurations: %v, %d found", err, len(names))
	}
	dir := t.TempDir()
	t.Chdir(dir)
	configFiles(t, dir)
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			said := checkSaid(t, name, dir)
			golden := strings.TrimSuffix(name, ".hcl") + ".golden"
			if *update {
				put(t, golden, said, 0o644)
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), said); diff != "" {
				t.Errorf("what is said about %s (-want +got):\n%s", filepath.Base(name), diff)
			}
		})
	}
}

// checkSaid is what `serve --check` says of a configuration. No secret may be
// in it.
func checkSaid(t *testing.T, name, dir string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	path := put(t, filepath.Base(name), strings.ReplaceAll(string(text), "@DIR@", dir), 0o644)
	var out bytes.Buffer
	code := run(t.Context(), []string{"serve", "--config", path, "--check"}, stdio{out: &out, err: &out})
	said := strings.ReplaceAll(out.String(), dir, "@DIR@")
	if right := strings.Contains(said, " is right\n"); right != (code == exitOK) {
		t.Errorf("exit code %d with:\n%s", code, said)
	}
	if strings.Contains(said, "hunter2") {
		t.Errorf("a secret was said:\n%s", said)
	}
	return said
}

func TestSecretFileRefused(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "large"), strings.Repeat("x", maxSecret+1), 0o600)
	put(t, filepath.Join(dir, "group"), "x", 0o640)
	cases := []struct{ file, words string }{
		{"missing", "no such file"},
		{".", "not a regular file"},
		{"large", "more than"},
		{"group", "chmod 600 " + filepath.Join(dir, "group")},
	}
	for _, c := range cases {
		t.Run(c.file, func(t *testing.T) {
			s, err := readSecret(filepath.Join(dir, c.file))
			if err == nil || !strings.Contains(err.Error(), c.words) || !s.IsZero() {
				t.Errorf("want an error with %q, got %v", c.words, err)
			}
		})
	}
	path := put(t, filepath.Join(dir, "good"), " two words \r\n", 0o400)
	if s, err := readSecret(path); err != nil || s.Reveal() != " two words " {
		t.Errorf("want the secret without its line end, got %q, %v", s.Reveal(), err)
	}
}

// TestSecretStaysWithItsTargets: a policy names a secret; where it goes, the
// configuration says.
func TestSecretStaysWithItsTargets(t *testing.T) {
	password := put(t, filepath.Join(t.TempDir(), "password"), "hunter2", 0o600)
	l := logins{{Name: "orders-admin", User: "admin", PasswordFile: password, For: []string{"postgres db.internal:5432/orders"}}}
	target := func(kind, address, admin string) (t access.Target) {
		t.Kind, t.Address, t.Admin = kind, address, admin
		return t
	}
	login, err := l.find(t.Context(), target("postgres", "db.internal:5432/orders", "orders-admin"))
	if err != nil || login.User != "admin" || login.Password.Reveal() != "hunter2" {
		t.Errorf("want the login for its own target, got %v, %v", login, err)
	}
	for _, other := range []access.Target{
		target("postgres", "evil.example:5432/orders", "orders-admin"),
		target("postgres", "db.internal:5432/orders2", "orders-admin"),
		target("mysql", "db.internal:5432/orders", "orders-admin"),
		target("postgres", "db.internal:5432/orders", "other-admin"),
	} {
		if _, err := l.find(t.Context(), other); access.CodeOf(err) != access.CodeDenied {
			t.Errorf("%s %s with %s: want it denied, got %v", other.Kind, other.Address, other.Admin, err)
		}
	}
}

// TestMintersSecretIsNoSessions: a policy can't hand the minter's own login to
// people, nor mint with a login that sessions have.
func TestMintersSecretIsNoSessions(t *testing.T) {
	password := put(t, filepath.Join(t.TempDir(), "password"), "hunter2", 0o600)
	of := []string{"postgres db.internal:5432/orders"}
	l := logins{{Name: "minter", User: "admin", PasswordFile: password, For: of}, {Name: "shared", User: "app_ro", PasswordFile: password, For: of, Static: true}}
	at := access.Target{TargetRef: access.TargetRef{Kind: "postgres", Name: "orders"}, Address: "db.internal:5432/orders"}
	for _, c := range []struct {
		admin, static string
		code          access.Code
	}{{admin: "minter"}, {static: "shared"}, {static: "minter", code: access.CodeDenied}, {admin: "shared", code: access.CodeDenied}} {
		at.Admin, at.Static = c.admin, c.static
		if _, err := l.find(t.Context(), at); (err != nil || c.code != "") && access.CodeOf(err) != c.code {
			t.Errorf("admin %q, static %q: got %v, want code %q", c.admin, c.static, err, c.code)
		}
	}
}

func TestLedgerURL(t *testing.T) {
	for _, url := range []string{
		"postgres://tidegate@ledger.internal/tidegate?sslmode=verify-full",
		"postgres:///tidegate?host=/run/postgresql", "sqlite:/var/lib/tidegate/ledger.db",
	} {
		if err := ledgerURL(url); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
	for _, url := range []string{
		"postgres://u:hunter2@h/d", "postgres://u:hunter2@h/d?sslmode=disable", "postgres://u:hunter2@h/d?sslmode=prefer",
		"postgres://u:hunter2@h/d?sslmode=require", "postgres://u:hunter2@h/d?sslmode=verify-ca",
		"postgres://u:hunter2@h:notaport/d", "mysql://u:hunter2@h/d", "sqlite:ledger.db", "hunter2",
	} {
		if err := ledgerURL(url); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: want it refused without its password, got %v", url, err)
		}
	}
}

func TestStateFolderRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	put(t, filepath.Join(dir, keysDir, "control.pem"), "x", 0o640)
	if err := os.Chmod(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	b := &block{decoder: &decoder{}}
	b.stateDir(value{text: dir}, parts{Control: true, Gateway: true})
	var said []string
	for _, d := range b.diags {
		said = append(said, d.Detail)
	}
	got := strings.Join(said, "\n")
	for _, want := range []string{"chmod 700 " + dir, "chmod 600 " + filepath.Join(dir, keysDir, "control.pem")} {
		if !strings.Contains(got, want) {
			t.Errorf("want %q in:\n%s", want, got)
		}
	}
}
