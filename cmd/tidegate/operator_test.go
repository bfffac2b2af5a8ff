package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidegate/tidegate/access"
)

// said is what one command line answered.
type said struct {
	code     int
	out, err string
}

// cli runs one command line, data and words apart.
func cli(t *testing.T, stdin string, args ...string) said {
	t.Helper()
	var out, err bytes.Buffer
	code := run(t.Context(), args, stdio{in: strings.NewReader(stdin), out: &out, err: &err})
	return said{code, out.String(), err.String()}
}

// operate walks the operator's verbs on a running serve with a PostgreSQL
// ledger, while alice has a session open under inc-1.
func (w *serveWorld) operate(t *testing.T) {
	ask := func(args ...string) said { t.Helper(); return cli(t, "", append(args, "--config", w.config)...) }
	want := func(s said, code int, words ...string) {
		t.Helper()
		all := s.out + s.err
		for _, word := range words {
			if !strings.Contains(all, word) {
				t.Errorf("want %q in\n%s", word, all)
			}
		}
		if s.code != code {
			t.Errorf("exit code %d, want %d:\n%s", s.code, code, all)
		}
		for i, secret := range w.secret {
			if strings.Contains(all, secret) {
				t.Errorf("secret %d is told:\n%s", i, all)
			}
		}
	}
	t.Run("ls and doctor", func(t *testing.T) {
		want(ask("ls"), exitOK, "inc-1", "active", "postgres.orders-prod")
		want(ask("doctor"), exitFailed, "ok   target ssh.web-1: "+w.host.Address+" proves itself by the pinned key", "FAIL target ssh.web-1: it does not let "+w.host.Account+" in by a certificate of the user CA")
		w.trust(t)
		s := ask("doctor")
		want(s, exitOK, "warn configuration: ", "ok   ledger: its audit log", "ok   ledger: 1 grants are open",
			"ok   temporal: 1 workers at the queue tidegate-revoke", "ok   github: we are tidegate-bot", "ok   policies: those on main are in force",
			"ok   issuer okta: it publishes its keys (1)", "ok   target postgres.orders-prod: grant inc-1 can be given", "ok   gateway: it opens sessions",
			"ok   target ssh.web-1: it lets "+w.host.Account+" in by a certificate of the user CA",
			"ok   recordings: ", "ok   certificates: ")
	})
	token := put(t, filepath.Join(t.TempDir(), "token"), w.house.Tokens["alice"]+"\n", 0o600)
	connect := []string{"connect", "orders-prod", "--gateway", w.house.Postgres, "--ca", w.house.CA}
	psql := []string{"--", "psql", "-XAt"}
	t.Run("connect with a token file, and with standard input", func(t *testing.T) {
		s := cli(t, "SELECT email FROM users ORDER BY id LIMIT 1;\n", append(append(connect, "--token-file", token), psql...)...)
		want(s, exitOK, "\n")
		if s.out == "" || strings.Contains(s.out, canary) {
			t.Errorf("want a masked row, got %q", s.out)
		}
		s = cli(t, w.house.Tokens["alice"]+"\nSELECT 40 + 2;\n", append(append(connect, "--token-file", "-"), psql...)...)
		want(s, exitOK, "42")
		put(t, token, w.house.Tokens["alice"], 0o644)
		want(cli(t, "", append(connect, "--token-file", token)...), exitFailed, "others may use it")
	})
	t.Run("gateway close cuts an open session", func(t *testing.T) {
		w.closes(t, ask)
	})
	sessions := w.allEnded(t, ask)
	for _, s := range sessions {
		if !isFile(s.Recording) {
			t.Errorf("want where each recording lies, got %+v", s)
		}
	}
	want(ask("sessions", "--person", "mallory"), exitOK, "SESSION")
	t.Run("replay, verify, and a changed byte", func(t *testing.T) {
		id := sessions[len(sessions)-1].ID
		want(ask("replay", id), exitOK, "session "+id)
		want(ask("verify", id), exitOK, "is whole", "anchored heads agree")
		keys := filepath.Join(filepath.Dir(w.config), "state", keysDir, publicKeys)
		f, err := openRecording(t.Context(), filepath.Join(filepath.Dir(w.config), "recordings"), "", id)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		text, err := io.ReadAll(f)
		if err != nil {
			t.Fatal(err)
		}
		path := put(t, filepath.Join(t.TempDir(), "changed.tgr"), strings.Replace(string(text), "alice", "alicf", 1), 0o600)
		s := cli(t, "", "verify", "--json", "--keys", keys, "--dir", t.TempDir(), path)
		want(s, exitFailed, `"whole":false`, `"what":"the content is not what was hashed`)
	})
	t.Run("revoke", func(t *testing.T) {
		w.landed(t, "inc-2")
		s := ask("revoke", "inc-2", "--why", "The job is done.", "--json")
		want(s, exitOK)
		if g := lines[access.Grant](t, s.out); len(g) != 1 || g[0].State != access.StateRevoked {
			t.Errorf("want the revoked grant, got %s", s.out)
		}
		want(ask("ls"), exitOK, "revoked", "The job is done.")
		want(ask("revoke", "inc-9"), exitFailed, `There is no grant "inc-9"`)
	})
}

// landed plays one more grant of alice until it is active.
func (w *serveWorld) landed(t *testing.T, id string) {
	t.Helper()
	ctx := t.Context()
	n, err := 0, w.push(ctx, "alice", id, "grants/alice/"+id+".hcl", grantFile(id, "alice", "readonly", "10m"))
	if err == nil {
		n, err = w.pullRequest(ctx, "alice", id, "Once more")
	}
	if err == nil {
		_, err = w.check(ctx, n, "tidegate/plan", "success")
	}
	if err == nil {
		err = w.approve(ctx, "bob", n)
	}
	if err == nil {
		_, err = w.check(ctx, n, "tidegate/approved", "success")
	}
	if err == nil {
		err = w.merge(ctx, "bob", n)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.waitGrant(t, id, access.StateActive)
}

// closes holds a session open and closes it from outside.
func (w *serveWorld) closes(t *testing.T, ask func(...string) said) {
	ctx := t.Context()
	cmd, err := w.psql(ctx, "alice", demoTarget)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan string, 1)
	go func() {
		out, err := feed(cmd, []string{"SELECT pg_sleep(60);"})
		done <- fmt.Sprint(out, err)
	}()
	var closed said
	err = eventually(ctx, 20*time.Second, func() (bool, error) {
		// Cut while it still connects, libpq connects once more: psql itself
		// must have ended.
		if s := ask("gateway", "close", "--grant", "inc-1", "--why", "Enough now."); strings.HasPrefix(s.out, "closed ") {
			closed = s
		}
		select {
		case out := <-done:
			if !strings.Contains(out, "An operator closed this session: Enough now.") {
				t.Errorf("want psql told why, got %s", out)
			}
			return true, nil
		default:
			return false, nil
		}
	})
	if err != nil || !strings.Contains(closed.err, "tidegate revoke inc-1") {
		t.Fatalf("want a closed session and how to revoke, got %+v: %v", closed, err)
	}
}

// allEnded are alice's sessions once all of them are over, which is a moment
// after her psql is: a recording then lies where it stays.
func (w *serveWorld) allEnded(t *testing.T, ask func(...string) said) (all []located) {
	t.Helper()
	err := eventually(t.Context(), 20*time.Second, func() (bool, error) {
		all = lines[located](t, ask("sessions", "--json", "--person", "alice", "--grant", "inc-1", "--target", "orders-prod", "--since", "1h").out)
		return len(all) > 0 && !slices.ContainsFunc(all, func(s located) bool { return s.Ended.IsZero() }), nil
	})
	if err != nil {
		t.Fatalf("want alice's sessions, all ended: %v, got %+v", err, all)
	}
	return all
}

// lines decodes JSON lines.
func lines[T any](t *testing.T, text string) (out []T) {
	t.Helper()
	for line := range strings.Lines(text) {
		var v T
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		out = append(out, v)
	}
	return out
}

// TestExamine: a part that hangs is told of, and hides no other.
func TestExamine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := func(say string) func(context.Context) []access.Finding {
			return func(context.Context) []access.Finding {
				f := access.Findings{Part: "a"}
				f.OK("%s", say)
				return f.List
			}
		}
		hangs := make(chan struct{})
		silent := func(context.Context) []access.Finding { <-hangs; return nil }
		slow := func(ctx context.Context) []access.Finding { <-ctx.Done(); return one("slow")(ctx) }
		var got []string
		began := time.Now()
		for f := range examine(t.Context(), []examination{
			{"a", one("first")},
			{"b", silent}, {"c", silent}, {"d", silent},
			{"e", func(ctx context.Context) (found []access.Finding) { // has parts of its own, which hang as well
				return slices.AppendSeq(found, examine(ctx, []examination{{"f", silent}, {"g", one("within")}}))
			}},
			{"h", slow},
			{"i", one("last")},
		}) {
			got = append(got, f.Say)
		}
		close(hangs)
		none := "no answer within 15s|"
		if all := strings.Join(got, "|"); all != "first|"+none+none+none+none+"within|slow|last" {
			t.Errorf("got %q", all)
		}
		if took := time.Since(began); took > partTimeout+lateness {
			t.Errorf("it took %s, want at most one bound for all that hang", took)
		}
	})
}

// TestWhich holds how an installation is chosen, and what a person who made
// a mistake is told.
func TestWhich(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"TIDEGATE_DIR", "TIDEGATE_CONFIG"} {
		t.Setenv(name, "")
	}
	partly := put(t, filepath.Join(dir, "partly.hcl"), `
installation = "acme1"
state_dir    = "`+dir+`"
ledger { url = "sqlite:`+dir+`/ledger.db" }
github { secret_file = "/nowhere" }
`, 0o644)
	plain := put(t, filepath.Join(dir, "plain.hcl"), `
installation = "acme1"
state_dir    = "`+dir+`"
ledger { url = "postgres://u@h/d?sslmode=disable" }
`, 0o644)
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"both", []string{"ls", "--dir", dir, "--config", partly}, exitUsage, "got --dir and --config, want one of them"},
		{"no folder", []string{"ls", "--dir", filepath.Join(dir, "none")}, exitFailed, "--dir names the folder of a `tidegate dev`, --config"},
		{"no configuration", []string{"ls", "--config", filepath.Join(dir, "none.hcl")}, exitFailed, "--config names that of `tidegate serve`"},
		{"no ledger yet", []string{"ls", "--config", partly}, exitFailed, "There is no ledger at " + dir},
		{"a ledger in plain text", []string{"ls", "--config", plain}, exitFailed, "sslmode=verify-full"},
		{"no key", []string{"revoke", "x", "--config", partly}, exitFailed, "revoke where control runs"},
		{"no gateway", []string{"gateway", "close", "--all", "--config", partly}, exitFailed, "is it running"},
		{"nothing to close", []string{"gateway", "close", "--config", partly}, exitUsage, "or else --all"},
		{"all and some", []string{"gateway", "close", "--all", "--grant", "x", "--config", partly}, exitUsage, "or else --all"},
		{"a time that is none", []string{"sessions", "--since", "yesterday", "--dir", dir}, exitUsage, "want a time such as"},
		{"no such recording", []string{"replay", "nosuch", "--dir", dir}, exitFailed, "There is no recording of session nosuch"},
		{"no such file", []string{"replay", "./no.tgr", "--dir", dir}, exitFailed, "there is no file ./no.tgr"},
		{"doctor without a dev", []string{"doctor", "--dir", dir}, exitFailed, "no dev.json in " + dir},
		{"connect by half", []string{"connect", "x", "--gateway", "h:1"}, exitUsage, "want --gateway, --ca and --token-file together"},
		{"connect to no port", []string{"connect", "x", "--gateway", "h", "--ca", partly, "--token-file", "-"}, exitUsage, "want host:port"},
		{"connect to another setting", []string{"connect", "x", "--gateway", "h\nuser=y:1", "--ca", partly, "--token-file", "-"}, exitUsage, "want host:port"},
		{"a CA that is none", []string{"connect", "x", "--gateway", "h:1", "--ca", partly, "--token-file", "-"}, exitFailed, "want PEM"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := cli(t, "", c.args...)
			if s.code != c.code || !strings.Contains(s.err, c.want) || s.out != "" {
				t.Errorf("exit code %d, want %d and %q in %q; and no data, got %q", s.code, c.code, c.want, s.err, s.out)
			}
			if n := strings.Count(s.err, "\n"); n > 3 {
				t.Errorf("a mistake wants one sentence, the usage and where more is said, got %d lines:\n%s", n, s.err)
			}
		})
	}
	if _, err := os.Stat(filepath.Join(dir, ledgerFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a look made a ledger: %v", err)
	}
}

// TestDoctorWithEverythingDown still tells about each part, and no secret.
func TestDoctorWithEverythingDown(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"hub-token": "hunter2-hub", "webhook-secret": strings.Repeat("w", 40), "admin-password": "hunter2-admin",
		"ledger-url": "postgres://u:hunter2@127.0.0.1:1/d?sslmode=verify-full",
	} {
		put(t, filepath.Join(dir, name), text+"\n", 0o600)
	}
	gatewayFiles(t, dir)
	for _, name := range []string{"hub-ca.crt", "issuer-ca.crt", "target-ca.crt"} {
		text, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
		if err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(dir, name), string(text), 0o644)
	}
	nobody := "127.0.0.1:1"
	text := strings.NewReplacer("@DIR@", dir, "@HUB@", "https://"+nobody, "@ISSUER@", "https://"+nobody, "@TEMPORAL@", nobody,
		"@TARGET@", nobody+"/orders", "@WEBHOOK@", nobody, "@GATEWAY@", nobody, "@METRICS@", nobody).Replace(
		strings.Replace(oneProcess, sqliteLedger, `url_file = "ledger-url"`, 1))
	config := put(t, filepath.Join(dir, "tidegate.hcl"), text, 0o644)
	s := cli(t, "", "doctor", "--json", "--config", config)
	if s.code != exitFailed {
		t.Errorf("exit code %d, want %d", s.code, exitFailed)
	}
	failed := map[string]bool{}
	for _, f := range lines[access.Finding](t, s.out) {
		if f.Level == access.LevelFail {
			failed[f.Part] = true
			if f.Do == "" {
				t.Errorf("%s: %s: want what to do", f.Part, f.Say)
			}
		}
	}
	for _, part := range []string{"keys", "ledger", "temporal", "github", "policies", "issuer okta", "targets", "gateway", "recordings"} {
		if !failed[part] {
			t.Errorf("want a failure of %s in\n%s", part, s.out)
		}
	}
	if strings.Contains(s.out+s.err, "hunter2") {
		t.Errorf("a secret is told:\n%s%s", s.out, s.err)
	}
	if _, err := os.Stat(filepath.Join(dir, "state")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("doctor made the state folder: %v", err)
	}
}

// TestDoctorBlamesTheConfiguration: what could not be read there is not told
// as missing elsewhere.
func TestDoctorBlamesTheConfiguration(t *testing.T) {
	dir := t.TempDir()
	text := "installation = \"acme1\"\nstate_dir = \"" + dir + "\"\nledger { url_file = \"none\" }\n"
	p, err := ofServe(put(t, filepath.Join(dir, "tidegate.hcl"), text, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	for part, look := range map[string]func(context.Context) []access.Finding{"ledger": p.asksLedger, "temporal": p.asksTemporal, "github": p.asksGitHub} {
		if got := look(t.Context()); len(got) != 1 || !strings.Contains(got[0].Do, "configuration says above") {
			t.Errorf("%s: got %v, want it led to the configuration", part, got)
		}
	}
}
