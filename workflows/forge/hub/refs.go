package hub

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

func (h *Hub) gitRoutes() []route {
	const repo = "/repos/{owner}/{repo}"
	return []route{
		{"GET " + repo + "/git/ref/{ref...}", RoleRead, getRef},
		{"GET " + repo + "/git/matching-refs/{ref...}", RoleRead, matchRefs},
		{"POST " + repo + "/git/refs", RoleWrite, createRef},
		{"PATCH " + repo + "/git/refs/{ref...}", RoleWrite, updateRef},
		{"DELETE " + repo + "/git/refs/{ref...}", RoleWrite, deleteRef},
		{"GET " + repo + "/git/trees/{sha...}", RoleRead, getTree},
		{"POST " + repo + "/git/trees", RoleWrite, createTree},
		{"GET " + repo + "/git/blobs/{sha}", RoleRead, getBlob},
		{"POST " + repo + "/git/blobs", RoleWrite, createBlob},
		{"GET " + repo + "/git/commits/{sha}", RoleRead, getGitCommit},
		{"POST " + repo + "/git/commits", RoleWrite, createCommit},
		{"GET " + repo + "/commits", RoleRead, listCommits},
		{"GET " + repo + "/commits/{ref...}", RoleRead, getCommit},
		{"GET " + repo + "/compare/{basehead...}", RoleRead, compare},
		{"GET " + repo + "/branches", RoleRead, listBranches},
		{"GET " + repo + "/branches/{branch...}", RoleRead, getBranch},
		{"GET " + repo + "/rules/branches/{branch...}", RoleRead, branchRules},
	}
}

func (h *Hub) refView(ref, sha string) obj {
	return obj{"ref": ref, "node_id": nodeID("Ref", ref), "url": h.repoURL() + "/git/" + ref,
		"object": obj{"type": "commit", "sha": sha, "url": h.repoURL() + "/git/commits/" + sha}}
}

// ref is the full name of the ref in the path; only branches and tags count.
func (c *call) ref() (string, error) {
	ref := "refs/" + strings.TrimPrefix(c.r.PathValue("ref"), "refs/")
	if !publicRef(ref) {
		return "", notFound
	}
	return ref, nil
}

func publicRef(ref string) bool {
	return validRef(ref) && (strings.HasPrefix(ref, "refs/heads/") || strings.HasPrefix(ref, "refs/tags/"))
}

func getRef(c *call) error {
	ref, err := c.ref()
	if err != nil {
		return err
	}
	sha, err := c.git.verify(c.r.Context(), ref)
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, c.refView(ref, sha))
}

func matchRefs(c *call) error {
	refs, err := c.git.refs(c.r.Context())
	if err != nil {
		return err
	}
	var names []string
	for ref := range refs {
		if strings.HasPrefix(ref, "refs/"+c.r.PathValue("ref")) {
			names = append(names, ref)
		}
	}
	slices.Sort(names)
	return list(c, names, func(ref string) (obj, error) { return c.refView(ref, refs[ref]), nil })
}

func createRef(c *call) error {
	var in struct{ Ref, SHA string }
	if err := c.decode(&in); err != nil {
		return err
	}
	if !publicRef(in.Ref) {
		return fail(http.StatusUnprocessableEntity, "Reference name is not valid, want refs/heads/… or refs/tags/…")
	}
	if _, err := c.git.verify(c.r.Context(), in.Ref); err == nil {
		return fail(http.StatusUnprocessableEntity, "Reference already exists")
	}
	if err := c.moveRef(move{ref: in.Ref, new: in.SHA}); err != nil {
		return err
	}
	return c.reply(http.StatusCreated, c.refView(in.Ref, in.SHA))
}

func updateRef(c *call) error {
	ref, err := c.ref()
	if err != nil {
		return err
	}
	var in struct {
		SHA   string
		Force bool
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	old, err := c.git.verify(c.r.Context(), ref)
	if err != nil {
		return fail(http.StatusUnprocessableEntity, "Reference does not exist")
	}
	if !in.Force && shaPattern.MatchString(in.SHA) && !c.git.isAncestor(c.r.Context(), old, in.SHA) {
		return fail(http.StatusUnprocessableEntity, "Update is not a fast forward")
	}
	if err := c.moveRef(move{ref: ref, old: old, new: in.SHA}); err != nil {
		return err
	}
	return c.reply(http.StatusOK, c.refView(ref, in.SHA))
}

func deleteRef(c *call) error {
	ref, err := c.ref()
	if err != nil {
		return err
	}
	old, err := c.git.verify(c.r.Context(), ref)
	if err != nil || ref == "refs/heads/"+c.cfg.Branch {
		return fail(http.StatusUnprocessableEntity, "Reference does not exist, or is the default branch")
	}
	if err := c.moveRef(move{ref: ref, old: old}); err != nil {
		return err
	}
	return c.reply(http.StatusNoContent, nil)
}

// moveRef changes a ref under the protection that a push meets.
func (c *call) moveRef(m move) error {
	if m.ref == "refs/heads/"+c.cfg.Branch && !c.me.can(RoleAdmin) {
		return fail(http.StatusUnprocessableEntity, "Changes must be made through a pull request.")
	}
	if m.new != "" {
		if kind, err := c.git.kind(c.r.Context(), m.new); err != nil || kind != "commit" {
			return fail(http.StatusUnprocessableEntity, "Object does not exist")
		}
	}
	old := m.old
	if old == "" {
		old = zeroSHA
	}
	if err := c.git.setRef(c.r.Context(), m.ref, m.new, old); err != nil {
		return fail(http.StatusUnprocessableEntity, "Reference could not be updated")
	}
	c.refMoved(context.WithoutCancel(c.r.Context()), m, c.me)
	return nil
}

func getTree(c *call) error {
	ctx, name := c.r.Context(), c.r.PathValue("sha")
	kind, err := c.git.kind(ctx, name)
	if err != nil {
		name, err = c.git.resolve(ctx, name)
	}
	if err != nil || kind == "blob" {
		return notFound
	}
	sha, err := c.git.verify(ctx, name+"^{tree}")
	if err != nil {
		return err
	}
	entries, err := c.git.tree(ctx, sha, c.r.URL.Query().Get("recursive") != "")
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, c.treeView(sha, entries))
}

func (h *Hub) treeView(sha string, entries []treeEntry) obj {
	rows := []obj{}
	for _, e := range entries[:min(len(entries), maxTreeRows)] {
		row := obj{"path": e.Path, "mode": e.Mode, "type": e.Type, "sha": e.SHA}
		switch e.Type {
		case "blob":
			row["size"], row["url"] = e.Size, h.repoURL()+"/git/blobs/"+e.SHA
		case "tree":
			row["url"] = h.repoURL() + "/git/trees/" + e.SHA
		}
		rows = append(rows, row)
	}
	return obj{"sha": sha, "url": h.repoURL() + "/git/trees/" + sha, "tree": rows, "truncated": len(entries) > maxTreeRows}
}

func createTree(c *call) error {
	var in struct {
		BaseTree string `json:"base_tree"`
		Tree     []struct {
			Path, Mode, Type string
			SHA, Content     *string
		}
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	ctx := c.r.Context()
	var entries []treeEntry
	for _, t := range in.Tree {
		e := treeEntry{Path: t.Path, Mode: t.Mode}
		switch {
		case t.Content != nil:
			sha, err := c.git.writeBlob(ctx, []byte(*t.Content))
			if err != nil {
				return err
			}
			e.SHA = sha
		case t.SHA != nil:
			e.SHA = *t.SHA
			if kind, err := c.git.kind(ctx, e.SHA); err != nil || kind != "blob" {
				return fail(http.StatusUnprocessableEntity, "tree.sha %s is not a blob", e.SHA)
			}
		default:
			e.Delete = true
		}
		if !validEntry(e) {
			return fail(http.StatusUnprocessableEntity, "tree.path or tree.mode is malformed")
		}
		entries = append(entries, e)
	}
	if in.BaseTree != "" {
		if kind, err := c.git.kind(ctx, in.BaseTree); err != nil || kind != "tree" && kind != "commit" {
			return notFound
		}
	}
	sha, err := c.git.writeTree(ctx, in.BaseTree, entries)
	if err != nil {
		return fail(http.StatusUnprocessableEntity, "tree could not be written")
	}
	rows, err := c.git.tree(ctx, sha, false)
	if err != nil {
		return err
	}
	return c.reply(http.StatusCreated, c.treeView(sha, rows))
}

func validEntry(e treeEntry) bool {
	ok := slices.Contains([]string{"100644", "100755", "120000"}, e.Mode) || e.Delete
	for part := range strings.SplitSeq(e.Path, "/") {
		ok = ok && part != "" && part != "." && part != ".." && !strings.EqualFold(part, ".git")
	}
	return ok && !strings.ContainsAny(e.Path, "\x00\n")
}

func getBlob(c *call) error {
	sha := c.r.PathValue("sha")
	data, err := c.git.blob(c.r.Context(), sha)
	if err != nil {
		return err
	}
	if strings.Contains(c.r.Header.Get("Accept"), "raw") {
		c.header.Set("Content-Type", "application/vnd.github.raw; charset=utf-8")
		c.raw = append([]byte{}, data...)
		return nil
	}
	return c.reply(http.StatusOK, obj{"sha": sha, "node_id": nodeID("Blob", sha), "size": len(data), "encoding": "base64",
		"url": c.repoURL() + "/git/blobs/" + sha, "content": base64.StdEncoding.EncodeToString(data)})
}

func createBlob(c *call) error {
	var in struct{ Content, Encoding string }
	if err := c.decode(&in); err != nil {
		return err
	}
	data := []byte(in.Content)
	if in.Encoding == "base64" {
		var err error
		if data, err = base64.StdEncoding.DecodeString(strings.ReplaceAll(in.Content, "\n", "")); err != nil {
			return fail(http.StatusUnprocessableEntity, "content is not valid Base64")
		}
	}
	sha, err := c.git.writeBlob(c.r.Context(), data)
	if err != nil {
		return err
	}
	return c.reply(http.StatusCreated, obj{"url": c.repoURL() + "/git/blobs/" + sha, "sha": sha})
}

func getGitCommit(c *call) error {
	if kind, err := c.git.kind(c.r.Context(), c.r.PathValue("sha")); err != nil || kind != "commit" {
		return notFound
	}
	commit, err := c.git.commit(c.r.Context(), c.r.PathValue("sha"))
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, c.gitCommitView(commit))
}

func createCommit(c *call) error {
	type who struct {
		Name, Email string
		Date        time.Time
	}
	var in struct {
		Message, Tree     string
		Parents           []string
		Author, Committer *who
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	ctx := c.r.Context()
	if kind, err := c.git.kind(ctx, in.Tree); err != nil || kind != "tree" || in.Message == "" {
		return fail(http.StatusUnprocessableEntity, "Tree SHA does not exist, or the message is empty")
	}
	for _, p := range in.Parents {
		if kind, err := c.git.kind(ctx, p); err != nil || kind != "commit" {
			return fail(http.StatusUnprocessableEntity, "Parent SHA does not exist or is not a commit object")
		}
	}
	author := person{c.me.Login, c.me.Email, c.now()}
	if in.Author != nil {
		author.Name, author.Email = in.Author.Name, in.Author.Email
		if !in.Author.Date.IsZero() {
			author.When = in.Author.Date
		}
	}
	committer := author
	if in.Committer != nil {
		committer.Name, committer.Email = in.Committer.Name, in.Committer.Email
	}
	sha, err := c.git.writeCommit(ctx, newCommit{in.Tree, in.Message, in.Parents, author, committer})
	if err != nil {
		return fail(http.StatusUnprocessableEntity, "commit could not be written")
	}
	commit, err := c.git.commit(ctx, sha)
	if err != nil {
		return err
	}
	return c.reply(http.StatusCreated, c.gitCommitView(commit))
}

func listCommits(c *call) error {
	q := c.r.URL.Query()
	from := q.Get("sha")
	setDefault(&from, c.cfg.Branch)
	sha, err := c.git.resolve(c.r.Context(), from)
	if err != nil {
		return err
	}
	commits, err := c.git.history(c.r.Context(), sha, q.Get("path"))
	if err != nil {
		return err
	}
	return list(c, commits, shown(c.commitView))
}

func getCommit(c *call) error {
	ctx := c.r.Context()
	sha, err := c.git.resolve(ctx, c.r.PathValue("ref"))
	if err != nil {
		return fail(http.StatusUnprocessableEntity, "No commit found for SHA: %s", c.r.PathValue("ref"))
	}
	if strings.Contains(c.r.Header.Get("Accept"), "sha") {
		c.raw = []byte(sha)
		return nil
	}
	commit, err := c.git.commit(ctx, sha)
	if err != nil {
		return err
	}
	o := c.commitView(commit)
	if len(commit.Parents) > 0 {
		files, err := c.git.diff(ctx, commit.Parents[0], sha)
		if err != nil {
			return err
		}
		o["files"], o["stats"] = c.filesView(sha, files, maxFiles), stats(files)
	}
	return c.reply(http.StatusOK, o)
}

func (h *Hub) filesView(sha string, files []fileChange, most int) []obj {
	out := []obj{}
	for _, f := range files[:min(len(files), most)] {
		out = append(out, h.fileView(sha)(f))
	}
	return out
}

func stats(files []fileChange) obj {
	additions, deletions := 0, 0
	for _, f := range files {
		additions += f.Additions
		deletions += f.Deletions
	}
	return obj{"additions": additions, "deletions": deletions, "total": additions + deletions}
}

const maxCompareFiles = 300

func compare(c *call) error {
	ctx := c.r.Context()
	from, to, ok := strings.Cut(c.r.PathValue("basehead"), "...")
	if !ok {
		return notFound
	}
	base, err1 := c.git.resolve(ctx, strings.TrimPrefix(from, c.cfg.Owner+":"))
	head, err2 := c.git.resolve(ctx, strings.TrimPrefix(to, c.cfg.Owner+":"))
	if err1 != nil || err2 != nil {
		return notFound
	}
	root, err := c.git.mergeBase(ctx, base, head)
	if err != nil {
		return fail(http.StatusNotFound, "No common ancestor between %s and %s.", from, to)
	}
	o, err := c.compareView(ctx, base, root, head)
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, o)
}

func (c *call) compareView(ctx context.Context, base, root, head string) (obj, error) {
	ahead, err := c.git.count(ctx, base, head)
	if err != nil {
		return nil, err
	}
	behind, err := c.git.count(ctx, head, base)
	if err != nil {
		return nil, err
	}
	commits, err := c.git.log(ctx, base, head)
	if err != nil {
		return nil, err
	}
	files, err := c.git.diff(ctx, root, head)
	if err != nil {
		return nil, err
	}
	first, err := c.git.commit(ctx, base)
	if err != nil {
		return nil, err
	}
	common, err := c.git.commit(ctx, root)
	if err != nil {
		return nil, err
	}
	list := []obj{}
	for _, commit := range page(c, commits) {
		list = append(list, c.commitView(commit))
	}
	html := fmt.Sprintf("%s/compare/%s...%s", c.htmlURL(), base, head)
	return obj{"url": fmt.Sprintf("%s/compare/%s...%s", c.repoURL(), base, head), "html_url": html, "permalink_url": html,
		"diff_url": html + ".diff", "patch_url": html + ".patch", "base_commit": c.commitView(first),
		"merge_base_commit": c.commitView(common), "status": compareStatus(ahead, behind), "ahead_by": ahead,
		"behind_by": behind, "total_commits": ahead, "commits": list, "files": c.filesView(head, files, maxCompareFiles)}, nil
}

func compareStatus(ahead, behind int) string {
	switch {
	case ahead > 0 && behind > 0:
		return "diverged"
	case ahead > 0:
		return "ahead"
	case behind > 0:
		return "behind"
	}
	return "identical"
}

func listBranches(c *call) error {
	refs, err := c.git.refs(c.r.Context())
	if err != nil {
		return err
	}
	var names []string
	for ref := range refs {
		if name, ok := strings.CutPrefix(ref, "refs/heads/"); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return list(c, names, func(name string) (obj, error) {
		sha := refs["refs/heads/"+name]
		return obj{"name": name, "protected": name == c.cfg.Branch, "commit": obj{"sha": sha, "url": c.repoURL() + "/commits/" + sha}}, nil
	})
}

func getBranch(c *call) error {
	name := c.r.PathValue("branch")
	sha, err := c.branch(c.r.Context(), name)
	if err != nil {
		return fail(http.StatusNotFound, "Branch not found")
	}
	commit, err := c.git.commit(c.r.Context(), sha)
	if err != nil {
		return err
	}
	protected := name == c.cfg.Branch
	return c.reply(http.StatusOK, obj{"name": name, "commit": c.commitView(commit), "protected": protected,
		"protection": obj{"enabled": protected}, "protection_url": c.repoURL() + "/branches/" + name + "/protection",
		"_links": obj{"self": c.repoURL() + "/branches/" + name, "html": c.htmlURL() + "/tree/" + name}})
}
