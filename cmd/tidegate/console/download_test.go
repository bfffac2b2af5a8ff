package console

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidegate/tidegate/access"
)

// TestDownloadsAtOnce: so many browsers that take their time fill the places.
// The next waits for one, and pages are shown all the while.
func TestDownloadsAtOnce(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Recordings = endless{} })
	b := w.as(t, "alice")
	get := func() (*http.Response, error) {
		req, err := http.NewRequestWithContext(t.Context(), "GET", w.URL+"/sessions/s-1/recording", nil)
		must(t, err)
		return b.Do(req)
	}
	slow := make([]*http.Response, maxSending)
	for i := range slow {
		var err error
		slow[i], err = get() // its header came, its body is not read
		must(t, err)
		defer slow[i].Body.Close()
	}
	next := make(chan error, 1)
	go func() {
		res, err := get()
		if err == nil {
			err = res.Body.Close()
		}
		next <- err
	}()
	if p := b.get("/grants"); p.status != http.StatusOK {
		t.Errorf("a page beside them: %d", p.status)
	}
	select {
	case err := <-next:
		t.Errorf("one more than %d was sent at once: %v", maxSending, err)
	default:
	}
	if n := len(w.console.sending); n != maxSending {
		t.Errorf("%d places are taken, want %d", n, maxSending)
	}
	must(t, slow[0].Body.Close())
	select {
	case err := <-next:
		must(t, err)
	case <-time.After(pageTimeout):
		t.Error("a place came free, and the next got none")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	full := make(chan struct{}, 1)
	full <- struct{}{}
	if _, err := turn(ctx, full); access.CodeOf(err) != access.CodeUnavailable {
		t.Errorf("whose time is up without a place: %v", err)
	}
}

// endless are recordings larger than what lies between two programs.
type endless struct{}

func (endless) Open(context.Context, string) (Recording, error) {
	return many{bytes.NewReader(make([]byte, 64<<20))}, nil
}

type many struct{ *bytes.Reader }

func (many) Close() error { return nil }

// TestDownloadsEnd: a browser that takes nothing is cut soon, one that takes a
// little again and again is cut as well, and one that keeps up gets all.
func TestDownloadsEnd(t *testing.T) {
	const size = 100 * fileChunk
	for name, c := range map[string]struct {
		chunk time.Duration // for each of a download
		sent  int64
		after time.Duration
	}{
		"at once":       {0, size, 0},
		"keeps up":      {time.Second, size, 100 * time.Second},
		"takes nothing": {time.Hour, 0, chunkTimeout},
		"drips":         {20 * time.Second, 30 * fileChunk, fileTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began, w := time.Now(), &taking{chunk: c.chunk}
				send(w, io.LimitReader(zeros{}, size))
				if took := time.Since(began); w.sent != c.sent || took != c.after {
					t.Errorf("%d bytes in %s, want %d in %s", w.sent, took, c.sent, c.after)
				}
			})
		})
	}
}

// taking is a browser that needs so long for each chunk.
type taking struct {
	http.ResponseWriter
	chunk time.Duration
	until time.Time
	part  int64 // of a chunk
	sent  int64
}

// SetWriteDeadline is what http.ResponseController calls.
func (w *taking) SetWriteDeadline(at time.Time) error { w.until = at; return nil }

func (w *taking) Write(b []byte) (int, error) {
	need := time.Duration(float64(w.chunk) * float64(len(b)) / fileChunk)
	if left := time.Until(w.until); need > left {
		time.Sleep(left)
		return 0, fmt.Errorf("write: %w", os.ErrDeadlineExceeded)
	}
	time.Sleep(need)
	if w.part += int64(len(b)); w.part >= fileChunk {
		w.sent, w.part = w.sent+w.part, 0
	}
	return len(b), nil
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }
