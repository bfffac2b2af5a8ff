package hub

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-github/v60/github"
)

// world is a hub behind a real listener, with a client for each person and a
// receiver of its webhooks.
type world struct {
	t    *testing.T
	cfg  Config
	hub  *Hub
	srv  *httptest.Server
	hook *httptest.Server

	events chan received
}

type received struct {
	event, guid string
	payload     any
}

const hookSecret = "hook-secret"

func newWorld(t *testing.T, change ...func(*Config)) *world {
	t.Helper()
	w := &world{t: t, events: make(chan received, 256)}
	w.hook = httptest.NewServer(http.HandlerFunc(w.receive))
	t.Cleanup(w.hook.Close)
	w.cfg = Config{Dir: t.TempDir(), Owner: "acme", Repo: "access",
		Users: []User{
			{Login: "alice", ID: 11, Token: "t-alice", Email: "alice@acme.test"},
			{Login: "bob", ID: 12, Token: "t-bob", Email: "bob@acme.test"},
			{Login: "mallory", ID: 13, Token: "t-mallory", Role: RoleRead},
			{Login: "root", ID: 14, Token: "t-root", Role: RoleAdmin},
			{Login: "tidegate[bot]", ID: 15, Token: "t-bot", Kind: "Bot"},
		},
		Teams: []Team{{Slug: "dba", ID: 21, Members: []string{"bob"}, Pending: []string{"mallory"}}},
		Seed:  fstest.MapFS{"README.md": {Data: []byte("# access\n")}, "policies/a.hcl": {Data: []byte("# none\n")}},
		App:   App{Bot: "tidegate[bot]"}, WebhookURL: w.hook.URL, WebhookSecret: hookSecret,
	}
	for _, f := range change {
		f(&w.cfg)
	}
	w.open()
	w.srv = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { w.hub.ServeHTTP(rw, r) }))
	w.hub.SetBaseURL(w.srv.URL)
	t.Cleanup(func() {
		w.srv.Close()
		if err := w.hub.Close(); err != nil {
			t.Errorf("close hub: %v", err)
		}
	})
	return w
}

func (w *world) open() {
	w.t.Helper()
	h, err := Open(w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.hub = h
}

func (w *world) receive(rw http.ResponseWriter, r *http.Request) {
	body, err := github.ValidatePayload(r, []byte(hookSecret))
	if err != nil {
		w.t.Errorf("validate webhook: %v", err)
	}
	event, err := github.ParseWebHook(github.WebHookType(r), body)
	if err != nil {
		w.t.Errorf("parse webhook %s: %v", github.WebHookType(r), err)
	}
	w.events <- received{github.WebHookType(r), github.DeliveryID(r), event}
	rw.WriteHeader(http.StatusNoContent)
}

// next waits for the next event of a kind and forgets those before it.
func (w *world) next(kind string) received {
	w.t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		select {
		case e := <-w.events:
			if e.event == kind {
				return e
			}
		case <-deadline:
			w.t.Fatalf("no %s event within 10 s", kind)
		}
	}
}

func (w *world) client(who string) *github.Client {
	w.t.Helper()
	c, err := github.NewClient(&http.Client{Transport: validating(w.t)}).WithAuthToken("t-"+who).WithEnterpriseURLs(w.srv.URL, w.srv.URL)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) git(dir string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (w *world) mustGit(dir string, args ...string) string {
	w.t.Helper()
	out, err := w.git(dir, args...)
	if err != nil {
		w.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(out)
}

// clone makes a working copy whose pushes are somebody's.
func (w *world) clone(who string) string {
	w.t.Helper()
	dir := filepath.Join(w.t.TempDir(), "work")
	w.mustGit(".", "clone", "-q", strings.Replace(w.hub.CloneURL(), "://", "://"+who+":t-"+who+"@", 1), dir)
	w.mustGit(dir, "config", "user.name", who)
	w.mustGit(dir, "config", "user.email", who+"@acme.test")
	return dir
}

// commit writes a file and commits it; the branch is made when it is new.
func (w *world) commit(dir, branch, path, text string) string {
	w.t.Helper()
	if _, err := w.git(dir, "checkout", "-q", branch); err != nil {
		w.mustGit(dir, "checkout", "-q", "-b", branch)
	}
	full := filepath.Join(dir, path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
	w.mustGit(dir, "add", "-A")
	w.mustGit(dir, "commit", "-q", "-m", "change "+path)
	return w.mustGit(dir, "rev-parse", "HEAD")
}

// openPull pushes a branch with one file and opens a pull request.
func (w *world) openPull(who, branch, path string) (*github.PullRequest, string) {
	w.t.Helper()
	dir := w.clone(who)
	w.commit(dir, branch, path, "grant\n")
	w.mustGit(dir, "push", "-q", "origin", branch)
	pr, _, err := w.client(who).PullRequests.Create(w.t.Context(), "acme", "access",
		&github.NewPullRequest{Title: github.String("give " + who), Head: &branch, Base: github.String("main"), Body: github.String("why")})
	if err != nil {
		w.t.Fatalf("open pull request: %v", err)
	}
	return pr, dir
}

func must[T any](t *testing.T) func(T, *github.Response, error) T {
	return func(v T, _ *github.Response, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func wantStatus(t *testing.T, res *github.Response, err error, status int) {
	t.Helper()
	if err == nil || res == nil || res.StatusCode != status {
		t.Fatalf("got %v, want status %d", err, status)
	}
}

func TestPullRequestFromPushToMerge(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	pr, dir := w.openPull("alice", "grant-1", "grants/alice/inc-1.hcl")
	if e := w.next("pull_request").payload.(*github.PullRequestEvent); e.GetAction() != "opened" || e.GetPullRequest().GetHead().GetSHA() != pr.GetHead().GetSHA() {
		t.Fatalf("got event %s, want opened at the head", e.GetAction())
	}
	if pr.GetCommits() != 1 || pr.GetChangedFiles() != 1 || !pr.GetMergeable() {
		t.Fatalf("got %d commits, %d files, mergeable %t", pr.GetCommits(), pr.GetChangedFiles(), pr.GetMergeable())
	}
	bob := w.client("bob")
	review := must[*github.PullRequestReview](t)(bob.PullRequests.CreateReview(ctx, "acme", "access", pr.GetNumber(), &github.PullRequestReviewRequest{Event: github.String("APPROVE")}))
	if review.GetCommitID() != pr.GetHead().GetSHA() || review.GetState() != "APPROVED" {
		t.Fatalf("got review %s at %s", review.GetState(), review.GetCommitID())
	}
	w.next("pull_request_review")
	old := pr.GetHead().GetSHA()
	sha := w.commit(dir, "grant-1", "grants/alice/inc-1.hcl", "grant again\n")
	w.mustGit(dir, "push", "-q", "origin", "grant-1")
	if e := w.next("pull_request").payload.(*github.PullRequestEvent); e.GetAction() != "synchronize" || e.GetBefore() != old || e.GetAfter() != sha {
		t.Fatalf("got %s %s..%s, want synchronize", e.GetAction(), e.GetBefore(), e.GetAfter())
	}
	_, res, err := bob.PullRequests.Merge(ctx, "acme", "access", pr.GetNumber(), "", &github.PullRequestOptions{SHA: old})
	wantStatus(t, res, err, http.StatusConflict)
	_, res, err = w.client("mallory").PullRequests.Merge(ctx, "acme", "access", pr.GetNumber(), "", &github.PullRequestOptions{SHA: sha})
	wantStatus(t, res, err, http.StatusForbidden)
	merged := must[*github.PullRequestMergeResult](t)(bob.PullRequests.Merge(ctx, "acme", "access", pr.GetNumber(), "", &github.PullRequestOptions{SHA: sha}))
	if e := w.next("pull_request").payload.(*github.PullRequestEvent); e.GetAction() != "closed" || !e.GetPullRequest().GetMerged() {
		t.Fatalf("got %s, want closed and merged", e.GetAction())
	}
	if e := w.next("push").payload.(*github.PushEvent); e.GetRef() != "refs/heads/main" || e.GetAfter() != merged.GetSHA() {
		t.Fatalf("got push to %s at %s", e.GetRef(), e.GetAfter())
	}
	now := must[*github.PullRequest](t)(bob.PullRequests.Get(ctx, "acme", "access", pr.GetNumber()))
	if !now.GetMerged() || now.GetMergeCommitSHA() != merged.GetSHA() || now.GetMergedBy().GetLogin() != "bob" || now.GetMergedAt().IsZero() {
		t.Fatalf("got %v", now)
	}
	_, res, err = bob.PullRequests.Merge(ctx, "acme", "access", pr.GetNumber(), "", nil)
	wantStatus(t, res, err, http.StatusMethodNotAllowed)
}

func TestProtectionOfMain(t *testing.T) {
	w := newWorld(t)
	dir := w.clone("alice")
	w.commit(dir, "main", "grants/x.hcl", "x\n")
	if out, err := w.git(dir, "push", "origin", "main"); err == nil || !strings.Contains(out, "Protected branch") {
		t.Fatalf("got %v %s, want the push refused", err, out)
	}
	root := w.clone("root")
	w.commit(root, "main", "grants/x.hcl", "x\n")
	w.mustGit(root, "push", "-q", "origin", "main")
	w.mustGit(root, "reset", "-q", "--hard", "HEAD~1")
	w.mustGit(root, "push", "-q", "--force", "origin", "main")
	if e := w.next("push").payload.(*github.PushEvent); e.GetForced() {
		t.Fatal("the first push is not forced")
	}
	if e := w.next("push").payload.(*github.PushEvent); !e.GetForced() || e.GetPusher().GetName() != "root" {
		t.Fatalf("got %v, want a forced push by root", e)
	}
	guest := w.clone("mallory")
	w.commit(guest, "b", "f", "x\n")
	if out, err := w.git(guest, "push", "origin", "b"); err == nil {
		t.Fatalf("a reader pushed: %s", out)
	}
}

func TestStateSurvivesRestart(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	pr, _ := w.openPull("alice", "b", "grants/a.hcl")
	must[*github.IssueComment](t)(w.client("bob").Issues.CreateComment(ctx, "acme", "access", pr.GetNumber(), &github.IssueComment{Body: github.String("hello <b>")}))
	if err := w.hub.Close(); err != nil {
		t.Fatal(err)
	}
	w.open()
	w.hub.SetBaseURL(w.srv.URL)
	list := must[[]*github.IssueComment](t)(w.client("bob").Issues.ListComments(ctx, "acme", "access", pr.GetNumber(), nil))
	if len(list) != 1 || list[0].GetBody() != "hello <b>" || list[0].GetUser().GetLogin() != "bob" {
		t.Fatalf("got %v after the restart", list)
	}
	res, err := http.Get(w.srv.URL + "/acme/access/pull/1")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	page, err := io.ReadAll(res.Body)
	if err != nil || !strings.Contains(string(page), "hello &lt;b&gt;") {
		t.Fatalf("got %v %s, want the escaped comment", err, page)
	}
	w.hub.Down(true)
	_, response, err := w.client("bob").PullRequests.Get(ctx, "acme", "access", pr.GetNumber())
	wantStatus(t, response, err, http.StatusServiceUnavailable)
}
