package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger"
	"github.com/tidegate/tidegate/gateway/ssh/sshtest"
	"github.com/tidegate/tidegate/workflows/forge/hub"
)

// serveWorld is everything around a `tidegate serve`, on real parts: the
// target's PostgreSQL, Temporal in a process of its own, and behind TLS the
// pocket GitHub and npm's oidc-provider.
type serveWorld struct {
	demo
	config   string // path of the configuration of both parts in one process; what it names lies beside it
	outside  string // of what is not ours: target, Temporal, GitHub
	target   *devTarget
	host     *sshtest.Server // the SSH target
	temporal *temporalChild
	github   *hub.Hub
	behind   *httptest.Server // the pocket GitHub as Tidegate reaches it
	ledger   string           // URL by which the test looks at the ledger
	oidc     *oidcProvider
	ports    map[string]string // addresses and the like in the configurations: @GATEWAY@
	secret   []string          // what no log may hold
}

// worldControl and worldGateway are the blocks of the two parts; of the block
// ssh each has its lines.
const (
	sshControl = `
  source_addresses = ["127.0.0.1/32"]
`
	sshGate = `
  listen        = "@SSH@"
  names         = ["127.0.0.1"]
  device_issuer = "okta"
`
	worldControl = `
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
`
	worldGateway = `
issuer "okta" {
  url      = "@ISSUER@"
  audience = "tidegate"
  ca_file  = "issuer-ca.crt"
}
recordings { dir = "@DIR@/recordings" }
gateway {
  listen           = "@GATEWAY@"
  certificate_file = "gateway.crt"
  key_file         = "gateway.key"
`
)

func newServeWorld(t *testing.T) *serveWorld {
	t.Helper()
	return newServeWorldBehind(t, func(*devTarget) {})
}

// newServeWorldBehind lets something stand before the target, by changing the
// address and the CA by which Tidegate knows it.
func newServeWorldBehind(t *testing.T, stand func(*devTarget)) *serveWorld {
	t.Helper()
	needParts(t)
	w := &serveWorld{config: filepath.Join(t.TempDir(), "tidegate.hcl"), outside: openFolder(t), oidc: startOIDC(t)}
	state, err := openDevState(w.outside)
	if err != nil {
		t.Fatal(err)
	}
	w.ports = map[string]string{
		"@DIR@": w.folder(), "@WEBHOOK@": state.addr("webhook"), "@GATEWAY@": state.addr("gateway"), "@ISSUER@": w.oidc.url,
		"@METRICS@": freeAddress(t), "@METRICS2@": freeAddress(t), "@DOOR@": freeAddress(t), "@SSH@": freeAddress(t),
	}
	w.startParts(t, state)
	stand(w.target)
	w.house = devReady{
		Repo: devOwner + "/" + devRepo, HubTokens: state.HubTokens, Postgres: state.addr("gateway"),
		CA: filepath.Join(w.folder(), "ca.crt"), admin: w.target.orders(), Tokens: map[string]string{},
	}
	w.work = t.TempDir()
	webhookSecret := strings.Repeat("w", 40)
	w.startHub(t, &devHouse{opts: devOptions{Dir: w.outside}, state: state, target: w.target, ssh: devSSH{host: w.host}}, webhookSecret)
	w.ports["@HUB@"], w.ports["@TEMPORAL@"], w.ports["@TARGET@"] = w.behind.URL, w.temporal.Address, w.target.address
	for _, who := range []string{"alice", "mallory"} {
		if w.house.Tokens[who], err = w.oidc.login(t.Context(), who); err != nil {
			t.Fatal(err)
		}
		w.secret = append(w.secret, w.house.Tokens[who])
	}
	gatewayFiles(t, w.folder())
	for name, text := range map[string]string{"hub-token": state.HubTokens[devBot], "webhook-secret": webhookSecret, "admin-password": state.AdminSecret} {
		w.put(t, name, text)
	}
	put(t, filepath.Join(w.folder(), "target-ca.crt"), string(w.target.CAPEM), 0o644)
	put(t, filepath.Join(w.folder(), "hub-ca.crt"), pemText("CERTIFICATE", w.behind.Certificate().Raw), 0o644)
	put(t, filepath.Join(w.folder(), "issuer-ca.crt"), string(w.oidc.caPEM), 0o644)
	w.ledger = "sqlite:" + filepath.Join(w.folder(), "ledger.db")
	w.write(t, filepath.Base(w.config), oneProcess)
	return w
}

// folder is where the configurations lie.
func (w *serveWorld) folder() string { return filepath.Dir(w.config) }

// put writes a secret file that no log may repeat.
func (w *serveWorld) put(t *testing.T, name, text string) {
	t.Helper()
	w.secret = append(w.secret, text)
	put(t, filepath.Join(w.folder(), name), text+"\n", 0o600)
}

// write writes a configuration, and answers with its path.
func (w *serveWorld) write(t *testing.T, name, text string) string {
	t.Helper()
	for word, is := range w.ports {
		text = strings.ReplaceAll(text, word, is)
	}
	return put(t, filepath.Join(w.folder(), name), text, 0o644)
}

func (w *serveWorld) startParts(t *testing.T, state *devState) {
	t.Helper()
	var err error
	if w.target, err = startTarget(t.Context(), w.outside, state); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.target.Close() })
	w.startHost(t)
	log := &words{}
	w.temporal, err = startTemporal(t.Context(), filepath.Join(w.outside, "temporal.db"), state.Ports["temporal"], log)
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	t.Cleanup(func() { w.temporal.Close() })
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
func (w *serveWorld) startHub(t *testing.T, out *devHouse, webhookSecret string) {
	t.Helper()
	seed, err := out.seed()
	if err != nil {
		t.Fatal(err)
	}
	people := filepath.Join(out.opts.Dir, "seed", "policies", "people.hcl")
	put(t, people, strings.ReplaceAll(string(contents(t, people)), `oidc("dev"`, `oidc("okta"`), 0o600)
	w.github, err = hub.Open(hub.Config{
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
	t.Cleanup(func() { w.github.Close() })
	plain := httptest.NewServer(w.github)
	w.behind = httptest.NewTLSServer(w.github)
	t.Cleanup(plain.Close)
	t.Cleanup(func() { w.behind.Close() })
	w.github.SetBaseURL(w.behind.URL)
	w.house.Hub, w.house.CloneURL = plain.URL, plain.URL+"/"+w.house.Repo+".git"
}

// look reads the ledger as it is, from outside.
func (w *serveWorld) look(ctx context.Context, read func(*ledger.Ledger) error) error {
	l, err := ledger.Open(ctx, ledger.Config{URL: w.ledger})
	if err != nil {
		return err
	}
	defer l.Close()
	return read(l)
}

// allOver waits until no session is open in the ledger: then each recording
// lies where it stays.
func (w *serveWorld) allOver(t *testing.T, limit time.Duration) {
	t.Helper()
	err := w.look(t.Context(), func(l *ledger.Ledger) error { return waitOver(t.Context(), l, limit) })
	if err != nil {
		t.Fatalf("want no session open in the ledger: %v", err)
	}
}

func waitOver(ctx context.Context, l *ledger.Ledger, limit time.Duration) error {
	return eventually(ctx, limit, func() (bool, error) {
		all, err := l.ListSessions(ctx)
		return !slices.ContainsFunc(all, func(s access.SessionInfo) bool { return s.Ended.IsZero() }), err
	})
}

// waitGrant waits until the grant is in a state, as the ledger tells; an ended
// one must also be proved to be gone from its target.
func (w *serveWorld) waitGrant(t *testing.T, id string, want access.State) access.Grant {
	t.Helper()
	var found access.Grant
	err := w.look(t.Context(), func(l *ledger.Ledger) error {
		return eventually(t.Context(), 100*time.Second, func() (bool, error) {
			grants, err := l.ListGrants(t.Context())
			for _, g := range grants {
				if g.Key.ID == id {
					found = g
				}
			}
			return found.State == want && want.Ended() == !found.Closed.IsZero(), err
		})
	})
	if err != nil {
		t.Fatalf("want grant %s %s, got %s: %v", id, want, found, err)
	}
	return found
}

// open plays a grant of alice until it is active, and answers with its pull
// request.
func (w *serveWorld) open(t *testing.T, a asked) (number int) {
	t.Helper()
	l, err := w.lands(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	w.waitGrant(t, a.id, access.StateActive)
	return l.number
}

// letIn waits until alice gets in: a gateway hears of a grant a moment after
// the ledger has it.
func (w *serveWorld) letIn(t *testing.T) {
	t.Helper()
	out := ""
	err := eventually(t.Context(), 20*time.Second, func() (ok bool, err error) {
		out, err = w.query(t.Context(), "alice", demoTarget, "SELECT 'let ' || 'in';")
		return strings.Contains(out, "let in"), err
	})
	if err != nil {
		t.Fatalf("want alice let in, got %q: %v", out, err)
	}
}

// refused tries to open a session, which must not.
func (w *serveWorld) refused(t *testing.T, who, words string) {
	t.Helper()
	out, err := w.query(t.Context(), who, demoTarget, "SELECT 'let ' || 'in';")
	if err != nil || !strings.Contains(out, "FATAL") || !strings.Contains(out, words) || strings.Contains(out, "let in") {
		t.Errorf("want %s refused with %q, got %q, %v", who, words, out, err)
	}
}

// silent checks that a log holds no secret.
func (w *serveWorld) silent(t *testing.T, log fmt.Stringer) {
	t.Helper()
	for i, s := range w.secret {
		if strings.Contains(log.String(), s) {
			t.Errorf("secret %d stands in the log:\n%s", i, log)
		}
	}
}

// metricsOnly: numbers on their own port, and nothing else there.
func metricsOnly(t *testing.T, address string) {
	t.Helper()
	for path, want := range map[string]int{"/metrics": http.StatusOK, "/debug/pprof/": http.StatusNotFound, "/debug/vars": http.StatusNotFound} {
		res, text, err := fetchPage(t.Context(), http.DefaultClient, "http://"+address+path, nil)
		if err != nil || res.StatusCode != want {
			t.Errorf("GET %s: %v, %v, want %d", path, res, err, want)
		}
		if want == http.StatusOK && !strings.Contains(text, "process_start_time_seconds") {
			t.Errorf("want numbers, got:\n%s", text)
		}
	}
}
