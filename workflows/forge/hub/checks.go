package hub

import (
	"fmt"
	"net/http"
	"slices"
	"time"
)

const (
	maxAnnotations = 50 // of one request
	maxSummary     = 65_535
	maxActions     = 3
)

type annotation struct {
	Path        string  `json:"path"`
	StartLine   int     `json:"start_line"`
	EndLine     int     `json:"end_line"`
	StartColumn *int    `json:"start_column"`
	EndColumn   *int    `json:"end_column"`
	Level       string  `json:"annotation_level"`
	Title       *string `json:"title"`
	Message     string  `json:"message"`
	RawDetails  *string `json:"raw_details"`
}

type checkAction struct {
	Label       string `json:"label"`
	Description string `json:"description"`
	Identifier  string `json:"identifier"`
}

type checkOutput struct {
	Title       *string      `json:"title"`
	Summary     *string      `json:"summary"`
	Text        *string      `json:"text"`
	Annotations []annotation `json:"annotations"`
}

type checkRun struct {
	ID, Author         int64
	Name, HeadSHA      string
	Status             string
	Conclusion         string
	ExternalID         string
	DetailsURL         string
	Started, Completed *time.Time
	Output             checkOutput
	Actions            []checkAction
}

// checkInput is what create and update accept; nil leaves a field alone.
type checkInput struct {
	Name        *string        `json:"name"`
	HeadSHA     *string        `json:"head_sha"`
	Status      *string        `json:"status"`
	Conclusion  *string        `json:"conclusion"`
	ExternalID  *string        `json:"external_id"`
	DetailsURL  *string        `json:"details_url"`
	StartedAt   *time.Time     `json:"started_at"`
	CompletedAt *time.Time     `json:"completed_at"`
	Output      *checkOutput   `json:"output"`
	Actions     *[]checkAction `json:"actions"`
}

func (h *Hub) checkRoutes() []route {
	const repo = "/repos/{owner}/{repo}"
	return []route{
		{"POST " + repo + "/check-runs", RoleWrite, createCheck},
		{"GET " + repo + "/check-runs/{id}", RoleRead, getCheck},
		{"PATCH " + repo + "/check-runs/{id}", RoleWrite, updateCheck},
		{"GET " + repo + "/check-runs/{id}/annotations", RoleRead, listAnnotations},
		{"GET " + repo + "/commits/{sha}/check-runs", RoleRead, listChecks},
		{"POST " + repo + "/statuses/{sha}", RoleWrite, createStatus},
		{"GET " + repo + "/commits/{sha}/statuses", RoleRead, listStatuses},
	}
}

var (
	checkStatuses    = []string{"queued", "in_progress", "completed", "waiting", "requested", "pending"}
	checkConclusions = []string{"success", "failure", "neutral", "cancelled", "skipped", "timed_out", "action_required"}
	annotationLevels = []string{"notice", "warning", "failure"}
)

func (in checkInput) validate() error {
	if in.Status != nil && !slices.Contains(checkStatuses, *in.Status) {
		return invalid("CheckRun", "status", "status is not a known value")
	}
	if in.Conclusion != nil && !slices.Contains(checkConclusions, *in.Conclusion) {
		return invalid("CheckRun", "conclusion", "conclusion is not a known value")
	}
	if in.Actions != nil {
		if err := validateActions(*in.Actions); err != nil {
			return err
		}
	}
	if in.Output == nil {
		return nil
	}
	return in.Output.validate()
}

func validateActions(actions []checkAction) error {
	if len(actions) > maxActions {
		return invalid("CheckRun", "actions", "at most 3 actions")
	}
	for _, a := range actions {
		if a.Label == "" || len(a.Label) > 20 || len(a.Identifier) > 20 || len(a.Description) > 40 {
			return invalid("CheckRun", "actions", "label and identifier have at most 20, description at most 40 characters")
		}
	}
	return nil
}

func (o checkOutput) validate() error {
	if o.Title != nil && len(*o.Title) > 255 {
		return invalid("CheckRun", "title", "title has at most 255 characters")
	}
	if o.Summary == nil || len(*o.Summary) > maxSummary || o.Text != nil && len(*o.Text) > maxSummary {
		return invalid("CheckRun", "summary", "summary is missing, or summary or text is longer than 65535 characters")
	}
	if len(o.Annotations) > maxAnnotations {
		return invalid("CheckRun", "annotations", "at most 50 annotations in one request")
	}
	for _, a := range o.Annotations {
		columns := a.StartColumn != nil || a.EndColumn != nil
		if a.Path == "" || a.Message == "" || len(a.Message) > 64<<10 || a.StartLine < 1 || a.EndLine < a.StartLine ||
			!slices.Contains(annotationLevels, a.Level) || columns && a.StartLine != a.EndLine {
			return invalid("CheckRun", "annotations", "an annotation needs path, message, level and lines; columns only on one line")
		}
	}
	return nil
}

func (r *checkRun) apply(in checkInput, now time.Time) {
	set := func(to *string, from *string) {
		if from != nil {
			*to = *from
		}
	}
	set(&r.Name, in.Name)
	set(&r.Status, in.Status)
	set(&r.ExternalID, in.ExternalID)
	set(&r.DetailsURL, in.DetailsURL)
	if in.StartedAt != nil {
		r.Started = in.StartedAt
	}
	if in.Conclusion != nil {
		r.Conclusion, r.Status = *in.Conclusion, "completed"
		r.Completed = &now
	}
	if in.CompletedAt != nil {
		r.Completed = in.CompletedAt
	}
	if r.Status != "completed" {
		r.Conclusion, r.Completed = "", nil
	}
	if in.Actions != nil {
		r.Actions = *in.Actions
	}
	if in.Output != nil { // annotations add up, the rest is replaced
		kept := append(r.Output.Annotations, in.Output.Annotations...)
		r.Output = *in.Output
		r.Output.Annotations = kept
	}
}

// app refuses people: on GitHub only Apps write check runs.
func (c *call) app() error {
	if c.me.Kind != "Bot" {
		return fail(http.StatusForbidden, "You must authenticate via a GitHub App.")
	}
	return nil
}

func createCheck(c *call) error {
	if err := c.app(); err != nil {
		return err
	}
	var in checkInput
	if err := c.decode(&in); err != nil {
		return err
	}
	if in.Name == nil || *in.Name == "" || in.HeadSHA == nil {
		return invalid("CheckRun", "name", "name and head_sha are needed")
	}
	if err := in.validate(); err != nil {
		return err
	}
	sha, err := c.git.resolve(c.r.Context(), *in.HeadSHA)
	if err != nil || sha != *in.HeadSHA {
		return fail(http.StatusUnprocessableEntity, "No commit found for SHA: %s", *in.HeadSHA)
	}
	now := c.now()
	r := &checkRun{ID: c.store.newID(), Author: c.me.ID, HeadSHA: sha, Status: "queued", Started: &now}
	r.apply(in, now)
	c.store.checks[r.ID] = r
	c.store.put("check", r.ID, r)
	return c.reply(http.StatusCreated, c.checkView(r))
}

func (c *call) check() (*checkRun, error) {
	id, err := c.id("id")
	if err != nil {
		return nil, err
	}
	r, ok := c.store.checks[id]
	if !ok {
		return nil, notFound
	}
	return r, nil
}

func getCheck(c *call) error {
	r, err := c.check()
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, c.checkView(r))
}

func updateCheck(c *call) error {
	if err := c.app(); err != nil {
		return err
	}
	r, err := c.check()
	if err != nil {
		return err
	}
	var in checkInput
	if err := c.decode(&in); err != nil {
		return err
	}
	if err := in.validate(); err != nil {
		return err
	}
	r.apply(in, c.now())
	c.store.put("check", r.ID, r)
	return c.reply(http.StatusOK, c.checkView(r))
}

func (h *Hub) checkView(r *checkRun) obj {
	api := fmt.Sprintf("%s/check-runs/%d", h.repoURL(), r.ID)
	pulls := []obj{}
	for _, p := range h.store.openPulls() {
		if p.HeadSHA == r.HeadSHA {
			pulls = append(pulls, h.pullMinimal(p))
		}
	}
	return obj{
		"id": r.ID, "node_id": nodeID("CheckRun", r.ID), "name": r.Name, "head_sha": r.HeadSHA, "external_id": r.ExternalID,
		"url": api, "html_url": fmt.Sprintf("%s/runs/%d", h.htmlURL(), r.ID), "details_url": orNil(r.DetailsURL),
		"status": r.Status, "conclusion": orNil(r.Conclusion), "started_at": stampOrNil(r.Started), "completed_at": stampOrNil(r.Completed),
		"output": obj{"title": r.Output.Title, "summary": r.Output.Summary, "text": r.Output.Text,
			"annotations_count": len(r.Output.Annotations), "annotations_url": api + "/annotations"},
		"check_suite": obj{"id": h.cfg.App.ID}, "app": h.appView(), "pull_requests": pulls,
	}
}

func (h *Hub) pullMinimal(p *pull) obj {
	repo := obj{"id": h.cfg.RepoID, "url": h.repoURL(), "name": h.cfg.Repo}
	return obj{"id": p.ID, "number": p.Number, "url": fmt.Sprintf("%s/pulls/%d", h.repoURL(), p.Number),
		"head": obj{"ref": p.Head, "sha": p.HeadSHA, "repo": repo}, "base": obj{"ref": p.Base, "sha": p.BaseSHA, "repo": repo}}
}

func listAnnotations(c *call) error {
	r, err := c.check()
	if err != nil {
		return err
	}
	return list(c, r.Output.Annotations, func(a annotation) (obj, error) {
		return obj{"path": a.Path, "start_line": a.StartLine, "end_line": a.EndLine, "start_column": a.StartColumn,
			"end_column": a.EndColumn, "annotation_level": a.Level, "title": a.Title, "message": a.Message,
			"raw_details": a.RawDetails, "blob_href": c.htmlURL() + "/blob/" + r.HeadSHA + "/" + a.Path}, nil
	})
}

func listChecks(c *call) error {
	sha, err := c.git.resolve(c.r.Context(), c.r.PathValue("sha"))
	if err != nil {
		return notFound
	}
	q := c.r.URL.Query()
	all := sorted(c.store.checks, func(r *checkRun) (int64, bool) {
		return r.ID, r.HeadSHA == sha && (q.Get("check_name") == "" || q.Get("check_name") == r.Name) &&
			(q.Get("status") == "" || q.Get("status") == r.Status)
	})
	slices.Reverse(all)
	if q.Get("filter") != "all" { // the latest of each name
		seen := map[string]bool{}
		all = slices.DeleteFunc(all, func(r *checkRun) bool {
			old := seen[r.Name]
			seen[r.Name] = true
			return old
		})
	}
	out := []obj{}
	for _, r := range page(c, all) {
		out = append(out, c.checkView(r))
	}
	return c.reply(http.StatusOK, obj{"total_count": len(all), "check_runs": out})
}

func (h *Hub) checkPassed(sha, name string) bool {
	all := sorted(h.store.checks, func(r *checkRun) (int64, bool) { return r.ID, r.HeadSHA == sha && r.Name == name })
	return len(all) > 0 && slices.Contains([]string{"success", "neutral", "skipped"}, all[len(all)-1].Conclusion)
}

func createStatus(c *call) error {
	var in struct {
		State       string
		Context     string
		Description *string
		TargetURL   *string `json:"target_url"`
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	if !slices.Contains([]string{"error", "failure", "pending", "success"}, in.State) {
		return invalid("Status", "state", "state must be error, failure, pending or success")
	}
	sha, err := c.git.resolve(c.r.Context(), c.r.PathValue("sha"))
	if err != nil {
		return fail(http.StatusUnprocessableEntity, "No commit found for SHA: %s", c.r.PathValue("sha"))
	}
	setDefault(&in.Context, "default")
	now := c.now()
	s := &commitStatus{ID: c.store.newID(), Author: c.me.ID, SHA: sha, State: in.State, Context: in.Context,
		Description: in.Description, TargetURL: in.TargetURL, Created: now, Updated: now}
	c.store.statuses[s.ID] = s
	c.store.put("status", s.ID, s)
	return c.reply(http.StatusCreated, c.statusView(s))
}

func (h *Hub) statusView(s *commitStatus) obj {
	u := h.userByID(s.Author)
	return obj{"url": h.repoURL() + "/statuses/" + s.SHA, "avatar_url": u["avatar_url"], "id": s.ID, "node_id": nodeID("Status", s.ID),
		"state": s.State, "description": s.Description, "target_url": s.TargetURL, "context": s.Context,
		"created_at": stamp(s.Created), "updated_at": stamp(s.Updated), "creator": u}
}

func listStatuses(c *call) error {
	sha, err := c.git.resolve(c.r.Context(), c.r.PathValue("sha"))
	if err != nil {
		return notFound
	}
	all := sorted(c.store.statuses, func(s *commitStatus) (int64, bool) { return s.ID, s.SHA == sha })
	slices.Reverse(all)
	return list(c, all, shown(c.statusView))
}
