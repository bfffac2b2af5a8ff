package forge

import (
	"context"
	"slices"
	"strings"

	"github.com/google/go-github/v60/github"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/workflows"
)

const (
	marker          = "<!-- tidegate:comment -->"
	maxComment      = 65_536
	maxCommentPages = 30
)

// Publish makes the check runs and the one comment say what r says.
func (f *Forge) Publish(ctx context.Context, ref workflows.Ref, r workflows.Report) error {
	if err := f.serve(ctx, ref.Repo); err != nil {
		return err
	}
	if err := validCommit(r.Head); err != nil {
		return err
	}
	done, err := f.alone(ctx, ref.Number)
	if err != nil {
		return err
	}
	defer done()
	runs, err := f.runs(ctx, r.Head)
	if err != nil {
		return err
	}
	for _, want := range []run{planRun(r), approvedRun(r)} {
		if err := f.ensureRun(ctx, want, runs); err != nil {
			return err
		}
	}
	return f.ensureComment(ctx, ref.Number, renderComment(runs))
}

// PublishHeld shows a held operation in its check run, on the head that was
// merged, and in the comment. A closed one is closed in both.
func (f *Forge) PublishHeld(ctx context.Context, ref workflows.Ref, h access.Held) error {
	if err := f.serve(ctx, ref.Repo); err != nil {
		return err
	}
	if h.Number < 1 || len(h.Digest) < 8 || len(strings.Fields(h.ID)) != 1 {
		return access.Errorf(access.CodeInvalid, "Got a held operation without number, id or digest; it can't be shown.")
	}
	p, err := f.pull(ctx, ref.Number)
	if err != nil {
		return err
	}
	done, err := f.alone(ctx, ref.Number)
	if err != nil {
		return err
	}
	defer done()
	runs, err := f.runs(ctx, p.GetHead().GetSHA())
	if err != nil {
		return err
	}
	if err := f.ensureRun(ctx, holdRun(p.GetHead().GetSHA(), h), runs); err != nil {
		return err
	}
	return f.ensureComment(ctx, ref.Number, renderComment(runs))
}

// renderComment draws the comment from our check runs: the report that the plan's
// run holds, and the operations that wait.
func renderComment(runs map[string]*github.CheckRun) string {
	report := strings.TrimSpace(runs[planCheck].GetOutput().GetText())
	if report == "" {
		report = "## Tidegate"
	}
	parts := []string{marker}
	if holds := renderHolds(heldLines(runs)); holds != "" {
		parts = append(parts, holds)
	}
	body := strings.Join(append(parts, report), "\n\n")
	if len(body) > maxComment {
		return shortened(body, maxComment)
	}
	return body
}

// ensureComment keeps exactly one comment of ours with the marker. It is edited
// only if it says something else, which also repairs what others edited.
func (f *Forge) ensureComment(ctx context.Context, number int, body string) error {
	mine, err := f.ownComments(ctx, number)
	if err != nil {
		return err
	}
	if len(mine) == 0 {
		_, _, err := f.gh.Issues.CreateComment(ctx, f.cfg.Owner, f.cfg.Repo, number, &github.IssueComment{Body: &body})
		if err != nil {
			return failed("write comment", err)
		}
		return nil
	}
	if normal(mine[0].GetBody()) != normal(body) {
		if _, _, err := f.gh.Issues.EditComment(ctx, f.cfg.Owner, f.cfg.Repo, mine[0].GetID(), &github.IssueComment{Body: &body}); err != nil {
			return failed("edit comment", err)
		}
	}
	for _, extra := range mine[1:] {
		if _, err := f.gh.Issues.DeleteComment(ctx, f.cfg.Owner, f.cfg.Repo, extra.GetID()); err != nil && !isMissing(err) {
			return failed("delete second comment", err)
		}
	}
	return nil
}

func isMarked(body string) bool { return strings.HasPrefix(strings.TrimSpace(body), marker) }

func normal(s string) string { return strings.TrimSpace(strings.ReplaceAll(s, "\r\n", "\n")) }

// ownComments are ours with the marker, the oldest first. If there is none, but a
// comment of our bot that was edited, somebody took the marker away.
func (f *Forge) ownComments(ctx context.Context, number int) ([]*github.IssueComment, error) {
	me, err := f.Self(ctx)
	if err != nil {
		return nil, err
	}
	all, err := f.comments(ctx, number)
	crowded := access.CodeOf(err) == access.CodeTooLarge
	if err != nil && !crowded {
		return nil, err
	}
	var marked, edited []*github.IssueComment
	for _, c := range all {
		switch {
		case c.GetUser().GetID() != me.ID:
		case isMarked(c.GetBody()):
			marked = append(marked, c)
		case me.Bot && !isNew(c):
			edited = append(edited, c)
		}
	}
	if len(marked) == 0 {
		marked = edited
	}
	if len(marked) == 0 && crowded { // it may be among the others: each writing would make one more
		return nil, err
	}
	slices.SortFunc(marked, func(a, b *github.IssueComment) int { return int(min(1, max(-1, a.GetID()-b.GetID()))) })
	return slices.CompactFunc(marked, func(a, b *github.IssueComment) bool { return a.GetID() == b.GetID() }), nil
}

func (f *Forge) comments(ctx context.Context, number int) ([]*github.IssueComment, error) {
	var all []*github.IssueComment
	err := everyPage(maxCommentPages, func(page github.ListOptions) (*github.Response, error) {
		list, res, err := f.gh.Issues.ListComments(ctx, f.cfg.Owner, f.cfg.Repo, number, &github.IssueListCommentsOptions{ListOptions: page})
		if err != nil {
			return nil, failed("list comments", err)
		}
		all = append(all, list...)
		return res, nil
	})
	return all, err
}

// isNew reports a comment that was never edited.
func isNew(c *github.IssueComment) bool {
	return !c.GetCreatedAt().IsZero() && c.GetCreatedAt().Equal(c.GetUpdatedAt())
}
