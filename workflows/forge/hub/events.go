package hub

import (
	"context"
	"strings"
)

func (h *Hub) sendPull(ctx context.Context, p *pull, by User, action string, more obj) {
	full, err := h.pullFull(ctx, p)
	if err != nil {
		h.log.Warn("show pull request", "number", p.Number, "error", err)
		full = h.pullSimple(p) // its branches share no history any more
		full["merged"] = p.Merged != nil
	}
	payload := obj{"number": p.Number, "pull_request": full}
	for k, v := range more {
		payload[k] = v
	}
	h.emit("pull_request", action, payload, by)
}

func (h *Hub) sendPush(ctx context.Context, m move, by User) {
	before, after, commits := m.old, m.new, []obj{}
	if before == "" {
		before = zeroSHA
	}
	if after == "" {
		after = zeroSHA
	}
	var head any
	if m.new != "" && strings.HasPrefix(m.ref, "refs/heads/") {
		commits, head = h.pushCommits(ctx, m)
	}
	h.emit("push", "", obj{
		"ref": m.ref, "before": before, "after": after, "created": m.old == "", "deleted": m.new == "",
		"forced": m.old != "" && m.new != "" && !h.git.isAncestor(ctx, m.old, m.new), "base_ref": nil,
		"compare": h.htmlURL() + "/compare/" + before[:12] + "..." + after[:12], "commits": commits, "head_commit": head,
		"pusher": obj{"name": by.Login, "email": by.Email},
	}, by)
}

func (h *Hub) pushCommits(ctx context.Context, m move) ([]obj, any) {
	from := m.old
	if from == "" {
		if main, err := h.git.resolve(ctx, h.cfg.Branch); err == nil {
			from = main
		}
	}
	tip, err := h.git.commit(ctx, m.new)
	if err != nil {
		return []obj{}, nil
	}
	out := []obj{}
	if from != "" {
		commits, err := h.git.log(ctx, from, m.new)
		if err != nil {
			h.log.Warn("list pushed commits", "ref", m.ref, "error", err)
		}
		for _, c := range commits {
			out = append(out, h.pushedCommit(ctx, c))
		}
	}
	return out, h.pushedCommit(ctx, tip)
}

func (h *Hub) pushedCommit(ctx context.Context, c gitCommit) obj {
	o := obj{"id": c.SHA, "tree_id": c.Tree, "distinct": true, "message": c.Message, "timestamp": stamp(c.Committer.When),
		"url": h.htmlURL() + "/commit/" + c.SHA, "author": h.pushedPerson(c.Author), "committer": h.pushedPerson(c.Committer)}
	added, removed, modified := []string{}, []string{}, []string{}
	if len(c.Parents) > 0 {
		files, _ := h.git.rawDiff(ctx, c.Parents[0], c.SHA) // a courtesy of the payload
		for _, f := range files {
			switch f.Status {
			case "added", "copied":
				added = append(added, f.Path)
			case "removed":
				removed = append(removed, f.Path)
			case "renamed":
				added, removed = append(added, f.Path), append(removed, f.Previous)
			default:
				modified = append(modified, f.Path)
			}
		}
	}
	o["added"], o["removed"], o["modified"] = added, removed, modified
	return o
}

func (h *Hub) pushedPerson(p person) obj {
	o := obj{"name": p.Name, "email": p.Email}
	if u, ok := h.people.byEmail(p.Email); ok {
		o["username"] = u.Login
	}
	return o
}

func (h *Hub) sendReview(p *pull, r *review, by User, action string) {
	v := h.reviewView(r)
	v["state"] = strings.ToLower(r.State)
	h.emit("pull_request_review", action, obj{"review": v, "pull_request": h.pullSimple(p)}, by)
}

func (h *Hub) sendComment(p *pull, cm *comment, by User, action string, more obj) {
	payload := obj{"issue": h.issueView(p), "comment": h.commentView(cm)}
	for k, v := range more {
		payload[k] = v
	}
	h.emit("issue_comment", action, payload, by)
}
