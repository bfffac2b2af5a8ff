package forge

import (
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/workflows"
)

// thrifty keeps the last fifth of GitHub's hourly budget for calls by which
// access ends. Who may push, or open pull requests, decides how much there is
// to read, and could else have used all of it when a grant's file is deleted.
type thrifty struct {
	next http.RoundTripper
	now  func() time.Time

	mu          sync.Mutex
	left, limit int
	anew        time.Time // when the budget begins anew
}

func (t *thrifty) RoundTrip(req *http.Request) (*http.Response, error) {
	if until, short := t.short(); short && !workflows.IsUrgent(req.Context()) {
		return nil, access.Errorf(access.CodeUnavailable, "Of GitHub's calls for this hour less than a fifth are left, which are kept for the end of access; Tidegate goes on at %s.",
			until.UTC().Format("15:04 UTC"))
	}
	res, err := t.next.RoundTrip(req)
	if err == nil {
		t.note(res.Header)
	}
	return res, err
}

func (t *thrifty) short() (until time.Time, short bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.anew, t.left*lowRate < t.limit && t.now().Before(t.anew)
}

// note keeps what an answer says of REST's budget; GraphQL has its own, and is
// asked for comments only, which may end something.
func (t *thrifty) note(h http.Header) {
	if resource := h.Get("X-RateLimit-Resource"); resource != "" && resource != "core" {
		return
	}
	left, err1 := strconv.Atoi(h.Get("X-RateLimit-Remaining"))
	limit, err2 := strconv.Atoi(h.Get("X-RateLimit-Limit"))
	anew, err3 := strconv.ParseInt(h.Get("X-RateLimit-Reset"), 10, 64)
	if err1 != nil || err2 != nil || err3 != nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.left, t.limit, t.anew = left, limit, time.Unix(anew, 0)
}
