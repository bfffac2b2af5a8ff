package hub

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
)

// mergeState is GitHub's mergeable_state.
type mergeState string

const (
	stateClean   mergeState = "clean"
	stateDirty   mergeState = "dirty"
	stateBlocked mergeState = "blocked"
	stateDraft   mergeState = "draft"
	stateUnknown mergeState = "unknown"
)

func (s mergeState) mergeable() any {
	if s == stateUnknown {
		return nil
	}
	return s != stateDirty
}

func (h *Hub) mergeState(ctx context.Context, p *pull) mergeState {
	if p.State != "open" {
		return stateUnknown
	}
	_, err := h.git.mergeTree(ctx, p.BaseSHA, p.HeadSHA)
	switch {
	case errors.Is(err, errConflict):
		return stateDirty
	case err != nil:
		return stateUnknown
	case p.Draft:
		return stateDraft
	case h.missing(p) != "":
		return stateBlocked
	}
	return stateClean
}

// missing says what protection still asks for, or nothing.
func (h *Hub) missing(p *pull) string {
	if p.Base != h.cfg.Branch {
		return ""
	}
	latest := map[int64]string{}
	for _, r := range h.store.reviewsOf(p.Number) {
		if r.State != "COMMENTED" && h.people.byID(r.Author).can(RoleWrite) && r.Author != p.Author {
			latest[r.Author] = r.State
		}
	}
	approvals := 0
	for _, state := range latest {
		switch state {
		case "CHANGES_REQUESTED":
			return "Changes have been requested."
		case "APPROVED":
			approvals++
		}
	}
	if approvals < h.cfg.RequireApprovals {
		return fmt.Sprintf("At least %d approving review is required by reviewers with write access.", h.cfg.RequireApprovals)
	}
	for _, name := range h.cfg.RequireChecks {
		if !h.checkPassed(p.HeadSHA, name) {
			return fmt.Sprintf("Required status check %q is expected.", name)
		}
	}
	return ""
}

func mergePull(c *call) error {
	p, err := c.pull()
	if err != nil {
		return err
	}
	in := struct {
		SHA           string
		CommitTitle   string `json:"commit_title"`
		CommitMessage string `json:"commit_message"`
		MergeMethod   string `json:"merge_method"`
	}{MergeMethod: "merge"}
	if err := c.decode(&in); err != nil {
		return err
	}
	if in.SHA != "" && in.SHA != p.HeadSHA {
		return fail(http.StatusConflict, "Head branch was modified. Review and try the merge again.")
	}
	if p.State != "open" || p.Draft {
		return fail(http.StatusMethodNotAllowed, "Pull Request is not mergeable")
	}
	if say := c.missing(p); say != "" && !c.me.can(RoleAdmin) {
		return fail(http.StatusMethodNotAllowed, "%s", say)
	}
	plan := mergePlan{pull: p, title: in.CommitTitle, message: in.CommitMessage,
		by: person{Name: c.me.Login, Email: c.me.Email, When: c.now()}}
	ctx := c.r.Context()
	sha, err := c.buildMerge(ctx, in.MergeMethod, plan)
	if errors.Is(err, errConflict) {
		return fail(http.StatusMethodNotAllowed, "Pull Request is not mergeable")
	}
	if err != nil {
		return err
	}
	if err := c.git.setRef(ctx, "refs/heads/"+p.Base, sha, p.BaseSHA); err != nil {
		return fail(http.StatusConflict, "Base branch was modified. Review and try the merge again.")
	}
	old := p.BaseSHA
	c.setMerged(ctx, p, c.me, sha)
	c.refMoved(context.WithoutCancel(ctx), move{ref: "refs/heads/" + p.Base, old: old, new: sha, merge: true}, c.me)
	return c.reply(http.StatusOK, obj{"sha": sha, "merged": true, "message": "Pull Request successfully merged"})
}

type mergePlan struct {
	pull           *pull
	title, message string
	by             person
}

func (h *Hub) buildMerge(ctx context.Context, method string, m mergePlan) (string, error) {
	switch method {
	case "merge", "squash":
		return h.mergeCommit(ctx, method == "squash", m)
	case "rebase":
		return h.git.rebase(ctx, m)
	}
	return "", invalid("PullRequest", "merge_method", "merge_method must be merge, squash or rebase")
}

func (h *Hub) mergeCommit(ctx context.Context, squash bool, m mergePlan) (string, error) {
	p := m.pull
	tree, err := h.git.mergeTree(ctx, p.BaseSHA, p.HeadSHA)
	if err != nil {
		return "", err
	}
	title, message, parents := m.title, m.message, []string{p.BaseSHA, p.HeadSHA}
	author := m.by
	if squash {
		parents = parents[:1]
		setDefault(&title, fmt.Sprintf("%s (#%d)", p.Title, p.Number))
		who := h.people.byID(p.Author)
		author = person{Name: who.Login, Email: who.Email, When: m.by.When}
	} else {
		setDefault(&title, fmt.Sprintf("Merge pull request #%d from %s/%s", p.Number, h.cfg.Owner, p.Head))
		setDefault(&message, p.Title)
	}
	return h.git.writeCommit(ctx, newCommit{Tree: tree, Parents: parents, Author: author,
		Committer: person{Name: "GitHub", Email: "noreply@github.com", When: m.by.When},
		Message:   strings.TrimSpace(title + "\n\n" + message)})
}

// rebase picks the commits onto the base in a worktree that lives for the call.
func (g *repository) rebase(ctx context.Context, m mergePlan) (string, error) {
	dir, err := os.MkdirTemp(g.dir, "rebase-")
	if err != nil {
		return "", fmt.Errorf("rebase: %w", err)
	}
	defer func() {
		_, _ = g.run(context.WithoutCancel(ctx), gitCall{args: []string{"worktree", "remove", "--force", dir}})
		_ = os.RemoveAll(dir) // when git did not know it
	}()
	if _, err := g.run(ctx, gitCall{args: []string{"worktree", "add", "--quiet", "--detach", dir, m.pull.BaseSHA}}); err != nil {
		return "", err
	}
	pick := gitCall{args: []string{"-C", dir, "cherry-pick", "--allow-empty", m.pull.BaseSHA + ".." + m.pull.HeadSHA}, env: m.by.env("COMMITTER")}
	if _, err := g.run(ctx, pick); err != nil {
		return "", errConflict // merge commits among them cannot be picked either
	}
	return g.line(ctx, "-C", dir, "rev-parse", "HEAD")
}
