package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.temporal.io/sdk/client"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger"
	"github.com/tidegate/tidegate/policies/example"
	"github.com/tidegate/tidegate/workflows"
	"github.com/tidegate/tidegate/workflows/forge"
	"github.com/tidegate/tidegate/workflows/forge/hub"
	"github.com/tidegate/tidegate/workflows/temporaltest"
)

// desk is the side of a house where people ask and agree: a real hub on real
// git, the real control side, ledger and Temporal. Its target is a paper one.
type desk struct {
	people
	t      *testing.T
	hub    *hub.Hub
	ledger *ledger.Ledger
	log    *words

	gateway ed25519.PrivateKey // signs what is held
	dir     string             // control's state folder
	store   ledger.Config

	cfg  controlConfig
	ctl  *control
	hook *httptest.Server
}

// words is a log that a test can search.
type words struct {
	mu   sync.Mutex
	text strings.Builder
}

func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// paper is a target of which every role is there: what a mint does at a real
// one is other tests' to see.
type paper struct{}

func (paper) Kind() string { return "postgres" }
func (paper) Expand(context.Context, access.Plan) (access.Expansion, error) {
	return access.Expansion{Body: json.RawMessage(`{}`)}, nil
}
func (paper) Mint(context.Context, access.Grant) (access.Minted, error) {
	return access.Minted{Backing: []byte(`{}`)}, nil
}
func (paper) Revoke(context.Context, access.Grant) error { return nil }
func (paper) Prove(context.Context, access.Grant) error  { return nil }
func (paper) Lease(context.Context, access.Grant, string) (access.Lease, error) {
	return access.Lease{}, errors.New("a paper target has no door")
}

// newDesk sets a desk up; change may edit what control is made of.
func newDesk(t *testing.T, change ...func(*controlConfig, *hub.Config)) *desk {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a Temporal server")
	}
	server := temporaltest.Start(t, temporaltest.Options{InMemory: true})
	d := &desk{t: t, log: &words{}, dir: t.TempDir()}
	d.people = people{devReady{Repo: "acme/access", HubTokens: map[string]string{}}, t.TempDir()}
	cfg := d.hubConfig()
	log := slog.New(slog.NewTextHandler(d.log, nil))
	d.cfg = controlConfig{
		Webhook: access.NewSecret(cfg.WebhookSecret), Minters: []leaser{paper{}}, Log: log,
		Forge:    forge.Config{Owner: cfg.Owner, Repo: cfg.Repo, Token: access.NewSecret("t-" + devBot), Log: log},
		Temporal: client.Options{HostPort: server.Address, Namespace: server.Namespace, Logger: temporalLog{slog.New(slog.DiscardHandler)}},
		Rules: workflows.Rules{
			AdoptFirst: true, Poll: time.Second, PolicyOwners: []access.Principal{{Kind: access.KindTeam, Name: "acme/dba"}},
			Operators: []access.Principal{{Kind: access.KindUser, Name: "admin"}},
		},
	}
	for _, f := range change {
		f(&d.cfg, &cfg)
	}
	d.open(cfg)
	d.startControl()
	t.Cleanup(d.stopControl)
	return d
}

func (d *desk) hubConfig() hub.Config {
	seed, err := fs.Sub(example.FS, example.Root)
	if err != nil {
		d.t.Fatal(err)
	}
	cfg := hub.Config{
		Dir: filepath.Join(d.t.TempDir(), "hub"), Owner: "acme", Repo: "access", Seed: seed, WebhookSecret: "hook-secret",
		Teams: []hub.Team{
			{Slug: "data-owners", ID: 71, Members: []string{"bob", "carol"}},
			{Slug: "dba", ID: 72, Members: []string{"carol"}},
		},
	}
	for i, who := range []string{"admin", devBot, "alice", "bob", "carol", "mallory"} {
		u := hub.User{Login: who, ID: int64(i + 1), Token: "t-" + who, Email: who + "@acme.test"}
		switch who {
		case "admin":
			u.Role = hub.RoleAdmin
		case devBot:
			u.Role, u.Kind = hub.RoleAdmin, "Bot"
		}
		cfg.Users = append(cfg.Users, u)
		d.house.HubTokens[who] = u.Token
	}
	return cfg
}

func (d *desk) open(cfg hub.Config) {
	d.t.Helper()
	var err error
	if d.hub, err = hub.Open(cfg); err != nil {
		d.t.Fatal(err)
	}
	srv := httptest.NewServer(d.hub)
	d.hub.SetBaseURL(srv.URL)
	d.house.Hub, d.house.CloneURL, d.cfg.Forge.BaseURL = srv.URL, d.hub.CloneURL(), srv.URL
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		d.t.Fatal(err)
	}
	public, gateway, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		d.t.Fatal(err)
	}
	d.gateway = gateway
	d.store = ledger.Config{
		URL: "sqlite:" + filepath.Join(d.dir, ledgerFile), Signer: key, Installation: "desk1",
		Gateways: func(string) (ed25519.PublicKey, error) { return public, nil },
	}
	d.openLedger()
	d.t.Cleanup(func() {
		srv.Close()
		if err := errors.Join(d.hub.Close(), d.ledger.Close()); err != nil {
			d.t.Errorf("close desk: %v", err)
		}
	})
}

// openLedger opens it as control does, with what was seen of it.
func (d *desk) openLedger() {
	d.t.Helper()
	h := newHouse(d.cfg.Log)
	l, err := h.watchLedger(d.t.Context(), d.dir, d.store)
	if err != nil {
		d.t.Fatal(errors.Join(err, h.Close()))
	}
	d.ledger, d.cfg.Ledger = l, l
}

// startControl starts the control side, with its webhook.
func (d *desk) startControl() {
	d.t.Helper()
	var err error
	d.cfg.Signals = &signals{metrics: prometheus.NewRegistry()}
	if d.ctl, err = startControl(d.t.Context(), d.cfg); err != nil {
		d.t.Fatal(err)
	}
	d.hook = httptest.NewServer(d.ctl.Webhook)
	d.hub.SetWebhook(d.hook.URL, d.cfg.Webhook.Reveal())
}

// stopControl takes the control side down. What the hub has to tell meanwhile
// is lost, as on GitHub, which delivers once.
func (d *desk) stopControl() {
	if d.ctl == nil {
		return
	}
	d.hook.Close()
	if err := d.ctl.Close(); err != nil {
		d.t.Errorf("close control: %v", err)
	}
	d.ctl = nil
}

// ask opens a pull request of somebody with one grant.
func (d *desk) ask(who string, a asked) int {
	d.t.Helper()
	d.must(d.push(d.t.Context(), who, a.id, fmt.Sprintf("grants/%s/%s.hcl", who, a.id), grantFile(a.id, who, a.role, a.lasts)))
	return d.openPull(who, a.id)
}

func (d *desk) openPull(who, branch string) int {
	d.t.Helper()
	number, err := d.pullRequest(d.t.Context(), who, branch, "Ask for "+branch)
	d.must(err)
	return number
}

func (d *desk) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatalf("%v\nthe log:\n%s", err, d.log.String())
	}
}

// until waits until it is so.
func (d *desk) until(what string, ok func() (bool, error)) {
	d.t.Helper()
	d.must(func() error {
		err := eventually(d.t.Context(), 30*time.Second, ok)
		if err != nil {
			return fmt.Errorf("want %s: %w", what, err)
		}
		return nil
	}())
}

// says waits until the bot's comment, or a reply in it, holds a text.
func (d *desk) says(number int, text string) {
	d.t.Helper()
	last := ""
	defer func() {
		if d.t.Failed() {
			d.t.Logf("the comment:\n%s", last)
		}
	}()
	d.until(fmt.Sprintf("%q in the comment of %d", text, number), func() (bool, error) {
		all, err := d.comments(d.t.Context(), number)
		last = strings.Join(all, "\n----\n")
		return strings.Contains(last, text), err
	})
}

// is waits until a grant is in a state.
func (d *desk) is(id string, state access.State) access.Grant {
	d.t.Helper()
	var g access.Grant
	d.until(fmt.Sprintf("grant %s %s", id, state), func() (ok bool, err error) {
		g, err = d.ledger.Grant(d.t.Context(), access.GrantKey{Repo: 1001, ID: id})
		if access.CodeOf(err) == access.CodeNotFound {
			return false, nil
		}
		if err == nil && g.State != state && g.State.Ended() {
			err = fmt.Errorf("it is %s: %s", g.State, g.Why)
		}
		return g.State == state, err
	})
	return g
}

// TestControlDownDuringAPush: mallory, of the data owners here, pushes as
// alice while nobody listens. What GitHub's log tells afterwards is enough.
func TestControlDownDuringAPush(t *testing.T) {
	d := newDesk(t, func(_ *controlConfig, h *hub.Config) { h.Teams[0].Members = []string{"bob", "mallory"} })
	ctx := t.Context()
	d.must(d.push(ctx, "alice", "inc-1", "notes.md", "one\n"))
	d.stopControl()
	d.must(d.forge(ctx, "mallory", "inc-1", "grants/alice/inc-1.hcl", grantFile("inc-1", "alice", "readonly", "5m")))
	number := d.openPull("alice", "inc-1")
	d.must(d.approve(ctx, "mallory", number))
	d.startControl()
	d.says(number, "mallory's approval does not count: pushed to the branch")
	d.must(d.approve(ctx, "bob", number))
	d.says(number, "bob agrees")
	d.must(d.merge(ctx, "bob", number))
	d.is("inc-1", access.StateActive)
}

// forge pushes a commit whose author and committer claim to be alice.
func (d *desk) forge(ctx context.Context, who, branch, file, text string) error {
	if err := errors.Join(d.clone(ctx, who), d.clone(ctx, "alice")); err != nil {
		return err
	}
	dir := filepath.Join(d.work, who)
	for _, args := range [][]string{{"fetch", "-q", "origin"}, {"checkout", "-q", "-B", branch, "origin/" + branch}} {
		if _, err := d.git(ctx, who, args...); err != nil {
			return err
		}
	}
	path := filepath.Join(dir, filepath.FromSlash(file))
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		return err
	}
	for _, args := range [][]string{{"-C", dir, "add", file}, {"-C", dir, "commit", "-q", "-m", "Ask for access"}} {
		if _, err := d.git(ctx, "alice", args...); err != nil {
			return err
		}
	}
	_, err := d.git(ctx, who, "push", "-q", "origin", branch)
	return err
}

// TestEditedCommentIsRestored: mallory writes into the bot's comment.
func TestEditedCommentIsRestored(t *testing.T) {
	d := newDesk(t)
	ctx := t.Context()
	number := d.ask("alice", asked{"inc-1", "readonly", "5m"})
	d.says(number, "inc-1")
	d.must(d.approve(ctx, "bob", number))
	d.says(number, "bob agrees")
	d.must(d.merge(ctx, "bob", number))
	g := d.is("inc-1", access.StateActive)
	h := access.Held{ID: "5f0c7a52-8f62-4a5e-9d7e-0d3b8a5f0a11", Grant: g.Key, Generation: 1, Session: "s1", Who: "alice", Target: g.Plan.Target.TargetRef,
		Rule: "big-delete", Say: "why", Ask: g.Plan.Requirements[0].From, Operation: access.Operation{Kind: "query", Text: "DELETE FROM orders"},
		Opened: time.Now(), Expires: time.Now().Add(time.Minute), State: access.HeldOpen}
	h = d.hold(h)
	d.says(number, h.Short())
	comment := d.botComment(number)
	d.must(d.api(ctx, "mallory", "PATCH", fmt.Sprintf("/issues/comments/%d", comment), map[string]string{"body": "all is well"}, nil))
	d.says(number, "mallory edited this comment")
	if got := d.botComment(number); got != comment {
		t.Errorf("got comment %d, want %d drawn anew", got, comment)
	}
	if got, err := d.ledger.Held(ctx, h.ID); err != nil || got.State != access.HeldCancelled {
		t.Errorf("held is %s, error %v, want it void", got.State, err)
	}
	if !strings.Contains(d.log.String(), "edited by somebody else") {
		t.Error("no alarm in the log")
	}
}

// hold stores what is held, as a gateway does.
func (d *desk) hold(h access.Held) access.Held {
	d.t.Helper()
	h.Gateway, h.Digest, h.Opened, h.Expires = "g1", h.ShownDigest(), h.Opened.UTC(), h.Expires.UTC()
	h.Signature = ed25519.Sign(d.gateway, h.SigningBytes())
	h, err := d.ledger.OpenHeld(d.t.Context(), h)
	d.must(err)
	return h
}

func (d *desk) botComment(number int) int64 {
	d.t.Helper()
	var all []struct {
		ID   int64
		User struct{ Login string }
	}
	d.must(d.api(d.t.Context(), "bob", "GET", fmt.Sprintf("/issues/%d/comments", number), nil, &all))
	for _, c := range all {
		if c.User.Login == devBot {
			return c.ID
		}
	}
	d.t.Fatal("the bot has no comment")
	return 0
}

// TestPoliciesMergedWhileControlIsDown come into force one after the other,
// and a direct push after them does not.
func TestPoliciesMergedWhileControlIsDown(t *testing.T) {
	d := newDesk(t)
	ctx := t.Context()
	people := func(names ...string) string {
		var b strings.Builder
		for _, n := range names {
			fmt.Fprintf(&b, "person %q { identity = oidc(\"dev\", \"%s@acme.test\") }\n", n, n)
		}
		return b.String()
	}
	d.until("the first policies", func() (bool, error) { return d.inForce(0) })
	d.stopControl()
	for i, names := range [][]string{{"alice", "bob", "carol", "admin"}, {"alice", "bob", "carol"}, {"admin", "alice", "bob", "carol"}} {
		branch := fmt.Sprint("policy-", i)
		d.must(d.push(ctx, "bob", branch, "policies/people.hcl", people(names...)))
		number := d.openPull("bob", branch)
		d.must(d.approve(ctx, "carol", number))
		d.must(d.merge(ctx, "bob", number))
	}
	d.startControl()
	d.until("three changes in force", func() (bool, error) { return d.inForce(3) })
	d.must(d.push(ctx, "admin", "direct", "policies/people.hcl", people("mallory", "bob", "carol")))
	if _, err := d.git(ctx, "admin", "push", "-q", "origin", "direct:main"); err != nil {
		t.Fatal(err)
	}
	d.until("a refusal", func() (bool, error) {
		return strings.Contains(d.log.String(), "policies on main are not in force"), nil
	})
	if ok, err := d.inForce(3); !ok || err != nil {
		t.Errorf("the policies in force changed by a direct push, error %v", err)
	}
}

// inForce reports whether the policies in force are those of the given pull
// request; 0 is the first commit.
func (d *desk) inForce(number int) (bool, error) {
	want := ""
	if number > 0 {
		var pr struct {
			Merge string `json:"merge_commit_sha"`
		}
		if err := d.api(d.t.Context(), "bob", "GET", fmt.Sprintf("/pulls/%d", number), nil, &pr); err != nil {
			return false, err
		}
		want = pr.Merge
	}
	tree, err := d.ledger.Adopted(d.t.Context())
	if access.CodeOf(err) == access.CodeNotFound {
		return false, nil
	}
	return err == nil && (want == "" || tree.Commit == want), err
}
