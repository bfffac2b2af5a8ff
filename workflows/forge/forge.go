package forge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/google/go-github/v60/github"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/workflows"
)

const (
	callTimeout = 30 * time.Second
	recheck     = 5 * time.Minute // how long the repository's name is believed
	perPage     = 100
	stripes     = 64
)

// Config says which repository a Forge serves, and as whom. Either Token or App
// is needed; on github.com only an App may write check runs.
type Config struct {
	BaseURL    string // empty: github.com; else the server's URL, https unless it is loopback
	Owner      string
	Repo       string
	RepoID     int64 // optional: the id that Owner/Repo must have
	Token      access.Secret
	App        App
	MainBranch string // default "main"

	Log       *slog.Logger
	Transport http.RoundTripper // default: http.DefaultTransport
	Now       func() time.Time  // default: time.Now
}

// Forge speaks to one repository on GitHub. It is safe for concurrent use.
type Forge struct {
	cfg   Config
	gh    *github.Client
	asApp *github.Client // authenticates as the App itself; nil with a token
	log   *slog.Logger
	blobs *lru[[]byte]
	trees *lru[[]*github.TreeEntry] // the files of a commit, which never change

	// writers keeps one writer at a time for each pull request.
	writers [stripes]turn
	asking  turn // which repository it is, and who we are

	mu      sync.Mutex // of what was answered
	repo    int64
	checked time.Time
	me      access.User
	looked  map[int]time.Time // when our comment of a pull request was looked for last
	based   map[int]baseChange
}

var _ workflows.Forge = (*Forge)(nil)

var (
	ownerPattern  = regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9-]{0,38}\z`)
	repoPattern   = regexp.MustCompile(`\A[A-Za-z0-9._-]{1,100}\z`)
	branchPattern = regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9._/-]{0,200}\z`)
)

// New checks the config; it does not call GitHub.
func New(cfg Config) (*Forge, error) {
	cfg.complete()
	base, err := cfg.validate()
	if err != nil {
		return nil, fmt.Errorf("make forge: %w", err)
	}
	f := &Forge{cfg: cfg, log: cfg.Log, repo: cfg.RepoID, blobs: newLRU[[]byte](maxBlobCache), trees: newLRU[[]*github.TreeEntry](maxTreeCache), asking: newTurn()}
	for i := range f.writers {
		f.writers[i] = newTurn()
	}
	if err := f.connect(base); err != nil {
		return nil, fmt.Errorf("make forge: %w", err)
	}
	return f, nil
}

func (c *Config) complete() {
	if c.MainBranch == "" {
		c.MainBranch = "main"
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Transport == nil {
		c.Transport = http.DefaultTransport
	}
	if c.Now == nil {
		c.Now = time.Now
	}
}

func (c *Config) validate() (*url.URL, error) {
	var errs []error
	if !ownerPattern.MatchString(c.Owner) || !repoPattern.MatchString(c.Repo) || c.Repo == "." || c.Repo == ".." {
		errs = append(errs, fmt.Errorf("got repository %q/%q, want an owner and a name as GitHub has them", c.Owner, c.Repo))
	}
	if !branchPattern.MatchString(c.MainBranch) || strings.Contains(c.MainBranch, "..") {
		errs = append(errs, fmt.Errorf("got main branch %q, want a branch name", c.MainBranch))
	}
	if c.Token.IsZero() == c.App.isZero() {
		errs = append(errs, errors.New("got no way to log in or two, want either a token or an App"))
	}
	base, err := serverURL(c.BaseURL)
	return base, errors.Join(append(errs, err)...)
}

// serverURL refuses to send a token in clear text, or to where a URL's tricks lead.
func serverURL(raw string) (*url.URL, error) {
	if raw == "" {
		return nil, nil
	}
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("got a base URL that is not one, want https://github.example.com")
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())) {
		return nil, fmt.Errorf("got base URL %s, want https (plain http only on loopback): the token would travel readable", u.Redacted())
	}
	return u, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (f *Forge) connect(base *url.URL) error {
	bounded := newBounded(f.cfg.Transport)
	thrifty := newThrifty(bounded, f.cfg.Now)
	host := "api.github.com"
	if base != nil {
		host = base.Host
	}
	tokens := func(context.Context) (string, error) { return f.cfg.Token.Reveal(), nil }
	login := &signIn{host: host, next: thrifty, token: tokens, refused: func() {}}
	if !f.cfg.App.isZero() {
		app, err := newAppLogin(f.cfg)
		if err != nil {
			return err
		}
		if app.gh, err = client(base, &signIn{host: host, next: bounded, token: app.jwt, refused: func() {}}); err != nil {
			return err
		}
		f.asApp, login.token, login.refused = app.gh, app.token, app.forget
	}
	gh, err := client(base, newConditional(login))
	f.gh = gh
	return err
}

func client(base *url.URL, t http.RoundTripper) (*github.Client, error) {
	c := github.NewClient(&http.Client{Transport: t, Timeout: callTimeout})
	c.UserAgent = "tidegate"
	if base == nil {
		return c, nil
	}
	return c.WithEnterpriseURLs(base.String(), base.String())
}

// Repo resolves the repository's id and pins it: when Owner/Repo later means
// another repository, everything is refused.
func (f *Forge) Repo(ctx context.Context) (int64, error) {
	if id, fresh := f.known(); fresh {
		return id, nil
	}
	if err := f.asking.take(ctx); err != nil {
		return 0, err
	}
	defer f.asking.give()
	if id, fresh := f.known(); fresh {
		return id, nil
	}
	r, _, err := f.gh.Repositories.Get(ctx, f.cfg.Owner, f.cfg.Repo)
	if err != nil {
		return 0, failed("read repository", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	id := r.GetID()
	if id <= 0 || f.repo != 0 && f.repo != id {
		return 0, access.Errorf(access.CodeConflict, "The name %s/%s means repository %d now; Tidegate serves %d. Was it renamed or replaced? Set the new name, or adopt the new repository.",
			f.cfg.Owner, f.cfg.Repo, id, f.repo)
	}
	f.repo, f.checked = id, f.cfg.Now()
	return id, nil
}

func (f *Forge) known() (repo int64, fresh bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.repo, !f.checked.IsZero() && f.cfg.Now().Sub(f.checked) < recheck
}

// serve checks that a request is for the repository that this forge serves.
func (f *Forge) serve(ctx context.Context, repo int64) error {
	id, err := f.Repo(ctx)
	if err != nil {
		return err
	}
	if repo != id {
		return access.Errorf(access.CodeInvalid, "Got repository %d, but this forge serves %d (%s/%s).", repo, id, f.cfg.Owner, f.cfg.Repo)
	}
	return nil
}

// Self is the account that the forge writes as.
func (f *Forge) Self(ctx context.Context) (access.User, error) {
	if me := f.self(); me.ID != 0 {
		return me, nil
	}
	if err := f.asking.take(ctx); err != nil {
		return access.User{}, err
	}
	defer f.asking.give()
	if me := f.self(); me.ID != 0 {
		return me, nil
	}
	name := "" // the account of the token
	if f.asApp != nil {
		app, _, err := f.asApp.Apps.Get(ctx, "")
		if err != nil {
			return access.User{}, failed("read the App", err)
		}
		name = app.GetSlug() + "[bot]"
	}
	u, _, err := f.gh.Users.Get(ctx, name)
	if err != nil {
		return access.User{}, failed("read own account", err)
	}
	if u.GetID() <= 0 {
		return access.User{}, access.Errorf(access.CodeUnavailable, "GitHub did not say who Tidegate is.")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.me = user(u)
	return f.me, nil
}

func (f *Forge) self() access.User {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.me
}

// user is a GitHub account in our words; nil is nobody.
func user(u *github.User) access.User {
	if u.GetID() <= 0 {
		return access.User{}
	}
	return access.User{ID: u.GetID(), Login: u.GetLogin(), Bot: u.GetType() == "Bot" || strings.HasSuffix(u.GetLogin(), "[bot]")}
}

// alone keeps others from writing to the same pull request meanwhile.
func (f *Forge) alone(ctx context.Context, number int) (done func(), err error) {
	t := f.writers[uint(number)%stripes]
	return t.give, t.take(ctx)
}

// everyPage calls get until there is no next page or stop says so. Past most
// pages it is an error: a list that is not whole is not understood.
func everyPage(most int, get func(github.ListOptions) (*github.Response, error)) error {
	opts := github.ListOptions{PerPage: perPage, Page: 1}
	for range most {
		res, err := get(opts)
		if err != nil {
			return err
		}
		if res.NextPage == 0 {
			return nil
		}
		opts.Page = res.NextPage
	}
	return access.Errorf(access.CodeTooLarge, "GitHub's list has more than %d entries, want at most that many.", most*perPage)
}
