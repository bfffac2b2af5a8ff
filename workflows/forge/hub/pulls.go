package hub

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

func pullRef(p *pull) string { return fmt.Sprintf("refs/pull/%d/head", p.Number) }

func (h *Hub) pullRoutes() []route {
	const pulls = "/repos/{owner}/{repo}/pulls"
	const one = pulls + "/{number}"
	return []route{
		{"GET " + pulls, RoleRead, listPulls},
		{"POST " + pulls, RoleWrite, createPull},
		{"GET " + one, RoleRead, getPull},
		{"PATCH " + one, RoleRead, editPull},
		{"GET " + one + "/files", RoleRead, listPullFiles},
		{"GET " + one + "/commits", RoleRead, listPullCommits},
		{"GET " + one + "/merge", RoleRead, isMerged},
		{"PUT " + one + "/merge", RoleWrite, mergePull},
		{"GET " + one + "/requested_reviewers", RoleRead, listReviewers},
		{"POST " + one + "/requested_reviewers", RoleWrite, askReviewers},
		{"DELETE " + one + "/requested_reviewers", RoleWrite, dropReviewers},
		{"GET " + one + "/reviews", RoleRead, listReviews},
		{"POST " + one + "/reviews", RoleRead, createReview},
		{"GET " + one + "/reviews/{id}", RoleRead, getReview},
		{"PUT " + one + "/reviews/{id}/dismissals", RoleWrite, dismissReview},
		{"GET /repos/{owner}/{repo}/commits/{sha}/pulls", RoleRead, pullsOfCommit},
	}
}

func (c *call) pull() (*pull, error) {
	n, err := c.id("number")
	if err != nil {
		return nil, err
	}
	p, ok := c.store.pulls[n]
	if !ok {
		return nil, notFound
	}
	return p, nil
}

func (c *call) showPull(status int, p *pull) error {
	full, err := c.pullFull(c.r.Context(), p)
	if err != nil {
		return err
	}
	return c.reply(status, full)
}

func listPulls(c *call) error {
	q := c.r.URL.Query()
	state, head, base := q.Get("state"), q.Get("head"), q.Get("base")
	head = strings.TrimPrefix(head, c.cfg.Owner+":")
	all := sorted(c.store.pulls, func(p *pull) (int64, bool) {
		return p.Number, (state == "all" || p.State == state || state == "" && p.State == "open") &&
			(head == "" || head == p.Head) && (base == "" || base == p.Base)
	})
	slices.SortStableFunc(all, func(a, b *pull) int {
		if q.Get("sort") == "updated" {
			return a.Updated.Compare(b.Updated)
		}
		return 0
	})
	if q.Get("direction") == "desc" || q.Get("direction") == "" && q.Get("sort") != "updated" || q.Get("direction") == "" && q.Get("sort") == "" {
		slices.Reverse(all)
	}
	return list(c, all, shown(c.pullSimple))
}

func createPull(c *call) error {
	var in struct {
		Title, Head, Base, Body string
		Draft                   bool
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	in.Head = strings.TrimPrefix(in.Head, c.cfg.Owner+":")
	ctx := c.r.Context()
	if in.Title == "" {
		return invalid("PullRequest", "title", "title can't be blank")
	}
	head, err := c.branch(ctx, in.Head)
	if err != nil {
		return invalid("PullRequest", "head", "head is no branch of this repository")
	}
	base, err := c.branch(ctx, in.Base)
	if err != nil {
		return invalid("PullRequest", "base", "base is no branch of this repository")
	}
	if err := c.mayOpen(ctx, in.Head, in.Base, head, base); err != nil {
		return err
	}
	now := c.now()
	p := &pull{Number: c.store.newNumber(), ID: c.store.newID(), Title: in.Title, Body: in.Body, State: "open",
		Author: c.me.ID, Head: in.Head, Base: in.Base, HeadSHA: head, BaseSHA: base, Draft: in.Draft, Created: now, Updated: now}
	c.store.pulls[p.Number] = p
	c.savePull(ctx, p)
	c.sendPull(ctx, p, c.me, "opened", nil)
	return c.showPull(http.StatusCreated, p)
}

func (h *Hub) mayOpen(ctx context.Context, headName, baseName, head, base string) error {
	for _, p := range h.store.openPulls() {
		if p.Head == headName && p.Base == baseName {
			return invalid("PullRequest", "", fmt.Sprintf("A pull request already exists for %s:%s.", h.cfg.Owner, headName))
		}
	}
	if _, err := h.git.mergeBase(ctx, base, head); err != nil {
		return invalid("PullRequest", "", fmt.Sprintf("The %s branch has no history in common with %s", headName, baseName))
	}
	if n, err := h.git.count(ctx, base, head); err != nil || n == 0 {
		return invalid("PullRequest", "", fmt.Sprintf("No commits between %s and %s", baseName, headName))
	}
	return nil
}

// branch is the tip of a branch; nothing else than a branch will do.
func (h *Hub) branch(ctx context.Context, name string) (string, error) {
	if !validRef(name) {
		return "", errNotFound
	}
	return h.git.verify(ctx, "refs/heads/"+name+"^{commit}")
}

func getPull(c *call) error {
	p, err := c.pull()
	if err != nil {
		return err
	}
	return c.showPull(http.StatusOK, p)
}

func editPull(c *call) error {
	p, err := c.pull()
	if err != nil {
		return err
	}
	var in struct{ Title, Body, State, Base *string }
	if err := c.decode(&in); err != nil {
		return err
	}
	if !c.me.can(RoleWrite) && c.me.ID != p.Author {
		return fail(http.StatusForbidden, "Must have write rights to Repository.")
	}
	if in.State != nil && *in.State != "open" && *in.State != "closed" {
		return invalid("PullRequest", "state", "state must be open or closed")
	}
	ctx := c.r.Context()
	if in.State != nil && *in.State == "open" && p.State == "closed" {
		if err := c.reopen(ctx, p); err != nil {
			return err
		}
	}
	if in.Base != nil && *in.Base != p.Base {
		if err := c.retarget(ctx, p, *in.Base); err != nil {
			return err
		}
	}
	c.editText(ctx, p, in.Title, in.Body)
	if in.State != nil && *in.State == "closed" && p.State == "open" {
		c.closePull(ctx, p, c.me)
	}
	return c.showPull(http.StatusOK, p)
}

func (c *call) editText(ctx context.Context, p *pull, title, body *string) {
	changes := obj{}
	if title != nil && *title != "" && *title != p.Title {
		changes["title"], p.Title = obj{"from": p.Title}, *title
	}
	if body != nil && *body != p.Body {
		changes["body"], p.Body = obj{"from": p.Body}, *body
	}
	if len(changes) == 0 {
		return
	}
	p.Updated = c.now()
	c.savePull(ctx, p)
	c.sendPull(ctx, p, c.me, "edited", obj{"changes": changes})
}

// retarget compares an open pull request with another branch.
func (c *call) retarget(ctx context.Context, p *pull, to string) error {
	base, err := c.branch(ctx, to)
	if err != nil || p.State != "open" {
		return invalid("PullRequest", "base", fmt.Sprintf("Proposed base branch '%s' was not found", to))
	}
	if err := c.mayOpen(ctx, p.Head, to, p.HeadSHA, base); err != nil {
		return err
	}
	from := p.Base
	fromSHA, now := p.BaseSHA, c.now()
	p.Base, p.BaseSHA, p.Updated, p.Rebased, p.RebasedBy = to, base, now, &now, "BaseRefChangedEvent"
	c.savePull(ctx, p)
	c.sendPull(ctx, p, c.me, "edited", obj{"changes": obj{"base": obj{"ref": obj{"from": from}, "sha": obj{"from": fromSHA}}}})
	return nil
}

func (c *call) reopen(ctx context.Context, p *pull) error {
	head, err := c.branch(ctx, p.Head)
	if err != nil || p.Merged != nil {
		return invalid("PullRequest", "state", "state cannot be changed. The pull request was merged or its branch was deleted.")
	}
	if err := c.mayOpen(ctx, p.Head, p.Base, head, p.BaseSHA); err != nil {
		return err
	}
	if base, err := c.branch(ctx, p.Base); err == nil {
		p.BaseSHA = base
	}
	p.State, p.Closed, p.HeadSHA, p.Updated = "open", nil, head, c.now()
	c.savePull(ctx, p)
	c.sendPull(ctx, p, c.me, "reopened", nil)
	return nil
}

func listPullFiles(c *call) error {
	p, err := c.pull()
	if err != nil {
		return err
	}
	files, _, err := c.pullFiles(c.r.Context(), p)
	if err != nil {
		return err
	}
	return list(c, files, shown(c.fileView(p.HeadSHA)))
}

func listPullCommits(c *call) error {
	p, err := c.pull()
	if err != nil {
		return err
	}
	commits, err := c.git.log(c.r.Context(), p.BaseSHA, p.HeadSHA)
	if err != nil {
		return err
	}
	return list(c, commits, shown(c.commitView))
}

func isMerged(c *call) error {
	p, err := c.pull()
	if err != nil {
		return err
	}
	if p.Merged == nil {
		return notFound
	}
	return c.reply(http.StatusNoContent, nil)
}

func pullsOfCommit(c *call) error {
	sha, err := c.git.resolve(c.r.Context(), c.r.PathValue("sha"))
	if err != nil {
		return notFound
	}
	all := sorted(c.store.pulls, func(p *pull) (int64, bool) {
		mine := p.HeadSHA == sha || p.MergeSHA == sha
		if !mine {
			mine = c.git.isAncestor(c.r.Context(), sha, p.HeadSHA) && !c.git.isAncestor(c.r.Context(), sha, p.BaseSHA)
		}
		return p.Number, mine
	})
	return list(c, all, shown(c.pullSimple))
}

func listReviewers(c *call) error {
	p, err := c.pull()
	if err != nil {
		return err
	}
	o := c.pullSimple(p)
	return c.reply(http.StatusOK, obj{"users": o["requested_reviewers"], "teams": o["requested_teams"]})
}

func askReviewers(c *call) error { return c.changeReviewers(http.StatusCreated, addID) }

func dropReviewers(c *call) error { return c.changeReviewers(http.StatusOK, dropID) }

func addID(ids []int64, id int64) []int64 { return append(dropID(ids, id), id) }

func dropID(ids []int64, id int64) []int64 {
	return slices.DeleteFunc(ids, func(other int64) bool { return other == id })
}

func (c *call) changeReviewers(status int, change func([]int64, int64) []int64) error {
	p, err := c.pull()
	if err != nil {
		return err
	}
	var in struct {
		Reviewers     []string
		TeamReviewers []string `json:"team_reviewers"`
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	users, teams := slices.Clone(p.Reviewers), slices.Clone(p.TeamReviewers)
	for _, login := range in.Reviewers {
		u, ok := c.people.byLogin(login)
		if !ok || u.ID == p.Author {
			return fail(http.StatusUnprocessableEntity, "Reviews may only be requested from collaborators. %q is not one, or is the author.", login)
		}
		users = change(users, u.ID)
	}
	for _, slug := range in.TeamReviewers {
		t, ok := c.people.team(func(t Team) bool { return t.Slug == slug })
		if !ok {
			return fail(http.StatusUnprocessableEntity, "Could not resolve to a team with the slug %q.", slug)
		}
		teams = change(teams, t.ID)
	}
	p.Reviewers, p.TeamReviewers, p.Updated = users, teams, c.now()
	c.savePull(c.r.Context(), p)
	return c.reply(status, c.pullSimple(p))
}
