// Package devissuer is an OpenID Connect issuer for `tidegate dev` and for
// tests: it has a key, publishes it, and signs whatever claims its caller
// wants. Its login page asks for no password: whoever holds the process, or
// reaches the page, is everybody. For that reason the path of its URL always
// ends in [identify.DevMark], which `tidegate serve` refuses.
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

	mu    sync.Mutex
	url   string
	login *login // nil: there is no login page
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

// ServeHTTP serves the discovery document, the keys and, once AllowLogin was
// called, the login page, under any base path.
func (i *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	url := i.URL()
	_, path, ours := strings.Cut(r.URL.Path, identify.DevMark)
	switch {
	case ours && url != "" && i.serveLogin(w, r, path):
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "want GET", http.StatusMethodNotAllowed)
	case url == "":
		http.Error(w, "the issuer has no URL yet", http.StatusServiceUnavailable)
	case ours && path == discoveryPath:
		writeJSON(w, i.discovery(url))
	case ours && path == keysPath:
		writeJSON(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{i.public}})
	default:
		http.NotFound(w, r)
	}
}

func (i *Issuer) discovery(url string) map[string]any {
	authorize, token := i.endpoints()
	return map[string]any{
		"issuer": url, "jwks_uri": url + keysPath, "authorization_endpoint": authorize, "token_endpoint": token,
		"response_types_supported": []string{"code", "id_token"}, "subject_types_supported": []string{"public"},
		"code_challenge_methods_supported":      []string{"S256"},
		"id_token_signing_alg_values_supported": []string{string(jose.EdDSA)},
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
