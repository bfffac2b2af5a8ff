package console

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
)

// TestForgedForms tries to have bob's browser answer and revoke for mallory.
func TestForgedForms(t *testing.T) {
	w := newWorld(t, nil)
	b, m := w.as(t, "bob"), w.as(t, "mallory")
	secret, hers := b.secret(), m.secret()
	own := http.Header{"Origin": {w.URL}, "Sec-Fetch-Site": {"same-origin"}}
	for name, c := range map[string]struct {
		secret string
		header http.Header
	}{
		"no secret":                   {"", own},
		"another login's secret":      {hers, own},
		"from another site":           {secret, http.Header{"Sec-Fetch-Site": {"cross-site"}}},
		"from a sister site":          {secret, http.Header{"Sec-Fetch-Site": {"same-site"}}},
		"an old browser, other site":  {secret, http.Header{"Origin": {"https://evil.test"}}},
		"an old browser, null origin": {secret, http.Header{"Origin": {"null"}}},
		"no secret, no headers":       {"", http.Header{}},
	} {
		for path, form := range map[string]url.Values{
			"/grants/7/inc-1": {"why": {"x"}}, "/holds/" + w.held.ID: {"answer": {"approve"}, "digest": {w.held.Digest}}, "/logout": {},
		} {
			form.Set("secret", c.secret)
			if p := b.send(path, form, c.header); p.status != http.StatusForbidden {
				t.Errorf("%s: %s is %d, want 403", name, path, p.status)
			}
		}
	}
	if p := w.browser(t).send("/grants/7/inc-1", url.Values{"why": {"x"}, "secret": {secret}}, own); p.status != http.StatusUnauthorized {
		t.Errorf("without a login: %d", p.status)
	}
	for _, path := range []string{"/grants/7/inc-1?why=x&secret=" + secret, "/holds/" + w.held.ID + "?answer=approve&digest=" + w.held.Digest + "&secret=" + secret} {
		b.get(path) // a GET never acts
		if p := b.send(path, url.Values{}, own); p.status != http.StatusForbidden {
			t.Errorf("fields in the address count: %d", p.status)
		}
	}
	g, _ := w.ledger.Grant(t.Context(), w.g.Key)
	h, _ := w.ledger.Held(t.Context(), w.held.ID)
	if g.State != access.StateActive || h.State != access.HeldOpen || b.get("/grants").at.Path != "/grants" {
		t.Errorf("something was done: %s, %s", g.State, h.State)
	}
}

func TestWhoLogsIn(t *testing.T) {
	w := newWorld(t, nil)
	w.as(t, "alice") // pins
	for who, words := range map[string]string{
		"ci":             "name no one person",
		"unverified bob": "name no one person",
		"second alice":   "belongs to another subject",
	} {
		b := w.browser(t)
		if p := b.login(who); p.status != http.StatusForbidden || !strings.Contains(p.text, words) || b.get("/grants").at.Path != "/login" {
			t.Errorf("%s: %d, want 403 and %q", who, p.status, words)
		}
	}
	w.adopt(t, people+`person "ci" { identity = oidc("dev", "dev-bob") }`)
	w.clock.pass(keepPolicies)
	if p := w.browser(t).login("bob"); p.status != http.StatusForbidden {
		t.Errorf("an identity that two persons claim: %d", p.status)
	}
	if !w.audited(t, "alice", "console.login") || !w.audited(t, "dev:ci@acme.test", "console.refused") {
		t.Error("logins are not in the audit log")
	}
	w.adopt(t, people+`person "stranger" { identity = oidc("dev", "ci@acme.test") }`)
	w.clock.pass(keepPolicies)
	if p := w.browser(t).login("ci"); p.status != http.StatusForbidden || !strings.Contains(p.text, "knows no account") {
		t.Errorf("a person without an account: %d", p.status)
	}
}

// back is the address by which the issuer sends a browser back.
func (b *browser) back(who string) string {
	b.t.Helper()
	at, err := b.Get(b.base + "/login/start/dev")
	must(b.t, err)
	at.Body.Close()
	stop := *b.Client
	stop.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := stop.PostForm(at.Request.URL.String(), url.Values{"who": {who}})
	must(b.t, err)
	res.Body.Close()
	return strings.TrimPrefix(res.Header.Get("Location"), b.base)
}

func TestLoginCannotBeMovedOrRepeated(t *testing.T) {
	w := newWorld(t, nil)
	m, victim := w.browser(t), w.browser(t)
	back := m.back("mallory")
	if p := victim.get(back); p.status != http.StatusUnauthorized {
		t.Errorf("a browser that began nothing: %d", p.status)
	}
	victim.get("/login/start/dev")
	if p := victim.get(back); p.status != http.StatusUnauthorized {
		t.Errorf("a browser that began another login: %d", p.status)
	}
	if victim.get("/grants").at.Path != "/login" {
		t.Error("the victim is logged in as mallory")
	}
	for name, to := range map[string]string{
		"another state": strings.Replace(back, "state=", "state=x", 1), "no code": strings.Replace(back, "code=", "c=", 1),
		"another issuer": strings.Replace(back, "iss=http", "iss=https", 1),
	} {
		b := w.browser(t)
		b.back("alice")
		if p := b.get(to); p.status != http.StatusUnauthorized {
			t.Errorf("%s: %d", name, p.status)
		}
	}
	a := w.browser(t)
	again := a.back("alice")
	if p := a.get(again); p.status != http.StatusOK {
		t.Fatalf("a right login: %d", p.status)
	}
	if p := a.get(again); p.status != http.StatusUnauthorized {
		t.Errorf("the same answer again: %d", p.status)
	}
	late := w.browser(t)
	slow := late.back("bob")
	w.clock.pass(startLife)
	if p := late.get(slow); p.status != http.StatusUnauthorized {
		t.Errorf("a login that took too long: %d", p.status)
	}
}

// TestCodeAndNonceBelongTogether: another login's code, in a browser whose
// state is right, is refused: the verifier and the nonce are not its own.
func TestCodeAndNonceBelongTogether(t *testing.T) {
	w := newWorld(t, nil)
	stolen, err := url.Parse(w.browser(t).back("admin"))
	must(t, err)
	b := w.browser(t)
	own, err := url.Parse(b.back("mallory"))
	must(t, err)
	q := own.Query()
	q.Set("code", stolen.Query().Get("code"))
	if p := b.get("/login/callback?" + q.Encode()); p.status != http.StatusUnauthorized {
		t.Errorf("a stolen code logs in: %d", p.status)
	}
	s := started{Nonce: "n"}
	for token, want := range map[string]string{"": "", "a.b": "", "a.eyJub25jZSI6Im4ifQ.c": "n", "a.eyJOT05DRSI6Im4ifQ.c": "", "a.%%.c": ""} {
		if got := nonce(token); got != want || got == s.Nonce && want == "" {
			t.Errorf("nonce of %q: %q, want %q", token, got, want)
		}
	}
}

func TestLoginsAreNotFixed(t *testing.T) {
	w := newWorld(t, nil)
	base, err := url.Parse(w.URL)
	must(t, err)
	cookie := func(b *browser) string {
		for _, c := range b.Jar.Cookies(base) {
			if c.Name == "__Host-tidegate" {
				return c.Value
			}
		}
		return ""
	}
	b := w.browser(t)
	planted := strings.Repeat("A", tokenCharacters)
	b.Jar.SetCookies(base, []*http.Cookie{{Name: "__Host-tidegate", Value: planted, Path: "/", Secure: true}})
	if p := b.login("alice"); p.status != 200 || cookie(b) == planted || len(cookie(b)) != tokenCharacters {
		t.Errorf("the planted cookie became a login: %d", p.status)
	}
	first := cookie(b)
	b.login("alice")
	if cookie(b) == first {
		t.Error("a new login keeps the old name")
	}
	old := w.browser(t)
	old.Jar.SetCookies(base, []*http.Cookie{{Name: "__Host-tidegate", Value: first, Path: "/", Secure: true}})
	if old.get("/grants").at.Path != "/login" {
		t.Error("the login before goes on after the next")
	}
	req, err := http.NewRequest("GET", w.URL+"/grants", nil)
	must(t, err)
	req.Header.Set("Cookie", "__Host-tidegate="+cookie(b)+"; __Host-tidegate="+planted)
	res, err := w.browser(t).Do(req)
	must(t, err)
	if p := read(t, res); p.at.Path != "/login" {
		t.Errorf("two cookies of one name let in: %s", p.at)
	}
	kept := cookie(b)
	if p := b.post("/logout", url.Values{}); p.at.Path != "/login" {
		t.Errorf("logging out ends at %s", p.at)
	}
	old.Jar.SetCookies(base, []*http.Cookie{{Name: "__Host-tidegate", Value: kept, Path: "/", Secure: true}})
	if old.get("/grants").at.Path != "/login" {
		t.Error("a login goes on after logging out")
	}
	again := w.as(t, "alice")
	w.clock.pass(loginLife)
	if again.get("/grants").at.Path != "/login" {
		t.Error("a login never ends")
	}
}

func TestNextIsOurs(t *testing.T) {
	for raw, want := range map[string]string{
		"/sessions?person=a": "/sessions?person=a", "": "/grants", "//evil.test/": "/grants", "https://evil.test/": "/grants", `/\evil.test`: "/grants",
		"/login/start/dev": "/grants", "javascript:alert(1)": "/grants", "/" + strings.Repeat("a", 600): "/grants", "/a\r\nX: y": "/grants", "grants": "/grants",
	} {
		if got := next(raw); got != want {
			t.Errorf("next(%q) is %q, want %q", raw, got, want)
		}
	}
}

func TestHeaders(t *testing.T) {
	w := newWorld(t, nil)
	b := w.as(t, "bob")
	for _, path := range []string{"/login", "/grants", "/grants/7/inc-1", "/holds/" + w.held.ID, "/sessions/s-1/recording", "/none", "/static/live.js", "/static/style.css"} {
		h := b.get(path).header
		for name, want := range map[string]string{
			"X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "same-origin", "Strict-Transport-Security": "max-age=31536000",
			"Access-Control-Allow-Origin": "",
		} {
			if got := h.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", path, name, got, want)
			}
		}
		csp := h.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'", "script-src 'self';"} {
			if !strings.Contains(csp, want) || strings.Contains(csp, "unsafe") {
				t.Errorf("%s: policy %q lacks %q", path, csp, want)
			}
		}
		if cache := h.Get("Cache-Control"); strings.HasPrefix(path, "/static") != strings.Contains(cache, "immutable") || !strings.HasPrefix(path, "/static") && cache != "no-store" {
			t.Errorf("%s: cache %q", path, cache)
		}
	}
	at, err := b.Get(w.URL + "/login/start/dev")
	must(t, err)
	at.Body.Close()
	set := at.Request.Response.Header.Get("Set-Cookie")
	for _, want := range []string{"__Host-tidegate-login=", "HttpOnly", "Secure", "SameSite=Lax", "Path=/", "Max-Age=600"} {
		if !strings.Contains(set, want) {
			t.Errorf("the cookie %q lacks %s", set, want)
		}
	}
	if strings.Contains(b.get("/grants").text, "<script>") || strings.Contains(b.get("/grants").text, " style=") {
		t.Error("a page has inline script or style")
	}
}

func TestBounds(t *testing.T) {
	w := newWorld(t, nil)
	b := w.as(t, "bob")
	if p := b.get("/sessions?person=" + strings.Repeat("a", maxQuery)); p.status != http.StatusRequestURITooLong {
		t.Errorf("a long address: %d", p.status)
	}
	req, err := http.NewRequest("GET", w.URL+"/grants", nil)
	must(t, err)
	req.Host = "evil.test"
	res, err := b.Do(req)
	must(t, err)
	if p := read(t, res); p.status != http.StatusMisdirectedRequest {
		t.Errorf("another host's name: %d", p.status)
	}
	for range maxInFlight {
		w.console.inFlight <- struct{}{}
	}
	if p := b.get("/grants"); p.status != http.StatusServiceUnavailable || p.header.Get("Retry-After") == "" {
		t.Errorf("over the bound: %d", p.status)
	}
	for range maxInFlight {
		<-w.console.inFlight
	}
	s := newLogins(time.Now)
	for range maxLoginsOfOne + 5 {
		s.add(&login{identity: access.Identity{Issuer: "i", Subject: "s"}})
	}
	if len(s.all) != maxLoginsOfOne {
		t.Errorf("one identity has %d logins, want %d", len(s.all), maxLoginsOfOne)
	}
}

// TestIssuerDown: a login says so, and those who are logged in go on.
func TestIssuerDown(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		p := c.Providers[0]
		p.Name, p.URL = "gone", "http://127.0.0.1:1/tidegate-dev"
		c.Providers = append(c.Providers, p)
	})
	b := w.as(t, "alice")
	if p := w.browser(t).get("/login/start/gone"); p.status != http.StatusServiceUnavailable || !strings.Contains(p.text, "gone does not answer") {
		t.Errorf("got %d %s", p.status, p.text)
	}
	if p := b.get("/grants"); p.status != http.StatusOK {
		t.Errorf("who is logged in: %d", p.status)
	}
}

func TestConfigRefused(t *testing.T) {
	for _, raw := range []string{"http://tidegate.test", "http://127.0.0.1:1", "https://", "https://h/path", "https://u@h", "https://h?q", "ftp://h", ""} {
		if CheckURL(raw) == nil {
			t.Errorf("%q passes", raw)
		}
	}
	if err := CheckURL("https://tidegate.test:8443"); err != nil {
		t.Error(err)
	}
	if _, err := checkURL("http://192.0.2.1", true); err == nil {
		t.Error("development lets plain text into the network")
	}
	if _, err := New(Config{URL: "https://h"}); err == nil {
		t.Error("an empty console is made")
	}
}

// TestLargeTextsHideNothing: a page of large texts is not refused for its
// size, which would keep approvers and auditors from what was done.
func TestLargeTextsHideNothing(t *testing.T) {
	w := newWorld(t, nil)
	large := "DELETE FROM orders --" + strings.Repeat("'<", 300<<10)
	for i := range 4 {
		w.hold(t, fmt.Sprintf("4f3c0000-0000-4000-8000-0000000001%02d", i), large)
	}
	all := make([]string, 40)
	for i := range all {
		all[i] = "SELECT " + strings.Repeat("'", 60<<10)
	}
	w.record(t, "s-5", append(all, "SELECT the_last")...)
	b := w.as(t, "bob")
	for _, path := range []string{"/holds", "/grants/7/inc-1"} {
		if p := b.get(path); p.status != http.StatusOK || !strings.Contains(p.text, w.held.ID) || strings.Contains(p.text, "could not be made") {
			t.Errorf("%s: %d with %d bytes, want the held operations", path, p.status, len(p.text))
		}
	}
	next, pages := regexp.MustCompile(`from=(\d+)">Later`), 0
	for path := "/sessions/s-5"; ; pages++ {
		p := b.get(path)
		if p.status != http.StatusOK {
			t.Fatalf("%s: %d", path, p.status)
		}
		m := next.FindStringSubmatch(p.text)
		if m == nil {
			if !strings.Contains(p.text, "the_last") {
				t.Error("the last page lacks the end")
			}
			break
		}
		path = "/sessions/s-5?from=" + m[1]
	}
	if pages == 0 || pages > 30 {
		t.Errorf("got %d further pages, want a few", pages)
	}
}

// TestManyParameters: those that go beyond the bound are counted.
func TestManyParameters(t *testing.T) {
	op := access.Operation{Text: "INSERT", Params: make([]string, 65535)}
	for i := range op.Params {
		op.Params[i] = "xxxx"
	}
	row := rowOf(access.Event{Type: access.EventOpen, Operation: &op, Decision: &access.Decision{}})
	if got := 4*len(row.Params) + row.Left; got != 4*65535 || row.size() > 2*maxText {
		t.Errorf("got %d parameters and %d bytes more, in all %d; want all counted and few shown", len(row.Params), row.Left, got)
	}
}
