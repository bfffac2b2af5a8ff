package console

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/identify"
	"github.com/tidegate/tidegate/gateway/record"
)

// Bounds.
const (
	maxInFlight  = 64
	maxReading   = 4 // recordings at once, and walks along the audit log
	maxSending   = 8 // downloads at once: slow ones hold up no page
	maxLogins    = 8 // conversations with issuers at once
	maxBody      = 16 << 10
	maxQuery     = 4 << 10
	maxPage      = 8 << 20 // bytes of one page
	pageTimeout  = 20 * time.Second
	writeTimeout = 30 * time.Second
	fileTimeout  = 10 * time.Minute // of a recording's download
	chunkTimeout = 30 * time.Second // of each fileChunk of it
	fileChunk    = 256 << 10
)

// Config is what a console is made of. What has no comment is needed.
type Config struct {
	URL        string // where browsers reach it: "https://tidegate.example.com"
	Providers  []Provider
	Ledger     Ledger
	Desk       Desk
	Recordings Recordings                  // nil: they lie with the gateways, elsewhere
	Keys       func() (record.Keys, error) // by which recordings are verified, as they are now
	Now        func() time.Time
	Log        *slog.Logger
	Transport  http.RoundTripper // reaches the issuers; nil verifies TLS by each issuer's CA

	// Development allows http on a loopback address, with cookies that a
	// browser sends there. `tidegate serve` never sets it.
	Development bool
}

// Provider is an issuer where people can log in.
type Provider struct {
	identify.Issuer // its Audience is replaced by ClientID
	ClientID        string
	ClientSecret    access.Secret // none: PKCE alone
}

// Console serves the pages.
type Console struct {
	cfg        Config
	host       string
	secure     bool
	mux        *http.ServeMux
	guard      *http.CrossOriginProtection
	identifier *identify.Identifier
	providers  []*provider
	logins     *logins
	seal       sealer
	known      *memory
	inFlight   chan struct{}
	reading    chan struct{}
	sending    chan struct{} // likewise, downloads
	talking    chan struct{}
}

// New checks the configuration. It asks no issuer anything.
func New(cfg Config) (*Console, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	u, err := checkURL(cfg.URL, cfg.Development)
	if err != nil {
		return nil, err
	}
	if cfg.Ledger == nil || cfg.Desk == nil || len(cfg.Providers) == 0 {
		return nil, errors.New("console: want a ledger, a desk and at least one issuer to log in at")
	}
	c := &Console{
		cfg: cfg, host: u.Host, secure: u.Scheme == "https", mux: http.NewServeMux(), guard: http.NewCrossOriginProtection(),
		logins: newLogins(cfg.Now), known: newMemory(cfg.Now), inFlight: make(chan struct{}, maxInFlight),
		reading: make(chan struct{}, maxReading), sending: make(chan struct{}, maxSending), talking: make(chan struct{}, maxLogins),
	}
	if err := c.openProviders(); err != nil {
		return nil, err
	}
	if c.seal, err = newSealer(); err != nil {
		return nil, err
	}
	c.routes()
	return c, nil
}

// CheckURL says what is wrong with a console's URL.
func CheckURL(raw string) error { _, err := checkURL(raw, false); return err }

func checkURL(raw string, development bool) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.User != nil || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("console: want a URL https://host or https://host:port, without a path")
	}
	ip := net.ParseIP(u.Hostname())
	if u.Scheme != "https" && !(development && u.Scheme == "http" && ip != nil && ip.IsLoopback()) {
		return nil, fmt.Errorf("console: got a URL with scheme %q, want https", u.Scheme)
	}
	return u, nil
}

// routes is the list of all pages.
func (c *Console) routes() {
	for pattern, h := range map[string]http.HandlerFunc{
		"GET /static/{file}":           c.static,
		"GET /login":                   c.loginPage,
		"GET /login/start/{provider}":  c.loginStart,
		"GET /login/callback":          c.loginBack,
		"POST /logout":                 c.post(c.logout),
		"GET /{$}":                     func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/grants", http.StatusSeeOther) },
		"GET /grants":                  c.page(c.grantsPage),
		"GET /grants/{repo}/{id}":      c.page(c.grantPage),
		"POST /grants/{repo}/{id}":     c.post(c.revoke),
		"GET /holds":                   c.page(c.holdsPage),
		"GET /holds/{id}":              c.page(c.holdPage),
		"POST /holds/{id}":             c.post(c.answer),
		"GET /sessions":                c.page(c.sessionsPage),
		"GET /sessions/{id}":           c.page(c.sessionPage),
		"GET /sessions/{id}/recording": c.page(c.download),
		"GET /policies":                c.page(c.policiesPage),
		"GET /policies/{file...}":      c.page(c.policyFile),
		"GET /audit":                   c.page(c.auditPage),
		"/":                            func(w http.ResponseWriter, r *http.Request) { c.refuse(w, r, errNotFound) },
	} {
		c.mux.HandleFunc(pattern, h)
	}
}

// ServeHTTP bounds each request, and sets what every answer carries.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.headers(w.Header())
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(pageTimeout)) // a writer of tests may have no deadlines
	_ = control.SetWriteDeadline(time.Now().Add(writeTimeout))
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	select {
	case c.inFlight <- struct{}{}:
		defer func() { <-c.inFlight }()
	default:
		w.Header().Set("Retry-After", "2")
		http.Error(w, "The console is busy. Try again in a moment.", http.StatusServiceUnavailable)
		return
	}
	switch {
	case r.Host != c.host:
		http.Error(w, "This console is at "+c.cfg.URL+".", http.StatusMisdirectedRequest)
		return
	case len(r.URL.RawQuery) > maxQuery:
		http.Error(w, "The address is too long.", http.StatusRequestURITooLong)
		return
	}
	if err := c.guard.Check(r); err != nil {
		c.refuse(w, r, access.Errorf(access.CodeDenied, "This came from another site, so nothing was done."))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), pageTimeout)
	defer cancel()
	c.mux.ServeHTTP(w, r.WithContext(ctx))
}

func (c *Console) headers(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "+
		"form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("X-Frame-Options", "DENY")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	if c.secure {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
}

// turn waits for one of a few places; the answer gives it back.
func turn(ctx context.Context, places chan struct{}) (func(), error) {
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	case <-ctx.Done():
		return nil, access.Errorf(access.CodeUnavailable, "The console is busy. Try again in a moment.")
	}
}
