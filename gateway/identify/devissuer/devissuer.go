// Package devissuer is an OpenID Connect issuer for `tidegate dev` and for
// tests: it has a key, publishes it, and signs whatever claims its caller
// wants. There is no login: whoever holds the process is everybody. For that
// reason the path of its URL always ends in [identify.DevMark], which `tidegate
// serve` refuses.
package devissuer

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tidegate/tidegate/gateway/identify"
)

const (
	discoveryPath = "/.well-known/openid-configuration"
	keysPath      = "/keys"
	usualLifetime = time.Hour
	maxLifetime   = 24 * time.Hour
)

// Issuer signs tokens and serves its discovery document and keys over HTTP.
type Issuer struct {
	key    ed25519.PrivateKey
	public jose.JSONWebKey

	mu  sync.Mutex
	url string
}

// Open reads the issuer's key from the folder, or makes one there. The file
// is the owner's alone (0600).
func Open(dir string) (*Issuer, error) {
	key, err := openKey(dir)
	if err != nil {
		return nil, err
	}
	i := &Issuer{key: key, public: jose.JSONWebKey{Key: key.Public(), Algorithm: string(jose.EdDSA), Use: "sig"}}
	sum := sha256.Sum256(key.Public().(ed25519.PublicKey))
	i.public.KeyID = base64.RawURLEncoding.EncodeToString(sum[:12])
	return i, nil
}

// SetURL says where the issuer is reached, once its listener has an address:
// "http://127.0.0.1:4000" makes it "http://127.0.0.1:4000/tidegate-dev".
func (i *Issuer) SetURL(url string) {
	url = strings.TrimRight(url, "/")
	if !strings.HasSuffix(url, identify.DevMark) {
		url += identify.DevMark
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.url = url
}

// URL is the issuer URL, which tokens have as iss; "" before SetURL.
func (i *Issuer) URL() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.url
}

// ServeHTTP serves the discovery document and the keys under any base path.
func (i *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "want GET", http.StatusMethodNotAllowed)
		return
	}
	url := i.URL()
	switch {
	case url == "":
		http.Error(w, "the issuer has no URL yet", http.StatusServiceUnavailable)
	case strings.HasSuffix(r.URL.Path, identify.DevMark+discoveryPath):
		writeJSON(w, map[string]any{
			"issuer": url, "jwks_uri": url + keysPath,
			"authorization_endpoint": url + "/none", "token_endpoint": url + "/none", // the specification demands them
			"response_types_supported": []string{"id_token"}, "subject_types_supported": []string{"public"},
			"id_token_signing_alg_values_supported": []string{string(jose.EdDSA)},
		})
	case strings.HasSuffix(r.URL.Path, identify.DevMark+keysPath):
		writeJSON(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{i.public}})
	default:
		http.NotFound(w, r)
	}
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client left: nobody is there to tell
}

// Claims are what a token says.
type Claims struct {
	Subject       string
	Email         string
	EmailVerified bool
	Audience      string
	Groups        []string
	Lifetime      time.Duration  // an hour if 0; at most a day
	Extra         map[string]any // more claims; one of the above or of the standard is replaced, or with nil left out
}

// Mint signs a token.
func (i *Issuer) Mint(c Claims) (string, error) {
	url := i.URL()
	switch {
	case url == "":
		return "", errors.New("mint token: the issuer has no URL yet: call SetURL first")
	case c.Lifetime < 0 || c.Lifetime > maxLifetime:
		return "", fmt.Errorf("mint token: got lifetime %s, want 0 to %s", c.Lifetime, maxLifetime)
	case c.Lifetime == 0:
		c.Lifetime = usualLifetime
	}
	body, err := json.Marshal(c.all(url, time.Now()))
	if err != nil {
		return "", fmt.Errorf("mint token: encode claims: %w", err)
	}
	opts := (&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", i.public.KeyID)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: i.key}, opts)
	if err != nil {
		return "", fmt.Errorf("mint token: %w", err)
	}
	signed, err := signer.Sign(body)
	if err != nil {
		return "", fmt.Errorf("mint token: sign: %w", err)
	}
	return signed.CompactSerialize()
}

func (c Claims) all(url string, now time.Time) map[string]any {
	all := map[string]any{
		"iss": url, "sub": c.Subject, "aud": c.Audience, "jti": rand.Text(),
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(c.Lifetime).Unix(),
	}
	if c.Email != "" {
		all["email"], all["email_verified"] = c.Email, c.EmailVerified
	}
	if len(c.Groups) > 0 {
		all["groups"] = c.Groups
	}
	maps.Copy(all, c.Extra)
	maps.DeleteFunc(all, func(_ string, v any) bool { return v == nil })
	return all
}
