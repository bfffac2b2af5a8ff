package console

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/tidegate/tidegate/access"
)

const (
	loginLife       = time.Hour
	maxLoggedIn     = 10_000
	maxLoginsOfOne  = 20
	maxSeenInLogin  = 1000
	tokenCharacters = 52 // of the cookie: two random texts
)

// login is one browser that logged in.
type login struct {
	identity access.Identity
	person   string // the policies' name of the person
	user     access.User
	secret   string // in each form
	ends     time.Time

	mu    sync.Mutex
	flash string          // said once, on the next page
	seen  map[string]bool // recordings whose viewing is in the audit log
}

// say keeps a sentence for the next page.
func (l *login) say(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flash = s
}

func (l *login) said() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.flash
	l.flash = ""
	return s
}

// first reports whether a thing is seen for the first time in this login.
func (l *login) first(what string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen[what] {
		return false
	}
	if l.seen == nil || len(l.seen) >= maxSeenInLogin {
		l.seen = map[string]bool{}
	}
	l.seen[what] = true
	return true
}

// logins are all browsers that are logged in. They are lost with the process:
// then people log in again.
type logins struct {
	now func() time.Time

	mu  sync.Mutex
	all map[[sha256.Size]byte]*login // by the cookie's hash: a memory dump holds no cookie
}

func newLogins(now func() time.Time) *logins {
	return &logins{now: now, all: map[[sha256.Size]byte]*login{}}
}

// add logs a browser in under a new random name, whatever it had before.
func (s *logins) add(l *login) (token string) {
	token, l.secret, l.ends = rand.Text()+rand.Text(), rand.Text(), s.now().Add(loginLife)
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.all, func(_ [sha256.Size]byte, old *login) bool { return !s.now().Before(old.ends) })
	s.makeRoom(func(old *login) bool {
		return old.identity.Issuer == l.identity.Issuer && old.identity.Subject == l.identity.Subject
	}, maxLoginsOfOne)
	s.makeRoom(func(*login) bool { return true }, maxLoggedIn)
	s.all[sha256.Sum256([]byte(token))] = l
	return token
}

// makeRoom ends the oldest of those that count, until there is room for one.
func (s *logins) makeRoom(counts func(*login) bool, most int) {
	var keys [][sha256.Size]byte
	for k, l := range s.all {
		if counts(l) {
			keys = append(keys, k)
		}
	}
	if len(keys) < most {
		return
	}
	slices.SortFunc(keys, func(a, b [sha256.Size]byte) int {
		return cmp.Compare(s.all[a].ends.UnixNano(), s.all[b].ends.UnixNano())
	})
	for _, k := range keys[:len(keys)-most+1] {
		delete(s.all, k)
	}
}

func (s *logins) find(token string) *login {
	if len(token) != tokenCharacters {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.all[sha256.Sum256([]byte(token))]
	if l == nil || !s.now().Before(l.ends) {
		return nil
	}
	return l
}

func (s *logins) end(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, sha256.Sum256([]byte(token)))
}

// The cookies. The prefix __Host- binds one to this host, to https and to no
// other path; a browser takes it from nobody else.
const (
	loginCookie = "tidegate"
	startCookie = "tidegate-login"
)

func (c *Console) cookieName(name string) string {
	if c.secure {
		return "__Host-" + name
	}
	return name + "-dev"
}

// setCookie sets a cookie; with no value it ends it.
func (c *Console) setCookie(w http.ResponseWriter, name, value string, life time.Duration) {
	age := int(life / time.Second)
	if value == "" {
		age = -1
	}
	http.SetCookie(w, &http.Cookie{
		Name: c.cookieName(name), Value: value, Path: "/", MaxAge: age, Secure: c.secure, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
}

// cookie is the value of the one cookie of that name. Two are none: somebody
// tries to slip in another.
func (c *Console) cookie(r *http.Request, name string) string {
	all := r.CookiesNamed(c.cookieName(name))
	if len(all) != 1 {
		return ""
	}
	return all[0].Value
}
