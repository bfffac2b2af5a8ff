package console

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/identify"
)

const (
	rediscover    = time.Hour
	issuerTimeout = 10 * time.Second
	maxAnswer     = 1 << 20 // bytes of an issuer's answer
)

// provider is an issuer, and what it said of itself.
type provider struct {
	Provider
	redirect string
	client   *http.Client
	now      func() time.Time

	mu    sync.Mutex
	found oauth2.Endpoint
	at    time.Time
}

// openProviders prepares the issuers and the verification of their tokens,
// which is the gateway's.
func (c *Console) openProviders() (err error) {
	var issuers []identify.Issuer
	for _, p := range c.cfg.Providers {
		if p.ClientID == "" {
			return fmt.Errorf("console: issuer %q has no client id", p.Name)
		}
		p.Audience = p.ClientID
		issuers = append(issuers, p.Issuer)
		c.providers = append(c.providers, &provider{
			Provider: p, redirect: strings.TrimSuffix(c.cfg.URL, "/") + "/login/callback", now: c.cfg.Now, client: newClient(p.Issuer, c.cfg.Transport),
		})
	}
	c.identifier, err = identify.New(issuers, identify.Options{Now: c.cfg.Now, Log: c.cfg.Log, Transport: c.cfg.Transport})
	return err
}

func newClient(i identify.Issuer, base http.RoundTripper) *http.Client {
	if base == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		if len(i.CA) > 0 {
			t.TLSClientConfig.RootCAs = x509.NewCertPool()
			t.TLSClientConfig.RootCAs.AppendCertsFromPEM(i.CA) // identify.New checks it
		}
		t.MaxResponseHeaderBytes, t.MaxConnsPerHost = 64<<10, 4
		base = t
	}
	return &http.Client{
		Timeout: issuerTimeout, Transport: bounded{base},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("the issuer redirects; configure the URL that it redirects to")
		},
	}
}

// bounded bounds what an issuer answers: the libraries read it whole.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		res.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(res.Body, maxAnswer), res.Body}
	}
	return res, err
}

// config is the client at the issuer, whose endpoints it publishes.
func (p *provider) config(ctx context.Context) (*oauth2.Config, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.found.AuthURL == "" || p.now().Sub(p.at) > rediscover {
		found, err := oidc.NewProvider(oidc.ClientContext(ctx, p.client), p.URL)
		if err != nil {
			return nil, p.unavailable(err)
		}
		e := found.Endpoint()
		for _, raw := range []string{e.AuthURL, e.TokenURL} {
			if !p.safe(raw) {
				return nil, p.unavailable(errors.New("an endpoint of it is not https"))
			}
		}
		p.found, p.at = e, p.now()
	}
	e := p.found
	if p.ClientSecret.IsZero() {
		e.AuthStyle = oauth2.AuthStyleInParams
	}
	return &oauth2.Config{
		ClientID: p.ClientID, ClientSecret: p.ClientSecret.Reveal(), Endpoint: e, RedirectURL: p.redirect, Scopes: []string{"openid", "email"},
	}, nil
}

func (p *provider) safe(raw string) bool {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.User != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "https" || u.Scheme == "http" && p.AllowHTTPLoopback && ip != nil && ip.IsLoopback()
}

func (p *provider) unavailable(cause error) error {
	return &access.Error{Code: access.CodeUnavailable, Message: "The identity provider " + p.Name + " does not answer as it should. Try again in a moment.", Cause: cause}
}

// redeem turns a code into a verified identity of this login.
func (c *Console) redeem(ctx context.Context, p *provider, s started, code string) (access.Identity, error) {
	cfg, err := p.config(ctx)
	if err != nil {
		return access.Identity{}, err
	}
	token, err := cfg.Exchange(context.WithValue(ctx, oauth2.HTTPClient, p.client), code, oauth2.VerifierOption(s.Verifier))
	if err != nil {
		var refused *oauth2.RetrieveError
		if errors.As(err, &refused) { // its text holds the whole answer
			return access.Identity{}, access.Errorf(access.CodeUnauthenticated, "The identity provider %s refused the login. Log in again.", p.Name)
		}
		return access.Identity{}, p.unavailable(errors.New("the code could not be exchanged"))
	}
	raw, _ := token.Extra("id_token").(string)
	id, err := c.identifier.Identify(ctx, access.NewSecret(raw))
	if err != nil {
		return access.Identity{}, err
	}
	if id.Issuer != p.URL || nonce(raw) != s.Nonce {
		return access.Identity{}, access.Errorf(access.CodeUnauthenticated, "The identity provider answered another login. Log in again.")
	}
	return id, nil
}

// nonce reads a token that was verified already.
func nonce(token string) string {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return ""
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	claims := map[string]any{}
	if err != nil || json.Unmarshal(text, &claims) != nil {
		return ""
	}
	n, _ := claims["nonce"].(string)
	return n
}

// started is a login that is under way. It lies in the browser's own cookie,
// sealed: people who never come back cost no memory.
type started struct {
	Provider string    `json:"p"`
	State    string    `json:"s"`
	Nonce    string    `json:"n"`
	Verifier string    `json:"v"`
	Next     string    `json:"x"`
	Ends     time.Time `json:"e"`
}

// sealer seals with a key that lives as long as the process.
type sealer struct{ aead cipher.AEAD }

func newSealer() (sealer, error) {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails: the runtime ends the process instead
	block, err := aes.NewCipher(key)
	if err != nil {
		return sealer{}, fmt.Errorf("make cipher: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return sealer{aead}, err
}

const sealLabel = "tidegate console login v1"

func (s sealer) seal(v started) (string, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("encode login: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(s.aead.Seal(nil, nil, b, []byte(sealLabel))), nil
}

func (s sealer) open(text string) (v started, ok bool) {
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return v, false
	}
	b, err = s.aead.Open(nil, nil, b, []byte(sealLabel))
	return v, err == nil && json.Unmarshal(b, &v) == nil
}
