package forge

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-github/v60/github"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/workflows"
	"github.com/tidegate/tidegate/workflows/forge/hub"
)

const repoID = 1001

// world is a forge that serves a pocket GitHub, with people who push to it.
type world struct {
	t     *testing.T
	hub   *hub.Hub
	srv   *httptest.Server
	forge *Forge
	cfg   Config
	calls *counter
	logs  *lockedText
	wrap  atomic.Pointer[http.Handler] // in the hub's place
}

// counter counts calls by method, and the answers that nothing changed.
type counter struct {
	mu    sync.Mutex
	next  http.RoundTripper
	write []string
	gets  int
	same  int
}

func (c *counter) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := c.next.RoundTrip(r)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case r.Method != http.MethodGet:
		c.write = append(c.write, r.Method+" "+r.URL.Path)
	case err == nil && res.StatusCode == http.StatusNotModified:
		c.same++
	default:
		c.gets++
	}
	return res, err
}

func (c *counter) reset() (writes []string, gets, same int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	writes, gets, same = c.write, c.gets, c.same
	c.write, c.gets, c.same = nil, 0, 0
	return writes, gets, same
}

type lockedText struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func newWorld(t *testing.T, change ...func(*hub.Config)) *world {
	t.Helper()
	var ticks atomic.Int64 // each look at the clock is a second later: an edit is never in its comment's second
	start := time.Now()
	cfg := hub.Config{Dir: t.TempDir(), Owner: "acme", Repo: "access", RepoID: repoID,
		Now: func() time.Time { return start.Add(time.Duration(ticks.Add(1)) * time.Second) },
		Users: []hub.User{
			{Login: "alice", ID: 11, Token: "t-alice", Email: "alice@acme.test"},
			{Login: "bob", ID: 12, Token: "t-bob", Email: "bob@acme.test"},
			{Login: "carol", ID: 13, Token: "t-carol", Email: "carol@acme.test"},
			{Login: "mallory", ID: 14, Token: "t-mallory", Email: "mallory@acme.test"},
			{Login: "root", ID: 15, Token: "t-root", Role: hub.RoleAdmin, Email: "root@acme.test"},
			{Login: "tidegate[bot]", ID: 99, Token: "t-bot-secret", Kind: "Bot"},
		},
		Teams: []hub.Team{{Slug: "dba", ID: 21, Members: []string{"bob", "carol"}, Pending: []string{"mallory"}}},
		Seed: fstest.MapFS{"README.md": {Data: []byte("# access\n")}, "policies/a.hcl": {Data: []byte("# none\n")},
			"grants/alice/old-1.hcl": {Data: []byte("# old\n")}, "grants/empty": {Data: nil}},
		App: hub.App{ID: 7, Bot: "tidegate[bot]", InstallationID: 70},
	}
	for _, f := range change {
		f(&cfg)
	}
	h, err := hub.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, hub: h, logs: &lockedText{}, calls: &counter{next: http.DefaultTransport}}
	handler := http.Handler(h)
	w.wrap.Store(&handler)
	w.srv = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { (*w.wrap.Load()).ServeHTTP(rw, r) }))
	h.SetBaseURL(w.srv.URL)
	t.Cleanup(func() {
		w.srv.Close()
		if err := h.Close(); err != nil {
			t.Errorf("close hub: %v", err)
		}
	})
	w.cfg = Config{BaseURL: w.srv.URL, Owner: "acme", Repo: "access", Token: access.NewSecret("t-bot-secret"), Transport: w.calls,
		Log: slog.New(slog.NewTextHandler(w.logs, nil))}
	w.forge = w.newForge()
	return w
}

func (w *world) newForge(change ...func(*Config)) *Forge {
	w.t.Helper()
	cfg := w.cfg
	for _, f := range change {
		f(&cfg)
	}
	f, err := New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	return f
}

func (w *world) client(who string) *github.Client {
	w.t.Helper()
	c, err := github.NewClient(nil).WithAuthToken("t-"+who).WithEnterpriseURLs(w.srv.URL, w.srv.URL)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) git(dir string, args ...string) string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// clone is a working copy on a new branch whose pushes are somebody's.
func (w *world) clone(who, branch string) string {
	w.t.Helper()
	dir := filepath.Join(w.t.TempDir(), "work")
	w.git(".", "clone", "-q", strings.Replace(w.hub.CloneURL(), "://", "://"+who+":t-"+who+"@", 1), dir)
	w.git(dir, "config", "user.name", who)
	w.git(dir, "config", "user.email", who+"@acme.test")
	w.git(dir, "checkout", "-q", "-b", branch)
	return dir
}

// push commits one file and pushes it.
func (w *world) push(dir, path, content string, message ...string) string {
	w.t.Helper()
	full := filepath.Join(dir, path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(content), 0o644); err != nil {
		w.t.Fatal(err)
	}
	return w.pushAll(dir, "change "+path+"\n\n"+strings.Join(message, "\n"))
}

func (w *world) pushAll(dir, message string) string {
	w.t.Helper()
	w.git(dir, "add", "-A")
	w.git(dir, "commit", "-q", "-m", message)
	w.git(dir, "push", "-q", "origin", "HEAD")
	return w.git(dir, "rev-parse", "HEAD")
}

func (w *world) open(who, branch string) workflows.Ref {
	w.t.Helper()
	pr, _, err := w.client(who).PullRequests.Create(w.t.Context(), "acme", "access",
		&github.NewPullRequest{Title: github.String("give"), Head: &branch, Base: github.String("main")})
	if err != nil {
		w.t.Fatal(err)
	}
	return workflows.Ref{Repo: repoID, Number: pr.GetNumber()}
}

// request is an open pull request of alice with one grant.
func (w *world) request() (workflows.Ref, string) {
	w.t.Helper()
	dir := w.clone("alice", "inc-1")
	head := w.push(dir, "grants/alice/inc-1.hcl", "grant \"inc-1\" {}\n")
	return w.open("alice", "inc-1"), head
}

func (w *world) approve(who string, ref workflows.Ref) {
	w.t.Helper()
	_, _, err := w.client(who).PullRequests.CreateReview(w.t.Context(), "acme", "access", ref.Number,
		&github.PullRequestReviewRequest{Event: github.String("APPROVE")})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) say(who string, ref workflows.Ref, body string) *github.IssueComment {
	w.t.Helper()
	c, _, err := w.client(who).Issues.CreateComment(w.t.Context(), "acme", "access", ref.Number, &github.IssueComment{Body: &body})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// botComments are what people see of us.
func (w *world) botComments(ref workflows.Ref) []*github.IssueComment {
	w.t.Helper()
	all, _, err := w.client("alice").Issues.ListComments(w.t.Context(), "acme", "access", ref.Number, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	var mine []*github.IssueComment
	for _, c := range all {
		if c.GetUser().GetID() == 99 {
			mine = append(mine, c)
		}
	}
	return mine
}

func (w *world) check(head, name string) *github.CheckRun {
	w.t.Helper()
	list, _, err := w.client("alice").Checks.ListCheckRunsForRef(w.t.Context(), "acme", "access", head,
		&github.ListCheckRunsOptions{CheckName: &name})
	if err != nil || len(list.CheckRuns) != 1 {
		w.t.Fatalf("got %d check runs %s, error %v, want one", len(list.CheckRuns), name, err)
	}
	return list.CheckRuns[0]
}

func wantCode(t *testing.T, err error, code access.Code) {
	t.Helper()
	if err == nil || access.CodeOf(err) != code {
		t.Fatalf("got error %v (%s), want %s", err, access.CodeOf(err), code)
	}
}
