package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"runtime"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/tidegate/tidegate/access"
)

const (
	loginTime   = 5 * time.Minute // for a person in a browser
	requestTime = 20 * time.Second
)

// oidcClient logs a person in at one identity provider.
type oidcClient struct {
	http  *http.Client
	oauth oauth2.Config
}

// oidcIssuer is where to log in, and as which client.
type oidcIssuer struct {
	URL      string `json:"issuer"`
	ClientID string `json:"client_id"`
	CA       []byte `json:"ca,omitempty"` // PEM; the system's roots if empty
}

// discover asks the provider where its endpoints are.
func (i oidcIssuer) discover(ctx context.Context) (*oidcClient, error) {
	if err := refusePlain(i.URL); err != nil {
		return nil, fmt.Errorf("find the identity provider: %w", err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if len(i.CA) > 0 {
		transport.TLSClientConfig = &tls.Config{RootCAs: pool(i.CA), MinVersion: tls.VersionTLS12}
	}
	// Who waits for a browser asks every 5 seconds, which is when many servers
	// close a connection that is idle; a POST that meets that is not sent again.
	transport.DisableKeepAlives = true
	c := &oidcClient{http: &http.Client{Timeout: requestTime, Transport: transport, CheckRedirect: samePrivacy}}
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, c.http), i.URL)
	if unknown := (x509.UnknownAuthorityError{}); errors.As(err, &unknown) {
		return nil, fmt.Errorf("find the identity provider: %w; --issuer-ca FILE names its CA", err)
	}
	if err != nil {
		return nil, fmt.Errorf("find the identity provider: %w", err)
	}
	endpoint := provider.Endpoint()
	var keys struct {
		At string `json:"jwks_uri"`
	}
	if err := provider.Claims(&keys); err != nil {
		return nil, fmt.Errorf("find the identity provider: %w", err)
	}
	for _, at := range []string{keys.At, endpoint.AuthURL, endpoint.TokenURL, endpoint.DeviceAuthURL} {
		if err := refusePlain(at); err != nil {
			return nil, fmt.Errorf("find the identity provider: %w", err)
		}
	}
	endpoint.AuthStyle = oauth2.AuthStyleInParams // a public client: it has an id and no secret
	c.oauth = oauth2.Config{ClientID: i.ClientID, Endpoint: endpoint, Scopes: []string{oidc.ScopeOpenID, "email", "profile", oidc.ScopeOfflineAccess}}
	return c, nil
}

// refusePlain refuses an address to which codes and tokens would travel
// as plain text over a network.
func refusePlain(address string) error {
	if u, err := url.Parse(address); address != "" && (err != nil || u.Scheme != "https" && !(u.Scheme == "http" && loopback(u.Hostname()))) {
		return fmt.Errorf("got %q, want https, or http on this machine: what is sent otherwise can be read and changed on its way", address)
	}
	return nil
}

// samePrivacy follows a provider that leads elsewhere, but not to where others
// read along.
func samePrivacy(r *http.Request, via []*http.Request) error {
	if len(via) >= 5 {
		return errors.New("the identity provider leads on and on")
	}
	return refusePlain(r.URL.String())
}

func (c *oidcClient) context(ctx context.Context) context.Context {
	return context.WithValue(ctx, oauth2.HTTPClient, c.http)
}

// idToken is the token that says who somebody is.
func idToken(t *oauth2.Token) (access.Secret, error) {
	raw, ok := t.Extra("id_token").(string)
	if !ok || raw == "" {
		return access.Secret{}, errors.New("log in: the identity provider answers without an ID token")
	}
	return access.NewSecret(raw), nil
}

// byDevice logs in with a code that is typed in any browser.
func (c *oidcClient) byDevice(ctx context.Context, say func(string)) (*oauth2.Token, error) {
	if c.oauth.Endpoint.DeviceAuthURL == "" {
		return nil, errors.New("log in: this identity provider offers no device codes; log in with a browser here")
	}
	ctx, cancel := context.WithTimeout(c.context(ctx), loginTime)
	defer cancel()
	answer, err := c.oauth.DeviceAuth(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask for a device code: %w", plainOAuth(err))
	}
	say(devicePrompt(answer))
	token, err := c.oauth.DeviceAccessToken(ctx, answer)
	if err != nil {
		return nil, fmt.Errorf("wait for the login in the browser: %w", plainOAuth(err))
	}
	return token, nil
}

func devicePrompt(a *oauth2.DeviceAuthResponse) string {
	if a.VerificationURIComplete != "" {
		return fmt.Sprintf("Open %s and check that it shows %s.", a.VerificationURIComplete, a.UserCode)
	}
	return fmt.Sprintf("Open %s and type %s.", a.VerificationURI, a.UserCode)
}

// plainOAuth is an OAuth error without the answer's body, which may hold what
// was sent.
func plainOAuth(err error) error {
	if refused := (*oauth2.RetrieveError)(nil); errors.As(err, &refused) && refused.ErrorCode != "" {
		return fmt.Errorf("the identity provider says %.100q", refused.ErrorCode)
	}
	return err
}

// byBrowser logs in in a browser on this machine: authorization code with
// PKCE, led back to a port on loopback.
func (c *oidcClient) byBrowser(ctx context.Context, open func(url string) error) (*oauth2.Token, error) {
	ctx, cancel := context.WithTimeout(c.context(ctx), loginTime)
	defer cancel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the browser: %w", err)
	}
	cfg := c.oauth
	cfg.RedirectURL = fmt.Sprintf("http://%s/callback", l.Addr())
	back := callback{state: rand.Text(), codes: make(chan string, 1), refused: make(chan error, 1)}
	srv := &http.Server{Handler: back, ReadHeaderTimeout: requestTime}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }() // ends with Close below
	defer func() { _ = srv.Close(); <-done }()
	verifier := oauth2.GenerateVerifier()
	if err := open(cfg.AuthCodeURL(back.state, oauth2.S256ChallengeOption(verifier), oauth2.SetAuthURLParam("prompt", "consent"))); err != nil {
		return nil, err
	}
	select {
	case <-ctx.Done():
		return nil, errors.New("log in: nobody came back from the browser in time")
	case err := <-back.refused:
		return nil, err
	case code := <-back.codes:
		token, err := cfg.Exchange(ctx, code, oauth2.VerifierOption(verifier))
		if err != nil {
			return nil, fmt.Errorf("exchange the code: %w", plainOAuth(err))
		}
		return token, nil
	}
}

// callback is where the browser is led back to.
type callback struct {
	state   string
	codes   chan string
	refused chan error
}

// ServeHTTP implements http.Handler.
func (c callback) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	switch {
	case r.Method != http.MethodGet || r.URL.Path != "/callback" || q.Get("state") != c.state:
		http.Error(w, "This is not the login that was begun.", http.StatusBadRequest)
		return
	case q.Get("code") == "":
		_, _ = io.WriteString(w, "The login was refused. You can close this window.\n")
		c.refused <- fmt.Errorf("log in: the identity provider says %.100q", q.Get("error"))
		return
	}
	_, _ = io.WriteString(w, "You are logged in. You can close this window.\n")
	select {
	case c.codes <- q.Get("code"):
	default: // one is enough
	}
}

// openBrowser shows a page, or leaves it to the person.
func openBrowser(say func(string)) func(string) error {
	return func(url string) error {
		say("Log in here:\n  " + url)
		program := map[string][]string{"darwin": {"open"}, "windows": {"rundll32", "url.dll,FileProtocolHandler"}}[runtime.GOOS]
		if program == nil {
			program = []string{"xdg-open"}
		}
		cmd := exec.Command(program[0], append(program[1:], url)...)
		if cmd.Start() == nil { // without a browser here, the person has the line above
			go func() { _ = cmd.Wait() }()
		}
		return nil
	}
}

// refreshed gets a new token for one that ended.
func (c *oidcClient) refreshed(ctx context.Context, refresh access.Secret) (*oauth2.Token, error) {
	ctx, cancel := context.WithTimeout(c.context(ctx), requestTime)
	defer cancel()
	token, err := c.oauth.TokenSource(ctx, &oauth2.Token{RefreshToken: refresh.Reveal()}).Token()
	if err != nil {
		return nil, fmt.Errorf("refresh the login: %w", plainOAuth(err))
	}
	return token, nil
}
