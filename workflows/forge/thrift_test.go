package forge

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/workflows"
)

// TestTheLastFifthIsForEnds: mallory has made GitHub's calls for this hour
// nearly used up.
func TestTheLastFifthIsForEnds(t *testing.T) {
	w, now := newWorld(t), time.Now()
	ref, head := w.request()
	real, left := http.Handler(w.hub), &atomic.Int64{}
	low := http.Handler(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		real.ServeHTTP(rec, r)
		for name, v := range rec.Header() {
			rw.Header()[name] = v
		}
		rw.Header().Set("X-RateLimit-Limit", "5000")
		rw.Header().Set("X-RateLimit-Remaining", strconv.FormatInt(left.Load(), 10))
		rw.Header().Set("X-RateLimit-Reset", strconv.FormatInt(now.Add(time.Hour).Unix(), 10))
		rw.WriteHeader(rec.Code)
		_, _ = rw.Write(rec.Body.Bytes())
	}))
	w.wrap.Store(&low)
	at := now
	f := w.newForge(func(c *Config) { c.Now = func() time.Time { return at } })
	left.Store(1000)
	for range 2 {
		if _, err := f.Pull(t.Context(), ref); err != nil {
			t.Fatalf("with a fifth left: %v", err)
		}
	}
	left.Store(999)
	if _, err := f.Main(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantCode(t, errOf(f.Pull(t.Context(), ref)), access.CodeUnavailable)
	ctx := workflows.Urgent(t.Context())
	file := "grants/alice/inc-1.hcl"
	if _, err := f.Main(ctx); err != nil {
		t.Error(err)
	}
	if got, err := f.Blobs(ctx, head, []string{file}); err != nil || got[file] == "" {
		t.Errorf("got %v, error %v, want to know where the file is", got, err)
	}
	if _, err := f.Comments(ctx, ref, 0); err != nil {
		t.Error(err)
	}
	if _, err := f.Directory(ctx, []string{"bob"}, []string{"acme/dba"}); err != nil {
		t.Error(err)
	}
	found := told(f.Diagnose(t.Context()))
	for _, kept := range []string{"rate limit can't be read", "branch main can't be read", "less than a fifth"} {
		if strings.Contains(found, kept) {
			t.Errorf("doctor says %q:\n%s", kept, found)
		}
	}
	left.Store(5000)
	at = now.Add(time.Hour)
	if _, err := f.Pull(t.Context(), ref); err != nil {
		t.Errorf("in the next hour: %v", err)
	}
}

// TestGraphQLHasItsOwnReserve: forty pull requests that are open use its hour up.
func TestGraphQLHasItsOwnReserve(t *testing.T) {
	w, now := newWorld(t), time.Now()
	ref, _ := w.request()
	real := http.Handler(w.hub)
	low := http.Handler(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		real.ServeHTTP(rec, r)
		for name, v := range rec.Header() {
			rw.Header()[name] = v
		}
		if r.URL.Path == "/api/graphql" {
			rw.Header().Set("X-RateLimit-Remaining", "999")
			rw.Header().Set("X-RateLimit-Reset", strconv.FormatInt(now.Add(time.Hour).Unix(), 10))
		}
		rw.WriteHeader(rec.Code)
		_, _ = rw.Write(rec.Body.Bytes())
	}))
	w.wrap.Store(&low)
	f := w.newForge(func(c *Config) { c.Now = func() time.Time { return now } })
	if _, err := f.Comments(t.Context(), ref, 0); err != nil {
		t.Fatal(err)
	}
	wantCode(t, errOf(f.Comments(t.Context(), ref, 0)), access.CodeUnavailable)
	if _, err := f.Comments(workflows.Urgent(t.Context()), ref, 0); err != nil {
		t.Errorf("what may end something: %v", err)
	}
	if _, err := f.Pull(t.Context(), ref); err != nil {
		t.Errorf("REST has its own: %v", err)
	}
}

// TestWhoWaitsForACallMayLeave: GitHub does not answer the first.
func TestWhoWaitsForACallMayLeave(t *testing.T) {
	w := newWorld(t)
	ref, head := w.request()
	if _, err := w.forge.Repo(t.Context()); err != nil {
		t.Fatal(err)
	}
	arrived, release := make(chan struct{}, 8), make(chan struct{})
	silent := http.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { arrived <- struct{}{}; <-release }))
	w.wrap.Store(&silent)
	fresh := w.newForge()
	for name, call := range map[string]func(context.Context) error{
		"repository": func(ctx context.Context) error { return errOf(fresh.Repo(ctx)) },
		"publish":    func(ctx context.Context) error { return w.forge.Publish(ctx, ref, workflows.Report{Head: head}) },
	} {
		first, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = call(first) }()
		<-arrived
		soon, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err := call(soon); access.CodeOf(err) != access.CodeUnavailable {
			t.Errorf("%s: got error %v, want that it is unavailable", name, err)
		}
		select {
		case <-done:
			t.Errorf("%s: it waited for the first", name)
		default:
		}
		stop()
		cancel()
		<-done
	}
	close(release)
}

// TestWhoWeAreIsAskedOnce, by however many begin together.
func TestWhoWeAreIsAskedOnce(t *testing.T) {
	w := newWorld(t)
	real, asked, all := http.Handler(w.hub), &atomic.Int64{}, make(chan struct{})
	slow := http.Handler(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		<-all
		real.ServeHTTP(rw, r)
	}))
	w.wrap.Store(&slow)
	f := w.newForge()
	f.asking <- struct{}{} // until all of them wait for it
	var callers, waiting sync.WaitGroup
	for range 8 {
		waiting.Add(1)
		callers.Go(func() {
			waiting.Done()
			if me, err := f.Self(t.Context()); err != nil || me.ID != 99 {
				t.Errorf("got %+v, error %v", me, err)
			}
		})
	}
	waiting.Wait()
	f.asking.give()
	close(all)
	callers.Wait()
	if n := asked.Load(); n != 1 {
		t.Errorf("GitHub was asked %d times, want once", n)
	}
}
