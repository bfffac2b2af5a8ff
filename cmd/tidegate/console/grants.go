package console

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger"
	"github.com/tidegate/tidegate/workflows"
)

const (
	maxRows    = 200 // of a list on one page
	whyTimeout = 5 * time.Second
	maxLife    = 50 // sessions of a grant whose audit rows are looked for
)

// grants are all that the ledger lists, each once, the last written first.
func (c *Console) grants(ctx context.Context) ([]access.Grant, error) {
	return remember(ctx, c.known, "grants", keepLists, func(ctx context.Context) ([]access.Grant, error) {
		open, err := c.cfg.Ledger.Unclosed(ctx)
		if err != nil {
			return nil, err
		}
		recent, err := c.cfg.Ledger.ListGrants(ctx)
		if err != nil {
			return nil, err
		}
		seen := map[access.GrantKey]bool{}
		return slices.DeleteFunc(append(recent, open...), func(g access.Grant) bool {
			twice := seen[g.Key]
			seen[g.Key] = true
			return twice
		}), nil
	})
}

func (c *Console) sessions(ctx context.Context) ([]access.SessionInfo, error) {
	return remember(ctx, c.known, "sessions", keepLists, c.cfg.Ledger.ListSessions)
}

func (c *Console) helds(ctx context.Context) ([]access.Held, error) {
	return remember(ctx, c.known, "helds", keepLists, c.cfg.Ledger.ListHelds)
}

// grantRow is a grant in a list.
type grantRow struct {
	access.Grant
	Now        time.Time
	Open, Past int // sessions, among the last thousand of all
}

// URL is the grant's page.
func (g grantRow) URL() string { return grantURL(g.Key) }

func grantURL(k access.GrantKey) string {
	return "/grants/" + strconv.FormatInt(k.Repo, 10) + "/" + url.PathEscape(k.ID)
}

// Class groups the states: active, waiting, ended.
func (g grantRow) Class() string { return classOf(g.Grant, g.Now) }

func classOf(g access.Grant, now time.Time) string {
	switch {
	case g.Open(now):
		return "active"
	case g.State.Ended(), g.State == access.StateActive && !now.Before(g.NotAfter):
		return "ended"
	}
	return "waiting"
}

// Word is the state as a person reads it.
func (g grantRow) Word() string {
	switch {
	case g.State == access.StateActive && !g.Now.Before(g.NotAfter):
		return "ending"
	case g.State.Ended() && g.Closed.IsZero():
		return string(g.State) + ", being removed"
	case g.State == access.StateLanded:
		return "being made"
	}
	return string(g.State)
}

// Left is the time until its end, or until its start.
func (g grantRow) Left() time.Duration {
	if g.Class() == "waiting" {
		return g.NotBefore.Sub(g.Now)
	}
	return g.NotAfter.Sub(g.Now)
}

// People are the logins of those who receive it.
func (g grantRow) People() (names []string) {
	for _, p := range g.Plan.People {
		names = append(names, p.Login)
	}
	if len(names) == 0 { // refused before it was planned
		for _, p := range g.Plan.Request.To {
			names = append(names, p.Name)
		}
	}
	return names
}

// On names the target, also where nothing was planned.
func (g grantRow) On() string { return cmp.Or(g.Plan.Target.TargetRef, g.Plan.Request.On).String() }

// RoleName is the role, also where nothing was planned.
func (g grantRow) RoleName() string { return cmp.Or(g.Plan.Role.Name, g.Plan.Request.Role) }

type grantsView struct {
	Active, Waiting, Ended []grantRow
	More                   int // ended ones that are not shown
}

func (c *Console) grantsPage(w http.ResponseWriter, r *http.Request, v *viewer) error {
	all, err := c.grants(r.Context())
	if err != nil {
		return err
	}
	sessions, err := c.sessions(r.Context())
	if err != nil {
		return err
	}
	var out grantsView
	for _, g := range all {
		if !c.seesGrant(r.Context(), v, g) {
			continue
		}
		switch row := c.row(g, sessions); row.Class() {
		case "active":
			out.Active = append(out.Active, row)
		case "waiting":
			out.Waiting = append(out.Waiting, row)
		default:
			out.Ended = append(out.Ended, row)
		}
	}
	slices.SortStableFunc(out.Active, func(a, b grantRow) int { return a.NotAfter.Compare(b.NotAfter) })
	slices.SortStableFunc(out.Waiting, func(a, b grantRow) int { return a.NotBefore.Compare(b.NotBefore) })
	slices.SortStableFunc(out.Ended, func(a, b grantRow) int { return b.NotAfter.Compare(a.NotAfter) })
	out.More = max(0, len(out.Ended)-maxRows)
	out.Ended = out.Ended[:min(len(out.Ended), maxRows)]
	c.render(w, r, answer{page: "grants", title: "Grants", live: true, viewer: v, data: out})
	return nil
}

func (c *Console) row(g access.Grant, sessions []access.SessionInfo) grantRow {
	row := grantRow{Grant: g, Now: c.cfg.Now()}
	for _, s := range sessions {
		if s.Grant != g.Key {
			continue
		}
		if s.Ended.IsZero() {
			row.Open++
		} else {
			row.Past++
		}
	}
	return row
}

type grantView struct {
	grantRow
	Approval  access.Reason
	Unjudged  string // why the approvals can't be judged now
	Sessions  []access.SessionInfo
	Helds     []heldRow
	Life      []ledger.Entry
	Older     bool // rows of the audit log were not looked at
	MayRevoke bool
	MaxWhy    int // bytes of the reason
	Pull      string
}

func (c *Console) grantPage(w http.ResponseWriter, r *http.Request, v *viewer) error {
	g, err := c.grantOf(r, v)
	if err != nil {
		return err
	}
	ctx := r.Context()
	sessions, err := c.cfg.Ledger.Sessions(ctx, g.Key)
	if err != nil {
		return err
	}
	out := grantView{grantRow: c.row(g, sessions), Sessions: sessions, Pull: web(g.Pull.URL)}
	slices.Reverse(out.Sessions)
	if out.Helds, err = c.heldsOf(ctx, g.Key); err != nil {
		return err
	}
	subjects := []string{g.Key.String(), workflows.Ref{Repo: g.Pull.Repo, Number: g.Pull.Number}.String()}
	for _, s := range out.Sessions[:min(len(sessions), maxLife)] {
		subjects = append(subjects, s.ID)
	}
	for _, h := range out.Helds {
		subjects = append(subjects, h.ID)
	}
	if out.Life, out.Older, err = c.cfg.Ledger.AuditOf(ctx, subjects); err != nil {
		return err
	}
	out.Sessions = out.Sessions[:min(len(out.Sessions), maxRows)]
	out.Approval, out.Unjudged = c.why(ctx, g)
	out.MaxWhy = access.MaxWhy
	out.MayRevoke = !g.State.Ended() && c.cfg.Desk.MayRevoke(ctx, g, v.user) == nil
	c.render(w, r, answer{page: "grant", title: "Grant " + g.Key.ID, live: !g.State.Ended(), viewer: v, data: out})
	return nil
}

// grantOf is the grant that the address names, if the viewer may see it.
func (c *Console) grantOf(r *http.Request, v *viewer) (access.Grant, error) {
	repo, err := strconv.ParseInt(r.PathValue("repo"), 10, 64)
	if err != nil {
		return access.Grant{}, errNotFound
	}
	g, err := c.cfg.Ledger.Grant(r.Context(), access.GrantKey{Repo: repo, ID: r.PathValue("id")})
	if access.CodeOf(err) == access.CodeNotFound && err != nil {
		return g, errNotFound
	}
	if err != nil {
		return g, err
	}
	if !c.seesGrant(r.Context(), v, g) {
		return access.Grant{}, errNotFound
	}
	return g, nil
}

// why is who approved, and why it counted, as it is judged today. It asks the
// forge and the target, so it is bounded and kept for a moment.
func (c *Console) why(ctx context.Context, g access.Grant) (access.Reason, string) {
	ctx, cancel := context.WithTimeout(ctx, whyTimeout)
	defer cancel()
	key := fmt.Sprintf("why %s %d", g.Key, g.Sequence)
	reason, err := remember(ctx, c.known, key, keepWhy, func(ctx context.Context) (access.Reason, error) {
		return c.cfg.Desk.Why(ctx, g)
	})
	if err != nil {
		c.cfg.Log.Warn("console: approvals not judged", "grant", g.Key.String(), "error", err)
		return access.Reason{}, "The approvals can't be judged again at the moment, because the forge or the target does not answer. What was decided stands in its life below."
	}
	return reason, ""
}

func (c *Console) revoke(w http.ResponseWriter, r *http.Request, v *viewer) error {
	g, err := c.grantOf(r, v)
	if err != nil {
		return err
	}
	if err := c.cfg.Desk.Revoke(r.Context(), workflows.RevokeInput{Key: g.Key, By: v.user, Why: r.PostForm.Get("why")}); err != nil {
		return err
	}
	c.known.forget("grants", "sessions")
	v.login.say("Revoked. Open sessions are cut; what the target still has is being removed.")
	http.Redirect(w, r, grantURL(g.Key), http.StatusSeeOther)
	return nil
}
