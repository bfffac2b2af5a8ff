package hub

import (
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Role is what somebody may do in the repository.
type Role string

// The roles, in rising order. The zero value of User.Role means RoleWrite.
const (
	RoleRead  Role = "read"
	RoleWrite Role = "write"
	RoleAdmin Role = "admin"
)

// User is a person or a bot with a token.
type User struct {
	Login string
	ID    int64
	Token string
	Kind  string // "User" (default) or "Bot"
	Email string // joins commits to the user; default: GitHub's no-reply form
	Role  Role   // default RoleWrite
}

// Team is a team of the organization.
type Team struct {
	Slug    string
	ID      int64
	Org     string   // default: Config.Owner
	Members []string // logins of active members
	Pending []string // logins that were invited and have not accepted
}

// App is the GitHub App that check runs and webhooks are attributed to.
type App struct {
	ID             int64
	Slug           string
	InstallationID int64
	Bot            string         // login of the user that installation tokens act as
	PublicKey      *rsa.PublicKey // verifies the App's JWT; nil: no installation tokens
}

// Config says what the hub holds. Owner, Repo, Dir and Users are needed.
type Config struct {
	Dir     string // all state; made when missing
	Owner   string // the organization
	OwnerID int64  // default 1
	Repo    string
	RepoID  int64 // default 1001
	Users   []User
	Teams   []Team
	Seed    fs.FS  // first commit on Branch when the repository is new
	Branch  string // default "main"
	App     App

	// BaseURL is how others reach the hub; SetBaseURL can set it later.
	BaseURL       string
	WebhookURL    string
	WebhookSecret string

	// RequireApprovals and RequireChecks protect Branch against merges by
	// people who are not admins. Direct pushes to it always need an admin.
	RequireApprovals int
	RequireChecks    []string
	// SelfReview lets an author approve the own pull request, which GitHub
	// answers with 422; a demonstration of Tidegate's own refusal needs it.
	SelfReview bool

	Log *slog.Logger
	Now func() time.Time
}

// Hub is an open pocket GitHub. It is an http.Handler.
type Hub struct {
	cfg  Config
	log  *slog.Logger
	git  *repository
	api  http.Handler
	hook *courier
	down atomic.Bool

	mu     sync.RWMutex // guards everything below, and the refs of the repository
	store  *store
	base   string
	people directory
	tokens map[string]installationToken
	outbox []*delivery // sent when the records of the request are committed
}

// Open opens the hub in cfg.Dir, or makes it.
func Open(cfg Config) (*Hub, error) {
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("open hub: %w", err)
	}
	people, err := newDirectory(cfg)
	if err != nil {
		return nil, fmt.Errorf("open hub: %w", err)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open hub: %w", err)
	}
	h := &Hub{cfg: cfg, log: cfg.Log, people: people, base: strings.TrimRight(cfg.BaseURL, "/"),
		tokens: map[string]installationToken{}}
	if h.git, err = openRepository(filepath.Join(cfg.Dir, "repo.git"), cfg); err != nil {
		return nil, fmt.Errorf("open hub: %w", err)
	}
	if h.store, err = openStore(filepath.Join(cfg.Dir, "hub.db"), cfg.Now()); err != nil {
		return nil, fmt.Errorf("open hub: %w", err)
	}
	h.hook = newCourier(h, target{URL: cfg.WebhookURL, Secret: cfg.WebhookSecret})
	h.api = h.routes()
	if err := h.catchUp(); err != nil {
		return nil, errors.Join(fmt.Errorf("open hub: %w", err), h.Close())
	}
	return h, nil
}

func (c *Config) complete() error {
	if c.Dir == "" || c.Owner == "" || c.Repo == "" || len(c.Users) == 0 {
		return errors.New("got an incomplete config, want Dir, Owner, Repo and Users")
	}
	if !validName(c.Owner) || !validName(c.Repo) {
		return fmt.Errorf("got repository %q/%q, want letters, digits, '.', '_' and '-'", c.Owner, c.Repo)
	}
	setDefault(&c.OwnerID, 1)
	setDefault(&c.RepoID, 1001)
	setDefault(&c.Branch, "main")
	setDefault(&c.App.ID, 1)
	setDefault(&c.App.InstallationID, 1)
	setDefault(&c.App.Slug, "tidegate")
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Close stops the deliveries, waits for them and closes the state.
func (h *Hub) Close() error {
	h.hook.close()
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.store.close()
}

// Down makes the hub answer 503 to everything (true) or work again (false).
func (h *Hub) Down(down bool) { h.down.Store(down) }

// SetBaseURL tells the hub under which URL others reach it.
func (h *Hub) SetBaseURL(url string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.base = strings.TrimRight(url, "/")
}

// SetWebhook sets where events are delivered; an empty URL stops them.
func (h *Hub) SetWebhook(url, secret string) { h.hook.setTarget(target{URL: url, Secret: secret}) }

// CloneURL is the URL to clone and push, without credentials.
func (h *Hub) CloneURL() string {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.htmlURL() + ".git"
}

// ServeHTTP serves git, the REST API (with and without /api/v3) and the page of
// a pull request.
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h.down.Load() {
		writeError(w, &apiError{Status: http.StatusServiceUnavailable, Message: "Service unavailable"})
		return
	}
	repo := "/" + h.cfg.Owner + "/" + h.cfg.Repo
	switch {
	case strings.HasPrefix(r.URL.Path, repo+".git/"):
		h.serveGit(w, r)
	case r.URL.Path == repo || strings.HasPrefix(r.URL.Path, repo+"/"):
		h.servePage(w, r)
	case r.URL.Path == "/api/graphql":
		http.StripPrefix("/api", h.api).ServeHTTP(w, r)
	case strings.HasPrefix(r.URL.Path, "/api/v3/"):
		http.StripPrefix("/api/v3", h.api).ServeHTTP(w, r)
	default:
		h.api.ServeHTTP(w, r)
	}
}

// now has GitHub's precision, a second.
func (h *Hub) now() time.Time { return h.cfg.Now().UTC().Truncate(time.Second) }

// commit makes the changes of the request durable, then lets its events go.
func (h *Hub) commit() error {
	if err := h.store.flush(); err != nil {
		h.outbox = nil
		return err
	}
	h.hook.enqueue(h.outbox)
	h.outbox = nil
	return nil
}

// catchUp brings pull requests level with refs that moved in the moment in which
// the hub was killed.
func (h *Hub) catchUp() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	ctx := context.Background()
	refs, err := h.git.refs(ctx)
	if err != nil {
		return err
	}
	for _, p := range h.store.openPulls() {
		if sha := refs["refs/heads/"+p.Head]; sha != p.HeadSHA {
			h.headMoved(ctx, p, move{ref: "refs/heads/" + p.Head, old: p.HeadSHA, new: sha}, h.people.ghost())
		}
	}
	return h.commit()
}

// tokenKey keeps comparisons of tokens free of their timing: what is looked up
// is a hash.
func tokenKey(token string) string {
	sum := sha256.Sum256([]byte(token))
	return string(sum[:])
}
