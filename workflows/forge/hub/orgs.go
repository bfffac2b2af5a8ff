package hub

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

type installationToken struct {
	user    User
	expires time.Time
}

func (h *Hub) repoRoutes() []route {
	return []route{
		{"GET /repos/{owner}/{repo}", RoleRead, getRepo},
		{"GET /repositories/{repo_id}", RoleRead, getRepo},
		{"GET /repos/{owner}/{repo}/activity", RoleRead, listActivity},
		{"GET /repos/{owner}/{repo}/collaborators/{login}/permission", RoleRead, getPermission},
		{"GET /user", RoleRead, func(c *call) error { return c.reply(http.StatusOK, c.fullUser(c.me)) }},
		{"GET /user/{user_id}", RoleRead, getUser},
		{"GET /users/{login}", RoleRead, getUser},
		{"GET /rate_limit", roleNone, getRateLimit},
	}
}

func (h *Hub) orgRoutes() []route {
	var out []route
	for _, at := range []string{"/orgs/{org}/teams/{slug}", "/organizations/{org_id}/team/{team_id}", "/teams/{team_id}"} {
		out = append(out,
			route{"GET " + at, RoleRead, getTeam},
			route{"GET " + at + "/members", RoleRead, listMembers},
			route{"GET " + at + "/memberships/{login}", RoleRead, getMembership})
	}
	return append(out, route{"GET /orgs/{org}/teams", RoleRead, listTeams})
}

func (h *Hub) appRoutes() []route {
	return []route{
		{"GET /app", roleNone, getApp},
		{"GET /app/installations/{id}", roleNone, getInstallation},
		{"POST /app/installations/{id}/access_tokens", roleNone, createInstallationToken},
	}
}

func getRepo(c *call) error {
	if id := c.r.PathValue("repo_id"); id != "" && id != strconv.FormatInt(c.cfg.RepoID, 10) {
		return notFound
	}
	return c.reply(http.StatusOK, c.fullRepo(c.me))
}

func getUser(c *call) error {
	u, ok := c.people.byLogin(c.r.PathValue("login"))
	if c.r.PathValue("login") == "" {
		id, err := c.id("user_id")
		if err != nil {
			return err
		}
		u = c.people.byID(id)
		ok = u.ID == id
	}
	if !ok {
		return notFound
	}
	return c.reply(http.StatusOK, c.fullUser(u))
}

func getPermission(c *call) error {
	u, ok := c.people.byLogin(c.r.PathValue("login"))
	if !ok {
		return notFound
	}
	user := c.userView(u)
	user["permissions"], user["role_name"] = permissions(u), string(u.Role)
	return c.reply(http.StatusOK, obj{"permission": string(u.Role), "role_name": string(u.Role), "user": user})
}

func getRateLimit(c *call) error {
	r := obj{"limit": rateBudget, "remaining": rateBudget, "used": 0, "reset": c.cfg.Now().Add(time.Hour).Unix(), "resource": "core"}
	return c.reply(http.StatusOK, obj{"resources": obj{"core": r, "search": r}, "rate": r})
}

func (c *call) team() (*Team, error) {
	t, ok := c.people.team(func(t Team) bool {
		if slug := c.r.PathValue("slug"); slug != "" {
			return strings.EqualFold(t.Slug, slug)
		}
		return strconv.FormatInt(t.ID, 10) == c.r.PathValue("team_id")
	})
	if !ok {
		return nil, notFound
	}
	return t, nil
}

func getTeam(c *call) error {
	t, err := c.team()
	if err != nil {
		return err
	}
	o, created := c.teamSimple(t), stamp(c.store.meta.Created)
	org := c.orgView()
	o["members_count"], o["repos_count"], o["created_at"], o["updated_at"] = len(t.Members), 1, created, created
	o["organization"] = org
	return c.reply(http.StatusOK, o)
}

func (h *Hub) orgView() obj {
	api, created := h.apiBase()+"/orgs/"+h.cfg.Owner, stamp(h.store.meta.Created)
	return obj{"login": h.cfg.Owner, "id": h.cfg.OwnerID, "node_id": nodeID("Organization", h.cfg.OwnerID), "url": api,
		"repos_url": api + "/repos", "events_url": api + "/events", "hooks_url": api + "/hooks", "issues_url": api + "/issues",
		"members_url": api + "/members{/member}", "public_members_url": api + "/public_members{/member}",
		"avatar_url": h.htmlBase() + "/avatars/o", "description": nil, "html_url": h.htmlBase() + "/" + h.cfg.Owner,
		"has_organization_projects": false, "has_repository_projects": false, "public_repos": 0, "public_gists": 0,
		"followers": 0, "following": 0, "type": "Organization", "created_at": created, "updated_at": created, "archived_at": nil}
}

func listTeams(c *call) error {
	return list(c, c.people.teams, func(t Team) (obj, error) { return c.teamSimple(&t), nil })
}

func listMembers(c *call) error {
	t, err := c.team()
	if err != nil {
		return err
	}
	var users []User
	for _, login := range t.Members {
		if u, ok := c.people.byLogin(login); ok {
			users = append(users, u)
		}
	}
	return list(c, users, shown(c.userView))
}

func getMembership(c *call) error {
	t, err := c.team()
	if err != nil {
		return err
	}
	login, state := c.r.PathValue("login"), "active"
	switch {
	case hasLogin(t.Members, login):
	case hasLogin(t.Pending, login):
		state = "pending"
	default:
		return notFound
	}
	return c.reply(http.StatusOK, obj{"state": state, "role": "member",
		"url": fmt.Sprintf("%s/organizations/%d/team/%d/memberships/%s", c.apiBase(), c.cfg.OwnerID, t.ID, login)})
}

// SetMember adds somebody to a team or takes them out, and sends the event.
func (h *Hub) SetMember(slug, login string, member bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	t, ok := h.people.team(func(t Team) bool { return t.Slug == slug })
	u, known := h.people.byLogin(login)
	if !ok || !known {
		return fmt.Errorf("set member: got team %q and login %q, want both to exist", slug, login)
	}
	other := func(l string) bool { return strings.EqualFold(l, login) }
	t.Members, t.Pending = slices.DeleteFunc(t.Members, other), slices.DeleteFunc(t.Pending, other)
	action := "removed"
	if member {
		t.Members, action = append(t.Members, login), "added"
	}
	h.emit("membership", action, obj{"scope": "team", "member": h.userView(u), "team": h.teamSimple(t)}, u)
	return h.commit()
}

var (
	appEvents      = []string{"pull_request", "pull_request_review", "push", "issue_comment", "check_run", "membership"}
	appPermissions = obj{"checks": "write", "contents": "write", "pull_requests": "write", "members": "read", "metadata": "read"}
)

func (h *Hub) appView() obj {
	created := stamp(h.store.meta.Created)
	return obj{"id": h.cfg.App.ID, "slug": h.cfg.App.Slug, "node_id": nodeID("App", h.cfg.App.ID), "owner": h.userView(h.owner()),
		"name": h.cfg.App.Slug, "description": nil, "external_url": h.htmlBase(), "html_url": h.htmlBase() + "/apps/" + h.cfg.App.Slug,
		"created_at": created, "updated_at": created, "events": appEvents,
		"permissions": appPermissions}
}
