package console

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger"
	"github.com/tidegate/tidegate/gateway/identify"
	"github.com/tidegate/tidegate/gateway/identify/devissuer"
	"github.com/tidegate/tidegate/gateway/record"
	"github.com/tidegate/tidegate/policies"
	"github.com/tidegate/tidegate/workflows"
)

var (
	alice   = access.User{ID: 11, Login: "alice"}
	bob     = access.User{ID: 12, Login: "bob"}
	carol   = access.User{ID: 13, Login: "carol"}
	mallory = access.User{ID: 14, Login: "mallory"}
	admin   = access.User{ID: 1, Login: "admin"}
	dba     = access.Party{Principal: access.Principal{Kind: access.KindTeam, Name: "acme/dba"}, ID: 72, Members: []access.User{bob, carol}}
)

// forgeStub is the forge's directory and one pull request: what the desk asks
// of it. Everything else of a forge is not needed here.
type forgeStub struct {
	workflows.Forge
	mu    sync.Mutex
	down  bool
	team  []access.User
	pulls int
}

func (f *forgeStub) set(change func(*forgeStub)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *forgeStub) Directory(_ context.Context, users, teams []string) (access.Directory, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := access.Directory{Users: map[string]access.User{}, Teams: map[string]access.Team{}}
	if f.down {
		return d, errors.New("the forge is down")
	}
	for _, u := range []access.User{alice, bob, carol, mallory, admin} {
		for _, name := range users {
			if strings.EqualFold(name, u.Login) {
				d.Users[u.Login] = u
			}
		}
	}
	d.Teams["acme/dba"] = access.Team{ID: dba.ID, Name: "acme/dba", Members: f.team}
	return d, nil
}

func (f *forgeStub) Pull(_ context.Context, ref workflows.Ref) (workflows.Pull, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pulls++
	if f.down {
		return workflows.Pull{}, errors.New("the forge is down")
	}
	return workflows.Pull{Ref: ref, Author: alice, Head: "head", Base: "base", Excluded: map[int64]string{alice.ID: "opened the pull request"}}, nil
}

func (f *forgeStub) Pushers(context.Context, workflows.Pull) ([]access.User, bool, error) {
	return []access.User{alice}, true, nil
}

// Tree has no commit: approvals can't be judged again here. The story of a
// whole house shows them.
func (f *forgeStub) Tree(_ context.Context, commit string) (access.Tree, error) {
	return access.Tree{}, access.Errorf(access.CodeNotFound, "no commit %s", commit)
}

// world is a console over real HTTP, a real ledger and store, and the real
// desk; the issuer is the development one.
type world struct {
	*httptest.Server
	console *Console
	ledger  *ledger.Ledger
	folder  string
	store   *record.Store
	forge   *forgeStub
	issuer  *devissuer.Issuer
	gateway ed25519.PrivateKey
	g       access.Grant // alice's, active
	session string       // under it, recorded and sealed
	held    access.Held  // under it, waiting
	clock   *clock
}

type clock struct {
	mu sync.Mutex
	by time.Duration
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.by)
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.by += d
}

const people = `
person "alice" { identity = oidc("dev", "alice@acme.test") }
person "bob" { identity = oidc("dev", "bob@acme.test") }
person "carol" { identity = oidc("dev", "carol@acme.test") }
person "mallory" { identity = oidc("dev", "mallory@acme.test") }
person "admin" { identity = oidc("dev", "admin@acme.test") }
`

// newWorld builds a world; change may turn the console's configuration.
func newWorld(t *testing.T, change func(*Config)) *world {
	t.Helper()
	w := &world{forge: &forgeStub{team: dba.Members}, clock: &clock{}, folder: t.TempDir()}
	_, control, _ := ed25519.GenerateKey(nil)
	_, w.gateway, _ = ed25519.GenerateKey(nil)
	var err error
	w.ledger, err = ledger.Open(t.Context(), ledger.Config{
		URL: "sqlite:" + filepath.Join(t.TempDir(), "l.db"), Signer: control, Installation: "test",
		Gateways: func(string) (ed25519.PublicKey, error) { return w.gateway.Public().(ed25519.PublicKey), nil },
	})
	must(t, err)
	t.Cleanup(func() { w.ledger.Close() })
	w.adopt(t, people)
	w.store, err = record.Open(record.Config{Dir: w.folder, Key: w.gateway, MinFree: 1})
	must(t, err)
	t.Cleanup(func() { w.store.Close() })
	w.fill(t)
	w.serve(t, change)
	return w
}

func (w *world) adopt(t *testing.T, text string) {
	t.Helper()
	must(t, w.ledger.SetAdopted(t.Context(), access.Tree{Commit: "c0ffee", Files: []access.File{{Path: "policies/people.hcl", Blob: "b", Content: []byte(text)}}}, nil, ""))
}

func (w *world) desk() *workflows.Desk {
	return workflows.NewDesk(&workflows.Activities{
		Repo: 7, Forge: w.forge, Policies: policy{}, Ledger: desked{w.ledger},
		Rules: workflows.Rules{
			Operators:    []access.Principal{{Kind: access.KindUser, Name: "admin"}},
			PolicyOwners: []access.Principal{{Kind: access.KindUser, Name: "carol"}},
		},
	})
}

// desked is the ledger as the desk sees it.
type desked struct{ *ledger.Ledger }

func (l desked) GrantsOf(ctx context.Context, ref workflows.Ref) ([]access.Grant, error) {
	return l.Ledger.GrantsOf(ctx, ref.Repo, ref.Number)
}

func (l desked) SeeReview(ctx context.Context, ref workflows.Ref, r access.Review) (access.Review, error) {
	return l.Ledger.SeeReview(ctx, ref.Repo, ref.Number, r)
}

func (l desked) HeldByNumber(ctx context.Context, ref workflows.Ref, n int) (access.Held, error) {
	return l.Ledger.HeldByNumber(ctx, ref.Repo, ref.Number, n)
}

// policy is package policies as the desk asks it.
type policy struct{ workflows.Policies }

func (policy) Names(adopted, base, head access.Tree) (users, teams []string) {
	return policies.Names(adopted, base, head)
}

// fill makes one grant with a recorded session and a held operation.
func (w *world) fill(t *testing.T) {
	t.Helper()
	now := time.Now().UTC()
	plan := access.Plan{
		Request: access.Request{ID: "inc-1", File: "grants/alice/inc-1.hcl", Reason: "Refunds are stuck"},
		People:  []access.Person{{User: alice, Identities: []access.IdentityRef{{Provider: "dev", Email: "alice@acme.test"}}}},
		Target:  access.Target{TargetRef: access.TargetRef{Kind: "postgres", Name: "orders"}}, Role: access.Role{Name: "operator", Longest: 3600, Settings: map[string]string{"statement_timeout": "30s"}},
		Requirements: []access.Requirement{{Name: "prod", Need: 1, From: []access.Party{dba}, Say: "A DBA must agree."}},
		Rules:        []access.Rule{{Name: "few", When: `touches("users")`, LimitRows: 1000, Say: "Not all of them."}},
	}
	var err error
	w.g, err = w.ledger.Create(t.Context(), access.Grant{
		Key: access.GrantKey{Repo: 7, ID: "inc-1"}, Generation: 1, State: access.StateActive, Plan: plan, Digest: plan.Digest(),
		NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour), Pull: access.Pull{Repo: 7, Number: 3, URL: "https://forge.test/pull/3", Author: alice},
	})
	must(t, err)
	w.session = w.record(t, "s-1", "SELECT 1", "DELETE FROM orders")
	w.held = w.hold(t, "4f3c0000-0000-4000-8000-000000000001", "DELETE FROM orders")
}

// record makes a session whose recording holds the statements.
func (w *world) record(t *testing.T, id string, statements ...string) string {
	t.Helper()
	info := access.SessionInfo{ID: id, Grant: w.g.Key, Person: alice, Target: w.g.Plan.Target.TargetRef, Role: "operator", Remote: "192.0.2.7:999",
		Identity: access.Identity{Provider: "dev", Email: "alice@acme.test"}, Gateway: "gateway-1", Started: time.Now().UTC(), NotAfter: w.g.NotAfter}
	must(t, w.ledger.OpenSession(t.Context(), info))
	rec, err := w.store.Record(info, func(h access.Head) { _ = w.ledger.Anchor(context.Background(), h) })
	must(t, err)
	must(t, rec.Append(access.Event{Type: access.EventSessionStart, Time: info.Started, Session: &info}, false))
	for i, s := range statements {
		d := access.Decision{Verdict: access.Allow}
		must(t, rec.Append(access.Event{Type: access.EventOpen, Time: time.Now(), Op: uint64(i + 1), Operation: &access.Operation{Kind: "query", Text: s}, Decision: &d}, false))
	}
	head, err := rec.Seal("The client left.")
	must(t, err)
	must(t, w.ledger.Anchor(t.Context(), head))
	must(t, w.ledger.CloseSession(t.Context(), id, "The client left."))
	return id
}

func (w *world) hold(t *testing.T, id, text string) access.Held {
	t.Helper()
	h := access.Held{ID: id, Grant: w.g.Key, Generation: 1, Session: "s-1", Who: "alice", Target: w.g.Plan.Target.TargetRef, Rule: "big-delete", Say: "A second pair of eyes.",
		Ask: []access.Party{dba}, Operation: access.Operation{Kind: "query", Text: text}, Opened: time.Now().UTC(), Expires: time.Now().UTC().Add(10 * time.Minute), State: access.HeldOpen, Gateway: "gateway-1"}
	h.Digest = h.ShownDigest()
	h.Signature = ed25519.Sign(w.gateway, h.SigningBytes())
	stored, err := w.ledger.OpenHeld(t.Context(), h)
	must(t, err)
	return stored
}

// serve opens the console behind TLS, at an issuer that offers everybody.
func (w *world) serve(t *testing.T, change func(*Config)) {
	t.Helper()
	var err error
	w.issuer, err = devissuer.Open(t.TempDir())
	must(t, err)
	at := httptest.NewServer(w.issuer)
	t.Cleanup(at.Close)
	w.issuer.SetURL(at.URL)
	w.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { w.console.ServeHTTP(rw, r) }))
	base := "https://" + w.Listener.Addr().String()
	secret := access.NewSecret("console-secret")
	client := devissuer.Client{ID: "tidegate-console", Secret: secret, RedirectURL: base + "/login/callback"}
	for _, who := range []string{"alice", "bob", "carol", "mallory", "ci", "admin"} {
		client.Accounts = append(client.Accounts, devissuer.Account{Name: who, Claims: devissuer.Claims{Subject: "dev-" + who, Email: who + "@acme.test", EmailVerified: true}})
	}
	client.Accounts = append(client.Accounts, devissuer.Account{Name: "second alice", Claims: devissuer.Claims{Subject: "other", Email: "alice@acme.test", EmailVerified: true}},
		devissuer.Account{Name: "unverified bob", Claims: devissuer.Claims{Subject: "x", Email: "bob@acme.test"}})
	must(t, w.issuer.AllowLogin(client))
	cfg := Config{
		URL: base, Ledger: w.ledger, Desk: w.desk(), Recordings: Folder(w.folder), Keys: func() (record.Keys, error) { return record.NewKeys(w.gateway.Public().(ed25519.PublicKey)), nil }, Now: w.clock.Now,
		Providers: []Provider{{Issuer: identify.Issuer{Name: "dev", URL: w.issuer.URL(), AllowHTTPLoopback: true}, ClientID: client.ID, ClientSecret: secret}},
	}
	if change != nil {
		change(&cfg)
	}
	w.console, err = New(cfg)
	must(t, err)
	w.StartTLS()
	t.Cleanup(w.Close)
}

// browser is somebody's, with cookies.
type browser struct {
	*http.Client
	t    *testing.T
	base string
}

func (w *world) browser(t *testing.T) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	must(t, err)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: w.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}}
	t.Cleanup(tr.CloseIdleConnections)
	return &browser{&http.Client{Jar: jar, Transport: tr, Timeout: 20 * time.Second}, t, w.URL}
}

// as logs somebody in as a browser would, and ends on a page.
func (w *world) as(t *testing.T, who string) *browser {
	t.Helper()
	b := w.browser(t)
	if p := b.login(who); p.status != http.StatusOK {
		t.Fatalf("log in as %s: %d %s", who, p.status, p.text)
	}
	return b
}

// login walks through the issuer's page.
func (b *browser) login(who string) page {
	b.t.Helper()
	at, err := b.Get(b.base + "/login/start/dev")
	must(b.t, err)
	at.Body.Close()
	res, err := b.PostForm(at.Request.URL.String(), url.Values{"who": {who}})
	must(b.t, err)
	return read(b.t, res)
}

// page is what came.
type page struct {
	status int
	text   string
	header http.Header
	at     *url.URL
}

func read(t *testing.T, res *http.Response) page {
	t.Helper()
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	must(t, err)
	return page{res.StatusCode, string(text), res.Header, res.Request.URL}
}

func (b *browser) get(path string) page {
	b.t.Helper()
	res, err := b.Get(b.base + path)
	must(b.t, err)
	return read(b.t, res)
}

var secretField = regexp.MustCompile(`name="secret" value="([A-Z0-9]+)"`)

// secret is what the browser's forms carry.
func (b *browser) secret() string {
	b.t.Helper()
	m := secretField.FindStringSubmatch(b.get("/grants").text)
	if m == nil {
		b.t.Fatal("no form on the page")
	}
	return m[1]
}

// post sends a form of our own pages.
func (b *browser) post(path string, form url.Values) page {
	b.t.Helper()
	if !form.Has("secret") {
		form.Set("secret", b.secret())
	}
	return b.send(path, form, http.Header{"Origin": {b.base}, "Sec-Fetch-Site": {"same-origin"}})
}

// send sends any form with any headers.
func (b *browser) send(path string, form url.Values, h http.Header) page {
	b.t.Helper()
	req, err := http.NewRequest("POST", b.base+path, strings.NewReader(form.Encode()))
	must(b.t, err)
	for k, v := range h {
		req.Header[k] = v
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := b.Do(req)
	must(b.t, err)
	return read(b.t, res)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// audited reports whether the audit log has the action by somebody.
func (w *world) audited(t *testing.T, who, action string) bool {
	t.Helper()
	rows, err := w.ledger.AuditTail(t.Context(), 1000)
	must(t, err)
	for _, e := range rows {
		if e.Actor == who && e.Action == action {
			return true
		}
	}
	return false
}
