package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/oauth2"

	"github.com/tidegate/tidegate/gateway/ssh/sshtest"
)

// loggedIn has a person log in at a gateway, and answers with a psql that is
// told a service's name and nothing else.
func loggedIn(t *testing.T, d *demo, who, gateway, hostCA string) (psql func(service string) (string, error)) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "login of "+who)
	l := login{Gateway: gateway, HostCA: string(contents(t, hostCA))}
	if err := l.readPostgres(d.house.Postgres, d.house.CA); err != nil {
		t.Fatal(err)
	}
	var said []string
	token := (&oauth2.Token{}).WithExtra(map[string]any{"id_token": d.house.Tokens[who]})
	if err := l.keep(t.Context(), dir, token, func(text string) { said = append(said, text) }); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", strings.Join(said, "\n"))
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has the mode %v, %v; want 0600", f.Name(), info.Mode(), err)
		}
	}
	return func(service string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "psql", "-X", "-At", "-w", "service="+service)
		cmd.Env = append(os.Environ(), "PGSERVICEFILE="+filepath.Join(dir, serviceFile), "PGPASSFILE=/dev/null")
		cmd.Stdin = strings.NewReader("select 'hello '||'there';")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
}

// TestLoginService: who has logged in connects by the target's name alone. The
// certificate is no authorization: it opens what the grants do, and no longer.
func TestLoginService(t *testing.T) {
	t.Parallel()
	if _, err := sshtest.Find(); err != nil {
		t.Skip(err)
	}
	ctx, p := playHouse(t)
	psql := func(who string) func(string) (string, error) {
		return loggedIn(t, p.demo, who, p.house.SSH, p.house.SSHHostCA)
	}
	early := psql("alice")
	if out, err := early("orders-prod"); err == nil || !strings.Contains(out, `definition of service "orders-prod" not found`) {
		t.Errorf("before the grant: %v, %s", err, out)
	}
	p.open(ctx, t, asked{"inc-1", "operator", "10m"})
	alice := psql("alice")
	if out, err := alice("orders-prod"); err != nil || !strings.Contains(out, "hello there") {
		t.Errorf("alice: %v, %s", err, out)
	}
	p.open(ctx, t, asked{"inc-2", "readonly", "10m"})
	if out, err := alice("orders-prod"); err == nil || !strings.Contains(out, "orders-prod+inc-2") {
		t.Errorf("with two grants: %v, %s", err, out)
	}
	alice = psql("alice")
	if out, err := alice("orders-prod+inc-2"); err != nil || !strings.Contains(out, "hello there") {
		t.Errorf("the one grant of two: %v, %s", err, out)
	}
	if out, err := psql("mallory")("orders-prod"); err == nil || !strings.Contains(out, "not found") {
		t.Errorf("mallory: %v, %s", err, out)
	}
	for _, grant := range []string{"inc-1", "inc-2"} {
		if code, out := call(t, "", "revoke", grant, "--dir", p.dir); code != exitOK {
			t.Fatalf("revoke: code %d, %s", code, out)
		}
	}
	out, err := alice("orders-prod")
	told := strings.Contains(out, "no active grant") || strings.Contains(out, "it is revoked") // the ledger says so before the gateway has heard
	if err == nil || !told {
		t.Errorf("after the end: %v, %s", err, out)
	}
}

func TestLoginServiceFile(t *testing.T) {
	d := postgresDoor{Address: "gate.test:5432"}
	text, err := d.services("/home/alice/.config/tidegate", []string{"orders-prod+inc-1"})
	if err != nil || !strings.HasPrefix(string(text), "[orders-prod+inc-1]\nhost=gate.test\nport=5432\ndbname=orders-prod+inc-1\n") ||
		!strings.Contains(string(text), "\nsslmode=verify-full\nsslrootcert=/home/alice/.config/tidegate/postgres-ca.pem\n") {
		t.Errorf("got %v:\n%s", err, text)
	}
	for _, name := range []string{"", "x]\nsslmode=disable", "a b", "a+b+c", "x\nhost=evil.test"} {
		if text, err := d.services(t.TempDir(), []string{name}); err == nil {
			t.Errorf("the name %q became:\n%s", name, text)
		}
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	put(t, ca, "no certificate", 0o600)
	for _, c := range []struct{ address, ca string }{{"gate.test", ca}, {"gate.test:5432", ca}, {"gate.test:5432", ""}, {"", "none"}, {"evil\nx:1", ca}} {
		if err := new(login).readPostgres(c.address, c.ca); err == nil {
			t.Errorf("%+v: want it refused", c)
		} else if c.ca == "" && !errors.Is(err, errUsage) {
			t.Errorf("%+v: got %v, want a wrong use", c, err)
		}
	}
}
