package identify

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

const (
	fetchTimeout = 10 * time.Second
	maxBody      = 1 << 20
	keepGood     = 5 * time.Second // how soon the same page is fetched again
	keepBad      = 2 * time.Second // the same, after a failure
)

// fetcher gets an issuer's two pages, within bounds. It remembers the last
// one for some seconds: tokens with made-up key ids would otherwise make us
// hammer the issuer, since go-oidc looks for an unknown key each time.
type fetcher struct {
	base     http.RoundTripper
	loopback bool // http to loopback is allowed
	now      func() time.Time

	mu   sync.Mutex
	last page
}

// page is one answer, kept.
type page struct {
	url  string
	at   time.Time
	code int
	head http.Header
	body []byte
	err  error
}

func newClient(i Issuer, o Options) *http.Client {
	base := o.Transport
	if base == nil {
		base = newTransport(i.CA)
	}
	return &http.Client{
		Timeout:   fetchTimeout,
		Transport: &fetcher{base: base, loopback: i.AllowHTTPLoopback, now: o.Now},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("the issuer redirects; configure the URL that it redirects to")
		},
	}
}

func newTransport(ca []byte) *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if len(ca) > 0 {
		t.TLSClientConfig.RootCAs = x509.NewCertPool()
		t.TLSClientConfig.RootCAs.AppendCertsFromPEM(ca) // checked by New
	}
	t.MaxResponseHeaderBytes = 64 << 10
	t.MaxConnsPerHost = 4
	return t
}

// RoundTrip implements http.RoundTripper.
func (f *fetcher) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := reachable(req.URL, f.loopback); err != nil {
		return nil, fmt.Errorf("fetch from issuer: the URL %w", err)
	}
	if p, ok := f.kept(req.URL.String()); ok {
		return p.response(req)
	}
	p := f.fetch(req)
	if req.Context().Err() == nil { // a caller who left says nothing about the issuer
		f.mu.Lock()
		f.last = p
		f.mu.Unlock()
	}
	return p.response(req)
}

func (f *fetcher) kept(url string) (page, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	keep := keepGood
	if f.last.err != nil || f.last.code != http.StatusOK {
		keep = keepBad
	}
	age := f.now().Sub(f.last.at)
	return f.last, f.last.url == url && age >= 0 && age < keep
}

func (f *fetcher) fetch(req *http.Request) page {
	p := page{url: req.URL.String(), at: f.now()}
	resp, err := f.base.RoundTrip(req)
	if err != nil {
		p.err = err
		return p
	}
	defer resp.Body.Close()
	p.code, p.head = resp.StatusCode, resp.Header
	p.body, p.err = io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if p.err == nil && len(p.body) > maxBody {
		p.body, p.err = nil, fmt.Errorf("the issuer's answer has more than %d bytes", maxBody)
	}
	return p
}

func (p page) response(req *http.Request) (*http.Response, error) {
	if p.err != nil {
		return nil, p.err
	}
	return &http.Response{
		Status: fmt.Sprintf("%d %s", p.code, http.StatusText(p.code)), StatusCode: p.code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: p.head.Clone(), Body: io.NopCloser(bytes.NewReader(p.body)), ContentLength: int64(len(p.body)), Request: req,
	}, nil
}
