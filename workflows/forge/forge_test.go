package forge

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-github/v60/github"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/workflows"
	"github.com/tidegate/tidegate/workflows/forge/hub"
)

func TestPullFromOpenToMerged(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	main, err := w.forge.Main(ctx)
	if err != nil {
		t.Fatal(err)
	}
	dir := w.clone("alice", "inc-1")
	w.push(dir, "grants/alice/inc-1.hcl", "one\n", "Co-authored-by: Bob <12+bob@users.noreply.github.com>")
	w.git(dir, "config", "user.email", "carol@acme.test")
	head := w.push(dir, "grants/alice/inc-1.hcl", "two\n")
	ref := w.open("alice", "inc-1")
	w.approve("bob", ref)
	p, err := w.forge.Pull(ctx, ref)
	if err != nil {
		t.Fatal(err)
	}
	want := map[int64]string{11: "opened this request", 12: "is named as co-author", 13: "committed to it"}
	if diff := cmp.Diff(want, p.Excluded); diff != "" {
		t.Errorf("excluded: %s", diff)
	}
	if p.Head != head || p.Base != main || !p.Open || p.Fork || p.Draft || p.Author.ID != 11 || len(p.Unknown) != 0 {
		t.Errorf("got %+v, want alice's open pull request of %s on %s", p, head, main)
	}
	if len(p.Reviews) != 1 || p.Reviews[0].User.ID != 12 || p.Reviews[0].State != access.ReviewApproved || p.Reviews[0].Commit != head {
		t.Errorf("got reviews %+v, want bob's approval of the head", p.Reviews)
	}
	wantCode(t, w.forge.Merge(ctx, ref, main), access.CodeConflict)
	wantCode(t, w.forge.Merge(ctx, ref, ""), access.CodeInvalid)
	if err := w.forge.Merge(ctx, ref, head); err != nil {
		t.Fatal(err)
	}
	wantCode(t, w.forge.Merge(ctx, ref, head), access.CodeConflict)
	w.isMerged(ref, p)
}

// isMerged checks that a merge changes nothing of what was compared and by whom.
func (w *world) isMerged(ref workflows.Ref, before workflows.Pull) {
	w.t.Helper()
	ctx := w.t.Context()
	p, err := w.forge.Pull(ctx, ref)
	if err != nil {
		w.t.Fatal(err)
	}
	main, err := w.forge.Main(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	if p.Open || p.MergedAt.IsZero() || p.Merge != main || p.Base != before.Base || p.Head != before.Head {
		w.t.Errorf("got %+v, want it merged as %s", p, main)
	}
	if diff := cmp.Diff(before.Excluded, p.Excluded); diff != "" {
		w.t.Errorf("excluded after the merge: %s", diff)
	}
	if n, err := w.forge.PullOf(ctx, main); err != nil || n != ref.Number {
		w.t.Errorf("got pull request %d of main, error %v, want %d", n, err, ref.Number)
	}
	if n, err := w.forge.PullOf(ctx, before.Base); err != nil || n != 0 {
		w.t.Errorf("got pull request %d of the first commit, error %v, want none", n, err)
	}
}

// TestPullThatWasPushedToMain: an admin pushes the branch itself to main, and the
// people of its first commit must not be forgotten.
func TestPullThatWasPushedToMain(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	dir := w.clone("carol", "inc-1")
	w.push(dir, "grants/alice/inc-1.hcl", "one\n")
	w.git(dir, "config", "user.email", "alice@acme.test")
	head := w.push(dir, "grants/alice/inc-1.hcl", "two\n")
	ref := w.open("alice", "inc-1")
	root := w.clone("root", "any")
	w.git(root, "fetch", "-q", "origin", "inc-1")
	w.git(root, "push", "-q", "origin", head+":refs/heads/main")
	p, err := w.forge.Pull(ctx, ref)
	if err != nil || p.MergedAt.IsZero() || p.Merge != head {
		t.Fatalf("got %+v, error %v, want it merged as its head", p, err)
	}
	if p.Excluded[13] == "" && len(p.Unknown) == 0 {
		t.Errorf("got excluded %v, want carol among them, or said that somebody is not known", p.Excluded)
	}
}

// TestPullWhoseBaseMovedOn lets GitHub name today's main as the base of a merged
// pull request: nothing of it is ahead of that.
func TestPullWhoseBaseMovedOn(t *testing.T) {
	for name, ff := range map[string]bool{"merged": false, "pushed": true} {
		t.Run(name, func(t *testing.T) {
			w, ctx := newWorld(t), t.Context()
			ref, head := w.request()
			before, err := w.forge.Pull(ctx, ref)
			if err != nil {
				t.Fatal(err)
			}
			if ff {
				w.git(w.clone("root", "any"), "push", "-q", "origin", "refs/remotes/origin/inc-1:refs/heads/main")
			} else if err := w.forge.Merge(ctx, ref, head); err != nil {
				t.Fatal(err)
			}
			w.moveBase()
			p, err := w.newForge().Pull(ctx, ref)
			if err != nil || p.Base != before.Base || p.Excluded[11] == "" || ff != (len(p.Unknown) == 1) {
				t.Errorf("got %+v, error %v, want base %s, and somebody unknown only after a push", p, err, before.Base)
			}
		})
	}
}

// moveBase makes the base of a merged pull request what it was merged as.
func (w *world) moveBase() {
	real := http.Handler(w.hub)
	moved := http.Handler(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		r.Header.Del("If-None-Match")
		real.ServeHTTP(rec, r)
		var pull map[string]any
		if err := json.Unmarshal(rec.Body.Bytes(), &pull); err == nil && pull["merge_commit_sha"] != nil {
			pull["base"].(map[string]any)["sha"] = pull["merge_commit_sha"]
			rec.Body.Reset()
			_ = json.NewEncoder(rec.Body).Encode(pull) // it was JSON a moment ago
		}
		rw.WriteHeader(rec.Code)
		_, _ = rw.Write(rec.Body.Bytes())
	}))
	w.wrap.Store(&moved)
}

// TestCommitsAreReadToTheEnd counts people on the second page of commits.
func TestCommitsAreReadToTheEnd(t *testing.T) {
	w := newWorld(t)
	dir := w.clone("alice", "inc-1")
	for i := range perPage + 5 {
		if i == perPage {
			w.git(dir, "config", "user.email", "carol@acme.test")
		}
		w.git(dir, "commit", "-q", "--allow-empty", "-m", "x")
	}
	w.push(dir, "grants/alice/inc-1.hcl", "one\n")
	p, err := w.forge.Pull(t.Context(), w.open("alice", "inc-1"))
	if err != nil || p.Excluded[13] == "" || len(p.Unknown) != 0 {
		t.Errorf("got %v, unknown %v, error %v, want carol excluded", p.Excluded, p.Unknown, err)
	}
}

func TestPullNamesWhomItCannotKnow(t *testing.T) {
	w := newWorld(t)
	dir := w.clone("alice", "inc-1")
	w.git(dir, "config", "user.email", "ghost@elsewhere.test")
	w.push(dir, "grants/alice/inc-1.hcl", "one\n", "co-authored-by: X <x@elsewhere.test>", "Co-Authored-By: Root <root@acme.test>")
	p, err := w.forge.Pull(t.Context(), w.open("alice", "inc-1"))
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(p.Unknown, "\n")
	for _, want := range []string{"author of commit", "committer of", "(ghost@elsewhere.test)", "co-author of commit", "(x@elsewhere.test)", "(root@acme.test)"} {
		if !strings.Contains(all, want) {
			t.Errorf("got unknown %q, want %q in it", all, want)
		}
	}
}

func TestReviewsAreReadToTheEnd(t *testing.T) {
	w := newWorld(t)
	ref, _ := w.request()
	for range perPage + 5 {
		w.approve("bob", ref)
	}
	p, err := w.forge.Pull(t.Context(), ref)
	if err != nil || len(p.Reviews) != perPage+5 {
		t.Fatalf("got %d reviews, error %v, want %d", len(p.Reviews), err, perPage+5)
	}
}

// TestReviewBehindAFullPageIsSeen: the page before it is the same as ever.
func TestReviewBehindAFullPageIsSeen(t *testing.T) {
	w := newWorld(t)
	ref, _ := w.request()
	for n := 1; n <= perPage+1; n++ {
		w.approve("bob", ref)
		if n < perPage {
			continue
		}
		if p, err := w.forge.Pull(t.Context(), ref); err != nil || len(p.Reviews) != n {
			t.Fatalf("got %d reviews, error %v, want %d", len(p.Reviews), err, n)
		}
	}
}

// TestReadingAgainCostsNothing: answers that did not change are 304s, which GitHub
// does not count.
func TestReadingAgainCostsNothing(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	ref, _ := w.request()
	first, err := w.forge.Pull(ctx, ref)
	if err != nil {
		t.Fatal(err)
	}
	w.calls.reset()
	second, err := w.forge.Pull(ctx, ref)
	if err != nil {
		t.Fatal(err)
	}
	if _, gets, same := w.calls.reset(); gets != 0 || same == 0 {
		t.Errorf("got %d full answers and %d unchanged ones, want unchanged ones only", gets, same)
	}
	if diff := cmp.Diff(first, second); diff != "" {
		t.Error(diff)
	}
	w.approve("bob", ref)
	if third, err := w.forge.Pull(ctx, ref); err != nil || len(third.Reviews) != 1 {
		t.Errorf("got %d reviews, error %v, want the new one seen", len(third.Reviews), err)
	}
}

func TestOpenPulls(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	ref, head := w.request()
	w.push(w.clone("bob", "inc-2"), "grants/bob/inc-2.hcl", "x\n")
	second := w.open("bob", "inc-2")
	far := time.Now().Add(24 * time.Hour)
	if got, err := w.forge.OpenPulls(ctx, far); err != nil || len(got) != 2 {
		t.Fatalf("got %v, error %v, want two open ones", got, err)
	}
	if err := w.forge.Merge(ctx, ref, head); err != nil {
		t.Fatal(err)
	}
	if got, err := w.forge.OpenPulls(ctx, far); err != nil || !cmp.Equal(got, []workflows.Ref{second}) {
		t.Fatalf("got %v, error %v, want only the one that is open", got, err)
	}
	if got, err := w.forge.OpenPulls(ctx, time.Time{}); err != nil || len(got) != 2 {
		t.Fatalf("got %v, error %v, want the closed one as well", got, err)
	}
}

func TestTree(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	ref, head := w.request()
	tree, err := w.forge.Tree(ctx, head)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range tree.Files {
		got = append(got, f.Path+"="+string(f.Content))
	}
	want := []string{"grants/alice/inc-1.hcl=grant \"inc-1\" {}\n", "grants/alice/old-1.hcl=# old\n", "grants/empty=", "policies/a.hcl=# none\n"}
	if diff := cmp.Diff(want, got); diff != "" || tree.Commit != head {
		t.Errorf("files: %s", diff)
	}
	main, err := w.forge.Tree(ctx, "")
	if err != nil || len(main.Files) != 3 {
		t.Fatalf("got %d files of main, error %v, want 3", len(main.Files), err)
	}
	w.calls.reset()
	if _, err := w.forge.Tree(ctx, head); err != nil {
		t.Fatal(err)
	}
	if _, gets, _ := w.calls.reset(); gets != 0 {
		t.Errorf("got %d calls for a tree that was read before, want none that count", gets)
	}
	_, err = w.forge.Tree(ctx, strings.Repeat("0", 40))
	wantCode(t, err, access.CodeNotFound)
	_, err = w.forge.Tree(ctx, "main/../x")
	wantCode(t, err, access.CodeInvalid)
	wantCode(t, errOf(w.forge.Pull(ctx, workflows.Ref{Repo: 5, Number: ref.Number})), access.CodeInvalid)
}

// TestOutside: what a branch brings beside grants and policies is seen.
func TestOutside(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	_, head := w.request()
	main, err := w.forge.Main(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if outside, err := w.forge.Outside(ctx, main, head); err != nil || outside {
		t.Fatalf("got %t, error %v, want a grant alone", outside, err)
	}
	for branch, file := range map[string]string{"deep": ".github/workflows/steal.yml", "root": "Makefile"} {
		w.push(w.clone("alice", branch), file, "x\n")
		pull, err := w.forge.Pull(ctx, w.open("alice", branch))
		if err != nil {
			t.Fatal(err)
		}
		if outside, err := w.forge.Outside(ctx, pull.Base, pull.Head); err != nil || !outside {
			t.Errorf("got %t, error %v, want %s to be seen", outside, err, file)
		}
	}
	wantCode(t, errOf(w.forge.Outside(ctx, main, "")), access.CodeInvalid)
}

func errOf[T any](_ T, err error) error { return err }

func TestTreeRefusesWhatIsNoPlainFile(t *testing.T) {
	cases := map[string]struct {
		code access.Code
		make func(w *world, dir string)
	}{
		"symlink": {access.CodeInvalid, func(w *world, dir string) {
			if err := os.Symlink("../README.md", filepath.Join(dir, "grants", "link.hcl")); err != nil {
				w.t.Fatal(err)
			}
		}},
		"submodule": {access.CodeInvalid, func(w *world, dir string) {
			w.git(dir, "update-index", "--add", "--cacheinfo", "160000,"+w.git(dir, "rev-parse", "HEAD")+",policies/sub")
		}},
		"folder is a link": {access.CodeInvalid, func(w *world, dir string) {
			w.git(dir, "rm", "-q", "-r", "policies")
			if err := os.Symlink("grants", filepath.Join(dir, "policies")); err != nil {
				w.t.Fatal(err)
			}
		}},
		"other case": {access.CodeInvalid, func(w *world, dir string) { write(w.t, filepath.Join(dir, "Policies", "x.hcl"), "x") }},
		"large file": {access.CodeTooLarge, func(w *world, dir string) {
			write(w.t, filepath.Join(dir, "grants", "big.hcl"), strings.Repeat("x", maxFile+1))
		}},
		"too many": {access.CodeTooLarge, func(w *world, dir string) {
			for i := range maxFiles {
				write(w.t, filepath.Join(dir, "grants", fmt.Sprintf("g%d.hcl", i)), "x")
			}
		}},
		"too much": {access.CodeTooLarge, func(w *world, dir string) {
			for i := range maxTotal/maxFile + 1 {
				write(w.t, filepath.Join(dir, "grants", fmt.Sprintf("g%d.hcl", i)), strings.Repeat("x", maxFile))
			}
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			dir := w.clone("alice", "bad")
			c.make(w, dir)
			if name != "submodule" {
				w.git(dir, "add", "-A")
			}
			w.git(dir, "commit", "-q", "-m", name)
			w.git(dir, "push", "-q", "origin", "HEAD")
			head := w.git(dir, "rev-parse", "HEAD")
			_, err := w.forge.Tree(t.Context(), head)
			wantCode(t, err, c.code)
			if !errors.Is(err, workflows.ErrUnreadable) {
				t.Errorf("got error %v, want one about what the commit holds", err)
			}
			old := w.git(dir, "rev-parse", "HEAD:grants/alice/old-1.hcl")
			files := map[string]string{"grants/alice/old-1.hcl": old, "grants/alice/none.hcl": "", "grants/link.hcl": "", "grants/link.hcl/x": "", "policies/sub/x": "", "grants/alice": ""}
			got, err := w.forge.Blobs(t.Context(), head, slices.Collect(maps.Keys(files)))
			if err != nil || !maps.Equal(got, files) {
				t.Errorf("one by one: got %v, error %v, want %v", got, err, files)
			}
		})
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestBlobsOfWhatGitHubDoesNotShowWhole: of a list that was cut off, what is in
// it is there, and of what is not nothing is known.
func TestBlobsOfWhatGitHubDoesNotShowWhole(t *testing.T) {
	w := newWorld(t)
	_, head := w.request()
	real := http.Handler(w.hub)
	cut := http.Handler(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		real.ServeHTTP(rec, r)
		body := rec.Body.String()
		if strings.Contains(r.URL.Path, "/git/trees/") {
			body = strings.Replace(body, `"truncated":false`, `"truncated":true`, 1)
		}
		rw.Header().Set("Content-Type", "application/json")
		rw.WriteHeader(rec.Code)
		_, _ = io.WriteString(rw, body)
	}))
	w.wrap.Store(&cut)
	there, lost := "grants/alice/inc-1.hcl", "grants/alice/none.hcl"
	got, err := w.forge.Blobs(t.Context(), head, []string{lost, there})
	wantCode(t, err, access.CodeTooLarge)
	if _, known := got[lost]; known || len(got[there]) != 40 {
		t.Errorf("got %v, want the blob of %s and nothing of %s", got, there, lost)
	}
	wantCode(t, errOf(w.forge.Blobs(t.Context(), strings.Repeat("0", 40), []string{there})), access.CodeNotFound)
	wantCode(t, errOf(w.forge.Blobs(t.Context(), "main/../x", []string{there})), access.CodeInvalid)
}

// TestTreeHashesBlobs gives a forge other bytes than the object id stands for.
func TestTreeHashesBlobs(t *testing.T) {
	w := newWorld(t)
	real := http.Handler(w.hub)
	lying := http.Handler(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/git/blobs/") {
			fmt.Fprint(rw, "something else")
			return
		}
		real.ServeHTTP(rw, r)
	}))
	w.wrap.Store(&lying)
	_, err := w.forge.Tree(t.Context(), "")
	wantCode(t, err, access.CodeUnavailable)
}

func TestDirectory(t *testing.T) {
	w := newWorld(t)
	got, err := w.forge.Directory(t.Context(), []string{"Alice", "nobody", "../user", "a/b"}, []string{"acme/DBA", "acme/none", "acme", "x/y/z"})
	if err != nil {
		t.Fatal(err)
	}
	want := access.Directory{Users: map[string]access.User{"alice": {ID: 11, Login: "alice"}},
		Teams: map[string]access.Team{"acme/dba": {ID: 21, Name: "acme/dba",
			Members: []access.User{{ID: 12, Login: "bob"}, {ID: 13, Login: "carol"}}}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	_, err = w.forge.Directory(t.Context(), make([]string, workflows.MaxNames+1), nil)
	wantCode(t, err, access.CodeTooLarge)
}

func TestCommandsAreNewAndOfPeople(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	ref, _ := w.request()
	said := w.say("bob", ref, "I agree.\r\n/tidegate approve H7 3fa9c2d1\r\nthanks")
	edited := w.say("alice", ref, "hello")
	body := "/tidegate revoke"
	if _, _, err := w.client("mallory").Issues.EditComment(ctx, "acme", "access", edited.GetID(), &github.IssueComment{Body: &body}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.forge.gh.Issues.CreateComment(ctx, "acme", "access", ref.Number, &github.IssueComment{Body: &body}); err != nil {
		t.Fatal(err)
	}
	talk, err := w.forge.Comments(ctx, ref, 0)
	want := []workflows.Command{{Comment: said.GetID(), By: access.User{ID: 12, Login: "bob"}, Verb: "approve", Args: []string{"H7", "3fa9c2d1"},
		At: said.GetCreatedAt().UTC()}}
	if diff := cmp.Diff(want, talk.Commands); err != nil || diff != "" || talk.Partial {
		t.Errorf("error %v, partial %t, commands: %s", err, talk.Partial, diff)
	}
}

func TestTidyByCommitAndByPullRequest(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	files := []string{"grants/alice/old-1.hcl", "grants/alice/gone.hcl", "grants/alice/old-1.hcl"}
	first, err := w.forge.Tidy(ctx, files, workflows.TidyCommit) // the bot may not push to main
	if err != nil {
		t.Fatal(err)
	}
	w.push(w.clone("root", "other"), "README.md", "new\n")
	second, err := w.forge.Tidy(ctx, files, workflows.TidyCommit)
	if err != nil || first == "" || second == "" {
		t.Fatalf("got commits %q and %q, error %v", first, second, err)
	}
	open, _, err := w.client("alice").PullRequests.List(ctx, "acme", "access", nil)
	if err != nil || len(open) != 1 || open[0].GetHead().GetSHA() != second {
		t.Fatalf("got %d pull requests, error %v, want one, of the newest commit", len(open), err)
	}
	if again, err := w.forge.Tidy(ctx, files, workflows.TidyPull); err != nil || again != second {
		t.Errorf("got commit %q, error %v, want %q to wait on", again, err, second)
	}
	admin := w.newForge(func(c *Config) { c.Token = access.NewSecret("t-root") })
	done, err := admin.Tidy(ctx, files, workflows.TidyCommit)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := w.forge.Tree(ctx, "")
	if err != nil || tree.Commit != done || len(tree.Files) != 2 {
		t.Fatalf("got main at %s with %d files, error %v, want %s with 2", tree.Commit, len(tree.Files), err, done)
	}
	if again, err := admin.Tidy(ctx, files, workflows.TidyPull); err != nil || again != "" {
		t.Errorf("got commit %q, error %v, want nothing to do", again, err)
	}
	for _, bad := range []string{"policies/a.hcl", "grants/../policies/a.hcl", "grants", "/grants/x"} {
		_, err := admin.Tidy(ctx, []string{bad}, workflows.TidyCommit)
		wantCode(t, err, access.CodeInvalid)
	}
}

func TestAppLogin(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(c *hub.Config) { c.App.PublicKey, c.Now = &key.PublicKey, nil })
	block := &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
	now := time.Now()
	f := w.newForge(func(c *Config) {
		c.Token, c.App = access.Secret{}, App{ID: 7, InstallationID: 70, PrivateKeyPEM: access.NewSecret(string(pem.EncodeToMemory(block)))}
		c.Now = func() time.Time { return now }
	})
	me, err := f.Self(t.Context())
	if err != nil || me.ID != 99 || !me.Bot {
		t.Fatalf("got %+v, error %v, want the bot", me, err)
	}
	ref, head := w.request()
	if err := f.Publish(t.Context(), ref, workflows.Report{Head: head}); err != nil {
		t.Fatal(err)
	}
	trades := func() (n int) {
		writes, _, _ := w.calls.reset()
		for _, c := range writes {
			if strings.HasSuffix(c, "/access_tokens") {
				n++
			}
		}
		return n
	}
	if n := trades(); n != 1 {
		t.Errorf("got %d tokens, want one that is kept", n)
	}
	wantTold(t, f.Diagnose(t.Context()), "ok we are tidegate[bot]", "ok the App has every permission", "ok the App's webhook")
	now = now.Add(56 * time.Minute) // four minutes are left of the token; the hub's clock stands
	if _, err := f.Repo(t.Context()); err == nil || trades() != 1 {
		t.Errorf("got %v, want another token asked for, and refused for a proof from the future", err)
	}
}

func TestRenamedRepositoryIsRefused(t *testing.T) {
	w, now := newWorld(t), time.Now()
	f := w.newForge(func(c *Config) { c.Now = func() time.Time { return now } })
	if id, err := f.Repo(t.Context()); err != nil || id != repoID {
		t.Fatalf("got %d, %v, want %d", id, err, repoID)
	}
	other := newWorld(t, func(c *hub.Config) { c.RepoID = 666 })
	handler := http.Handler(other.hub)
	w.wrap.Store(&handler)
	now = now.Add(recheck)
	wantCode(t, errOf(f.Main(t.Context())), access.CodeConflict)
	pinned := w.newForge(func(c *Config) { c.RepoID = repoID })
	wantCode(t, errOf(pinned.Tree(t.Context(), "")), access.CodeConflict)
}

func TestFailuresAreClassifiedAndSilentAboutTheToken(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	ref, head := w.request()
	var errs []error
	note := func(err error, code access.Code) {
		t.Helper()
		wantCode(t, err, code)
		errs = append(errs, err)
	}
	note(errOf(w.forge.Pull(ctx, workflows.Ref{Repo: repoID, Number: 4711})), access.CodeNotFound)
	wrong := w.newForge(func(c *Config) { c.Token = access.NewSecret("t-bot-secret-wrong") })
	note(errOf(wrong.Repo(ctx)), access.CodeUnauthenticated)
	w.hub.Down(true)
	note(w.forge.Publish(ctx, ref, workflows.Report{Head: head}), access.CodeUnavailable)
	w.srv.Close()
	note(errOf(w.forge.Main(ctx)), access.CodeUnavailable)
	all := w.logs.b.String() + fmt.Sprintf("%+v %#v", w.forge.cfg, w.forge.cfg)
	for _, err := range errs {
		all += err.Error() + access.Message(err) + fmt.Sprintf("%+v", err)
	}
	if strings.Contains(all, "bot-secret") {
		t.Error("the token is in a log or an error")
	}
}

func TestNewRefuses(t *testing.T) {
	good := Config{Owner: "acme", Repo: "access", Token: access.NewSecret("x")}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"no login":     func(c *Config) { c.Token = access.Secret{} },
		"two logins":   func(c *Config) { c.App.ID = 1 },
		"clear text":   func(c *Config) { c.BaseURL = "http://github.example.com" },
		"user info":    func(c *Config) { c.BaseURL = "https://a:b@github.example.com" },
		"no URL":       func(c *Config) { c.BaseURL = "github" },
		"owner":        func(c *Config) { c.Owner = "a/b" },
		"repository":   func(c *Config) { c.Repo = ".." },
		"branch":       func(c *Config) { c.MainBranch = "a..b" },
		"key":          func(c *Config) { c.Token, c.App = access.Secret{}, App{1, 1, access.NewSecret("x")} },
		"installation": func(c *Config) { c.Token, c.App = access.Secret{}, App{1, 0, access.NewSecret("x")} },
	} {
		cfg := good
		change(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: got a forge, want an error", name)
		}
	}
}

// TestTokenStaysWithItsHost follows a redirect to another host and must not.
func TestTokenStaysWithItsHost(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	away := http.Handler(http.RedirectHandler(strings.Replace(other.srv.URL, "127.0.0.1", "localhost", 1)+"/user", http.StatusTemporaryRedirect))
	w.wrap.Store(&away)
	if _, err := w.forge.Repo(t.Context()); err == nil || !strings.Contains(err.Error(), "the token stays here") {
		t.Errorf("got %v, want the redirect refused", err)
	}
}

func TestLRU(t *testing.T) {
	c := newLRU[int](10)
	c.put("a", 1, 4)
	c.put("b", 2, 4)
	c.get("a")
	c.put("c", 3, 4) // b was used longest ago
	c.put("huge", 4, 11)
	got := map[string]bool{}
	for _, k := range []string{"a", "b", "c", "huge"} {
		_, got[k] = c.get(k)
	}
	want := map[string]bool{"a": true, "b": false, "c": true, "huge": false}
	if diff := cmp.Diff(want, got); diff != "" || c.cost != 8 {
		t.Errorf("cost %d, %s", c.cost, diff)
	}
}

// TestPullListsItsCommits: who pushed an earlier commit may not approve, and is
// known only by that commit's id.
func TestPullListsItsCommits(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	dir := w.clone("bob", "inc-1")
	w.git(dir, "config", "user.email", "alice@acme.test") // bob pushes in alice's name
	first := w.push(dir, "grants/alice/inc-1.hcl", "one\n")
	w.git(dir, "commit", "-q", "--allow-empty", "-m", "again")
	head := w.git(dir, "rev-parse", "HEAD")
	w.git(dir, "push", "-q", strings.Replace(w.hub.CloneURL(), "://", "://alice:t-alice@", 1), "HEAD:inc-1")
	ref := w.open("alice", "inc-1")
	p, err := w.forge.Pull(ctx, ref)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{first, head}, p.Commits); diff != "" {
		t.Errorf("commits: %s", diff)
	}
}
