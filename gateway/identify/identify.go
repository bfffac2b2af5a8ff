package identify

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/tidegate/tidegate/access"
)

// Options are what an identifier uses of its surroundings. The zero value is
// good.
type Options struct {
	Now       func() time.Time
	Log       *slog.Logger
	Transport http.RoundTripper // reaches the issuers, instead of one that verifies TLS by each issuer's CA
}

// Identifier verifies tokens of the configured issuers. It implements
// gateway.Identifier and is safe for concurrent use.
type Identifier struct {
	now    func() time.Time
	byURL  map[string]*provider
	wanted string // the issuers' URLs, for people
}

// New checks the configuration and reports every mistake in it at once. It
// asks no issuer anything.
func New(issuers []Issuer, o Options) (*Identifier, error) {
	if err := checkAll(issuers); err != nil {
		return nil, err
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	id := &Identifier{now: o.Now, byURL: make(map[string]*provider, len(issuers))}
	var urls []string
	for _, i := range issuers {
		i.defaults()
		id.byURL[i.URL] = newProvider(i, o)
		urls = append(urls, i.URL)
	}
	id.wanted = strings.Join(urls, " or ")
	return id, nil
}

// Identify verifies the token. The error is an *access.Error: CodeUnavailable
// if the issuer could not be asked, CodeUnauthenticated for anything else.
func (d *Identifier) Identify(ctx context.Context, token access.Secret) (access.Identity, error) {
	raw := token.Reveal()
	if raw == "" {
		return access.Identity{}, access.Errorf(access.CodeUnauthenticated, "No token was given. Log in first: tidegate login.")
	}
	g, err := glanceAt(raw)
	if err != nil {
		return access.Identity{}, err
	}
	p := d.byURL[g.issuer]
	if p == nil {
		return access.Identity{}, refuse("its issuer (iss) is %s, want %s", quoted(g.issuer), d.wanted)
	}
	if !slices.Contains(p.Algorithms, g.alg) {
		return access.Identity{}, refuse("it is signed with algorithm %s, want %s", quoted(g.alg), strings.Join(p.Algorithms, ", "))
	}
	c, err := p.verify(ctx, raw)
	if err != nil {
		return access.Identity{}, err
	}
	return p.identity(c, d.now())
}
