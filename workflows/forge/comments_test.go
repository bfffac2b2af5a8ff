package forge

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-github/v60/github"
	"github.com/vektah/gqlparser/v2"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/validator/rules"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/workflows"
	"github.com/tidegate/tidegate/workflows/forge/hub"
)

func (w *world) edit(who string, comment int64, body string) {
	w.t.Helper()
	if _, _, err := w.client(who).Issues.EditComment(w.t.Context(), "acme", "access", comment, &github.IssueComment{Body: &body}); err != nil {
		w.t.Fatal(err)
	}
}

// TestCommandEditedWithinItsSecond: by REST's times alone mallory's command
// under bob's name looks new.
func TestCommandEditedWithinItsSecond(t *testing.T) {
	still := time.Date(2026, 11, 28, 3, 0, 0, 0, time.UTC)
	w := newWorld(t, func(c *hub.Config) { c.Now = func() time.Time { return still } })
	ref, _ := w.request()
	c := w.say("bob", ref, "hello")
	w.edit("mallory", c.GetID(), "/tidegate approve H7 3fa9c2d1")
	rest, err := w.forge.comments(t.Context(), ref.Number)
	if err != nil || !isNew(rest[0]) {
		t.Fatalf("got error %v: the test needs a comment that looks new by REST", err)
	}
	got, err := w.forge.Comments(t.Context(), ref, 0)
	if err != nil || len(got.Commands) != 0 {
		t.Errorf("got commands %+v, error %v, want none", got.Commands, err)
	}
}

// TestEditsOfOurComment finds who edited it, even if it was put back.
func TestEditsOfOurComment(t *testing.T) {
	w := newWorld(t)
	ref, head := w.request()
	publish := func(refusal string) {
		t.Helper()
		if err := w.forge.Publish(t.Context(), ref, workflows.Report{Head: head, Refusal: refusal}); err != nil {
			t.Fatal(err)
		}
	}
	meddled := func() []workflows.Meddling {
		t.Helper()
		talk, err := w.forge.Comments(t.Context(), ref, 0)
		if err != nil {
			t.Fatal(err)
		}
		return talk.Meddled
	}
	publish("one")
	for range 60 { // our own edits are many, and none of them is anybody else's
		publish("two")
		publish("one")
	}
	if list := meddled(); len(list) != 0 {
		t.Fatalf("got %+v of our own edits, want nothing", list)
	}
	ours := w.botComments(ref)[0]
	w.edit("mallory", ours.GetID(), "/tidegate approve H6 is fine")
	w.edit("mallory", ours.GetID(), ours.GetBody())
	publish("one")
	list := meddled()
	if len(list) != 2 || list[0].By.ID != 14 || list[0].Comment != ours.GetID() || list[0].Edit == list[1].Edit {
		t.Fatalf("got %+v, want mallory's two edits", list)
	}
	if body := w.botComments(ref)[0].GetBody(); body != ours.GetBody() {
		t.Errorf("the comment is not as it was: %s", body)
	}
}

// TestCommentsAreWholeOrRefused: half an answer is none.
func TestCommentsAreWholeOrRefused(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
		want   access.Code
	}{
		"errors beside data": {200, `{"data":{"repository":null},"errors":[{"type":"FORBIDDEN","message":"no"}]}`, access.CodeUnavailable},
		"not found":          {200, `{"data":null,"errors":[{"type":"NOT_FOUND","message":"no"}]}`, access.CodeNotFound},
		"nothing":            {200, `{}`, access.CodeUnavailable},
		"other repository":   {200, `{"data":{"repository":{"databaseId":5,"pullRequest":{"comments":{"pageInfo":{},"nodes":[]}}}}}`, access.CodeNotFound},
		"no id": {200, `{"data":{"repository":{"databaseId":1001,"pullRequest":{"comments":{"pageInfo":{"hasPreviousPage":false},"nodes":[{"body":"/tidegate revoke"}]}}}}}`,
			access.CodeUnavailable},
		"forbidden": {403, `{"message":"no"}`, access.CodeDenied},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			ref, _ := w.request()
			real := http.Handler(w.hub)
			changed := http.Handler(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/api/graphql" {
					real.ServeHTTP(rw, r)
					return
				}
				rw.Header().Set("Content-Type", "application/json")
				rw.WriteHeader(c.status)
				_, _ = io.WriteString(rw, c.body)
			}))
			w.wrap.Store(&changed)
			_, err := w.forge.Comments(t.Context(), ref, 0)
			wantCode(t, err, c.want)
		})
	}
}

// TestNewestCommentsAreRead: however many comments mallory writes, what is said
// after them is heard, in its order, and that there is more is told.
func TestNewestCommentsAreRead(t *testing.T) {
	w := newWorld(t)
	ref, head := w.request()
	real, pages := http.Handler(w.hub), 0
	endless := http.Handler(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/graphql" {
			real.ServeHTTP(rw, r)
			return
		}
		pages++
		rec := httptest.NewRecorder()
		real.ServeHTTP(rec, r)
		rw.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(rw, strings.Replace(rec.Body.String(), `"hasPreviousPage":false`, `"hasPreviousPage":true`, 1))
	}))
	for i := range 79 {
		w.say("mallory", ref, fmt.Sprintf("/tidegate explain %d", i))
	}
	last := w.say("bob", ref, "/tidegate revoke")
	got, err := w.forge.Comments(t.Context(), ref, 0)
	if err != nil || got.Partial || len(got.Commands) != 80 || got.Commands[0].Args[0] != "0" || got.Commands[79].Verb != "revoke" || got.Newest != last.GetID() {
		t.Fatalf("got %+v, error %v, want all 80 in their order", got, err)
	}
	w.wrap.Store(&endless)
	got, err = w.forge.Comments(t.Context(), ref, 0)
	if err != nil || !got.Partial || pages != maxTalkPages || got.Commands[len(got.Commands)-1].Verb != "revoke" {
		t.Errorf("got %+v after %d pages, error %v, want the newest and to hear of more", got, pages, err)
	}
	w.wrap.Store(&real)
	if err := w.forge.Publish(t.Context(), ref, workflows.Report{Head: head}); err != nil {
		t.Fatal(err)
	}
	w.wrap.Store(&endless)
	pages = 0
	got, err = w.forge.Comments(t.Context(), ref, last.GetID())
	if err != nil || got.Partial || pages != 1 || len(got.Commands) != 69 || got.Commands[20].Args[0] != "31" {
		t.Errorf("got %+v after %d pages, error %v, want the first 20 and the newest 50 in one", got, pages, err)
	}
	w.wrap.Store(&real)
}

// TestOurCommentIsReadAmongMany: it is among the first, however many came after
// it.
func TestOurCommentIsReadAmongMany(t *testing.T) {
	w := newWorld(t)
	ref, head := w.request()
	if err := w.forge.Publish(t.Context(), ref, workflows.Report{Head: head}); err != nil {
		t.Fatal(err)
	}
	w.edit("mallory", w.botComments(ref)[0].GetID(), "/tidegate approve H6 is fine")
	var last int64
	for range 75 {
		last = w.say("carol", ref, "hello").GetID()
	}
	got, err := w.forge.Comments(t.Context(), ref, last)
	if err != nil || got.Partial || len(got.Meddled) != 1 || got.Meddled[0].By.ID != 14 {
		t.Errorf("got %+v, error %v, want mallory's edit", got, err)
	}
}

// TestOurCommentIsReadWhereverItStands: here neither among the first 20 nor
// among the newest 50, and the token's account has others, which people don't
// go by.
func TestOurCommentIsReadWhereverItStands(t *testing.T) {
	w := newWorld(t)
	ref, head := w.request()
	other := "the deploy is done"
	if _, _, err := w.client("bot-secret").Issues.CreateComment(t.Context(), "acme", "access", ref.Number, &github.IssueComment{Body: &other}); err != nil {
		t.Fatal(err)
	}
	for range 25 {
		w.say("carol", ref, "hello")
	}
	if err := w.forge.Publish(t.Context(), ref, workflows.Report{Head: head}); err != nil {
		t.Fatal(err)
	}
	plan := w.botComments(ref)[1]
	var last int64
	for range 60 {
		last = w.say("carol", ref, "hello").GetID()
	}
	w.edit("mallory", plan.GetID(), plan.GetBody()+" /tidegate approve H6 is fine")
	got, err := w.forge.Comments(t.Context(), ref, last)
	if err != nil || got.Partial || len(got.Meddled) != 1 || got.Meddled[0].Comment != plan.GetID() {
		t.Errorf("got %+v, error %v, want mallory's edit", got, err)
	}
	w.edit("mallory", plan.GetID(), plan.GetBody()+" /tidegate approve H7 is fine")
	w.calls.reset()
	got, err = w.forge.Comments(t.Context(), ref, last)
	if asked, _, _ := w.calls.reset(); err != nil || !got.Partial || len(asked) != 1 {
		t.Errorf("at once again: got %+v after %d pages, error %v, want one page, and that it is a part", got, len(asked), err)
	}
	w.say("bob", ref, "/tidegate approve H7 3fa9c2d1")
	if got, err = w.forge.Comments(t.Context(), ref, last); err != nil || got.Partial || len(got.Meddled) != 2 {
		t.Errorf("with a yes: got %+v, error %v, want both edits", got, err)
	}
	w.edit("mallory", plan.GetID(), "gone")
	if got, err = w.newForge().Comments(t.Context(), ref, last); err != nil || len(got.Meddled) != 3 {
		t.Errorf("got %+v, error %v, want all edits though the mark is gone", got, err)
	}
}

// TestReviewsWithoutEnd leave a pull request that can be read, and is said to be
// too much.
func TestReviewsWithoutEnd(t *testing.T) {
	w := newWorld(t)
	ref, head := w.request()
	w.approve("bob", ref)
	real := http.Handler(w.hub)
	endless := http.Handler(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/reviews") {
			r.URL.RawQuery = ""
			rw.Header().Set("Link", fmt.Sprintf(`<%s%s?page=2>; rel="next"`, w.srv.URL, r.URL.Path))
		}
		real.ServeHTTP(rw, r)
	}))
	w.wrap.Store(&endless)
	p, err := w.forge.Pull(t.Context(), ref)
	if err != nil || p.Unread == "" || len(p.Reviews) != maxReviewPages {
		t.Errorf("got %d reviews, %q unread, error %v, want what was read and that there is more", len(p.Reviews), p.Unread, err)
	}
	w.wrap.Store(&real)
	if err := w.forge.Merge(t.Context(), ref, head); err != nil {
		t.Fatal(err)
	}
	w.wrap.Store(&endless)
	if p, err = w.forge.Pull(t.Context(), ref); err != nil || p.Unread == "" {
		t.Errorf("merged: %q unread, error %v, want that there is more: it may be from before the merge", p.Unread, err)
	}
	w.wrap.Store(&real)
	if _, _, err := w.client("mallory").PullRequests.CreateReview(t.Context(), "acme", "access", ref.Number,
		&github.PullRequestReviewRequest{Event: github.String("COMMENT"), Body: github.String("hello")}); err != nil {
		t.Fatal(err)
	}
	w.wrap.Store(&endless)
	if p, err = w.forge.Pull(t.Context(), ref); err != nil || p.Unread != "" {
		t.Errorf("and reviewed after it: %q unread, error %v, want none: what can count was read", p.Unread, err)
	}
}

// TestReportAmongManyComments: our comment is among the first, and edited there;
// where it is not found, none is made anew each time.
func TestReportAmongManyComments(t *testing.T) {
	w := newWorld(t)
	ref, head := w.request()
	report := func() error { // by a forge that has kept no answers
		return w.newForge().Publish(t.Context(), ref, workflows.Report{Head: head, Refusal: "It is a crowd."})
	}
	real := http.Handler(w.hub)
	endless := http.Handler(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/comments") && r.Method == http.MethodGet {
			r.URL.RawQuery = ""
			rw.Header().Set("Link", fmt.Sprintf(`<%s%s?page=2>; rel="next"`, w.srv.URL, r.URL.Path))
		}
		real.ServeHTTP(rw, r)
	}))
	w.wrap.Store(&endless)
	wantCode(t, report(), access.CodeTooLarge)
	w.wrap.Store(&real)
	if n := len(w.botComments(ref)); n != 0 {
		t.Fatalf("%d comments were made, want none", n)
	}
	if err := w.forge.Publish(t.Context(), ref, workflows.Report{Head: head}); err != nil {
		t.Fatal(err)
	}
	w.wrap.Store(&endless)
	if err := report(); err != nil {
		t.Error(err)
	}
	w.wrap.Store(&real)
	if list := w.botComments(ref); len(list) != 1 || !strings.Contains(list[0].GetBody(), "It is a crowd.") {
		t.Errorf("got %d comments, want the one edited", len(list))
	}
}

// part reads a file that .ci/parts brings.
func part(t *testing.T, dir, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", ".cache", "parts", dir, name))
	if errors.Is(err, os.ErrNotExist) && os.Getenv("TIDEGATE_REQUIRE_PARTS") != "1" {
		t.Skipf("%v (run .ci/parts/%s.sh)", err, dir)
	}
	if err != nil {
		t.Fatalf("%v (run .ci/parts/%s.sh)", err, dir)
	}
	return data
}

// TestQueryIsGitHubs asks GitHub's own schema whether the query is one of its,
// and whether the pocket GitHub's answers have the types that it says.
func TestQueryIsGitHubs(t *testing.T) {
	schema, err := gqlparser.LoadSchema(&ast.Source{Name: "github", Input: string(part(t, "github-graphql", "schema.graphql"))})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	ref, head := w.request()
	c := w.say("bob", ref, "hello")
	if err := w.forge.Publish(t.Context(), ref, workflows.Report{Head: head}); err != nil {
		t.Fatal(err)
	}
	w.edit("mallory", c.GetID(), "other")
	w.retarget("mallory", ref, "other")
	for text, fields := range map[string]int{commentsQuery: 30, baseQuery: 6} {
		if n := w.ask(schema, text, ref); n < fields {
			t.Errorf("looked at %d fields, want all %d of %s", n, fields, text)
		}
	}
}

// ask asks the pocket GitHub a query of GitHub's schema, and compares its answer
// with that. It says how many fields it looked at.
func (w *world) ask(schema *ast.Schema, text string, ref workflows.Ref) int {
	t := w.t
	t.Helper()
	query, errs := gqlparser.LoadQueryWithRules(schema, text, rules.NewDefaultRules())
	if len(errs) > 0 {
		t.Fatalf("GitHub's schema refuses the query: %v", errs)
	}
	body, err := json.Marshal(map[string]any{"query": text, "variables": map[string]any{"owner": "acme", "name": "access", "number": ref.Number, "before": nil}})
	if err != nil {
		t.Fatal(err)
	}
	res, err := w.client("alice").Client().Post(w.srv.URL+"/api/graphql", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var out struct {
		Data map[string]any `json:"data"`
	}
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil || out.Data == nil {
		t.Fatalf("got %v, error %v", out.Data, err)
	}
	return checkSelection(t, "data", query.Operations[0].SelectionSet, out.Data)
}

// checkSelection compares an answer with the types of what was selected.
func checkSelection(t *testing.T, at string, set ast.SelectionSet, got map[string]any) (fields int) {
	t.Helper()
	for _, s := range set {
		switch s := s.(type) {
		case *ast.Field:
			v, there := got[s.Alias]
			if !there {
				t.Errorf("%s has no %s", at, s.Alias)
				continue
			}
			fields += 1 + checkValue(t, at+"."+s.Alias, s, s.Definition.Type, v)
		case *ast.FragmentSpread:
			fields += checkSelection(t, at, s.Definition.SelectionSet, got)
		case *ast.InlineFragment:
			if s.TypeCondition == got["__typename"] {
				fields += checkSelection(t, at, s.SelectionSet, got)
			}
		}
	}
	return fields
}

func checkValue(t *testing.T, at string, f *ast.Field, want *ast.Type, v any) (fields int) {
	t.Helper()
	switch v := v.(type) {
	case nil:
		if want.NonNull {
			t.Errorf("%s is null, want %s", at, want)
		}
	case []any:
		if want.Elem == nil {
			t.Errorf("%s is a list, want %s", at, want)
			return 0
		}
		for _, item := range v {
			fields += checkValue(t, at, f, want.Elem, item)
		}
	case map[string]any:
		return checkSelection(t, at, f.SelectionSet, v)
	default:
		kinds := map[string]string{"String": "string", "ID": "string", "DateTime": "string", "BigInt": "string", "Boolean": "bool", "Int": "float64"}
		if got := fmt.Sprintf("%T", v); got != kinds[want.Name()] {
			t.Errorf("%s is %v, a %s, want %s", at, v, got, want)
		}
	}
	return fields
}
