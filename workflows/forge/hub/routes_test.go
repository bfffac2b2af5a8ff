package hub

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// step is one raw request of TestEveryRoute; {x} in it is a saved value.
type step struct {
	who, method, path, body string
	want                    int
	save, field             string // keeps a field of the answer
}

// TestEveryRoute asks each route once, so that each shape is validated, and
// fails for routes that it forgets.
func TestEveryRoute(t *testing.T) {
	w := newWorld(t)
	pr, _ := w.openPull("alice", "b", "grants/a.hcl")
	w.next("pull_request")
	w.openPull("alice", "c", "grants/c.hcl")
	w.next("pull_request") // so that the first delivery is in the log
	vars := map[string]string{"head": pr.GetHead().GetSHA()}
	const repo = "/repos/acme/access"
	steps := []step{
		{"bob", "GET", repo, "", 200, "", ""},
		{"bob", "GET", "/repositories/1001", "", 200, "", ""},
		{"bob", "GET", repo + "/activity?ref=b&per_page=1", "", 200, "", ""},
		{"bob", "GET", repo + "/activity?activity_type=branch_creation", "", 200, "", ""},
		{"bob", "GET", repo + "/collaborators/alice/permission", "", 200, "", ""},
		{"bob", "GET", "/user", "", 200, "", ""},
		{"bob", "GET", "/user/11", "", 200, "", ""},
		{"bob", "GET", "/users/alice", "", 200, "", ""},
		{"bob", "GET", "/users/nobody", "", 404, "", ""},
		{"nobody", "GET", "/user", "", 401, "", ""},
		{"bob", "GET", "/rate_limit", "", 200, "", ""},
		{"bob", "GET", "/orgs/acme/teams", "", 200, "", ""},
		{"bob", "GET", "/orgs/acme/teams/dba", "", 200, "", ""},
		{"bob", "GET", "/orgs/acme/teams/dba/members", "", 200, "", ""},
		{"bob", "GET", "/orgs/acme/teams/dba/memberships/mallory", "", 200, "", ""},
		{"bob", "GET", "/organizations/1/team/21", "", 200, "", ""},
		{"bob", "GET", "/organizations/1/team/21/members", "", 200, "", ""},
		{"bob", "GET", "/organizations/1/team/21/memberships/bob", "", 200, "", ""},
		{"bob", "GET", "/organizations/1/team/21/memberships/alice", "", 404, "", ""},
		{"bob", "GET", "/teams/21", "", 200, "", ""},
		{"bob", "GET", "/teams/21/members", "", 200, "", ""},
		{"bob", "GET", "/teams/21/memberships/bob", "", 200, "", ""},
		{"bob", "GET", repo + "/pulls?state=all&per_page=1", "", 200, "", ""},
		{"bob", "PATCH", repo + "/pulls/1", `{"title":"new"}`, 200, "", ""},
		{"bob", "GET", repo + "/pulls/1", "", 200, "", ""},
		{"bob", "GET", repo + "/pulls/99", "", 404, "", ""},
		{"bob", "POST", repo + "/pulls", `{"title":"x","head":"none","base":"main"}`, 422, "", ""},
		{"alice", "PATCH", repo + "/pulls/1", `{"state":"closed"}`, 200, "", ""},
		{"alice", "PATCH", repo + "/pulls/1", `{"state":"open"}`, 200, "", ""},
		{"bob", "GET", repo + "/pulls/1/files", "", 200, "", ""},
		{"bob", "GET", repo + "/pulls/1/commits", "", 200, "", ""},
		{"bob", "GET", repo + "/pulls/1/merge", "", 404, "", ""},
		{"bob", "POST", repo + "/pulls/1/requested_reviewers", `{"reviewers":["bob"],"team_reviewers":["dba"]}`, 201, "", ""},
		{"bob", "GET", repo + "/pulls/1/requested_reviewers", "", 200, "", ""},
		{"bob", "DELETE", repo + "/pulls/1/requested_reviewers", `{"reviewers":["bob"]}`, 200, "", ""},
		{"alice", "POST", repo + "/pulls/1/reviews", `{"event":"APPROVE"}`, 422, "", ""},
		{"bob", "POST", repo + "/pulls/1/reviews", `{"event":"APPROVE"}`, 200, "review", "id"},
		{"bob", "GET", repo + "/pulls/1/reviews", "", 200, "", ""},
		{"bob", "GET", repo + "/pulls/1/reviews/{review}", "", 200, "", ""},
		{"bob", "PUT", repo + "/pulls/1/reviews/{review}/dismissals", `{"message":"no"}`, 200, "", ""},
		{"bob", "GET", repo + "/commits/{head}/pulls", "", 200, "", ""},
		{"bob", "GET", repo + "/issues/1", "", 200, "", ""},
		{"bob", "POST", repo + "/issues/1/comments", `{"body":"hello"}`, 201, "comment", "id"},
		{"bob", "POST", repo + "/issues/1/comments", `{"body":""}`, 422, "", ""},
		{"bob", "GET", repo + "/issues/1/comments", "", 200, "", ""},
		{"bob", "GET", repo + "/issues/comments/{comment}", "", 200, "", ""},
		{"alice", "PATCH", repo + "/issues/comments/{comment}", `{"body":"changed by another"}`, 200, "", ""},
		{"mallory", "PATCH", repo + "/issues/comments/{comment}", `{"body":"x"}`, 403, "", ""},
		{"alice", "DELETE", repo + "/issues/comments/{comment}", "", 204, "", ""},
		{"tidegate[bot]", "POST", repo + "/check-runs", `{"name":"tidegate/plan","head_sha":"{head}","status":"in_progress"}`, 201, "check", "id"},
		{"root", "PATCH", repo + "/check-runs/{check}", `{"conclusion":"success"}`, 403, "", ""},
		{"tidegate[bot]", "PATCH", repo + "/check-runs/{check}", `{"conclusion":"failure","output":{"title":"t","summary":"s","annotations":[{"path":"grants/a.hcl","start_line":1,"end_line":1,"annotation_level":"failure","message":"m"}]},"actions":[{"label":"Retry","identifier":"retry","description":"again"}]}`, 200, "", ""},
		{"bob", "GET", repo + "/check-runs/{check}", "", 200, "", ""},
		{"bob", "GET", repo + "/check-runs/{check}/annotations", "", 200, "", ""},
		{"bob", "GET", repo + "/commits/{head}/check-runs", "", 200, "", ""},
		{"bob", "POST", repo + "/statuses/{head}", `{"state":"success","context":"ci"}`, 201, "", ""},
		{"bob", "GET", repo + "/commits/{head}/statuses", "", 200, "", ""},
		{"bob", "GET", repo + "/git/ref/heads/main", "", 200, "", ""},
		{"bob", "GET", repo + "/git/matching-refs/heads/", "", 200, "", ""},
		{"bob", "GET", repo + "/git/trees/main?recursive=1", "", 200, "", ""},
		{"bob", "POST", repo + "/git/blobs", `{"content":"aGk=","encoding":"base64"}`, 201, "blob", "sha"},
		{"bob", "GET", repo + "/git/blobs/{blob}", "", 200, "", ""},
		{"bob", "POST", repo + "/git/trees", `{"base_tree":"{head}","tree":[{"path":"x/y","mode":"100644","type":"blob","sha":"{blob}"},{"path":"grants/a.hcl","mode":"100644","type":"blob","sha":null}]}`, 201, "tree", "sha"},
		{"bob", "POST", repo + "/git/commits", `{"message":"tidy","tree":"{tree}","parents":["{head}"]}`, 201, "commit", "sha"},
		{"bob", "GET", repo + "/git/commits/{commit}", "", 200, "", ""},
		{"bob", "POST", repo + "/git/refs", `{"ref":"refs/heads/tidy","sha":"{head}"}`, 201, "", ""},
		{"bob", "PATCH", repo + "/git/refs/heads/tidy", `{"sha":"{commit}"}`, 200, "", ""},
		{"bob", "PATCH", repo + "/git/refs/heads/main", `{"sha":"{commit}"}`, 422, "", ""},
		{"bob", "DELETE", repo + "/git/refs/heads/tidy", "", 204, "", ""},
		{"bob", "GET", repo + "/commits", "", 200, "", ""},
		{"bob", "GET", repo + "/commits/{head}", "", 200, "", ""},
		{"bob", "GET", repo + "/compare/main...b", "", 200, "", ""},
		{"bob", "GET", repo + "/branches", "", 200, "", ""},
		{"bob", "GET", repo + "/branches/main", "", 200, "", ""},
		{"bob", "GET", repo + "/branches/none", "", 404, "", ""},
		{"bob", "PUT", repo + "/pulls/1/merge", `{"sha":"{blob}"}`, 409, "", ""},
		{"bob", "PUT", repo + "/pulls/1/merge", `{"sha":"{head}","merge_method":"squash"}`, 200, "", ""},
		{"bob", "GET", repo + "/pulls/1/merge", "", 204, "", ""},
		{"bob", "PUT", repo + "/pulls/1/merge", "", 405, "", ""},
		{"bob", "PUT", repo + "/pulls/2/merge", `{"merge_method":"rebase"}`, 200, "", ""},
		{"bob", "GET", repo + "/rules/branches/main", "", 200, "", ""},
		{"bob", "GET", repo + "/hooks", "", 403, "", ""},
		{"root", "GET", repo + "/hooks", "", 200, "", ""},
		{"bob", "GET", repo + "/hooks/1/deliveries", "", 200, "delivery", "0.id"},
		{"bob", "GET", repo + "/hooks/1/deliveries/{delivery}", "", 200, "", ""},
		{"bob", "POST", repo + "/hooks/1/deliveries/{delivery}/attempts", "", 202, "", ""},
		{"bob", "GET", "/app/hook/deliveries", "", 200, "", ""},
		{"bob", "GET", "/app/hook/deliveries/{delivery}", "", 200, "", ""},
		{"bob", "POST", "/app/hook/deliveries/{delivery}/attempts", "", 202, "", ""},
	}
	asked := map[string]bool{"POST /repos/{owner}/{repo}/pulls": true} // by openPull
	for _, s := range steps {
		asked[w.do(s, vars)] = true
	}
	h := w.hub
	for _, list := range [][]route{h.repoRoutes(), h.pullRoutes(), h.talkRoutes(), h.checkRoutes(), h.gitRoutes(), h.orgRoutes(), h.hookRoutes()} {
		for _, r := range list {
			if !asked[r.pattern] {
				t.Errorf("no test validates %s", r.pattern)
			}
		}
	}
}

// do sends a step and returns the pattern that served it.
func (w *world) do(s step, vars map[string]string) string {
	w.t.Helper()
	for k, v := range vars {
		s.path, s.body = strings.ReplaceAll(s.path, "{"+k+"}", v), strings.ReplaceAll(s.body, "{"+k+"}", v)
	}
	req, err := http.NewRequestWithContext(w.t.Context(), s.method, w.srv.URL+"/api/v3"+s.path, strings.NewReader(s.body))
	if err != nil {
		w.t.Fatal(err)
	}
	token := "t-" + s.who
	if s.who == "tidegate[bot]" {
		token = "t-bot"
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := (&http.Client{Transport: validating(w.t)}).Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != s.want {
		w.t.Fatalf("%s %s: got %d %.400s, want %d", s.method, s.path, res.StatusCode, data, s.want)
	}
	if s.save != "" {
		vars[s.save] = field(w.t, data, s.field)
	}
	if res.StatusCode >= 300 {
		return ""
	}
	probe, _ := http.NewRequest(s.method, s.path, nil) // parsed once already
	_, pattern := w.hub.api.(*http.ServeMux).Handler(probe)
	return pattern
}

func field(t *testing.T, data []byte, name string) string {
	t.Helper()
	var v any
	d := json.NewDecoder(strings.NewReader(string(data)))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	if rest, ok := strings.CutPrefix(name, "0."); ok {
		v, name = v.([]any)[0], rest
	}
	return fmt.Sprint(v.(map[string]any)[name])
}
