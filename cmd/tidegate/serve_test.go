package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger"
	"github.com/tidegate/tidegate/gateway/identify"
	"github.com/tidegate/tidegate/gateway/identify/devissuer"
	"github.com/tidegate/tidegate/workflows/forge/hub"
	"github.com/tidegate/tidegate/workflows/temporaltest"
)

// serveWorld is everything around a `tidegate serve`, on real parts: a
// PostgreSQL for target and ledger, Temporal, and behind TLS the pocket GitHub
// and an identity provider.
type serveWorld struct {
	demo
	config string // path
	ledger string // URL
	ports  map[string]string
	secret []string // what no log may hold
}

const worldConfig = `
installation = "serve1"
state_dir    = "@DIR@/state"
github {
  repository = "acme/access"
  base_url   = "@HUB@"
  ca_file    = "hub-ca.crt"
  token_file = "hub-token"
  webhook {
    listen      = "@WEBHOOK@"
    secret_file = "webhook-secret"
  }
}
temporal {
  address   = "@TEMPORAL@"
  namespace = "tidegate"
}
ledger { url_file = "ledger-url" }
issuer "okta" {
  url      = "@ISSUER@"
  audience = "tidegate"
  ca_file  = "issuer-ca.crt"
}
secret "orders-admin" {
  user           = "tidegate_admin"
  password_file  = "admin-password"
  server_ca_file = "target-ca.crt"
  for            = ["postgres @TARGET@"]
}
rules {
  adopt_first   = true
  policy_owners = ["team:acme/dba"]
}
gateway {
  listen           = "@GATEWAY@"
  certificate_file = "gateway.crt"
  key_file         = "gateway.key"
}
recordings { dir = "@DIR@/recordings" }
metrics { listen = "@METRICS@" }
log { level = "debug" }
`

func newServeWorld(t *testing.T) *serveWorld {
	t.Helper()
	needParts(t)
	dir, outside := t.TempDir(), openFolder(t)
	w := &serveWorld{config: filepath.Join(dir, "tidegate.hcl")}
	state, err := openDevState(outside)
	if err != nil {
		t.Fatal(err)
	}
	w.ports = map[string]string{"@WEBHOOK@": state.addr("webhook"), "@GATEWAY@": state.addr("gateway"), "@METRICS@": state.addr("issuer")}
	target, err := startTarget(t.Context(), outside, state)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { target.Close() })
	if w.ledger, err = target.CreateDatabase(t.Context()); err != nil {
		t.Fatal(err)
	}
	out := &devHouse{opts: devOptions{Dir: outside}, state: state, target: target}
	w.house = devReady{Repo: devOwner + "/" + devRepo, HubTokens: state.HubTokens, Postgres: w.ports["@GATEWAY@"], CA: filepath.Join(dir, "ca.crt")}
	w.work = t.TempDir()
	webhookSecret := strings.Repeat("w", 40)
	hubTLS := w.startHub(t, out, webhookSecret)
	issuer := w.startIssuer(t)
	temporal := temporaltest.Start(t, temporaltest.Options{InMemory: true})
	gatewayFiles(t, dir)
	for name, text := range map[string]string{
		"hub-token": state.HubTokens[devBot], "webhook-secret": webhookSecret, "ledger-url": w.ledger, "admin-password": state.AdminSecret,
	} {
		w.secret = append(w.secret, text)
		put(t, filepath.Join(dir, name), text+"\n", 0o600)
	}
	w.secret = append(w.secret, w.house.Tokens["alice"])
	put(t, filepath.Join(dir, "target-ca.crt"), string(target.CAPEM), 0o644)
	put(t, filepath.Join(dir, "hub-ca.crt"), pemText("CERTIFICATE", hubTLS.Certificate().Raw), 0o644)
	put(t, filepath.Join(dir, "issuer-ca.crt"), pemText("CERTIFICATE", issuer.Certificate().Raw), 0o644)
	text := strings.NewReplacer("@DIR@", dir, "@HUB@", hubTLS.URL, "@ISSUER@", issuer.URL, "@TEMPORAL@", temporal.Address,
		"@TARGET@", target.address, "@WEBHOOK@", w.ports["@WEBHOOK@"], "@GATEWAY@", w.ports["@GATEWAY@"], "@METRICS@", w.ports["@METRICS@"]).Replace(worldConfig)
	put(t, w.config, text, 0o644)
	return w
}

// openFolder is one that PostgreSQL reaches as another user, which
// t.TempDir's are not.
func openFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tidegate-serve-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

// startHub serves the pocket GitHub twice: to people's git as it is, and to
// Tidegate behind TLS, as a real one is reached.
func (w *serveWorld) startHub(t *testing.T, out *devHouse, webhookSecret string) *httptest.Server {
	t.Helper()
	seed, err := out.seed()
	if err != nil {
		t.Fatal(err)
	}
	people := filepath.Join(out.opts.Dir, "seed", "policies", "people.hcl")
	text, err := os.ReadFile(people)
	if err != nil {
		t.Fatal(err)
	}
	put(t, people, strings.ReplaceAll(string(text), `oidc("dev"`, `oidc("okta"`), 0o600)
	github, err := hub.Open(hub.Config{
		Dir: filepath.Join(out.opts.Dir, "hub"), Owner: devOwner, Repo: devRepo, Seed: seed, Users: out.hubUsers(),
		Teams: []hub.Team{
			{Slug: "data-owners", ID: 71, Org: devOwner, Members: []string{"bob", "carol"}},
			{Slug: "dba", ID: 72, Org: devOwner, Members: []string{"carol"}},
		},
		BaseURL: "https://placeholder.test", WebhookURL: "http://" + w.ports["@WEBHOOK@"], WebhookSecret: webhookSecret,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { github.Close() })
	plain, behind := httptest.NewServer(github), httptest.NewTLSServer(github)
	t.Cleanup(plain.Close)
	t.Cleanup(behind.Close)
	github.SetBaseURL(behind.URL)
	w.house.Hub, w.house.CloneURL = plain.URL, plain.URL+"/"+w.house.Repo+".git"
	return behind
}

// startIssuer is an identity provider behind TLS. Its keys are those of a
// development issuer; its name is not, or serve would refuse it.
func (w *serveWorld) startIssuer(t *testing.T) *httptest.Server {
	t.Helper()
	dev, err := devissuer.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dev.SetURL("http://127.0.0.1:1")
	var srv *httptest.Server
	srv = httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		inner := r.Clone(r.Context())
		inner.URL.Path = identify.DevMark + r.URL.Path
		dev.ServeHTTP(rec, inner)
		rw.Header().Set("Content-Type", rec.Header().Get("Content-Type"))
		rw.WriteHeader(rec.Code)
		_, _ = rw.Write(bytes.ReplaceAll(rec.Body.Bytes(), []byte(dev.URL()), []byte(srv.URL)))
	}))
	t.Cleanup(srv.Close)
	w.house.Tokens = map[string]string{}
	for _, who := range []string{"alice", "mallory"} {
		w.house.Tokens[who], err = dev.Mint(devissuer.Claims{
			Subject: "okta-" + who, Email: who + "@acme.test", EmailVerified: true, Audience: "tidegate", Extra: map[string]any{"iss": srv.URL},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return srv
}

// serveLog is a log that a running serve writes.
type serveLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *serveLog) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *serveLog) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// start runs serve until stop, which answers with its exit code.
func (w *serveWorld) start(t *testing.T) (log *serveLog, stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	log, code, ended := &serveLog{}, 0, make(chan struct{})
	go func() {
		defer close(ended)
		code = run(ctx, []string{"serve", "--config", w.config}, stdio{out: log, err: log})
	}()
	stop = func() int { cancel(); <-ended; return code }
	t.Cleanup(func() { stop() })
	err := eventually(ctx, startTimeout, func() (bool, error) {
		select {
		case <-ended:
			return false, fmt.Errorf("serve ended with %d", code)
		default:
			return strings.Contains(log.String(), "msg=ready"), nil
		}
	})
	if err != nil {
		t.Fatalf("start serve: %v\n%s", err, log)
	}
	return log, stop
}

// waitGrant waits until the grant is in a state, as the ledger tells; an ended
// one must also be proved to be gone from its target.
func (w *serveWorld) waitGrant(t *testing.T, id string, want access.State) {
	t.Helper()
	l, err := ledger.Open(t.Context(), ledger.Config{URL: w.ledger})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var grants []access.Grant
	err = eventually(t.Context(), 40*time.Second, func() (bool, error) {
		if grants, err = l.ListGrants(t.Context()); err != nil {
			return false, err
		}
		for _, g := range grants {
			if g.Key.ID == id && g.State == want && g.State.Ended() == !g.Closed.IsZero() {
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil {
		t.Fatalf("want grant %s %s, got %+v: %v", id, want, grants, err)
	}
}

// fails runs serve on a changed configuration; it must end by itself.
func (w *serveWorld) fails(t *testing.T, from, to, words string) {
	t.Helper()
	text, err := os.ReadFile(w.config)
	if err != nil || !strings.Contains(string(text), from) {
		t.Fatalf("read configuration: %v, want %q in it", err, from)
	}
	path := put(t, filepath.Join(filepath.Dir(w.config), "changed.hcl"), strings.Replace(string(text), from, to, 1), 0o644)
	var out serveLog
	if code := run(t.Context(), []string{"serve", "--config", path}, stdio{out: &out, err: &out}); code != exitFailed || !strings.Contains(out.String(), words) {
		t.Errorf("exit code %d, want %d and %q in:\n%s", code, exitFailed, words, &out)
	}
	w.silent(t, &out)
}

// silent checks that a log holds no secret.
func (w *serveWorld) silent(t *testing.T, log *serveLog) {
	t.Helper()
	for i, s := range w.secret {
		if strings.Contains(log.String(), s) {
			t.Errorf("secret %d stands in the log:\n%s", i, log)
		}
	}
}

// TestServe plays a short story: a grant opens, alice reads through the
// gateway, the grant ends, serve stops in order.
func TestServe(t *testing.T) {
	w := newServeWorld(t)
	nobody := `"127.0.0.1:1"`
	t.Run("a part is down", func(t *testing.T) {
		w.fails(t, `"`+w.ports["@GATEWAY@"]+`"`, `"203.0.113.1:5432"`, "listen for the gateway")
		w.fails(t, configLine(t, w.config, "base_url"), `base_url = "https://127.0.0.1:1"`, "find repository acme/access")
		w.fails(t, configLine(t, w.config, "address"), "address = "+nobody, "reach temporal at 127.0.0.1:1")
		put(t, filepath.Join(filepath.Dir(w.config), "no-ledger"), "postgres://u:hunter2@127.0.0.1:1/d?sslmode=verify-full", 0o600)
		w.fails(t, `"ledger-url"`, `"no-ledger"`, "open ledger")
	})
	log, stop := w.start(t)
	w.fails(t, "", "", "another `tidegate serve` uses this state_dir")
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the log:\n%s", log)
		}
	})
	w.tell(t)
	w.metricsOnly(t)
	if code := stop(); code != exitOK || !strings.Contains(log.String(), "msg=stopped") {
		t.Errorf("exit code %d after SIGTERM, want %d:\n%s", code, exitOK, log)
	}
	w.silent(t, log)
}

func configLine(t *testing.T, path, name string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(strings.TrimSpace(line), name+" ") {
			return strings.TrimSpace(line)
		}
	}
	t.Fatalf("no %s in %s", name, path)
	return ""
}

// tell is the story of one grant.
func (w *serveWorld) tell(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(w.push(ctx, "alice", "inc-1", "grants/alice/inc-1.hcl", grantFile("inc-1", "alice", "readonly", "10m")))
	n, err := w.pullRequest(ctx, "alice", "inc-1", "Refund jobs are stuck")
	must(err)
	_, err = w.check(ctx, n, "tidegate/plan", "success")
	must(err)
	must(w.approve(ctx, "bob", n))
	_, err = w.check(ctx, n, "tidegate/approved", "success")
	must(err)
	must(w.merge(ctx, "bob", n))
	w.waitGrant(t, "inc-1", access.StateActive)
	var out string
	must(eventually(ctx, 20*time.Second, func() (bool, error) { // the gateway hears of it a moment after the ledger has it
		out, err = w.reads(ctx)
		if err != nil && strings.Contains(err.Error(), "has no active grant") {
			return false, nil
		}
		return true, err
	}))
	t.Log(out)
	if out, err = w.query(ctx, "mallory", demoTarget, "SELECT 1;"); err != nil || !strings.Contains(out, "FATAL") {
		t.Errorf("want mallory refused, got %q, %v", out, err)
	}
	w.operate(t)
	must(w.say(ctx, "alice", n, "/tidegate revoke"))
	w.waitGrant(t, "inc-1", access.StateRevoked)
	if out, err = w.query(ctx, "alice", demoTarget, "SELECT 1;"); err != nil || !strings.Contains(out, "FATAL") {
		t.Errorf("want alice refused after the end, got %q, %v", out, err)
	}
}

// metricsOnly: numbers on their own port, and nothing else there.
func (w *serveWorld) metricsOnly(t *testing.T) {
	t.Helper()
	for path, want := range map[string]int{"/metrics": http.StatusOK, "/debug/pprof/": http.StatusNotFound} {
		res, err := http.Get("http://" + w.ports["@METRICS@"] + path)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
		res.Body.Close()
		if err != nil || res.StatusCode != want {
			t.Errorf("GET %s: %s, %v, want %d", path, res.Status, err, want)
		}
		if want == http.StatusOK && !strings.Contains(string(text), "tidegate_") {
			t.Errorf("want numbers of ours, got:\n%s", text)
		}
	}
}
