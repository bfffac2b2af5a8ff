package forge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/tidegate/tidegate/access"
)

const (
	maxAnswer    = 32 << 20 // bytes of one answer
	maxCalls     = 16       // at once; GitHub bears 100
	maxETagEntry = 1 << 20
	maxETagCache = 16 << 20
	maxBlobCache = 16 << 20
	maxTreeCache = 20_000 // files of all the commits together
)

// signIn adds the token, for the one host it belongs to.
type signIn struct {
	host    string
	next    http.RoundTripper
	token   func(context.Context) (string, error)
	refused func() // GitHub did not take the token
}

func (s *signIn) RoundTrip(req *http.Request) (*http.Response, error) {
	if host := req.URL.Host; host != s.host && host != "api."+s.host {
		return nil, fmt.Errorf("got a redirect to %q, want %q: the token stays here", host, s.host)
	}
	token, err := s.token(req.Context())
	if err != nil {
		return nil, err
	}
	req = req.Clone(req.Context())
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := s.next.RoundTrip(req)
	if err == nil && res.StatusCode == http.StatusUnauthorized {
		s.refused()
	}
	return res, err
}

// bounded limits how many calls run at once and how long an answer may be. It
// reads the whole answer, so a call is over when RoundTrip returns.
type bounded struct {
	next  http.RoundTripper
	slots chan struct{}
}

func newBounded(next http.RoundTripper) *bounded {
	return &bounded{next: next, slots: make(chan struct{}, maxCalls)}
}

func (b *bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	select {
	case b.slots <- struct{}{}:
		defer func() { <-b.slots }()
	case <-req.Context().Done():
		return nil, context.Cause(req.Context())
	}
	res, err := b.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if len(data) > maxAnswer {
		return nil, access.Errorf(access.CodeTooLarge, "GitHub's answer is longer than %d bytes.", maxAnswer)
	}
	res.Body = io.NopCloser(bytes.NewReader(data))
	return res, nil
}

// conditional keeps answers with their ETag and asks whether they still hold: a
// 304 costs nothing of the rate limit.
type conditional struct {
	next http.RoundTripper
	kept *lru[answer]
}

type answer struct {
	etag   string
	header http.Header
	body   []byte
}

func newConditional(next http.RoundTripper) *conditional {
	return &conditional{next: next, kept: newLRU[answer](maxETagCache)}
}

func (c *conditional) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method != http.MethodGet {
		return c.next.RoundTrip(req)
	}
	key := req.Header.Get("Accept") + " " + req.URL.String()
	old, known := c.kept.get(key)
	if known {
		req = req.Clone(req.Context())
		req.Header.Set("If-None-Match", old.etag)
	}
	res, err := c.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if known && res.StatusCode == http.StatusNotModified {
		return old.again(res), nil
	}
	if err := c.keep(key, req, res); err != nil {
		return nil, err
	}
	return res, nil
}

func (c *conditional) keep(key string, req *http.Request, res *http.Response) error {
	etag := res.Header.Get("ETag")
	if res.StatusCode != http.StatusOK || etag == "" {
		return nil
	}
	body, err := io.ReadAll(res.Body) // already in memory, and bounded
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	if len(body) <= maxETagEntry && !fullLastPage(req, res, body) {
		c.kept.put(key, answer{etag: etag, header: res.Header.Clone(), body: body}, len(body)+len(key)+1024)
	}
	return nil
}

// fullLastPage reports a page that is full and names no next one. With one entry
// more there will be a next, and yet this page is the same: where its ETag stands
// for the entries alone, a 304 would hide a review that was written since.
func fullLastPage(req *http.Request, res *http.Response, body []byte) bool {
	most, err := strconv.Atoi(req.URL.Query().Get("per_page"))
	if err != nil || strings.Contains(res.Header.Get("Link"), `rel="next"`) {
		return false
	}
	var entries []json.RawMessage
	return json.Unmarshal(body, &entries) == nil && len(entries) >= most
}

// again is the kept answer, with today's rate limit.
func (a answer) again(fresh *http.Response) *http.Response {
	header := a.header.Clone()
	for _, name := range []string{"X-Ratelimit-Limit", "X-Ratelimit-Remaining", "X-Ratelimit-Reset", "Date"} {
		if v := fresh.Header.Values(name); len(v) > 0 {
			header[name] = v
		}
	}
	return &http.Response{Status: "200 OK", StatusCode: http.StatusOK, Proto: fresh.Proto, ProtoMajor: fresh.ProtoMajor,
		ProtoMinor: fresh.ProtoMinor, Header: header, Request: fresh.Request, ContentLength: int64(len(a.body)),
		Body: io.NopCloser(bytes.NewReader(a.body))}
}
