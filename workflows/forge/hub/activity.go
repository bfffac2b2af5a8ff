package hub

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

const keptActivity = 10_000

// keepActivity logs a move of a ref with the person who made it, as GitHub
// does: the log stands when a webhook was never delivered.
func (h *Hub) keepActivity(ctx context.Context, m move, by User) {
	if !strings.HasPrefix(m.ref, "refs/heads/") {
		return
	}
	a := &activity{ID: h.store.newID(), Actor: by.ID, Ref: m.ref, Before: orZero(m.old), After: orZero(m.new), When: h.now(),
		Kind: h.activityKind(ctx, m)}
	h.store.activities[a.ID] = a
	h.store.put("activity", a.ID, a)
	if len(h.store.activities) > keptActivity {
		oldest := a.ID
		for id := range h.store.activities {
			oldest = min(oldest, id)
		}
		delete(h.store.activities, oldest)
		h.store.drop("activity", oldest)
	}
}

func orZero(sha string) string {
	if sha == "" {
		return zeroSHA
	}
	return sha
}

func (h *Hub) activityKind(ctx context.Context, m move) string {
	switch {
	case m.merge:
		return "pr_merge"
	case m.old == "":
		return "branch_creation"
	case m.new == "":
		return "branch_deletion"
	case !h.git.isAncestor(ctx, m.old, m.new):
		return "force_push"
	}
	return "push"
}

// listActivity answers with the newest moves first. As on GitHub its pages
// hang together by cursors, not by numbers.
func listActivity(c *call) error {
	q := c.r.URL.Query()
	per, cursor := number(q.Get("per_page"), 30, 100), number(q.Get("after"), 0, 1<<40)
	all := sorted(c.store.activities, func(a *activity) (int64, bool) {
		return a.ID, c.wanted(a, q) && (cursor == 0 || a.ID < int64(cursor))
	})
	slices.Reverse(all)
	if len(all) > per {
		all = all[:per]
		q.Set("after", strconv.FormatInt(all[per-1].ID, 10))
		next := url.URL{Path: c.r.URL.Path, RawQuery: q.Encode()}
		c.header.Set("Link", fmt.Sprintf(`<%s%s>; rel="next"`, c.apiBase(), next.String()))
	}
	out := []obj{}
	for _, a := range all {
		out = append(out, c.activityView(a))
	}
	return c.reply(http.StatusOK, out)
}

func (c *call) wanted(a *activity, q url.Values) bool {
	ref, kind, actor := q.Get("ref"), q.Get("activity_type"), q.Get("actor")
	return (ref == "" || a.Ref == ref || a.Ref == "refs/heads/"+ref) && (kind == "" || a.Kind == kind) &&
		(actor == "" || strings.EqualFold(c.people.byID(a.Actor).Login, actor))
}

func (h *Hub) activityView(a *activity) obj {
	return obj{"id": a.ID, "node_id": nodeID("Push", a.ID), "before": a.Before, "after": a.After, "ref": a.Ref,
		"timestamp": stamp(a.When), "activity_type": a.Kind, "actor": h.userByID(a.Actor)}
}
