package forge

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	maxBodies = 64              // of maxDelivery each
	bodyTime  = 5 * time.Second // GitHub gives us ten for all of it
)

// bodies bounds what is read for callers of whom nobody knows yet whether they
// are GitHub: the signature is over the whole body. GitHub sends a delivery in
// one go, so a newcomer never waits: where the most are being read, one is cut
// off, the first of the address that has the most of them. So one stranger, how
// fast ever, cuts off none but their own. Behind a proxy that is not named all callers
// are one address: to keep GitHub out, they would have to begin maxBodies requests
// in the moment in which one delivery arrives.
type bodies struct {
	within  time.Duration
	proxies []netip.Prefix

	mu    sync.Mutex
	under []*underWay // the first began first
}

// underWay is one body that is being read.
type underWay struct {
	*http.ResponseController
	from netip.Prefix
	cut  bool
}

// caller is the address that a request came from, or of IPv6 the network: whoever
// has one address there has all of them. What can't be told is one caller. A
// proxy is believed what it says in X-Forwarded-For; what stands left of the
// first stranger there, that stranger wrote.
func (b *bodies) caller(r *http.Request) netip.Prefix {
	from := parseCaller(r.RemoteAddr)
	said := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, next := range slices.Backward(said) {
		if !b.isProxy(from) || strings.TrimSpace(next) == "" {
			break
		}
		from = parseCaller(strings.TrimSpace(next))
	}
	bits := 64
	if from.Is4() {
		bits = 32
	}
	network, err := from.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return network
}

func (b *bodies) isProxy(addr netip.Addr) bool {
	return slices.ContainsFunc(b.proxies, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// parseCaller reads an address with or without a port; what is none is none.
func parseCaller(s string) netip.Addr {
	addr, err := netip.ParseAddr(strings.Trim(s, "[]"))
	if at, atErr := netip.ParseAddrPort(s); err != nil && atErr == nil {
		addr = at.Addr()
	}
	return addr.Unmap().WithZone("")
}

// read reads the body. A status says why there is none.
func (b *bodies) read(w http.ResponseWriter, r *http.Request) (body []byte, status int, say string) {
	tooLarge := fmt.Sprintf("Want at most %d bytes.", maxDelivery)
	if r.ContentLength > maxDelivery {
		return nil, http.StatusRequestEntityTooLarge, tooLarge
	}
	u := b.begin(w, b.caller(r))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxDelivery))
	cut := b.end(u)
	switch {
	case err == nil:
		_ = u.SetReadDeadline(time.Time{}) // the server goes on watching for a caller who leaves
		return body, 0, ""
	case errors.As(err, new(*http.MaxBytesError)):
		return nil, http.StatusRequestEntityTooLarge, tooLarge
	case cut:
		return nil, http.StatusServiceUnavailable, "Too many requests at once, and yours took the longest."
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, http.StatusRequestTimeout, fmt.Sprintf("Want the whole body within %s.", b.within)
	}
	return nil, http.StatusBadRequest, "The body could not be read."
}

// begin takes a place. A server that knows no deadlines, as in some tests, has
// its own.
func (b *bodies) begin(w http.ResponseWriter, from netip.Prefix) *underWay {
	u := &underWay{ResponseController: http.NewResponseController(w), from: from}
	_ = u.SetReadDeadline(time.Now().Add(b.within))
	b.mu.Lock()
	defer b.mu.Unlock()
	b.under = append(b.under, u)
	if len(b.under) > maxBodies {
		b.cut(b.greediest())
	}
	return u
}

// greediest is the first body of whoever has the most; of several, of who began
// first.
func (b *bodies) greediest() (first *underWay) {
	of := map[netip.Prefix]int{}
	for _, u := range b.under {
		of[u.from]++
	}
	for _, u := range b.under {
		if first == nil || of[u.from] > of[first.from] {
			first = u
		}
	}
	return first
}

func (b *bodies) cut(u *underWay) {
	b.under = slices.DeleteFunc(b.under, func(other *underWay) bool { return other == u })
	u.cut = true
	_ = u.SetReadDeadline(time.Now())
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
