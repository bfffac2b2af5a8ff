package hub

import (
	"fmt"
	"net/http"
	"strings"
	"time"
)

const maxComment = 65_536

func (h *Hub) talkRoutes() []route {
	const issues = "/repos/{owner}/{repo}/issues"
	return []route{
		{"GET " + issues + "/{number}", RoleRead, getIssue},
		{"GET " + issues + "/{number}/{rest}", RoleRead, issueOrComment},
		{"POST " + issues + "/{number}/comments", RoleRead, createComment},
		{"PATCH " + issues + "/comments/{id}", RoleRead, editComment},
		{"DELETE " + issues + "/comments/{id}", RoleRead, deleteComment},
	}
}

// issueOrComment tells /issues/7/comments from /issues/comments/7, which
// ServeMux holds for a conflict.
func issueOrComment(c *call) error {
	if c.r.PathValue("number") == "comments" {
		c.r.SetPathValue("id", c.r.PathValue("rest"))
		return getComment(c)
	}
	if c.r.PathValue("rest") != "comments" {
		return notFound
	}
	return listComments(c)
}

func (h *Hub) issueView(p *pull) obj {
	api := fmt.Sprintf("%s/issues/%d", h.repoURL(), p.Number)
	full := h.pullSimple(p)
	return obj{
		"id": p.ID, "node_id": full["node_id"], "url": api, "repository_url": h.repoURL(), "labels_url": api + "/labels{/name}",
		"comments_url": api + "/comments", "events_url": api + "/events", "html_url": full["html_url"], "number": p.Number,
		"state": p.State, "title": p.Title, "user": full["user"], "labels": []obj{}, "assignee": nil, "assignees": []obj{},
		"milestone": nil, "locked": false, "comments": len(h.store.commentsOf(p.Number)), "closed_at": full["closed_at"],
		"created_at": full["created_at"], "updated_at": full["updated_at"], "author_association": full["author_association"],
		"active_lock_reason": nil, "body": full["body"], "draft": p.Draft,
		"pull_request": obj{"url": full["url"], "html_url": full["html_url"], "diff_url": full["diff_url"],
			"patch_url": full["patch_url"], "merged_at": full["merged_at"]},
	}
}

func (h *Hub) commentView(cm *comment) obj {
	api := fmt.Sprintf("%s/issues/comments/%d", h.repoURL(), cm.ID)
	return obj{
		"id": cm.ID, "node_id": nodeID("IssueComment", cm.ID), "url": api, "body": cm.Body, "user": h.userByID(cm.Author),
		"html_url":   fmt.Sprintf("%s/pull/%d#issuecomment-%d", h.htmlURL(), cm.Number, cm.ID),
		"issue_url":  fmt.Sprintf("%s/issues/%d", h.repoURL(), cm.Number),
		"created_at": stamp(cm.Created), "updated_at": stamp(cm.Updated),
		"author_association": h.association(h.people.byID(cm.Author)), "performed_via_github_app": nil,
	}
}

func getIssue(c *call) error {
	p, err := c.pull()
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, c.issueView(p))
}

func listComments(c *call) error {
	p, err := c.pull()
	if err != nil {
		return err
	}
	since, _ := time.Parse(time.RFC3339, c.r.URL.Query().Get("since")) // absent: from the beginning
	all := sorted(c.store.comments, func(cm *comment) (int64, bool) {
		return cm.ID, cm.Number == p.Number && !cm.Updated.Before(since)
	})
	return list(c, all, shown(c.commentView))
}

func (c *call) commentBody() (string, error) {
	var in struct{ Body string }
	if err := c.decode(&in); err != nil {
		return "", err
	}
	if strings.TrimSpace(in.Body) == "" {
		return "", invalid("IssueComment", "body", "body can't be blank")
	}
	if len([]rune(in.Body)) > maxComment {
		return "", invalid("IssueComment", "body", "body is too long (maximum is 65536 characters)")
	}
	return in.Body, nil
}

func createComment(c *call) error {
	p, err := c.pull()
	if err != nil {
		return err
	}
	body, err := c.commentBody()
	if err != nil {
		return err
	}
	now := c.now()
	cm := &comment{ID: c.store.newID(), Number: p.Number, Author: c.me.ID, Body: body, Created: now, Updated: now}
	c.store.comments[cm.ID] = cm
	c.store.put("comment", cm.ID, cm)
	c.sendComment(p, cm, c.me, "created", nil)
	c.header.Set("Location", c.commentView(cm)["url"].(string))
	return c.reply(http.StatusCreated, c.commentView(cm))
}

func (c *call) comment() (*comment, error) {
	id, err := c.id("id")
	if err != nil {
		return nil, err
	}
	cm, ok := c.store.comments[id]
	if !ok {
		return nil, notFound
	}
	return cm, nil
}

func getComment(c *call) error {
	cm, err := c.comment()
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, c.commentView(cm))
}

// mine is the comment, if the caller may change it: as on GitHub its author
// may, and everybody who may write.
func (c *call) mine() (*comment, error) {
	cm, err := c.comment()
	if err != nil {
		return nil, err
	}
	if cm.Author != c.me.ID && !c.me.can(RoleWrite) {
		return nil, fail(http.StatusForbidden, "Must have write rights to Repository.")
	}
	return cm, nil
}

func editComment(c *call) error {
	cm, err := c.mine()
	if err != nil {
		return err
	}
	body, err := c.commentBody()
	if err != nil {
		return err
	}
	from := cm.Body
	if len(cm.Edits) == 0 {
		cm.Edits = append(cm.Edits, commentEdit{c.store.newID(), cm.Author, cm.Created})
	}
	cm.Edits = append(cm.Edits, commentEdit{c.store.newID(), c.me.ID, c.now()})
	cm.Body, cm.Updated = body, c.now()
	c.store.put("comment", cm.ID, cm)
	c.sendComment(c.store.pulls[cm.Number], cm, c.me, "edited", obj{"changes": obj{"body": obj{"from": from}}})
	return c.reply(http.StatusOK, c.commentView(cm))
}

func deleteComment(c *call) error {
	cm, err := c.mine()
	if err != nil {
		return err
	}
	delete(c.store.comments, cm.ID)
	c.store.drop("comment", cm.ID)
	c.sendComment(c.store.pulls[cm.Number], cm, c.me, "deleted", nil)
	return c.reply(http.StatusNoContent, nil)
}

func (h *Hub) reviewView(r *review) obj {
	html := fmt.Sprintf("%s/pull/%d#pullrequestreview-%d", h.htmlURL(), r.Number, r.ID)
	api := fmt.Sprintf("%s/pulls/%d", h.repoURL(), r.Number)
	return obj{
		"id": r.ID, "node_id": nodeID("PullRequestReview", r.ID), "user": h.userByID(r.Author), "body": r.Body, "state": r.State,
		"html_url": html, "pull_request_url": api, "commit_id": r.CommitID, "submitted_at": stamp(r.Submitted),
		"author_association": h.association(h.people.byID(r.Author)),
		"_links":             obj{"html": obj{"href": html}, "pull_request": obj{"href": api}},
	}
}

func listReviews(c *call) error {
	p, err := c.pull()
	if err != nil {
		return err
	}
	return list(c, c.store.reviewsOf(p.Number), shown(c.reviewView))
}

var reviewStates = map[string]string{"APPROVE": "APPROVED", "REQUEST_CHANGES": "CHANGES_REQUESTED", "COMMENT": "COMMENTED"}

func createReview(c *call) error {
	p, err := c.pull()
	if err != nil {
		return err
	}
	var in struct {
		Body, Event string
		CommitID    string `json:"commit_id"`
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	if err := c.mayReview(p, in.Event, in.Body); err != nil {
		return err
	}
	if in.CommitID == "" {
		in.CommitID = p.HeadSHA
	}
	if !shaPattern.MatchString(in.CommitID) || !c.git.isAncestor(c.r.Context(), in.CommitID, p.HeadSHA) {
		return invalid("PullRequestReview", "commit_id", "commit_id is not part of the pull request")
	}
	r := &review{ID: c.store.newID(), Number: p.Number, Author: c.me.ID, Body: in.Body, State: reviewStates[in.Event],
		CommitID: in.CommitID, Submitted: c.now()}
	c.store.reviews[r.ID] = r
	c.store.put("review", r.ID, r)
	p.Reviewers, p.Updated = dropID(p.Reviewers, c.me.ID), c.now()
	c.store.put("pull", p.Number, p)
	c.sendReview(p, r, c.me, "submitted")
	return c.reply(http.StatusOK, c.reviewView(r))
}

func (c *call) mayReview(p *pull, event, body string) error {
	switch {
	case reviewStates[event] == "":
		return invalid("PullRequestReview", "event", "event must be APPROVE, REQUEST_CHANGES or COMMENT")
	case event != "APPROVE" && body == "":
		return invalid("PullRequestReview", "body", "body can't be blank")
	case event == "APPROVE" && p.Author == c.me.ID && !c.cfg.SelfReview:
		return fail(http.StatusUnprocessableEntity, "Review Can not approve your own pull request")
	case event == "REQUEST_CHANGES" && p.Author == c.me.ID && !c.cfg.SelfReview:
		return fail(http.StatusUnprocessableEntity, "Review Can not request changes on your own pull request")
	}
	return nil
}

func (c *call) review() (*pull, *review, error) {
	p, err := c.pull()
	if err != nil {
		return nil, nil, err
	}
	id, err := c.id("id")
	if err != nil {
		return nil, nil, err
	}
	r, ok := c.store.reviews[id]
	if !ok || r.Number != p.Number {
		return nil, nil, notFound
	}
	return p, r, nil
}

func getReview(c *call) error {
	_, r, err := c.review()
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, c.reviewView(r))
}

func dismissReview(c *call) error {
	p, r, err := c.review()
	if err != nil {
		return err
	}
	var in struct{ Message string }
	if err := c.decode(&in); err != nil {
		return err
	}
	if in.Message == "" {
		return invalid("PullRequestReview", "message", "message can't be blank")
	}
	if r.State != "APPROVED" && r.State != "CHANGES_REQUESTED" {
		return fail(http.StatusUnprocessableEntity, "Can not dismiss a %s pull request review", strings.ToLower(r.State))
	}
	r.State = "DISMISSED"
	c.store.put("review", r.ID, r)
	c.sendReview(p, r, c.me, "dismissed")
	return c.reply(http.StatusOK, c.reviewView(r))
}
