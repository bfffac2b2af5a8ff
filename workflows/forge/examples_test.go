package forge

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/tidegate/tidegate/access"
)

// TestGitHubsOwnExamples feeds every example that GitHub publishes of its
// webhooks: each is understood or left alone, and never a mistake of ours.
func TestGitHubsOwnExamples(t *testing.T) {
	var events []struct {
		Name     string            `json:"name"`
		Examples []json.RawMessage `json:"examples"`
	}
	if err := json.Unmarshal(part(t, "github-webhooks", "index.json"), &events); err != nil {
		t.Fatal(err)
	}
	fed, taken := 0, map[string]int{}
	for _, e := range events {
		for i, body := range e.Examples {
			fed++
			got, status := deliver(t, e.Name, body)
			if status != http.StatusAccepted {
				t.Errorf("%s %d: got status %d, want 202: %.200s", e.Name, i, status, body)
			}
			if got == nil {
				continue
			}
			taken[got.Kind]++
			if got.Sender.ID == 0 || got.Sender.Login == "" || (got.Kind == EventPull || got.Kind == EventComment) && got.Number == 0 {
				t.Errorf("%s %d: understood as %+v, want who did it and where", e.Name, i, *got)
			}
		}
	}
	if fed < 329 {
		t.Errorf("got %d examples, want 329", fed)
	}
	// GitHub publishes no example of a comment on a pull request.
	for _, kind := range []string{EventPull, EventPush, EventMembership, EventCheck} {
		if taken[kind] == 0 {
			t.Errorf("no example was understood as %q; understood: %v", kind, taken)
		}
	}
	t.Logf("%d examples, understood: %v", fed, taken)
}

// deliver feeds one payload to a webhook that serves its repository.
func deliver(t *testing.T, event string, body []byte) (got *Event, status int) {
	t.Helper()
	var about struct{ Repository struct{ ID int64 } }
	_ = json.Unmarshal(body, &about) // what is no JSON is the handler's to refuse
	h, err := NewWebhook(WebhookConfig{Secret: access.NewSecret("s"), Repo: max(1, about.Repository.ID),
		Seen: func(context.Context, string) (bool, error) { return false, nil }, OnEvent: func(e Event) { got = &e }})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-GitHub-Event", event)
	r.Header.Set("X-GitHub-Delivery", fmt.Sprint("d-", len(body)))
	r.Header.Set("X-Hub-Signature-256", sign(body, "s"))
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	return got, rec.Code
}

// FuzzWebhook: whatever GitHub, or whoever has its secret, sends, is taken or
// refused in words, and what is taken is bounded.
func FuzzWebhook(f *testing.F) {
	for _, s := range [][2]string{
		{"push", `{"ref":"refs/heads/x","before":"0000000000000000000000000000000000000000","after":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","commits":[{"id":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}],"repository":{"id":1},"sender":{"id":2,"login":"alice"}}`},
		{"pull_request", `{"action":"opened","number":7,"pull_request":{"number":7,"head":{"sha":"a","ref":"x"}},"repository":{"id":1},"sender":{"id":2,"login":"alice"}}`},
		{"issue_comment", `{"action":"edited","issue":{"number":7,"pull_request":{}},"comment":{"id":9},"repository":{"id":1},"sender":{"id":2,"login":"alice[bot]","type":"Bot"}}`},
		{"check_run", `{"action":"rerequested","check_run":{"head_sha":"a","pull_requests":[{"number":7}]},"repository":{"id":1},"sender":null}`},
		{"membership", `{"action":"added","sender":{"id":2}}`},
		{"push", `{"commits":null,"repository":null}`},
		{"ping", `[]`},
	} {
		f.Add(s[0], []byte(s[1]))
	}
	f.Fuzz(func(t *testing.T, event string, body []byte) {
		if event == "" || len(body) > maxDelivery {
			t.Skip()
		}
		got, status := deliver(t, event, body)
		if status != http.StatusAccepted && status != http.StatusBadRequest {
			t.Errorf("got status %d", status)
		}
		if got != nil && (len(got.Commits) > maxCommits || got.Kind == "" || got.Kind == EventPull && got.Number <= 0) {
			t.Errorf("understood as %+v", *got)
		}
	})
}
