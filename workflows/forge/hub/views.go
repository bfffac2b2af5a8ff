package hub

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/url"
	"time"
)

// The JSON shapes of GitHub that many answers share.

func (h *Hub) htmlBase() string {
	if h.base == "" {
		return "http://localhost"
	}
	return h.base
}
func (h *Hub) apiBase() string { return h.htmlBase() + "/api/v3" }
func (h *Hub) htmlURL() string { return h.htmlBase() + "/" + h.cfg.Owner + "/" + h.cfg.Repo }
func (h *Hub) repoURL() string { return h.apiBase() + "/repos/" + h.cfg.Owner + "/" + h.cfg.Repo }

func nodeID(kind string, id any) string {
	return base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%s:%v", kind, id))
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func stampOrNil(t *time.Time) any {
	if t == nil {
		return nil
	}
	return stamp(*t)
}

func orNil(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func (h *Hub) userView(u User) obj {
	api := h.apiBase() + "/users/" + url.PathEscape(u.Login)
	return obj{
		"login": u.Login, "id": u.ID, "node_id": nodeID("User", u.ID),
		"avatar_url": fmt.Sprintf("%s/avatars/u/%d", h.htmlBase(), u.ID), "gravatar_id": "",
		"url": api, "html_url": h.htmlBase() + "/" + url.PathEscape(u.Login),
		"followers_url": api + "/followers", "following_url": api + "/following{/other_user}",
		"gists_url": api + "/gists{/gist_id}", "starred_url": api + "/starred{/owner}{/repo}",
		"subscriptions_url": api + "/subscriptions", "organizations_url": api + "/orgs",
		"repos_url": api + "/repos", "events_url": api + "/events{/privacy}",
		"received_events_url": api + "/received_events", "type": u.Kind, "site_admin": false,
	}
}

func (h *Hub) userByID(id int64) obj { return h.userView(h.people.byID(id)) }

func (h *Hub) owner() User {
	return User{Login: h.cfg.Owner, ID: h.cfg.OwnerID, Kind: "Organization"}
}

// fullUser is what /user and /users/{username} answer.
func (h *Hub) fullUser(u User) obj {
	o := h.userView(u)
	for _, k := range []string{"name", "company", "location", "hireable", "bio"} {
		o[k] = nil
	}
	o["name"], o["blog"], o["email"] = u.Login, "", orNil(u.Email)
	o["public_repos"], o["public_gists"], o["followers"], o["following"] = 0, 0, 0, 0
	o["created_at"], o["updated_at"] = stamp(h.store.meta.Created), stamp(h.store.meta.Created)
	return o
}

// repoLinks are the URL templates of a repository: key to path.
var repoLinks = map[string]string{
	"archive": "{archive_format}{/ref}", "assignees": "assignees{/user}", "blobs": "git/blobs{/sha}",
	"branches": "branches{/branch}", "collaborators": "collaborators{/collaborator}", "comments": "comments{/number}",
	"commits": "commits{/sha}", "compare": "compare/{base}...{head}", "contents": "contents/{+path}",
	"contributors": "contributors", "deployments": "deployments", "downloads": "downloads", "events": "events",
	"forks": "forks", "git_commits": "git/commits{/sha}", "git_refs": "git/refs{/sha}", "git_tags": "git/tags{/sha}",
	"hooks": "hooks", "issue_comment": "issues/comments{/number}", "issue_events": "issues/events{/number}",
	"issues": "issues{/number}", "keys": "keys{/key_id}", "labels": "labels{/name}", "languages": "languages",
	"merges": "merges", "milestones": "milestones{/number}", "notifications": "notifications{?since,all,participating}",
	"pulls": "pulls{/number}", "releases": "releases{/id}", "stargazers": "stargazers", "statuses": "statuses/{sha}",
	"subscribers": "subscribers", "subscription": "subscription", "tags": "tags", "teams": "teams", "trees": "git/trees{/sha}",
}

func (h *Hub) repoView() obj {
	created := stamp(h.store.meta.Created)
	open := len(h.store.openPulls())
	o := obj{
		"id": h.cfg.RepoID, "node_id": nodeID("Repository", h.cfg.RepoID), "name": h.cfg.Repo,
		"full_name": h.cfg.Owner + "/" + h.cfg.Repo, "owner": h.userView(h.owner()), "private": true,
		"html_url": h.htmlURL(), "description": nil, "fork": false, "url": h.repoURL(),
		"git_url": h.htmlURL() + ".git", "ssh_url": h.htmlURL() + ".git", "clone_url": h.htmlURL() + ".git",
		"svn_url": h.htmlURL(), "mirror_url": nil, "homepage": nil, "language": nil, "license": nil,
		"forks_count": 0, "stargazers_count": 0, "watchers_count": 0, "size": 0, "default_branch": h.cfg.Branch,
		"open_issues_count": open, "open_issues": open, "forks": 0, "watchers": 0, "topics": []string{},
		"has_issues": true, "has_projects": false, "has_wiki": false, "has_pages": false, "has_discussions": false,
		"has_downloads": false, "archived": false, "disabled": false, "visibility": "private", "is_template": false,
		"pushed_at": created, "created_at": created, "updated_at": created, "allow_forking": false,
		"allow_squash_merge": true, "allow_merge_commit": true, "allow_rebase_merge": true,
		"allow_auto_merge": false, "delete_branch_on_merge": false, "web_commit_signoff_required": false,
	}
	for key, path := range repoLinks {
		o[key+"_url"] = h.repoURL() + "/" + path
	}
	return o
}

func (h *Hub) fullRepo(me User) obj {
	o := h.repoView()
	o["subscribers_count"], o["network_count"] = 0, 0
	o["organization"] = h.userView(h.owner())
	o["permissions"] = permissions(me)
	return o
}

func permissions(u User) obj {
	return obj{"admin": u.can(RoleAdmin), "maintain": u.can(RoleAdmin), "push": u.can(RoleWrite),
		"triage": u.can(RoleWrite), "pull": u.can(RoleRead)}
}

func (h *Hub) association(u User) string {
	for _, t := range h.people.teams {
		if hasLogin(t.Members, u.Login) {
			return "MEMBER"
		}
	}
	if u.can(RoleWrite) {
		return "COLLABORATOR"
	}
	return "NONE"
}

func gitUser(p person) obj { return obj{"name": p.Name, "email": p.Email, "date": stamp(p.When)} }

// accountOf is the user behind an e-mail of a commit; the e-mail can be forged,
// on GitHub as well.
func (h *Hub) accountOf(email string) any {
	if u, ok := h.people.byEmail(email); ok {
		return h.userView(u)
	}
	return nil
}

func (h *Hub) commitView(c gitCommit) obj {
	api, parents := h.repoURL()+"/commits/"+c.SHA, []obj{}
	for _, p := range c.Parents {
		parents = append(parents, obj{"sha": p, "url": h.repoURL() + "/commits/" + p, "html_url": h.htmlURL() + "/commit/" + p})
	}
	return obj{
		"sha": c.SHA, "node_id": nodeID("Commit", c.SHA), "url": api, "html_url": h.htmlURL() + "/commit/" + c.SHA,
		"comments_url": api + "/comments", "author": h.accountOf(c.Author.Email), "committer": h.accountOf(c.Committer.Email),
		"parents": parents,
		"commit": obj{
			"url": h.repoURL() + "/git/commits/" + c.SHA, "author": gitUser(c.Author), "committer": gitUser(c.Committer),
			"message": c.Message, "comment_count": 0, "verification": unverified(),
			"tree": obj{"sha": c.Tree, "url": h.repoURL() + "/git/trees/" + c.Tree},
		},
	}
}

func (h *Hub) gitCommitView(c gitCommit) obj {
	parents := []obj{}
	for _, p := range c.Parents {
		parents = append(parents, obj{"sha": p, "url": h.repoURL() + "/git/commits/" + p, "html_url": h.htmlURL() + "/commit/" + p})
	}
	return obj{
		"sha": c.SHA, "node_id": nodeID("Commit", c.SHA), "url": h.repoURL() + "/git/commits/" + c.SHA,
		"html_url": h.htmlURL() + "/commit/" + c.SHA, "author": gitUser(c.Author), "committer": gitUser(c.Committer),
		"message": c.Message, "tree": obj{"sha": c.Tree, "url": h.repoURL() + "/git/trees/" + c.Tree},
		"parents": parents, "verification": unverified(),
	}
}

func unverified() obj {
	return obj{"verified": false, "reason": "unsigned", "signature": nil, "payload": nil, "verified_at": nil}
}

func (h *Hub) fileView(head string) func(fileChange) obj {
	return func(f fileChange) obj {
		path := (&url.URL{Path: f.Path}).EscapedPath()
		o := obj{
			"sha": f.SHA, "filename": f.Path, "status": f.Status, "additions": f.Additions, "deletions": f.Deletions,
			"changes":  f.Additions + f.Deletions,
			"blob_url": h.htmlURL() + "/blob/" + head + "/" + path, "raw_url": h.htmlURL() + "/raw/" + head + "/" + path,
			"contents_url": h.repoURL() + "/contents/" + path + "?ref=" + head,
		}
		if f.Patch != "" {
			o["patch"] = f.Patch
		}
		if f.Previous != "" {
			o["previous_filename"] = f.Previous
		}
		return o
	}
}

// pullSimple is a pull request in a list.
func (h *Hub) pullSimple(p *pull) obj {
	api := fmt.Sprintf("%s/pulls/%d", h.repoURL(), p.Number)
	issue := fmt.Sprintf("%s/issues/%d", h.repoURL(), p.Number)
	html := fmt.Sprintf("%s/pull/%d", h.htmlURL(), p.Number)
	statuses := h.repoURL() + "/statuses/" + p.HeadSHA
	href := func(u string) obj { return obj{"href": u} }
	end := func(ref, sha string) obj {
		return obj{"label": h.cfg.Owner + ":" + ref, "ref": ref, "sha": sha, "user": h.userView(h.owner()), "repo": h.repoView()}
	}
	reviewers, teams := []obj{}, []obj{}
	for _, id := range p.Reviewers {
		reviewers = append(reviewers, h.userByID(id))
	}
	for _, id := range p.TeamReviewers {
		if t, ok := h.people.team(func(t Team) bool { return t.ID == id }); ok {
			teams = append(teams, h.teamSimple(t))
		}
	}
	return obj{
		"url": api, "id": p.ID, "node_id": nodeID("PullRequest", p.ID), "html_url": html, "diff_url": html + ".diff",
		"patch_url": html + ".patch", "issue_url": issue, "commits_url": api + "/commits",
		"review_comments_url": api + "/comments", "review_comment_url": h.repoURL() + "/pulls/comments{/number}",
		"comments_url": issue + "/comments", "statuses_url": statuses, "number": p.Number, "state": p.State,
		"locked": false, "title": p.Title, "user": h.userByID(p.Author), "body": orNil(p.Body), "labels": []obj{},
		"milestone": nil, "created_at": stamp(p.Created), "updated_at": stamp(p.Updated),
		"closed_at": stampOrNil(p.Closed), "merged_at": stampOrNil(p.Merged), "merge_commit_sha": orNil(p.MergeSHA),
		"assignee": nil, "assignees": []obj{}, "requested_reviewers": reviewers, "requested_teams": teams,
		"head": end(p.Head, p.HeadSHA), "base": end(p.Base, p.BaseSHA), "draft": p.Draft, "active_lock_reason": nil,
		"author_association": h.association(h.people.byID(p.Author)), "auto_merge": nil,
		"_links": obj{"self": href(api), "html": href(html), "issue": href(issue), "comments": href(issue + "/comments"),
			"review_comments": href(api + "/comments"), "review_comment": href(h.repoURL() + "/pulls/comments{/number}"),
			"commits": href(api + "/commits"), "statuses": href(statuses)},
	}
}

// pullFull adds what costs a look into git.
func (h *Hub) pullFull(ctx context.Context, p *pull) (obj, error) {
	o := h.pullSimple(p)
	files, base, err := h.pullFiles(ctx, p)
	if err != nil {
		return nil, err
	}
	commits, err := h.git.count(ctx, base, p.HeadSHA)
	if err != nil {
		return nil, err
	}
	additions, deletions := 0, 0
	for _, f := range files {
		additions += f.Additions
		deletions += f.Deletions
	}
	state := h.mergeState(ctx, p)
	o["merged"], o["mergeable"], o["mergeable_state"], o["rebaseable"] = p.Merged != nil, state.mergeable(), string(state), state.mergeable()
	o["merged_by"] = nil
	if p.Merged != nil {
		o["merged_by"] = h.userByID(p.MergedBy)
	}
	o["comments"], o["review_comments"], o["maintainer_can_modify"] = len(h.store.commentsOf(p.Number)), 0, false
	o["commits"], o["additions"], o["deletions"], o["changed_files"] = commits, additions, deletions, len(files)
	return o, nil
}

func (h *Hub) pullFiles(ctx context.Context, p *pull) (files []fileChange, base string, err error) {
	if base, err = h.git.mergeBase(ctx, p.BaseSHA, p.HeadSHA); err != nil {
		return nil, "", err
	}
	if files, err = h.git.diff(ctx, base, p.HeadSHA); err != nil {
		return nil, "", err
	}
	return files[:min(len(files), maxFiles)], base, nil
}

func (h *Hub) teamSimple(t *Team) obj {
	api := fmt.Sprintf("%s/organizations/%d/team/%d", h.apiBase(), h.cfg.OwnerID, t.ID)
	return obj{
		"id": t.ID, "node_id": nodeID("Team", t.ID), "url": api, "members_url": api + "/members{/member}",
		"name": t.Slug, "description": nil, "permission": "push", "privacy": "closed", "notification_setting": "notifications_enabled",
		"html_url":         h.htmlBase() + "/orgs/" + h.cfg.Owner + "/teams/" + t.Slug,
		"repositories_url": api + "/repos", "slug": t.Slug, "type": "organization", "organization_id": h.cfg.OwnerID, "parent": nil,
	}
}
