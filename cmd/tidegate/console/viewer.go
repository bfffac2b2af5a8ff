package console

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/policies"
)

// How long answers of others are kept. A person who is taken out of a team or
// of the policies is out of the console after that long.
const (
	keepPolicies = 5 * time.Second
	keepTeams    = 30 * time.Second
	keepLists    = time.Second
	keepWhy      = 30 * time.Second
	maxKept      = 10_000
)

var errNotFound = access.Errorf(access.CodeNotFound, "There is no such page, or it is not yours to see.")

// viewer is who looks, for one request.
type viewer struct {
	login *login
	user  access.User
	all   bool // an operator or an owner of the policies
	blind bool // the forge can't be asked: only what is certain is shown
}

// viewer finds out who asks; nil is nobody.
func (c *Console) viewer(r *http.Request) (*viewer, error) {
	token := c.cookie(r, loginCookie)
	l := c.logins.find(token)
	if l == nil {
		return nil, nil
	}
	person, err := c.personOf(r.Context(), l.identity)
	if access.CodeOf(err) == access.CodeDenied && err != nil || err == nil && person != l.person {
		c.logins.end(token) // the policies say something else by now
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	v := &viewer{login: l, user: l.user}
	v.all = c.knows(r.Context(), v, "oversees", func(ctx context.Context) (bool, error) { return c.cfg.Desk.Oversees(ctx, v.user) })
	return v, nil
}

// personOf is the one person whom the policies in force join to the identity.
func (c *Console) personOf(ctx context.Context, id access.Identity) (string, error) {
	people, err := remember(ctx, c.known, "people", keepPolicies, func(ctx context.Context) ([]access.Person, error) {
		tree, err := c.cfg.Ledger.Adopted(ctx)
		if err != nil {
			return nil, err
		}
		o, diags := policies.Describe(tree)
		if diags.HasErrors() {
			return nil, fmt.Errorf("read the policies in force: %s", diags[0])
		}
		return o.People, nil
	})
	if access.CodeOf(err) == access.CodeNotFound && err != nil {
		return "", access.Errorf(access.CodeDenied, "No policies are in force yet, so nobody is known here.")
	}
	if err != nil {
		return "", err
	}
	p, ok := access.PersonOf(people, id)
	if !ok {
		return "", access.Errorf(access.CodeDenied, "You are logged in as %s, and the policies in force name no one person of that identity. A person block in policies/ must.", id)
	}
	return p.Login, nil
}

// knows asks a question about the viewer that the forge answers. Without an
// answer it is no.
func (c *Console) knows(ctx context.Context, v *viewer, question string, ask func(context.Context) (bool, error)) bool {
	if v.blind {
		return false // one silence is enough for one page
	}
	yes, err := remember(ctx, c.known, fmt.Sprintf("%s %d", question, v.user.ID), keepTeams, ask)
	if err != nil {
		c.cfg.Log.Warn("console: the forge can't be asked", "question", question, "error", err)
		v.blind = true
	}
	return err == nil && yes
}

// asked reports whether one of the parties is the viewer, by today's teams.
func (c *Console) asked(ctx context.Context, v *viewer, ask []access.Party) bool {
	for _, p := range ask {
		question := fmt.Sprintf("asked %q %d", p.Principal, p.ID)
		if c.knows(ctx, v, question, func(ctx context.Context) (bool, error) {
			return c.cfg.Desk.Asked(ctx, []access.Party{p}, v.user)
		}) {
			return true
		}
	}
	return false
}

// seesGrant is the rule for grants, on which the others stand.
func (c *Console) seesGrant(ctx context.Context, v *viewer, g access.Grant) bool {
	if v.all || c.cfg.Desk.Holds(g, v.user) {
		return true
	}
	for _, r := range g.Plan.Requirements {
		if c.asked(ctx, v, r.From) {
			return true
		}
	}
	return false
}

// seesSession is the rule for sessions and their recordings.
func (c *Console) seesSession(ctx context.Context, v *viewer, s access.SessionInfo) bool {
	if v.all || s.Person.ID == v.user.ID {
		return true
	}
	g, err := c.cfg.Ledger.Grant(ctx, s.Grant)
	return err == nil && c.seesGrant(ctx, v, g)
}

// seesHeld is the rule for held operations.
func (c *Console) seesHeld(ctx context.Context, v *viewer, h access.Held) bool {
	if v.all || c.asked(ctx, v, h.Ask) {
		return true
	}
	g, err := c.cfg.Ledger.Grant(ctx, h.Grant)
	return err == nil && c.seesGrant(ctx, v, g)
}

// page is a handler for those who are logged in. The others log in first.
func (c *Console) page(show func(http.ResponseWriter, *http.Request, *viewer) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := c.viewer(r)
		switch {
		case err != nil:
			c.refuse(w, r, err)
		case v == nil:
			http.Redirect(w, r, "/login?next="+url.QueryEscape(r.URL.RequestURI()), http.StatusSeeOther)
		default:
			if err := show(w, r, v); err != nil {
				c.refuseTo(w, r, v, err)
			}
		}
	}
}

// post is a handler for a form of one of our own pages.
func (c *Console) post(do func(http.ResponseWriter, *http.Request, *viewer) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := c.viewer(r)
		if err == nil && v == nil {
			err = access.Errorf(access.CodeUnauthenticated, "You are not logged in any more, so nothing was done. Log in again.")
		}
		if err != nil {
			c.refuse(w, r, err)
			return
		}
		if err := r.ParseForm(); err != nil {
			c.refuseTo(w, r, v, access.Errorf(access.CodeInvalid, "The form can't be read, or is too large."))
			return
		}
		if !same(r.PostForm.Get("secret"), v.login.secret) {
			c.refuseTo(w, r, v, access.Errorf(access.CodeDenied, "The form is not of this login, so nothing was done. Open the page again."))
			return
		}
		if err := do(w, r, v); err != nil {
			c.refuseTo(w, r, v, err)
		}
	}
}

// memory keeps answers for a short while.
type memory struct {
	now func() time.Time

	mu  sync.Mutex
	all map[string]kept
}

type kept struct {
	value any
	ends  time.Time
}

func newMemory(now func() time.Time) *memory { return &memory{now: now, all: map[string]kept{}} }

// remember asks, or answers what was asked a moment ago. Errors are not kept.
func remember[T any](ctx context.Context, m *memory, key string, life time.Duration, ask func(context.Context) (T, error)) (T, error) {
	m.mu.Lock()
	k, ok := m.all[key]
	m.mu.Unlock()
	if ok && m.now().Before(k.ends) {
		return k.value.(T), nil
	}
	v, err := ask(ctx)
	if err != nil {
		return v, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.all) >= maxKept {
		clear(m.all)
	}
	m.all[key] = kept{v, m.now().Add(life)}
	return v, nil
}

// forget drops an answer that an act has changed.
func (m *memory) forget(keys ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range keys {
		delete(m.all, k)
	}
}
