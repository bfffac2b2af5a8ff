package forge

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/workflows"
)

// pushers asks GitHub's log, as ids.
func (w *world) pushers(ref workflows.Ref) ([]int64, bool) {
	w.t.Helper()
	p, err := w.forge.Pull(w.t.Context(), ref)
	if err != nil {
		w.t.Fatal(err)
	}
	who, whole, err := w.forge.Pushers(w.t.Context(), p)
	if err != nil {
		w.t.Fatal(err)
	}
	var ids []int64
	for _, u := range who {
		ids = append(ids, u.ID)
	}
	slices.Sort(ids)
	return ids, whole
}

// TestPushersFromTheLog: bob writes as alice, and GitHub's log tells all the
// same that it was bob who pushed.
func TestPushersFromTheLog(t *testing.T) {
	w := newWorld(t)
	ref, _ := w.request()
	if ids, whole := w.pushers(ref); !whole || !slices.Equal(ids, []int64{11}) {
		t.Errorf("got %v, whole %t, want alice alone", ids, whole)
	}
	bob := w.clone("bob", "any")
	w.git(bob, "checkout", "-q", "inc-1")
	w.git(bob, "config", "user.name", "alice")
	w.git(bob, "config", "user.email", "alice@acme.test")
	w.push(bob, "grants/alice/inc-1.hcl", "mine\n")
	if ids, whole := w.pushers(ref); !whole || !slices.Equal(ids, []int64{11, 12}) {
		t.Errorf("got %v, whole %t, want bob too", ids, whole)
	}
	w.git(bob, "commit", "-q", "--amend", "-m", "again")
	w.git(bob, "push", "-q", "--force", "origin", "HEAD")
	p, err := w.forge.Pull(t.Context(), ref)
	if err != nil || p.Excluded[12] != "" {
		t.Fatalf("got excluded %v, error %v: the test needs commits that don't name bob", p.Excluded, err)
	}
	if err := w.forge.Merge(t.Context(), ref, p.Head); err != nil {
		t.Fatal(err)
	}
	w.git(bob, "push", "-q", "origin", ":inc-1")
	if ids, whole := w.pushers(ref); !whole || !slices.Equal(ids, []int64{11, 12}) {
		t.Errorf("after the branch is gone: got %v, whole %t", ids, whole)
	}
}

// TestPushersAreWholeOrNothing: what the log does not say is not guessed.
func TestPushersAreWholeOrNothing(t *testing.T) {
	type line = map[string]any
	for name, change := range map[string]func([]line) any{
		"as it is":          func(l []line) any { return l },
		"the last is late":  func(l []line) any { return l[1:] },
		"a gap":             func(l []line) any { return slices.Delete(l, 1, 2) },
		"no beginning":      func(l []line) any { return l[:2] },
		"nobody's move":     func(l []line) any { l[1]["actor"] = nil; return l },
		"another branch's":  func(l []line) any { l[1]["ref"] = "refs/heads/main"; return l },
		"nothing":           func([]line) any { return []line{} },
		"not a list":        func([]line) any { return line{} },
		"an empty creation": func(l []line) any { l[2]["before"] = ""; return l },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			dir := w.clone("alice", "inc-1")
			w.push(dir, "grants/alice/inc-1.hcl", "1\n")
			w.push(dir, "grants/alice/inc-1.hcl", "2\n")
			w.push(dir, "grants/alice/inc-1.hcl", "3\n")
			ref := w.open("alice", "inc-1")
			p, err := w.forge.Pull(t.Context(), ref)
			if err != nil {
				t.Fatal(err)
			}
			w.answer("/activity", func(body []byte) any {
				var lines []line
				if err := json.Unmarshal(body, &lines); err != nil || len(lines) != 3 {
					t.Errorf("got %d lines, error %v, want 3", len(lines), err)
				}
				return change(lines)
			})
			who, whole, err := w.forge.Pushers(t.Context(), p)
			if want := name == "as it is"; whole != want || err != nil && name != "not a list" {
				t.Errorf("got %v, whole %t, error %v, want whole %t", who, whole, err, want)
			}
		})
	}
}

// answer changes what the hub answers to GETs of a path's end.
func (w *world) answer(end string, change func([]byte) any) {
	real := http.Handler(w.hub)
	changed := http.Handler(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, end) || r.Method != http.MethodGet {
			real.ServeHTTP(rw, r)
			return
		}
		rec := httptest.NewRecorder()
		r.Header.Del("If-None-Match")
		real.ServeHTTP(rec, r)
		rw.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(rw).Encode(change(rec.Body.Bytes())) // plain values
	}))
	w.wrap.Store(&changed)
}

// TestPushersOfAnOlderGitHub: a server without the log, or a token that may
// not read it, teaches nothing and breaks nothing; one that is down is asked
// again.
func TestPushersOfAnOlderGitHub(t *testing.T) {
	for status, unavailable := range map[int]bool{404: false, 403: false, 503: true} {
		w := newWorld(t)
		ref, _ := w.request()
		p, err := w.forge.Pull(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		real := http.Handler(w.hub)
		changed := http.Handler(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/activity") {
				http.Error(rw, `{"message":"no"}`, status)
				return
			}
			real.ServeHTTP(rw, r)
		}))
		w.wrap.Store(&changed)
		_, whole, err := w.forge.Pushers(t.Context(), p)
		if whole || unavailable != (err != nil) || unavailable && access.CodeOf(err) != access.CodeUnavailable {
			t.Errorf("%d: got whole %t, error %v", status, whole, err)
		}
	}
}

// TestPushersOverManyPages reads past the first page.
func TestPushersOverManyPages(t *testing.T) {
	w := newWorld(t)
	ref, _ := w.request()
	dir := w.clone("bob", "any")
	w.git(dir, "checkout", "-q", "inc-1")
	for i := range 2 {
		w.push(dir, "grants/alice/inc-1.hcl", strings.Repeat("x", i+1))
	}
	w.wrapQuery("per_page", "1")
	if ids, whole := w.pushers(ref); !whole || !slices.Equal(ids, []int64{11, 12}) {
		t.Errorf("got %v, whole %t, want alice and bob", ids, whole)
	}
}

func (w *world) wrapQuery(key, value string) {
	real := http.Handler(w.hub)
	changed := http.Handler(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/activity") {
			q := r.URL.Query()
			q.Set(key, value)
			r.URL.RawQuery = q.Encode()
		}
		real.ServeHTTP(rw, r)
	}))
	w.wrap.Store(&changed)
}

// TestMainWasEachOfItsTips and no parent tells: mallory's merge has what was
// before the deletion for its first one, or she pushes the very commit of before.
func TestMainWasEachOfItsTips(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	dir := w.clone("root", "any")
	w.git(dir, "checkout", "-q", "main")
	since := w.push(dir, "README.md", "# a move of main\n")
	was := func(mark int64, commit string, commits ...string) int64 {
		t.Helper()
		p, err := w.forge.MainWas(ctx, mark, commit)
		if err != nil || !p.Whole || p.Mark <= mark || !slices.Equal(p.Commits, commits) {
			t.Errorf("got %+v, error %v, want %v", p, err, commits)
		}
		return p.Mark
	}
	first := was(0, since)
	if p, err := w.forge.MainWas(ctx, first, since); err != nil || !p.Whole || p.Mark != first || len(p.Commits) != 0 {
		t.Errorf("unmoved: got %+v, error %v", p, err)
	}
	w.git(dir, "rm", "-q", "grants/alice/old-1.hcl")
	deleted := w.pushAll(dir, "revoke")
	back := w.git(dir, "commit-tree", since+"^{tree}", "-p", since, "-p", deleted, "-m", "nothing to see")
	w.git(dir, "push", "-q", "origin", back+":main")
	second := was(first, back, deleted)
	w.git(dir, "push", "-q", "--force", "origin", deleted+":main")
	w.git(dir, "push", "-q", "--force", "origin", back+":main")
	was(second, back, deleted)
	was(first, back, deleted, back, deleted)
	if p, err := w.forge.MainWas(ctx, first, strings.Repeat("a", 40)); err != nil || p.Whole || p.Mark != 0 {
		t.Errorf("to where the log has not come: got %+v, error %v", p, err)
	}
}
