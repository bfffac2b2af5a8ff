package forge

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/workflows"
)

// thrifty keeps the last fifth of GitHub's hourly budgets for calls by which
// access ends, or its end is heard of. Who may push, open pull requests or
// comment decides how much there is to read, and could else have used all of it
// when a grant's file is deleted.
type thrifty struct {
	next http.RoundTripper
	now  func() time.Time

	mu      sync.Mutex
	budgets map[string]budget // by GitHub's name of the resource
}

// The resources that are used: REST and GraphQL have a budget each.
const (
	restBudget  = "core"
	graphBudget = "graphql"
)

// budget is what is left of one resource's hour.
type budget struct {
	left, limit int
	anew        time.Time // when it begins anew
}

func newThrifty(next http.RoundTripper, now func() time.Time) *thrifty {
	return &thrifty{next: next, now: now, budgets: map[string]budget{}}
}

func (t *thrifty) RoundTrip(req *http.Request) (*http.Response, error) {
	of := restBudget
	if strings.HasSuffix(req.URL.Path, "/graphql") {
		of = graphBudget
	}
	if until, short := t.short(of); short && !workflows.IsUrgent(req.Context()) {
		return nil, access.Errorf(access.CodeUnavailable, "Of GitHub's calls for this hour less than a fifth are left, which are kept for the end of access; Tidegate goes on at %s.",
			until.UTC().Format("15:04 UTC"))
	}
	res, err := t.next.RoundTrip(req)
	if err == nil {
		t.note(of, res.Header)
	}
	return res, err
}

func (t *thrifty) short(of string) (until time.Time, short bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.budgets[of]
	return b.anew, b.left*lowRate < b.limit && t.now().Before(b.anew)
}

// note keeps what an answer says of its budget, if it names no other.
func (t *thrifty) note(of string, h http.Header) {
	if resource := h.Get("X-RateLimit-Resource"); resource != "" && resource != of {
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
	t.budgets[of] = budget{left, limit, time.Unix(anew, 0)}
}
