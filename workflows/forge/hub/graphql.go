package hub

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
)

const graphPage = 50

// graphQL answers one query, known by its name: the comments of a pull request
// with who edited them. Any other is an error, as GitHub says one.
func graphQL(c *call) error {
	var in struct {
		Query     string
		Variables struct {
			Owner, Name string
			Number      int64
			After       string
		}
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	if !strings.HasPrefix(in.Query, "query TidegateComments(") {
		return c.graphError("UNSUPPORTED", "This pocket GitHub answers the query TidegateComments only.")
	}
	v := in.Variables
	p, ok := c.store.pulls[v.Number]
	if !ok || !strings.EqualFold(v.Owner, c.cfg.Owner) || !strings.EqualFold(v.Name, c.cfg.Repo) {
		return c.graphError("NOT_FOUND", "Could not resolve to a PullRequest with the number of "+strconv.FormatInt(v.Number, 10)+".")
	}
	from, _ := strconv.ParseInt(v.After, 10, 64) // no cursor is the beginning
	all := slices.DeleteFunc(c.store.commentsOf(p.Number), func(cm *comment) bool { return cm.ID <= from })
	page, list := obj{"hasNextPage": len(all) > graphPage, "endCursor": nil}, []obj{}
	for _, cm := range all[:min(len(all), graphPage)] {
		list, page["endCursor"] = append(list, c.graphComment(cm)), strconv.FormatInt(cm.ID, 10)
	}
	return c.reply(http.StatusOK, obj{"data": obj{"repository": obj{"databaseId": c.cfg.RepoID,
		"pullRequest": obj{"comments": obj{"pageInfo": page, "nodes": list}}}}})
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
