package forge

import (
	"net/http"
	"testing"

	"github.com/google/go-github/v60/github"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/workflows"
)

// retarget makes a branch where main is and has a pull request go there.
func (w *world) retarget(who string, ref workflows.Ref, branch string) {
	w.t.Helper()
	main, err := w.forge.Main(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	_, _, _ = w.client(who).Git.CreateRef(w.t.Context(), "acme", "access", // it may be there
		&github.Reference{Ref: github.String("refs/heads/" + branch), Object: &github.GitObject{SHA: &main}})
	edit := &github.PullRequest{Base: &github.PullRequestBranch{Ref: &branch}}
	if _, _, err := w.client(who).PullRequests.Edit(w.t.Context(), "acme", "access", ref.Number, edit); err != nil {
		w.t.Fatal(err)
	}
}

// TestRetargetIsSeen: what mallory had approved as a difference from her own
// branch is another one when it goes to main, at the very same commit.
func TestRetargetIsSeen(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	ref, _ := w.request()
	w.retarget("mallory", ref, "hers")
	w.approve("bob", ref)
	w.retarget("mallory", ref, "main")
	p, err := w.forge.Pull(ctx, ref)
	if err != nil || len(p.Reviews) != 1 || !p.Retargeted.After(p.Reviews[0].Submitted) {
		t.Fatalf("got reviews %+v, changed at %s, error %v, want the change after bob's", p.Reviews, p.Retargeted, err)
	}
	w.approve("bob", ref)
	if p, err = w.forge.Pull(ctx, ref); err != nil || len(p.Reviews) != 2 || !p.Reviews[1].Submitted.After(p.Retargeted) {
		t.Errorf("got reviews %+v, changed at %s, error %v, want his second after it", p.Reviews, p.Retargeted, err)
	}
}

// TestRewrittenBaseIsSeen: a push that rewrites main changes what it is compared
// with, too.
func TestRewrittenBaseIsSeen(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	dir := w.clone("root", "other")
	w.git(dir, "checkout", "-q", "main")
	w.push(dir, "policies/evil.hcl", "# pushed past everybody\n")
	ref, _ := w.request()
	w.approve("bob", ref)
	before, err := w.forge.Pull(ctx, ref)
	if err != nil || !before.Retargeted.IsZero() {
		t.Fatalf("changed at %s, error %v, want never", before.Retargeted, err)
	}
	w.git(dir, "push", "-q", "--force", "origin", "HEAD~1:main")
	after, err := w.forge.Pull(ctx, ref)
	if err != nil || after.Base == before.Base || !after.Retargeted.After(after.Reviews[0].Submitted) {
		t.Errorf("base %s, before %s, changed at %s, error %v, want another since bob's review", after.Base, before.Base, after.Retargeted, err)
	}
}

// TestBaseIsAskedForOncePerUpdate and its absence is no "never".
func TestBaseIsAskedForOncePerUpdate(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	ref, _ := w.request()
	w.approve("bob", ref)
	w.calls.reset()
	for range 3 {
		if _, err := w.forge.Pull(ctx, ref); err != nil {
			t.Fatal(err)
		}
	}
	if asked, _, _ := w.calls.reset(); len(asked) != 1 {
		t.Errorf("asked %v, want once", asked)
	}
	silent := http.Handler(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/graphql" {
			w.hub.ServeHTTP(rw, r)
			return
		}
		_, _ = rw.Write([]byte(`{"data":{"repository":{"databaseId":1001,"pullRequest":{"timelineItems":{"nodes":[{"__typename":"Later"}]}}}}}`))
	}))
	w.wrap.Store(&silent)
	_, err := w.newForge().Pull(ctx, ref)
	wantCode(t, err, access.CodeUnavailable)
}
