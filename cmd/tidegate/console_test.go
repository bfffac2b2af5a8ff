package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
)

// visitor is somebody's browser at dev's console.
type visitor struct {
	*http.Client
	t    *testing.T
	base string
}

// visit logs somebody in by the issuer's page, and answers with what came.
func (p played) visit(t *testing.T, who string) (visitor, string) {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	v := visitor{&http.Client{Jar: jar, Timeout: 20 * time.Second}, t, p.house.Console}
	at, err := v.Get(v.base + "/login/start/dev")
	if err != nil {
		t.Fatal(err)
	}
	at.Body.Close()
	return v, v.post(at.Request.URL.String(), url.Values{"who": {who}})
}

func (v visitor) text(res *http.Response, err error) string {
	v.t.Helper()
	if err != nil {
		v.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 8<<20))
	if err != nil {
		v.t.Fatal(err)
	}
	return fmt.Sprintf("%d %s", res.StatusCode, text)
}

func (v visitor) get(path string) string { v.t.Helper(); return v.text(v.Get(v.base + path)) }

func (v visitor) post(to string, form url.Values) string {
	v.t.Helper()
	return v.text(v.PostForm(to, form))
}

// found is the first group of a pattern on a page.
func (v visitor) found(page, pattern string) string {
	v.t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(page)
	if m == nil {
		v.t.Fatalf("want %s in:\n%s", pattern, page)
	}
	return m[1]
}

// TestConsole answers a held statement in the console, looks at what it
// shows, and revokes there with Temporal down.
func TestConsole(t *testing.T) {
	t.Parallel()
	ctx, p := playHouse(t)
	p.open(ctx, t, asked{"con-1", "operator", "10m"})
	if _, came := p.visit(t, "mallory"); !strings.HasPrefix(came, "403 ") || !strings.Contains(came, "name no one person") {
		t.Errorf("mallory logs in: %.200s", came)
	}
	bob, _ := p.visit(t, "bob")
	done := p.session(ctx, t, "con-1", "DELETE FROM orders;", "SELECT 'left: ' || count(*) FROM orders;")
	bob.answers(ctx)
	if s := wait(t, done); !strings.Contains(s.out, "left: 0") {
		t.Errorf("the approved statement did not run:\n%s", s.out)
	}
	grant := bob.get(bob.found(bob.get("/grants"), `href="(/grants/\d+/con-1)"`))
	for _, want := range []string{"200 ", "bob agrees.", "approved, ran once", "prod-pii", "console.answer", "*.email"} {
		if !strings.Contains(grant, want) {
			t.Errorf("the grant's page lacks %q", want)
		}
	}
	session := bob.get(bob.found(grant, `href="(/sessions/[0-9a-f-]+)"`))
	if !strings.Contains(session, "<b>Whole.</b>") || !strings.Contains(session, "DELETE FROM orders") || !strings.Contains(session, "Approved by bob") {
		t.Errorf("the session's page:\n%s", session)
	}
	p.revokesThere(ctx, t, grant)
}

// answers waits for what is held, and says yes to what the page shows.
func (v visitor) answers(ctx context.Context) {
	v.t.Helper()
	link := regexp.MustCompile(`href="(/holds/[0-9a-f-]+)"`)
	var at string
	err := eventually(ctx, 15*time.Second, func() (bool, error) {
		m := link.FindStringSubmatch(v.get("/holds"))
		if m != nil {
			at = m[1]
		}
		return m != nil, nil
	})
	if err != nil {
		v.t.Fatalf("want a held statement in the console: %v", err)
	}
	page := v.get(at)
	came := v.post(v.base+at, url.Values{
		"secret": {v.found(page, `name="secret" value="(\w+)"`)}, "digest": {v.found(page, `name="digest" value="(\w{64})"`)}, "answer": {"approve"},
	})
	if !strings.Contains(came, "H1 is approved") {
		v.t.Fatalf("the answer was not taken:\n%s", came)
	}
}

// revokesThere revokes as alice, whose grant it is, while Temporal is down.
func (p played) revokesThere(ctx context.Context, t *testing.T, page string) {
	t.Helper()
	alice, _ := p.visit(t, "alice")
	at := alice.found(page, `action="(/grants/\d+/con-1)"`)
	if err := p.dev.flows.cmd.Process.Kill(); err != nil {
		t.Fatalf("kill Temporal: %v", err)
	}
	_ = p.dev.flows.cmd.Wait() // it was killed
	began := time.Now()
	came := alice.post(alice.base+at, url.Values{"secret": {alice.found(alice.get(at), `name="secret" value="(\w+)"`)}, "why": {"done with it"}})
	if !strings.Contains(came, "Revoked.") || time.Since(began) > 15*time.Second {
		t.Errorf("after %s:\n%s", time.Since(began), came)
	}
	if g, err := p.grant(ctx, "con-1"); err != nil || g.State != access.StateRevoked || !strings.Contains(g.Why, "done with it") {
		t.Errorf("the grant is %s: %q, %v", g.State, g.Why, err)
	}
	again, err := startTemporal(ctx, filepath.Join(p.dir, "temporal.db"), p.dev.state.Ports["temporal"], p.dev.opts.Log)
	if err != nil {
		t.Fatalf("start Temporal again: %v", err)
	}
	t.Cleanup(again.Close)
}

// TestOldStateFolder starts with a folder that is older than the console.
func TestOldStateFolder(t *testing.T) {
	dir := t.TempDir()
	old := `{"mark": "tidegate-dev", "installation": "devabcde", "ports": {"hub": 4001, "issuer": 4002, "webhook": 4003, "gateway": 4004, "postgres": 4005, "temporal": 4006}}`
	if err := os.WriteFile(filepath.Join(dir, devFile), []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := openDevState(dir)
	if err != nil || s.Ports["console"] == 0 || s.Ports["hub"] != 4001 || s.Installation != "devabcde" {
		t.Fatalf("got %+v, %v", s, err)
	}
	text, err := os.ReadFile(filepath.Join(dir, devFile))
	var kept devState
	if err != nil || json.Unmarshal(text, &kept) != nil || kept.Ports["console"] != s.Ports["console"] {
		t.Errorf("the new port is not kept: %s, %v", text, err)
	}
	if again, err := openDevState(dir); err != nil || again.Ports["console"] != s.Ports["console"] {
		t.Errorf("the next start chooses %+v, %v", again, err)
	}
}
