package console

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/tidegate/tidegate/access"
)

// startLife is how long somebody may take at the issuer.
const startLife = 10 * time.Minute

type loginView struct {
	Providers []string
	Next      string
}

func (c *Console) loginPage(w http.ResponseWriter, r *http.Request) {
	v := loginView{Next: next(r.URL.Query().Get("next"))}
	for _, p := range c.providers {
		v.Providers = append(v.Providers, p.Name)
	}
	c.render(w, r, answer{page: "login", title: "Log in", data: v})
}

// next is a path of ours to go on to after the login, and nothing else.
func next(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Host != "" || u.Scheme != "" || !strings.HasPrefix(raw, "/") || strings.HasPrefix(raw, "//") || len(raw) > 512 ||
		strings.ContainsAny(raw, "\\\r\n\t") || strings.HasPrefix(u.Path, "/login") {
		return "/grants"
	}
	return raw
}

// loginStart sends the browser to the issuer.
func (c *Console) loginStart(w http.ResponseWriter, r *http.Request) {
	p := c.provider(r.PathValue("provider"))
	if p == nil {
		c.refuse(w, r, errNotFound)
		return
	}
	s := started{
		Provider: p.Name, State: rand.Text(), Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(),
		Next: next(r.URL.Query().Get("next")), Ends: c.cfg.Now().Add(startLife),
	}
	give, err := turn(r.Context(), c.talking)
	if err != nil {
		c.refuse(w, r, err)
		return
	}
	cfg, err := p.config(r.Context())
	give()
	if err != nil {
		c.refuse(w, r, err)
		return
	}
	sealed, err := c.seal.seal(s)
	if err != nil {
		c.refuse(w, r, err)
		return
	}
	c.setCookie(w, startCookie, sealed, startLife)
	to := cfg.AuthCodeURL(s.State, oauth2.S256ChallengeOption(s.Verifier), oauth2.SetAuthURLParam("nonce", s.Nonce))
	http.Redirect(w, r, to, http.StatusSeeOther)
}

func (c *Console) provider(name string) *provider {
	for _, p := range c.providers {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// loginBack is where the issuer sends the browser back to. The login that was
// under way is over then, whatever comes of it.
func (c *Console) loginBack(w http.ResponseWriter, r *http.Request) {
	c.setCookie(w, startCookie, "", 0)
	s, err := c.startedBy(r)
	if err != nil {
		c.refuse(w, r, err)
		return
	}
	id, err := c.identify(r.Context(), s, r.URL.Query().Get("code"))
	if err != nil {
		c.cfg.Log.Info("console login refused", "issuer", s.Provider, "error", err)
		c.refuse(w, r, err)
		return
	}
	l, err := c.admit(r.Context(), id)
	if err != nil {
		c.audit(r.Context(), id.String(), "console.refused", "login", access.Message(err))
		c.refuse(w, r, err)
		return
	}
	c.audit(r.Context(), l.user.Login, "console.login", id.String(), "from "+r.RemoteAddr)
	c.logins.end(c.cookie(r, loginCookie)) // the browser's old login, if it had one
	c.setCookie(w, loginCookie, c.logins.add(l), loginLife)
	http.Redirect(w, r, s.Next, http.StatusSeeOther)
}

// startedBy is the login that this browser began, if the answer is to it.
func (c *Console) startedBy(r *http.Request) (started, error) {
	q := r.URL.Query()
	s, ok := c.seal.open(c.cookie(r, startCookie))
	p := c.provider(s.Provider)
	switch {
	case !ok || p == nil || subtle.ConstantTimeCompare([]byte(s.State), []byte(q.Get("state"))) != 1:
		return s, access.Errorf(access.CodeUnauthenticated, "This browser did not begin that login here, or began another since. Log in again.")
	case !c.cfg.Now().Before(s.Ends):
		return s, access.Errorf(access.CodeUnauthenticated, "The login took longer than %s. Log in again.", startLife)
	case q.Has("iss") && q.Get("iss") != p.URL:
		return s, access.Errorf(access.CodeUnauthenticated, "Another identity provider answered than the one that was asked. Log in again.")
	case q.Get("code") == "" || len(q.Get("code")) > maxQuery:
		return s, access.Errorf(access.CodeUnauthenticated, "The identity provider %s did not log you in. Log in again.", s.Provider)
	}
	return s, nil
}

func (c *Console) identify(ctx context.Context, s started, code string) (access.Identity, error) {
	give, err := turn(ctx, c.talking)
	if err != nil {
		return access.Identity{}, err
	}
	defer give()
	return c.redeem(ctx, c.provider(s.Provider), s, code)
}

// admit finds the one person whom the identity is, and pins it.
func (c *Console) admit(ctx context.Context, id access.Identity) (*login, error) {
	person, err := c.personOf(ctx, id)
	if err != nil {
		return nil, err
	}
	user, err := c.cfg.Desk.Account(ctx, person)
	if err != nil {
		return nil, err
	}
	if err := c.cfg.Ledger.Pin(ctx, id); err != nil {
		return nil, err
	}
	return &login{identity: id, person: person, user: user}, nil
}

func (c *Console) logout(w http.ResponseWriter, r *http.Request, v *viewer) error {
	c.logins.end(c.cookie(r, loginCookie))
	c.setCookie(w, loginCookie, "", 0)
	c.audit(r.Context(), v.user.Login, "console.logout", v.login.identity.String(), "")
	http.Redirect(w, r, "/login", http.StatusSeeOther)
	return nil
}

// audit keeps what was done. Looking and logging in go on if it can't be
// kept; revoking and answering are kept by the ledger in their own write.
func (c *Console) audit(ctx context.Context, actor, action, subject, detail string) {
	if err := c.cfg.Ledger.Audit(ctx, actor, action, subject, detail); err != nil {
		c.cfg.Log.Error("console: not audited", "action", action, "subject", subject, "error", err)
	}
}
