package hub

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
)

const (
	graphPage  = 50
	graphFirst = 20
)

// graphQL answers two queries, known by their names: the comments of a pull
// request with who edited them, and when its base was changed last. Any other is
// an error, as GitHub says one.
func graphQL(c *call) error {
	var in struct {
		Query     string
		Variables struct {
			Owner, Name string
			Number      int64
			Before      string
		}
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	base := strings.HasPrefix(in.Query, "query TidegateBase(")
	if !base && !strings.HasPrefix(in.Query, "query TidegateComments(") {
		return c.graphError("UNSUPPORTED", "This pocket GitHub answers the queries TidegateComments and TidegateBase only.")
	}
	v := in.Variables
	p, ok := c.store.pulls[v.Number]
	if !ok || !strings.EqualFold(v.Owner, c.cfg.Owner) || !strings.EqualFold(v.Name, c.cfg.Repo) {
		return c.graphError("NOT_FOUND", "Could not resolve to a PullRequest with the number of "+strconv.FormatInt(v.Number, 10)+".")
	}
	if base {
		return c.graphBase(p)
	}
	all := c.store.commentsOf(p.Number)
	oldest := c.graphComments(all[:min(len(all), graphFirst)])
	if before, err := strconv.ParseInt(v.Before, 10, 64); err == nil { // no cursor is the end
		all = slices.DeleteFunc(all, func(cm *comment) bool { return cm.ID >= before })
	}
	first := max(0, len(all)-graphPage)
	page := obj{"hasPreviousPage": first > 0, "startCursor": nil}
	if len(all) > 0 {
		page["startCursor"] = strconv.FormatInt(all[first].ID, 10)
	}
	return c.reply(http.StatusOK, obj{"data": obj{"repository": obj{"databaseId": c.cfg.RepoID,
		"pullRequest": obj{"first": obj{"nodes": oldest}, "comments": obj{"pageInfo": page, "nodes": c.graphComments(all[first:])}}}}})
}

func (c *call) graphBase(p *pull) error {
	items := []obj{}
	if p.Rebased != nil {
		items = append(items, obj{"__typename": p.RebasedBy, "createdAt": stamp(*p.Rebased)})
	}
	return c.reply(http.StatusOK, obj{"data": obj{"repository": obj{"databaseId": c.cfg.RepoID,
		"pullRequest": obj{"timelineItems": obj{"nodes": items}}}}})
}

func (h *Hub) graphComments(all []*comment) []obj {
	list := []obj{}
	for _, cm := range all {
		list = append(list, h.graphComment(cm))
	}
	return list
}

func (c *call) graphError(kind, message string) error {
	return c.reply(http.StatusOK, obj{"data": nil, "errors": []obj{{"type": kind, "message": message}}})
}

func (h *Hub) graphComment(cm *comment) obj {
	edits := []obj{}
	for _, e := range slices.Backward(cm.Edits) {
		edits = append(edits, obj{"id": nodeID("UserContentEdit", e.ID), "editedAt": stamp(e.At), "editor": h.graphActor(e.By)})
	}
	o := obj{"fullDatabaseId": strconv.FormatInt(cm.ID, 10), "body": cm.Body, "createdAt": stamp(cm.Created), "lastEditedAt": nil,
		"includesCreatedEdit": len(edits) > 0, "author": h.graphActor(cm.Author), "editor": nil,
		"newest": obj{"nodes": edits[:min(len(edits), 25)]}, "oldest": obj{"nodes": edits[max(0, len(edits)-25):]}}
	if len(edits) > 0 {
		o["lastEditedAt"], o["editor"] = edits[0]["editedAt"], edits[0]["editor"]
	}
	return o
}

// graphActor is somebody in GraphQL's words, where a bot's login has no
// "[bot]".
func (h *Hub) graphActor(id int64) any {
	u := h.people.byID(id)
	if u.ID == 0 {
		return nil
	}
	kind := "User"
	if u.Kind == "Bot" {
		kind = "Bot"
	}
	return obj{"__typename": kind, "login": strings.TrimSuffix(u.Login, "[bot]"), "databaseId": u.ID}
}
