package console

import (
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
)

// TestWhoSeesWhat asks for each page as each person: what is not theirs is
// not found, as what does not exist.
func TestWhoSeesWhat(t *testing.T) {
	w := newWorld(t, nil)
	paths := map[string]string{ // path -> who sees it, besides those who see all
		"/grants": "alice bob mallory", "/holds": "alice bob mallory", "/sessions": "alice bob mallory",
		"/grants/7/inc-1": "alice bob", "/holds/" + w.held.ID: "alice bob", "/sessions/s-1": "alice bob", "/sessions/s-1/recording": "alice bob",
		"/policies": "", "/policies/people.hcl": "", "/audit": "", "/audit?whole=1": "",
		"/grants/7/inc-9": "-", "/grants/8/inc-1": "-", "/grants/x/inc-1": "-", "/holds/none": "-", "/sessions/none": "-", "/sessions/none/recording": "-",
		"/sessions/..%2f..%2fl/recording": "-", "/policies/none.hcl": "-", "/elsewhere": "-", "/static/none": "-",
	}
	for _, who := range []string{"alice", "bob", "carol", "mallory", "admin"} {
		b := w.as(t, who)
		for path, sees := range paths {
			want := http.StatusNotFound
			if sees != "-" && (who == "carol" || who == "admin" || strings.Contains(sees, who)) {
				want = http.StatusOK
			}
			p := b.get(path)
			if p.status != want {
				t.Errorf("%s: %s is %d, want %d", path, who, p.status, want)
			}
			if who == "mallory" && (strings.Contains(p.text, "inc-1") || strings.Contains(p.text, "DELETE FROM")) {
				t.Errorf("%s tells mallory of alice's grant", path)
			}
		}
	}
	nobody := w.browser(t)
	for path := range paths {
		if p := nobody.get(path); p.at.Path != "/login" && p.status != http.StatusNotFound || strings.Contains(p.text, "inc-1<") {
			t.Errorf("%s without a login: %d at %s", path, p.status, p.at)
		}
	}
}

func TestTeamsAndPoliciesAreTodays(t *testing.T) {
	w := newWorld(t, nil)
	b, a := w.as(t, "bob"), w.as(t, "alice")
	w.forge.set(func(f *forgeStub) { f.team = nil })
	w.clock.pass(keepTeams)
	if p := b.get("/grants/7/inc-1"); p.status != http.StatusNotFound {
		t.Errorf("who left the team sees the grant: %d", p.status)
	}
	w.adopt(t, strings.Replace(people, "alice@acme.test", "other@acme.test", 1))
	w.clock.pass(keepPolicies)
	if p := a.get("/grants"); p.at.Path != "/login" {
		t.Errorf("whom the policies name no more is at %s", p.at)
	}
	w.adopt(t, people)
	w.clock.pass(keepPolicies)
	if p := a.get("/grants"); p.at.Path != "/login" {
		t.Errorf("the ended login came back at %s", p.at)
	}
}

func TestForgeDown(t *testing.T) {
	w := newWorld(t, nil)
	a, d := w.as(t, "alice"), w.as(t, "admin")
	w.forge.set(func(f *forgeStub) { f.down = true })
	w.clock.pass(keepTeams)
	p := a.get("/grants/7/inc-1")
	if !strings.Contains(p.text, "statement_timeout = 30s") {
		t.Error("the page of a grant lacks its role's settings")
	}
	if !strings.Contains(p.text, "to 1000 rows") || !strings.Contains(p.text, "touches(&#34;users&#34;)") {
		t.Error("the page of a grant lacks what a rule limits, and when")
	}
	if p.status != http.StatusOK || !strings.Contains(p.text, "can&#39;t be judged again at the moment") || !strings.Contains(p.text, "Revoke now") {
		t.Errorf("alice's own grant: %d", p.status)
	}
	if p := d.get("/grants"); p.status != http.StatusOK || !strings.Contains(p.text, "The forge does not answer") || strings.Contains(p.text, "inc-1") {
		t.Errorf("the operator sees by an answer that nobody gave: %d", p.status)
	}
	if p := a.post("/grants/7/inc-1", url.Values{"why": {"done"}}); p.status != http.StatusOK || !strings.Contains(p.text, "Revoked.") {
		t.Errorf("revoking one's own: %d %s", p.status, p.text)
	}
}

func TestRevoke(t *testing.T) {
	w := newWorld(t, nil)
	if p := w.as(t, "mallory").post("/grants/7/inc-1", url.Values{"why": {"fun"}}); p.status != http.StatusNotFound {
		t.Errorf("mallory: %d", p.status)
	}
	b := w.as(t, "bob")
	for why, want := range map[string]int{"": 400, " ": 400, strings.Repeat("x", access.MaxWhy+1): 400, strings.Repeat("x", maxBody): 400} {
		if p := b.post("/grants/7/inc-1", url.Values{"why": {why}}); p.status != want {
			t.Errorf("a reason of %d bytes: %d, want %d", len(why), p.status, want)
		}
	}
	if g, _ := w.ledger.Grant(t.Context(), w.g.Key); g.State != access.StateActive {
		t.Fatalf("the grant is %s", g.State)
	}
	longest := strings.Repeat("!", access.MaxWhy-len("too broad"))
	p := b.post("/grants/7/inc-1", url.Values{"why": {"too broad" + longest}})
	g, err := w.ledger.Grant(t.Context(), w.g.Key)
	if err != nil || p.status != 200 || g.State != access.StateRevoked || !strings.Contains(g.Why, "bob in the console. too broad"+longest) || !strings.Contains(p.text, "Revoked.") {
		t.Errorf("got %d, %s %q, %v", p.status, g.State, g.Why, err)
	}
	if strings.Contains(b.get("/grants/7/inc-1").text, "Revoke now") {
		t.Error("an ended grant can be revoked")
	}
	if p := b.post("/grants/7/inc-1", url.Values{"why": {"again"}}); p.status != http.StatusConflict {
		t.Errorf("again: %d", p.status)
	}
	if !w.audited(t, "bob", "grant.revoked") {
		t.Error("it is not in the audit log")
	}
}

func TestAnswer(t *testing.T) {
	w := newWorld(t, nil)
	path, yes := "/holds/"+w.held.ID, func() url.Values { return url.Values{"answer": {"approve"}, "digest": {w.held.Digest}} }
	for who, want := range map[string]int{"mallory": 404, "alice": 403, "admin": 403} {
		if p := w.as(t, who).post(path, yes()); p.status != want {
			t.Errorf("%s: %d, want %d", who, p.status, want)
		}
	}
	b := w.as(t, "bob")
	for name, form := range map[string]url.Values{
		"no digest": {"answer": {"approve"}}, "a short digest": {"answer": {"approve"}, "digest": {w.held.Short()}},
		"another digest": {"answer": {"approve"}, "digest": {strings.Repeat("0", 64)}}, "no answer": {"digest": {w.held.Digest}},
	} {
		if p := b.post(path, form); p.status != 400 && p.status != 409 {
			t.Errorf("%s: %d", name, p.status)
		}
	}
	if h, _ := w.ledger.Held(t.Context(), w.held.ID); h.State != access.HeldOpen {
		t.Fatalf("held is %s", h.State)
	}
	page := b.get(path)
	for _, want := range []string{"DELETE FROM orders", w.held.Digest, "Approve, run it once"} {
		if !strings.Contains(page.text, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if a := w.as(t, "alice").get(path); strings.Contains(a.text, "Approve, run") || !strings.Contains(a.text, "answer H1") {
		t.Error("alice is offered an answer, or not told why not")
	}
	p := b.post(path, yes())
	h, err := w.ledger.Held(t.Context(), w.held.ID)
	if err != nil || p.status != 200 || h.State != access.HeldAnswered || !h.Answer.Approve || h.Answer.By.ID != bob.ID || !strings.Contains(p.text, "H1 is approved") {
		t.Errorf("got %d, %+v, %v", p.status, h, err)
	}
	if p := b.post(path, url.Values{"answer": {"deny"}, "digest": {h.Digest}}); p.status != http.StatusConflict {
		t.Errorf("a second answer: %d", p.status)
	}
	if !w.audited(t, "bob", "console.answer") || !w.audited(t, "alice", "console.refused") {
		t.Error("answer and refusal are not in the audit log")
	}
}

// TestForgedHeld: a row that no gateway signed is neither listed nor shown.
func TestForgedHeld(t *testing.T) {
	w := newWorld(t, nil)
	h := w.held
	h.ID, h.Operation.Text = "4f3c0000-0000-4000-8000-000000000002", "SELECT 'harmless'"
	_, err := w.ledger.OpenHeld(t.Context(), h)
	must(t, err)
	b := w.as(t, "bob")
	if p := b.get("/holds/" + h.ID); p.status == 200 {
		t.Errorf("a forged operation is shown: %d", p.status)
	}
	if p := b.get("/holds"); !strings.Contains(p.text, "DELETE FROM") || strings.Contains(p.text, "harmless") {
		t.Error("a forged operation is listed")
	}
}

func TestRecording(t *testing.T) {
	w := newWorld(t, nil)
	b := w.as(t, "alice")
	p := b.get("/sessions/s-1")
	if !strings.Contains(p.text, "<b>Whole.</b>") || !strings.Contains(p.text, "SELECT 1") || !strings.Contains(p.text, "sealed") {
		t.Errorf("the recording is not shown whole: %s", p.text)
	}
	b.get("/sessions/s-1")
	d := b.get("/sessions/s-1/recording")
	path, err := filepath.Glob(filepath.Join(w.folder, "[0-9]*", "*", "*", "s-1.tgr"))
	if err != nil || len(path) != 1 {
		t.Fatal(path, err)
	}
	raw, err := os.ReadFile(path[0])
	if err != nil || d.text != string(raw) || d.header.Get("Content-Type") != "application/octet-stream" || !strings.HasPrefix(d.header.Get("Content-Disposition"), "attachment") {
		t.Errorf("the download differs: %d bytes, want %d, %v", len(d.text), len(raw), d.header)
	}
	rows, _, err := w.ledger.AuditOf(t.Context(), []string{"s-1"})
	must(t, err)
	seen := map[string]int{}
	for _, e := range rows {
		seen[e.Action]++
	}
	if seen["console.viewed"] != 1 || seen["console.downloaded"] != 1 {
		t.Errorf("audited: %v", seen)
	}
	must(t, os.WriteFile(path[0], []byte(strings.Replace(string(raw), "SELECT 1", "SELECT 2", 1)), 0o600))
	if p := b.get("/sessions/s-1"); !strings.Contains(p.text, "<b>Not whole.</b>") || !strings.Contains(p.text, "segment 0") || strings.Contains(p.text, "<b>Whole") {
		t.Errorf("a changed byte does not show: %s", p.text)
	}
	must(t, os.WriteFile(path[0], raw[:len(raw)/2], 0o600))
	if p := b.get("/sessions/s-1"); p.status != 200 || !strings.Contains(p.text, "<b>Not whole.</b>") {
		t.Errorf("a cut file does not show: %d", p.status)
	}
	must(t, os.Remove(path[0]))
	if p := b.get("/sessions/s-1"); p.status != 200 || !strings.Contains(p.text, "The recording is not here") {
		t.Errorf("a lost file: %d", p.status)
	}
	if p := b.get("/sessions/s-1/recording"); p.status != 404 {
		t.Errorf("download of a lost file: %d", p.status)
	}
}

func TestRecordingsElsewhere(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Recordings = nil })
	if p := w.as(t, "alice").get("/sessions/s-1"); p.status != 200 || !strings.Contains(p.text, "machine of gateway gateway-1") || strings.Contains(p.text, "/recording") {
		t.Errorf("got %d", p.status)
	}
}

func TestLongRecordingHasPages(t *testing.T) {
	w := newWorld(t, nil)
	all := make([]string, maxEvents+10)
	for i := range all {
		all[i] = "SELECT " + strings.Repeat("x", i%7)
	}
	all[len(all)-1] = "SELECT the_last"
	w.record(t, "s-2", all...)
	b := w.as(t, "alice")
	if p := b.get("/sessions/s-2"); strings.Contains(p.text, "the_last") || !strings.Contains(p.text, "?from=400") {
		t.Error("the first page shows all")
	}
	if p := b.get("/sessions/s-2?from=400"); !strings.Contains(p.text, "the_last") || !strings.Contains(p.text, "?from=0") {
		t.Error("the second page lacks the end")
	}
	for _, from := range []string{"-1", "x", "99999999999999999999", "100000"} {
		if p := b.get("/sessions/s-2?from=" + from); p.status != 200 {
			t.Errorf("from=%s: %d", from, p.status)
		}
	}
}

// TestHostileText: what people and clients wrote can neither act nor hide.
func TestHostileText(t *testing.T) {
	w := newWorld(t, nil)
	evil := "DELETE /*\u202e*/ <script>alert(1)</script>\x00\x1b[2J \"'><img src=x onerror=y>\u200b"
	w.record(t, "s-3", evil)
	h := w.hold(t, "4f3c0000-0000-4000-8000-000000000003", evil)
	b := w.as(t, "bob")
	for _, path := range []string{"/holds", "/holds/" + h.ID, "/sessions/s-3", "/grants/7/inc-1", "/sessions?person=" + url.QueryEscape(evil)} {
		text := b.get(path).text
		for _, bad := range []string{"<script>alert", "<img", "\u202e", "\u200b", "\x1b", "\x00"} {
			if strings.Contains(text, bad) {
				t.Errorf("%s lets %q through", path, bad)
			}
		}
		if !strings.Contains(text, "⟨U+202E⟩") && path != "/grants/7/inc-1" {
			t.Errorf("%s hides the override instead of showing it", path)
		}
	}
}

func TestFilters(t *testing.T) {
	w := newWorld(t, nil)
	w.record(t, "s-9-other")
	b := w.as(t, "admin")
	for query, want := range map[string]bool{
		"": true, "person=ALI": true, "person=bob": false, "target=orders": true, "grant=inc-1&state=ended": true, "state=open": false, "grant=zzz": false,
	} {
		if got := strings.Contains(b.get("/sessions?"+query).text, `/sessions/s-1"`); got != want {
			t.Errorf("?%s shows it: %v, want %v", query, got, want)
		}
	}
}

func TestPoliciesAndAudit(t *testing.T) {
	w := newWorld(t, nil)
	b := w.as(t, "carol")
	if p := b.get("/policies"); !strings.Contains(p.text, "c0ffee") || !strings.Contains(p.text, "dev:mallory@acme.test") || !strings.Contains(p.text, "policies.adopted") {
		t.Errorf("policies: %d", p.status)
	}
	if p := b.get("/policies/people.hcl"); !strings.Contains(p.text, "person &#34;alice&#34;") {
		t.Errorf("a policy file: %d", p.status)
	}
	if p := b.get("/audit"); !strings.Contains(p.text, "each follows the one before") || !strings.Contains(p.text, "session.open") {
		t.Errorf("audit: %d", p.status)
	}
	if p := b.get("/audit?whole=1"); !strings.Contains(p.text, "one unbroken chain") {
		t.Errorf("audit, whole: %d", p.status)
	}
}

func TestListsShowActiveFirst(t *testing.T) {
	w := newWorld(t, nil)
	g := w.g
	g.Key.ID, g.State, g.NotBefore = "inc-2", access.StateLanded, time.Now().Add(time.Hour)
	_, err := w.ledger.Create(t.Context(), g)
	must(t, err)
	g.Key.ID, g.State, g.Closed = "inc-3", access.StateRefused, time.Now()
	_, err = w.ledger.Create(t.Context(), g)
	must(t, err)
	text := w.as(t, "alice").get("/grants").text
	last := -1
	for _, id := range []string{">inc-1<", ">inc-2<", ">inc-3<"} {
		at := strings.Index(text, id)
		if at <= last {
			t.Errorf("%s stands at %d, want it after %d", id, at, last)
		}
		last = at
	}
}
