package forge

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/google/go-github/v60/github"

	"github.com/tidegate/tidegate/access"
)

const (
	jwtLife    = 9 * time.Minute // GitHub takes ten, by its own clock
	jwtSkew    = time.Minute
	earlyRenew = 5 * time.Minute
	minKeyBits = 2048
)

// App is a GitHub App's installation, the account that Tidegate should have.
type App struct {
	ID             int64
	InstallationID int64
	PrivateKeyPEM  access.Secret
}

func (a App) isZero() bool { return a.ID == 0 && a.InstallationID == 0 && a.PrivateKeyPEM.IsZero() }

// appLogin turns the App's key into installation tokens: it signs a short JWT,
// trades it for a token, and keeps the token until five minutes before its end.
type appLogin struct {
	app  App
	repo string
	key  *rsa.PrivateKey
	gh   *github.Client // authenticates by jwt
	now  func() time.Time

	renewing turn

	mu      sync.Mutex // of what was given
	kept    string
	expires time.Time
}

func newAppLogin(cfg Config) (*appLogin, error) {
	if cfg.App.ID <= 0 || cfg.App.InstallationID <= 0 {
		return nil, fmt.Errorf("got App %d with installation %d, want both ids", cfg.App.ID, cfg.App.InstallationID)
	}
	key, err := parseKey([]byte(cfg.App.PrivateKeyPEM.Reveal()))
	if err != nil {
		return nil, err
	}
	return &appLogin{app: cfg.App, repo: cfg.Repo, key: key, now: cfg.Now, renewing: newTurn()}, nil
}

// parseKey reads the key in the form that GitHub gives (PKCS #1) or in PKCS #8.
// Its errors hold nothing of the key.
func parseKey(data []byte) (*rsa.PrivateKey, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("got an App key that is not PEM, want the file that GitHub gave")
	}
	key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		other, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		rsaKey, ok := other.(*rsa.PrivateKey)
		if err != nil || !ok {
			return nil, fmt.Errorf("got an App key of type %q, want an RSA private key", block.Type)
		}
		key = rsaKey
	}
	if key.N.BitLen() < minKeyBits {
		return nil, fmt.Errorf("got an App key of %d bits, want at least %d", key.N.BitLen(), minKeyBits)
	}
	return key, nil
}

// jwt is the App's own proof, good for less than ten minutes.
func (a *appLogin) jwt(context.Context) (string, error) {
	now := a.now()
	claims, err := json.Marshal(map[string]any{"iss": strconv.FormatInt(a.app.ID, 10),
		"iat": now.Add(-jwtSkew).Unix(), "exp": now.Add(jwtLife - jwtSkew).Unix()})
	if err != nil {
		return "", fmt.Errorf("encode App token: %w", err)
	}
	enc := base64.RawURLEncoding
	signed := enc.EncodeToString([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + enc.EncodeToString(claims)
	sum := sha256.Sum256([]byte(signed))
	sig, err := rsa.SignPKCS1v15(rand.Reader, a.key, crypto.SHA256, sum[:])
	if err != nil {
		return "", fmt.Errorf("sign App token: %w", err)
	}
	return signed + "." + enc.EncodeToString(sig), nil
}

// token is an installation token for the one repository.
func (a *appLogin) token(ctx context.Context) (string, error) {
	if t := a.current(); t != "" {
		return t, nil
	}
	if err := a.renewing.take(ctx); err != nil {
		return "", err
	}
	defer a.renewing.give()
	if t := a.current(); t != "" {
		return t, nil
	}
	t, _, err := a.gh.Apps.CreateInstallationToken(ctx, a.app.InstallationID, &github.InstallationTokenOptions{Repositories: []string{a.repo}})
	if err != nil {
		return "", failed("get installation token", err)
	}
	if t.GetToken() == "" {
		return "", access.Errorf(access.CodeUnavailable, "GitHub answered without an installation token.")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.kept, a.expires = t.GetToken(), t.GetExpiresAt().Time
	return a.kept, nil
}

// current is the token that was given, or "" if that is gone or ends soon.
func (a *appLogin) current() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.now().Before(a.expires.Add(-earlyRenew)) {
		return a.kept
	}
	return ""
}

// forget drops a token that GitHub refused, so that the next call gets another.
func (a *appLogin) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.kept = ""
}
