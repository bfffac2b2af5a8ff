package forge

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/access"
)

const hookSecret = "hook-secret"

// receiver is a webhook with what it was handed.
type receiver struct {
	*Webhook
	mu     sync.Mutex
	seen   map[string]bool
	events []Event
	notify chan Event
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{seen: map[string]bool{}, notify: make(chan Event, 64)}
	var err error
	r.Webhook, err = NewWebhook(WebhookConfig{Secret: access.NewSecret(hookSecret), Repo: repoID,
		Seen: func(_ context.Context, id string) (bool, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			old := r.seen[id]
			r.seen[id] = true
			return old, nil
		},
		OnEvent: func(e Event) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.events = append(r.events, e)
			r.notify <- e
		}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func sign(body []byte, secret string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

func delivery(body string, change ...func(*http.Request)) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/webhook", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-GitHub-Delivery", "d-1")
	r.Header.Set("X-GitHub-Event", "pull_request")
	r.Header.Set("X-Hub-Signature-256", sign([]byte(body), hookSecret))
	for _, f := range change {
		f(r)
	}
	return r
}

const opened = `{"action":"opened","number":7,"repository":{"id":1001},"sender":{"id":11,"login":"alice","type":"User"},
	"pull_request":{"number":7,"head":{"sha":"aaaa","ref":"inc-1"}}}`

func (r *receiver) post(req *http.Request) int {
	rec := httptest.NewRecorder()
	r.ServeHTTP(rec, req)
	return rec.Code
}

func TestWebhookRefuses(t *testing.T) {
	header := func(k, v string) func(*http.Request) { return func(r *http.Request) { r.Header.Set(k, v) } }
	mac := hmac.New(sha1.New, []byte(hookSecret))
	mac.Write([]byte(opened))
	onlySHA1 := func(r *http.Request) {
		r.Header.Del("X-Hub-Signature-256")
		r.Header.Set("X-Hub-Signature", "sha1="+hex.EncodeToString(mac.Sum(nil)))
	}
	large := strings.Replace(opened, "{", "{"+strings.Repeat(" ", maxDelivery), 1)
	cases := map[string]struct {
		req  *http.Request
		want int
	}{
		"method":          {delivery(opened, func(r *http.Request) { r.Method = http.MethodGet }), http.StatusMethodNotAllowed},
		"form":            {delivery(opened, header("Content-Type", "application/x-www-form-urlencoded")), http.StatusUnsupportedMediaType},
		"wrong secret":    {delivery(opened, header("X-Hub-Signature-256", sign([]byte(opened), "other"))), http.StatusUnauthorized},
		"empty secret":    {delivery(opened, header("X-Hub-Signature-256", sign([]byte(opened), ""))), http.StatusUnauthorized},
		"other body":      {delivery(opened, header("X-Hub-Signature-256", sign([]byte(opened+" "), hookSecret))), http.StatusUnauthorized},
		"empty signature": {delivery(opened, header("X-Hub-Signature-256", "sha256=")), http.StatusUnauthorized},
		"no hex":          {delivery(opened, header("X-Hub-Signature-256", "sha256=zz")), http.StatusUnauthorized},
		"SHA-1 only":      {delivery(opened, onlySHA1), http.StatusUnauthorized},
		"oversized":       {delivery(large), http.StatusRequestEntityTooLarge},
		"no delivery":     {delivery(opened, header("X-GitHub-Delivery", "")), http.StatusBadRequest},
		"odd delivery":    {delivery(opened, header("X-GitHub-Delivery", "a b")), http.StatusBadRequest},
		"no JSON":         {delivery("{"), http.StatusBadRequest},
		"odd event":       {delivery(`{"repository":{"id":1001},"number":"seven"}`), http.StatusBadRequest},
	}
	for name, c := range cases {
		r := newReceiver(t)
		if got := r.post(c.req); got != c.want || len(r.events) != 0 || len(r.seen) != 0 {
			t.Errorf("%s: got %d and %d events, want %d and none", name, got, len(r.events), c.want)
		}
	}
}

func TestWebhookTakesOnce(t *testing.T) {
	r := newReceiver(t)
	for range 2 {
		if got := r.post(delivery(opened)); got != http.StatusAccepted {
			t.Fatalf("got %d, want 202", got)
		}
	}
	want := []Event{{Kind: EventPull, Action: "opened", Number: 7, Sender: access.User{ID: 11, Login: "alice"}, Ref: "inc-1", After: "aaaa"}}
	if diff := cmp.Diff(want, r.events); diff != "" {
		t.Error(diff)
	}
}

func TestWebhookIgnoresWhatIsNotItsOwn(t *testing.T) {
	event := func(kind string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("X-GitHub-Event", kind) }
	}
	r := newReceiver(t)
	for _, req := range []*http.Request{
		delivery(strings.Replace(opened, "1001", "1002", 1)),
		delivery(`{"zen":"x"}`, event("ping")),
		delivery(`{"action":"opened","number":7}`),
		delivery(`{"repository":{"id":1001}}`, event("no_such_event")),
		delivery(`{"repository":{"id":1001},"action":"created","issue":{"number":3},"comment":{"id":1}}`, event("issue_comment")),
		delivery(`{"repository":{"id":1001},"action":"created","check_run":{"head_sha":"x"}}`, event("check_run")),
		delivery(`{"repository":{"id":1002},"action":"added"}`, event("membership")),
	} {
		if got := r.post(req); got != http.StatusAccepted || len(r.events) != 0 {
			t.Errorf("%s: got %d, %v, want it taken and forgotten", req.Header.Get("X-GitHub-Event"), got, r.events)
		}
	}
	if got := r.post(delivery(`{"action":"added","sender":{"id":15,"login":"root"}}`, event("membership"))); got != http.StatusAccepted || len(r.events) != 1 {
		t.Errorf("got %d, %d events, want the organization's event taken", got, len(r.events))
	}
}

func TestWebhookThatCannotRememberRefuses(t *testing.T) {
	r := newReceiver(t)
	r.cfg.Seen = func(context.Context, string) (bool, error) { return false, errors.New("no ledger") }
	if got := r.post(delivery(opened)); got != http.StatusServiceUnavailable || len(r.events) != 0 {
		t.Errorf("got %d, %d events, want 503 and none: GitHub's log keeps it", got, len(r.events))
	}
}

// TestWebhookBoundsWhatIsInFlight holds sixteen deliveries that GitHub signed.
func TestWebhookBoundsWhatIsInFlight(t *testing.T) {
	r := newReceiver(t)
	arrived, release := make(chan struct{}), make(chan struct{})
	r.cfg.Keep = func(context.Context, Event) error { arrived <- struct{}{}; <-release; return nil }
	numbered := func(i int) *http.Request {
		return delivery(opened, func(req *http.Request) { req.Header.Set("X-GitHub-Delivery", fmt.Sprint("d-", i)) })
	}
	var wg sync.WaitGroup
	for i := range maxInFlight {
		wg.Go(func() { r.post(numbered(i)) })
		<-arrived
	}
	rec := httptest.NewRecorder()
	r.ServeHTTP(rec, numbered(maxInFlight))
	if rec.Code != http.StatusServiceUnavailable || rec.Header().Get("Retry-After") == "" {
		t.Errorf("got %d and %v, want 503 and when to come again", rec.Code, rec.Header())
	}
	close(release)
	wg.Wait()
	if len(r.events) != maxInFlight {
		t.Errorf("got %d events, want %d", len(r.events), maxInFlight)
	}
}

// slow begins a request whose body does not come, and says how it was answered.
func slow(t *testing.T, url string) (answered chan int, rest io.WriteCloser) {
	t.Helper()
	return begun(t, url, delivery("other").Header)
}

// begun sends a request but for the most of its body.
func begun(t *testing.T, url string, header http.Header) (answered chan int, rest io.WriteCloser) {
	t.Helper()
	in, out := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, in)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header
	req.ContentLength = int64(len(opened))
	answered = make(chan int, 1)
	go func() {
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			answered <- 0
			return
		}
		res.Body.Close()
		answered <- res.StatusCode
	}()
	if _, err := out.Write([]byte(opened[:10])); err != nil {
		t.Error(err)
	}
	return answered, out
}

// TestStrangersDoNotStarveGitHub: mallory, who can't sign, begins more bodies
// than are read at once. GitHub's delivery is taken, and it is mallory's first
// that is cut.
func TestStrangersDoNotStarveGitHub(t *testing.T) {
	r := newReceiver(t)
	r.bodies.within = time.Minute
	srv := httptest.NewServer(r)
	defer srv.Close()
	var answers []chan int
	for range maxBodies {
		answered, rest := slow(t, srv.URL)
		defer rest.Close()
		answers = append(answers, answered)
	}
	waitFor(t, func() bool { return r.bodies.count() == maxBodies })
	req := delivery(opened)
	out, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL, strings.NewReader(opened))
	if err != nil {
		t.Fatal(err)
	}
	out.Header = req.Header
	res, err := http.DefaultClient.Do(out)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusAccepted {
		t.Errorf("GitHub got %d, want 202", res.StatusCode)
	}
	cut := 0
	waitFor(t, func() bool {
		for _, a := range answers {
			select {
			case code := <-a:
				if cut++; code != http.StatusServiceUnavailable && code != 0 {
					t.Errorf("mallory got %d, want to be cut", code)
				}
			default:
			}
		}
		return cut > 0
	})
	if cut != 1 || r.bodies.count() != maxBodies-1 {
		t.Errorf("%d were cut and %d are read, want one cut", cut, r.bodies.count())
	}
}

// TestOneStrangerCutsOffNobodyElse: GitHub's delivery began before more bodies
// of mallory's than are read at once. They stand behind one proxy.
func TestOneStrangerCutsOffNobodyElse(t *testing.T) {
	r := newReceiver(t)
	r.bodies.within, r.bodies.proxies = time.Minute, []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("::1/128")}
	srv := httptest.NewServer(r)
	defer srv.Close()
	github := delivery(opened).Header
	github.Set("X-Forwarded-For", "192.0.2.30")
	answered, rest := begun(t, srv.URL, github)
	waitFor(t, func() bool { return r.bodies.count() == 1 })
	var cut []chan int
	for i := range maxBodies + 10 {
		header := delivery("other").Header
		header.Set("X-Forwarded-For", fmt.Sprintf("192.0.2.%d, 203.0.113.9", i)) // what is left of the last mallory wrote
		was, more := begun(t, srv.URL, header)
		defer more.Close()
		cut = append(cut, was)
		waitFor(t, func() bool { return r.bodies.count() == min(i+2, maxBodies) })
	}
	for _, was := range cut[:11] { // 64 are read, GitHub's among them
		if code := <-was; code != http.StatusServiceUnavailable && code != 0 {
			t.Errorf("mallory got %d, want to be cut", code)
		}
	}
	if _, err := io.WriteString(rest, opened[10:]); err != nil {
		t.Fatal(err)
	}
	rest.Close()
	if code := <-answered; code != http.StatusAccepted {
		t.Errorf("GitHub got %d, want 202", code)
	}
}

func TestCaller(t *testing.T) {
	b := bodies{proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/64")}}
	for _, c := range []struct {
		remote string
		said   []string
		want   string
	}{
		{"203.0.113.9:4711", nil, "203.0.113.9/32"},
		{"[2001:db8:1:2:3::4]:4711", nil, "2001:db8:1:2::/64"},
		{"[::ffff:203.0.113.9]:4711", nil, "203.0.113.9/32"},
		{"[fe80::1%eth0]:4711", nil, "fe80::/64"},
		{"203.0.113.9:4711", []string{"192.0.2.1"}, "203.0.113.9/32"}, // nobody's proxy
		{"10.0.0.1:4711", []string{"192.0.2.1"}, "192.0.2.1/32"},
		{"10.0.0.1:4711", []string{"192.0.2.1:99"}, "192.0.2.1/32"},
		{"[fd00::1]:4711", []string{"[2001:db8::1]:99"}, "2001:db8::/64"},
		{"10.0.0.1:4711", []string{"192.0.2.1, 203.0.113.9"}, "203.0.113.9/32"},
		{"10.0.0.1:4711", []string{"192.0.2.1", "203.0.113.9,10.9.9.9"}, "203.0.113.9/32"},
		{"10.0.0.1:4711", nil, "10.0.0.1/32"},
		{"10.0.0.1:4711", []string{"192.0.2.1, nonsense"}, "invalid Prefix"},
		{"10.0.0.1:4711", []string{"10.0.0.2, 10.0.0.3"}, "10.0.0.2/32"},
		{"@", []string{"192.0.2.1"}, "invalid Prefix"},
	} {
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		r.RemoteAddr = c.remote
		r.Header["X-Forwarded-For"] = c.said
		if got := b.caller(r).String(); got != c.want {
			t.Errorf("%s saying %q is %s, want %s", c.remote, c.said, got, c.want)
		}
	}
}

// TestBodyThatDoesNotCome has a short time.
func TestBodyThatDoesNotCome(t *testing.T) {
	r := newReceiver(t)
	r.bodies.within = 50 * time.Millisecond
	srv := httptest.NewServer(r)
	defer srv.Close()
	answered, rest := slow(t, srv.URL)
	defer rest.Close()
	if code := <-answered; code != http.StatusRequestTimeout && code != 0 {
		t.Errorf("got %d, want 408", code)
	}
	if n := r.bodies.count(); n != 0 {
		t.Errorf("%d bodies are read, want none", n)
	}
}

// TestSignedDeliveryThatTakesLong: the time is the body's alone.
func TestSignedDeliveryThatTakesLong(t *testing.T) {
	r := newReceiver(t)
	r.bodies.within = 200 * time.Millisecond
	gone := make(chan error, 1)
	r.cfg.Keep = func(ctx context.Context, _ Event) error {
		select {
		case <-ctx.Done():
			gone <- ctx.Err()
		case <-time.After(2 * r.bodies.within):
			gone <- nil
		}
		return nil
	}
	srv := httptest.NewServer(r)
	defer srv.Close()
	out, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL, strings.NewReader(opened))
	if err != nil {
		t.Fatal(err)
	}
	out.Header = delivery(opened).Header
	res, err := http.DefaultClient.Do(out)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if err := <-gone; err != nil || res.StatusCode != http.StatusAccepted {
		t.Errorf("got %d, error %v, want it taken", res.StatusCode, err)
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not come")
		}
	}
}

func TestNewWebhookRefusesAnEmptySecret(t *testing.T) {
	full := WebhookConfig{Secret: access.NewSecret("x"), Repo: 1, Seen: func(context.Context, string) (bool, error) { return false, nil }, OnEvent: func(Event) {}}
	if _, err := NewWebhook(full); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*WebhookConfig){
		"secret": func(c *WebhookConfig) { c.Secret = access.Secret{} }, "repo": func(c *WebhookConfig) { c.Repo = 0 },
		"seen": func(c *WebhookConfig) { c.Seen = nil }, "event": func(c *WebhookConfig) { c.OnEvent = nil },
	} {
		cfg := full
		change(&cfg)
		if _, err := NewWebhook(cfg); err == nil {
			t.Errorf("%s: got a webhook, want an error", name)
		}
	}
}

// TestWebhookHearsTheHub takes what a push, a review, a comment and a team change
// send for real.
func TestWebhookHearsTheHub(t *testing.T) {
	w, r := newWorld(t), newReceiver(t)
	srv := httptest.NewServer(r)
	t.Cleanup(srv.Close)
	w.hub.SetWebhook(srv.URL, hookSecret)
	wait := func(kind, action string) Event {
		t.Helper()
		deadline := time.After(20 * time.Second)
		for {
			select {
			case e := <-r.notify:
				if e.Kind == kind && e.Action == action {
					return e
				}
			case <-deadline:
				t.Fatalf("no %s %s event", kind, action)
			}
		}
	}
	ref, head := w.request()
	if e := wait(EventPush, ""); e.Sender.ID != 11 || e.After != head || !cmp.Equal(e.Commits, []string{head}) || e.Ref != "refs/heads/inc-1" {
		t.Errorf("got %+v, want alice's push of %s", e, head)
	}
	if e := wait(EventPull, "opened"); e.Number != ref.Number || e.After != head {
		t.Errorf("got %+v, want the pull request opened", e)
	}
	w.approve("bob", ref)
	if e := wait(EventPull, "submitted"); e.Number != ref.Number || e.Sender.ID != 12 {
		t.Errorf("got %+v, want bob's review", e)
	}
	c := w.say("carol", ref, "/tidegate help")
	if e := wait(EventComment, "created"); e.Number != ref.Number || e.Comment != c.GetID() || e.Sender.ID != 13 {
		t.Errorf("got %+v, want carol's comment", e)
	}
	if err := w.hub.SetMember("dba", "bob", false); err != nil {
		t.Fatal(err)
	}
	wait(EventMembership, "removed")
}

// TestWebhookKeepsBeforeItHasSeen: a delivery whose push could not be stored
// must not count as seen, or sending it again would lose who pushed for good.
func TestWebhookKeepsBeforeItHasSeen(t *testing.T) {
	r := newReceiver(t)
	fail := errors.New("no ledger")
	r.cfg.Keep = func(context.Context, Event) error { return fail }
	if got := r.post(delivery(opened)); got != http.StatusServiceUnavailable || len(r.seen) != 0 {
		t.Errorf("got %d and %d seen, want 503 and none", got, len(r.seen))
	}
	fail = nil
	if got := r.post(delivery(opened)); got != http.StatusAccepted || len(r.events) != 1 {
		t.Errorf("got %d and %d events when it was sent again, want 202 and one", got, len(r.events))
	}
}
