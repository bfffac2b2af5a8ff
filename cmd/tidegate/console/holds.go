package console

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/workflows"
)

// heldRow is a held operation in a list.
type heldRow struct {
	access.Held
	Now time.Time
}

// Waits reports whether an answer can still be given.
func (h heldRow) Waits() bool { return h.State == access.HeldOpen && h.Now.Before(h.Expires) }

// Left is the time until no answer means no.
func (h heldRow) Left() time.Duration { return h.Expires.Sub(h.Now) }

// Word is the state as a person reads it.
func (h heldRow) Word() string {
	switch {
	case h.Waits():
		return "waits"
	case h.State == access.HeldOpen, h.State == access.HeldTimedOut:
		return "nobody answered"
	case h.State == access.HeldCancelled:
		return "given up"
	case h.Answer != nil && !h.Answer.Approve:
		return "denied"
	case h.State == access.HeldConsumed:
		return "approved, ran once"
	}
	return "approved"
}

// Class groups the states.
func (h heldRow) Class() string {
	switch {
	case h.Waits():
		return "waiting"
	case h.Answer != nil && h.Answer.Approve:
		return "active"
	case h.Answer != nil:
		return "denied"
	}
	return "ended"
}

// maxBrief is how much of an operation a list shows; its own page has all.
const maxBrief = 300

// Brief is the operation for a list: what many hold must not grow beyond a page.
func (h heldRow) Brief() string {
	if len(h.Operation.Text) <= maxBrief {
		return h.Operation.Text
	}
	return strings.ToValidUTF8(h.Operation.Text[:maxBrief], "") + "…"
}

// GrantURL is the page of its grant.
func (h heldRow) GrantURL() string { return grantURL(h.Grant) }

type holdsView struct {
	Waiting, Past []heldRow
	More          int
}

func (c *Console) holdsPage(w http.ResponseWriter, r *http.Request, v *viewer) error {
	all, err := c.helds(r.Context())
	if err != nil {
		return err
	}
	var out holdsView
	for _, h := range all {
		if !c.seesHeld(r.Context(), v, h) {
			continue
		}
		if row := (heldRow{h, c.cfg.Now()}); row.Waits() {
			out.Waiting = append(out.Waiting, row)
		} else {
			out.Past = append(out.Past, row)
		}
	}
	slices.SortStableFunc(out.Waiting, func(a, b heldRow) int { return a.Expires.Compare(b.Expires) })
	out.More = max(0, len(out.Past)-maxRows)
	out.Past = out.Past[:min(len(out.Past), maxRows)]
	c.render(w, r, answer{page: "holds", title: "Held operations", live: true, viewer: v, data: out})
	return nil
}

// heldsOf are the held operations of a grant.
func (c *Console) heldsOf(ctx context.Context, key access.GrantKey) (out []heldRow, err error) {
	all, err := c.helds(ctx)
	if err != nil {
		return nil, err
	}
	for _, h := range all {
		if h.Grant == key && len(out) < maxRows {
			out = append(out, heldRow{h, c.cfg.Now()})
		}
	}
	return out, nil
}

type holdView struct {
	heldRow
	SessionURL string // "" if the viewer does not see it
	SeesGrant  bool
	Pull       string
	MayAnswer  bool
	WhyNot     string
}

func (c *Console) holdPage(w http.ResponseWriter, r *http.Request, v *viewer) error {
	h, err := c.heldOf(r, v)
	if err != nil {
		return err
	}
	ctx := r.Context()
	out := holdView{heldRow: heldRow{h, c.cfg.Now()}}
	if g, err := c.cfg.Ledger.Grant(ctx, h.Grant); err == nil {
		out.SeesGrant, out.Pull = c.seesGrant(ctx, v, g), web(g.Pull.URL)
	}
	if s, _, err := c.cfg.Ledger.Session(ctx, h.Session); err == nil && c.seesSession(ctx, v, s) {
		out.SessionURL = sessionURL(s.ID)
	}
	if out.Waits() {
		err := c.cfg.Desk.MayAnswer(ctx, h, v.user)
		out.MayAnswer = err == nil
		if err != nil {
			out.WhyNot = access.Message(err)
		}
	}
	c.render(w, r, answer{page: "hold", title: "Held operation " + h.Name(), live: out.Waits(), viewer: v, data: out})
	return nil
}

// heldOf is the operation that the address names, if the viewer may see it.
func (c *Console) heldOf(r *http.Request, v *viewer) (access.Held, error) {
	h, err := c.cfg.Ledger.Held(r.Context(), r.PathValue("id"))
	if access.CodeOf(err) == access.CodeNotFound && err != nil {
		return h, errNotFound
	}
	if err != nil {
		return h, err
	}
	if !c.seesHeld(r.Context(), v, h) {
		return access.Held{}, errNotFound
	}
	return h, nil
}

// answer takes a yes or a no to exactly what the page showed: the form carries
// the whole digest of it.
func (c *Console) answer(w http.ResponseWriter, r *http.Request, v *viewer) error {
	h, err := c.heldOf(r, v)
	if err != nil {
		return err
	}
	said := r.PostForm.Get("answer")
	if said != "approve" && said != "deny" {
		return access.Errorf(access.CodeInvalid, "Want approve or deny.")
	}
	in := workflows.AnswerInput{Held: h.ID, Digest: r.PostForm.Get("digest"), Approve: said == "approve", By: v.user}
	if err := c.cfg.Desk.Answer(r.Context(), in); err != nil {
		return err
	}
	c.known.forget("helds")
	v.login.say(map[bool]string{true: h.Name() + " is approved. It runs once.", false: h.Name() + " is denied. Nothing runs."}[in.Approve])
	http.Redirect(w, r, "/holds/"+h.ID, http.StatusSeeOther)
	return nil
}
