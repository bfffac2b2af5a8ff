package forge

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-github/v60/github"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/workflows/forge/hub"
)

// told is one line a finding, for tests to search.
func told(list []access.Finding) string {
	var b strings.Builder
	for _, f := range list {
		b.WriteString(string(f.Level) + " " + f.Say + "\n")
	}
	return b.String()
}

func wantTold(t *testing.T, list []access.Finding, want ...string) {
	t.Helper()
	all := told(list)
	for _, line := range want {
		if !strings.Contains(all, line) {
			t.Errorf("want %q in\n%s", line, all)
		}
	}
	if strings.Contains(all, "t-bot-secret") {
		t.Errorf("the token is told:\n%s", all)
	}
}

func TestDiagnose(t *testing.T) {
	t.Run("a token that may not see the webhook", func(t *testing.T) {
		w := newWorld(t)
		wantTold(t, w.forge.Diagnose(t.Context()), "ok it answers; acme/access is repository 1001", "ok we are tidegate[bot]",
			"ok the token may write", "warn main is protected; it asks for reviews: no, for the check tidegate/approved: no",
			"warn the webhook's deliveries are not shown to us", "calls an hour are left")
	})
	t.Run("all is well", func(t *testing.T) {
		w := newWorld(t, func(c *hub.Config) {
			c.RequireApprovals, c.RequireChecks = 1, []string{approvedCheck}
			c.WebhookURL = "http://127.0.0.1:1"
			c.Users[5].Role = hub.RoleAdmin
		})
		wantTold(t, w.forge.Diagnose(t.Context()), "ok main is protected, and asks for reviews and tidegate/approved", "ok webhook 1 is there")
	})
	t.Run("the last delivery failed", func(t *testing.T) {
		w := newWorld(t, func(c *hub.Config) {
			c.WebhookURL = "http://127.0.0.1:1"
			c.Users[5].Role = hub.RoleAdmin
		})
		w.request()
		deadline, last := time.Now().Add(20*time.Second), ""
		for !strings.Contains(last, "fail webhook 1: ") { // the hub delivers in its own time
			if last = told(w.forge.Diagnose(t.Context())); time.Now().After(deadline) {
				t.Fatalf("want a failed delivery, got\n%s", last)
			}
		}
	})
	t.Run("another repository", func(t *testing.T) {
		w := newWorld(t)
		w.cfg.RepoID = 4711
		f, err := New(w.cfg)
		if err != nil {
			t.Fatal(err)
		}
		wantTold(t, f.Diagnose(t.Context()), "fail acme/access is repository 1001, the configuration says 4711")
	})
	t.Run("a token that may only read", func(t *testing.T) {
		w := newWorld(t, func(c *hub.Config) { c.Users[5].Role = hub.RoleRead })
		wantTold(t, w.forge.Diagnose(t.Context()), "fail we may not write to acme/access")
	})
	t.Run("GitHub is down", func(t *testing.T) {
		w := newWorld(t)
		down := http.Handler(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusBadGateway) }))
		w.wrap.Store(&down)
		wantTold(t, w.forge.Diagnose(t.Context()), "fail acme/access can't be read: ")
	})
}

// TestScopes holds what a classic token must have.
func TestScopes(t *testing.T) {
	for scopes, want := range map[string]string{
		"repo, read:org": "", "repo, admin:org": "", "repo": "fail the token lacks the scope read:org\n",
		"public_repo, write:org": "fail the token lacks the scope repo\n",
	} {
		d := &diagnosis{Findings: &access.Findings{}}
		d.token(&github.Repository{Permissions: map[string]bool{"push": true}}, scopes)
		if got := told(d.List); got != want {
			t.Errorf("%q: got %q, want %q", scopes, got, want)
		}
	}
}

// TestGuideNamesPermissions: who sets up the App as the guide says gives it
// what doctor asks for.
func TestGuideNamesPermissions(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "guides", "serve.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, about, _ := strings.Cut(string(text), "1. **GitHub.**")
	about, _, _ = strings.Cut(about, "\n")
	write, read, _ := strings.Cut(about, " to read and write")
	for _, p := range wantedPermissions {
		in := write
		if p.level == "read" {
			in, _, _ = strings.Cut(read, " to read.")
		}
		if !strings.Contains(in, "`"+p.name+"`") {
			t.Errorf("the guide does not give %s: %s", p.name, p.level)
		}
	}
	for _, event := range wantedEvents {
		if !strings.Contains(about, "`"+event+"`") {
			t.Errorf("the guide does not name the event %s", event)
		}
	}
}
