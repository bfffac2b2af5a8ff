package forge

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"
)

const (
	maxBodies = 64              // of maxDelivery each
	bodyTime  = 5 * time.Second // GitHub gives us ten for all of it
)

// bodies bounds what is read for callers of whom nobody knows yet whether they
// are GitHub: the signature is over the whole body. GitHub sends a delivery in
// one go, so a newcomer never waits: where the most are being read, the one
// that began first is cut off. To keep GitHub out, strangers would have to
// begin maxBodies requests in the moment in which one delivery arrives.
type bodies struct {
	within time.Duration

	mu    sync.Mutex
	under []*underWay // the first began first
}

// underWay is one body that is being read.
type underWay struct {
	*http.ResponseController
	cut bool
}

// read reads the body. A status says why there is none.
func (b *bodies) read(w http.ResponseWriter, r *http.Request) (body []byte, status int, say string) {
	tooLarge := fmt.Sprintf("Want at most %d bytes.", maxDelivery)
	if r.ContentLength > maxDelivery {
		return nil, http.StatusRequestEntityTooLarge, tooLarge
	}
	u := b.begin(w)
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxDelivery))
	cut := b.end(u)
	switch {
	case err == nil:
		_ = u.SetReadDeadline(time.Time{}) // the server goes on watching for a caller who leaves
		return body, 0, ""
	case errors.As(err, new(*http.MaxBytesError)):
		return nil, http.StatusRequestEntityTooLarge, tooLarge
	case cut:
		return nil, http.StatusServiceUnavailable, "Too many requests at once, and this one took the longest."
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, http.StatusRequestTimeout, fmt.Sprintf("Want the whole body within %s.", b.within)
	}
	return nil, http.StatusBadRequest, "The body could not be read."
}

// begin takes a place. A server that knows no deadlines, as in some tests, has
// its own.
func (b *bodies) begin(w http.ResponseWriter) *underWay {
	u := &underWay{ResponseController: http.NewResponseController(w)}
	_ = u.SetReadDeadline(time.Now().Add(b.within))
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.under) >= maxBodies {
		first := b.under[0]
		b.under, first.cut = b.under[1:], true
		_ = first.SetReadDeadline(time.Now())
	}
	b.under = append(b.under, u)
	return u
}

// end gives the place back, and says whether another took it.
func (b *bodies) end(u *underWay) (cut bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.under = slices.DeleteFunc(b.under, func(other *underWay) bool { return other == u })
	return u.cut
}

func (b *bodies) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.under)
}
