package devissuer

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/tidegate/tidegate/access"
)

const (
	authorizePath = "/authorize"
	tokenPath     = "/token"
	stylePath     = "/style.css"
	codeLife      = time.Minute
	tokenLife     = 10 * time.Minute
	maxCodes      = 100
	maxForm       = 16 << 10
)

// Client is the one application that may send people here to log in, by the
// authorization code flow with PKCE.
type Client struct {
	ID          string
	Secret      access.Secret // without it nobody on this machine could tell the client from any other program
	RedirectURL string
	Accounts    []Account // whom people may choose to be
}

// Account is a choice on the login page.
type Account struct {
	Name   string
	Claims Claims // Audience, Lifetime and nonce are the login's
}

// login is the state of the login page.
type login struct {
	Client
	guard *http.CrossOriginProtection
	codes map[string]grant
}

// grant is what a code is good for, once.
type grant struct {
	claims    Claims
	challenge string
	ends      time.Time
}

// AllowLogin opens the login page for a client. There is no password: whoever
// reaches the page is whoever they choose to be.
func (i *Issuer) AllowLogin(c Client) error {
	if c.ID == "" || c.Secret.IsZero() || c.RedirectURL == "" || len(c.Accounts) == 0 {
		return errors.New("allow login: want a client with id, secret, redirect URL and accounts")
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.login = &login{Client: c, guard: http.NewCrossOriginProtection(), codes: map[string]grant{}}
	return nil
}

// endpoints are the two addresses of the flow; without a client they lead nowhere.
func (i *Issuer) endpoints() (authorize, token string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.login == nil {
		return i.url + "/none", i.url + "/none" // the specification demands them
	}
	return i.url + authorizePath, i.url + tokenPath
}

// serveLogin handles the flow's pages; false if the path is none of them.
func (i *Issuer) serveLogin(w http.ResponseWriter, r *http.Request, path string) bool {
	i.mu.Lock()
	l := i.login
	i.mu.Unlock()
	if l == nil {
		return false
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	switch {
	case path == stylePath && r.Method == http.MethodGet:
		w.Header().Set("Content-Type", "text/css; charset=utf-8")
		_, _ = w.Write([]byte(style)) // the client left: nobody is there to tell
	case path == authorizePath && r.Method == http.MethodGet:
		i.choose(w, r, l)
	case path == authorizePath && r.Method == http.MethodPost:
		i.chosen(w, r, l)
	case path == tokenPath && r.Method == http.MethodPost:
		i.redeem(w, r, l)
	default:
		return false
	}
	return true
}

// asked is an authorization request that is right.
type asked struct{ state, nonce, challenge string }

// check refuses what is not this client's own request. It never redirects an
// error: the redirect would go where the request says.
func (l *login) check(q url.Values) (asked, error) {
	a := asked{q.Get("state"), q.Get("nonce"), q.Get("code_challenge")}
	for name, want := range map[string]string{
		"client_id": l.ID, "redirect_uri": l.RedirectURL, "response_type": "code", "code_challenge_method": "S256",
	} {
		if q.Get(name) != want {
			return a, fmt.Errorf("%s is not the one of the client that is known here", name)
		}
	}
	if a.state == "" || a.nonce == "" || len(a.challenge) != 43 {
		return a, errors.New("want state, nonce and code_challenge")
	}
	return a, nil
}

// ours refuses pages of other names, which a browser may be led to believe
// are this machine's, and what other sites send.
func (i *Issuer) ours(r *http.Request, l *login) error {
	if u, err := url.Parse(i.URL()); err != nil || r.Host != u.Host {
		return errors.New("this is not the issuer's address")
	}
	return l.guard.Check(r)
}

func (i *Issuer) choose(w http.ResponseWriter, r *http.Request, l *login) {
	_, err := l.check(r.URL.Query())
	if err = errors.Join(i.ours(r, l), err); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	back, _ := url.Parse(l.RedirectURL) // it was compared with what was configured
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'self' "+back.Scheme+"://"+back.Host)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	_ = loginPage.Execute(w, map[string]any{"Style": i.URL() + stylePath, "Action": r.URL.RequestURI(), "Accounts": l.Accounts})
}

func (i *Issuer) chosen(w http.ResponseWriter, r *http.Request, l *login) {
	a, err := l.check(r.URL.Query())
	if err = errors.Join(i.ours(r, l), err, r.ParseForm()); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	n := slices.IndexFunc(l.Accounts, func(c Account) bool { return c.Name == r.PostForm.Get("who") })
	if n < 0 {
		http.Error(w, "choose one of the accounts", http.StatusBadRequest)
		return
	}
	c := l.Accounts[n].Claims
	c.Audience, c.Lifetime = l.ID, tokenLife
	c.Extra = maps.Clone(c.Extra)
	if c.Extra == nil {
		c.Extra = map[string]any{}
	}
	c.Extra["nonce"] = a.nonce
	code := i.keep(l, grant{claims: c, challenge: a.challenge, ends: time.Now().Add(codeLife)})
	q := url.Values{"code": {code}, "state": {a.state}, "iss": {i.URL()}}
	http.Redirect(w, r, l.RedirectURL+"?"+q.Encode(), http.StatusSeeOther)
}

// keep stores what a code is good for. Old codes make room.
func (i *Issuer) keep(l *login, g grant) string {
	i.mu.Lock()
	defer i.mu.Unlock()
	maps.DeleteFunc(l.codes, func(_ string, g grant) bool { return time.Now().After(g.ends) })
	if len(l.codes) >= maxCodes {
		clear(l.codes)
	}
	code := rand.Text()
	l.codes[code] = g
	return code
}

// redeem turns a code into a token, once.
func (i *Issuer) redeem(w http.ResponseWriter, r *http.Request, l *login) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, "want a form", http.StatusBadRequest)
		return
	}
	f := r.PostForm
	id, secret, basic := r.BasicAuth()
	if !basic {
		id, secret = f.Get("client_id"), f.Get("client_secret")
	}
	i.mu.Lock()
	g, known := l.codes[f.Get("code")]
	delete(l.codes, f.Get("code"))
	i.mu.Unlock()
	sum := sha256.Sum256([]byte(f.Get("code_verifier")))
	w.Header().Set("Cache-Control", "no-store")
	switch {
	case id != l.ID || subtle.ConstantTimeCompare([]byte(secret), []byte(l.Secret.Reveal())) != 1:
		http.Error(w, `{"error":"invalid_client"}`, http.StatusUnauthorized)
		return
	case !known || time.Now().After(g.ends) || f.Get("grant_type") != "authorization_code" || f.Get("redirect_uri") != l.RedirectURL,
		g.challenge != base64.RawURLEncoding.EncodeToString(sum[:]):
		http.Error(w, `{"error":"invalid_grant"}`, http.StatusBadRequest)
		return
	}
	token, err := i.Mint(g.claims)
	if err != nil {
		http.Error(w, `{"error":"server_error"}`, http.StatusInternalServerError)
		return
	}
	writeJSON(w, map[string]any{"access_token": rand.Text(), "token_type": "Bearer", "expires_in": int(tokenLife.Seconds()), "id_token": token})
}

const style = `:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:22rem;margin:10vh auto;padding:0 1rem}
h1{font-size:1.2rem}
button{display:block;width:100%;margin:.5rem 0;padding:.6rem 1rem;font:inherit;text-align:left;cursor:pointer}
`

var loginPage = template.Must(template.New("login").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>Who are you?</title><link rel="stylesheet" href="{{.Style}}"></head>
<body><h1>Who are you?</h1>
<p>This is the development issuer. It asks for no password, and no real server believes it.</p>
<form method="post" action="{{.Action}}">{{range .Accounts}}<button name="who" value="{{.Name}}">{{.Name}}</button>{{end}}</form>
</body></html>
`))
