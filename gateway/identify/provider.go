package identify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/tidegate/tidegate/access"
)

const (
	rediscover = time.Hour      // go-oidc never forgets a key: so an issuer's withdrawn key dies within this
	retry      = time.Minute    // after a rediscovery that failed
	longest    = 24 * time.Hour // known keys serve no longer than this without the issuer
)

// provider is one configured issuer and what is known of it.
type provider struct {
	Issuer
	client *http.Client
	now    func() time.Time
	log    *slog.Logger

	turn  chan struct{} // one discovery at a time
	known atomic.Pointer[discovered]
}

// discovered is what the issuer's discovery document said.
type discovered struct {
	keys  oidc.KeySet
	found time.Time
	next  time.Time // when to look again
}

func newProvider(i Issuer, o Options) *provider {
	return &provider{Issuer: i, client: newClient(i, o), now: o.Now, log: o.Log, turn: make(chan struct{}, 1)}
}

// verify checks the signature and returns the payload that it covers.
func (p *provider) verify(ctx context.Context, token string) (claims, error) {
	keys, err := p.keys(ctx)
	if err != nil {
		return nil, err
	}
	watched := &watchedKeys{KeySet: keys}
	// Issuer, audience and times are checked by identity, which says what was
	// got and wanted, and allows the skew that go-oidc doesn't.
	verifier := oidc.NewVerifier(p.URL, watched, &oidc.Config{
		SupportedSigningAlgs: p.Algorithms, Now: p.now,
		SkipIssuerCheck: true, SkipClientIDCheck: true, SkipExpiryCheck: true,
	})
	verified, err := verifier.Verify(ctx, token)
	switch {
	case watched.down != nil:
		return nil, p.unavailable(watched.down)
	case err != nil && !watched.passed:
		return nil, refuse("it is not signed by a key that %s publishes", quoted(p.URL))
	case err != nil:
		return nil, refuse("its claims are not those of an OpenID Connect token")
	}
	var c claims
	if err := verified.Claims(&c); err != nil {
		return nil, refuse("its payload is not a JSON object")
	}
	return c, nil
}

// watchedKeys remembers why a verification failed, which go-oidc turns into
// text: the issuer could not be asked, or the signature is wrong.
type watchedKeys struct {
	oidc.KeySet
	down   error
	passed bool
}

// VerifySignature implements oidc.KeySet.
func (k *watchedKeys) VerifySignature(ctx context.Context, token string) ([]byte, error) {
	payload, err := k.KeySet.VerifySignature(ctx, token)
	k.passed = err == nil
	if err != nil && errors.Unwrap(err) != nil { // a wrong signature wraps nothing, a failed fetch its cause
		k.down = err
	}
	return payload, err
}

// keys is the issuer's key set, discovered if it is not known or too old.
func (p *provider) keys(ctx context.Context) (oidc.KeySet, error) {
	have := p.known.Load()
	if have != nil && p.now().Before(have.next) {
		return have.keys, nil
	}
	usable := have != nil && p.now().Sub(have.found) < longest
	if !p.take(ctx, !usable) {
		if usable {
			return have.keys, nil // somebody else looks already
		}
		return nil, p.unavailable(ctx.Err())
	}
	defer func() { <-p.turn }()
	if newer := p.known.Load(); newer != have && p.now().Before(newer.next) {
		return newer.keys, nil
	}
	return p.look(ctx, have, usable)
}

// take takes the turn to discover; with wait, it waits for it.
func (p *provider) take(ctx context.Context, wait bool) bool {
	select {
	case p.turn <- struct{}{}:
		return true
	default:
	}
	if !wait {
		return false
	}
	select {
	case p.turn <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// look discovers; keys that are still usable serve on when it fails.
func (p *provider) look(ctx context.Context, have *discovered, usable bool) (oidc.KeySet, error) {
	keys, err := p.discover(ctx)
	now := p.now()
	switch {
	case err == nil:
		p.known.Store(&discovered{keys: keys, found: now, next: now.Add(rediscover)})
		return keys, nil
	case usable:
		p.log.Warn("issuer not reached; its known keys serve on", "issuer", p.Name, "error", brief(err))
		p.known.Store(&discovered{keys: have.keys, found: have.found, next: now.Add(retry)})
		return have.keys, nil
	}
	return nil, p.unavailable(err)
}

// discover reads the issuer's discovery document.
func (p *provider) discover(ctx context.Context) (oidc.KeySet, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	found, err := oidc.NewProvider(oidc.ClientContext(ctx, p.client), p.URL)
	if err != nil {
		return nil, fmt.Errorf("discover issuer: %w", err)
	}
	var doc struct {
		Keys string `json:"jwks_uri"`
	}
	if err := found.Claims(&doc); err != nil {
		return nil, fmt.Errorf("read discovery document: %w", err)
	}
	u, err := url.Parse(doc.Keys)
	if err != nil {
		return nil, errors.New("read discovery document: jwks_uri is not a URL")
	}
	if err := reachable(u, p.AllowHTTPLoopback); err != nil {
		return nil, fmt.Errorf("read discovery document: jwks_uri %w", err)
	}
	return oidc.NewRemoteKeySet(oidc.ClientContext(context.Background(), p.client), doc.Keys), nil
}

func (p *provider) unavailable(cause error) *access.Error {
	p.log.Warn("issuer not reached", "issuer", p.Name, "error", brief(cause))
	return &access.Error{
		Code:    access.CodeUnavailable,
		Message: "The identity provider " + p.Name + " could not be asked for its keys, so your token cannot be checked. Try again in a moment.",
		Cause:   brief(cause),
	}
}

// brief bounds an error's text: go-oidc's may hold a whole web page.
func brief(err error) error {
	if s := err.Error(); len(s) > 300 {
		return errors.New(strings.ToValidUTF8(s[:300], "") + "…")
	}
	return err
}
