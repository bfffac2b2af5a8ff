package forge

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/google/go-github/v60/github"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/workflows"
)

// The check runs. A status of the same name can be forged by any writer, so
// nothing is decided by them: they show.
const (
	planCheck     = "tidegate/plan"
	approvedCheck = "tidegate/approved"
)

const (
	maxRunPages       = 10
	maxAnnotations    = 50 // of one request
	maxAllAnnotations = 500
	maxTitle          = 255
	maxRunText        = 65_000
)

// run is what a check run shall say.
type run struct {
	name, head           string
	conclusion           string // empty: it waits
	external             string // our own note, words without spaces at its ends
	title, summary, text string
	annotations          []*github.CheckRunAnnotation
}

func (r run) status() string {
	if r.conclusion == "" {
		return "in_progress"
	}
	return "completed"
}

// mark is the note that the finished run carries: two hashes tell, next time,
// whether anything changed, and whether the annotations did.
func (r run) mark() string {
	return fmt.Sprintf("%s %s %s", r.external, fingerprint(r.title, r.summary, r.text, r.annotations), fingerprint(r.annotations))
}

func fingerprint(parts ...any) string {
	data, err := json.Marshal(parts)
	if err != nil {
		panic(fmt.Sprintf("encode check run: %v", err)) // plain data: only a programming error gets here
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}

func (r run) output(annotations []*github.CheckRunAnnotation) *github.CheckRunOutput {
	title, summary, body := shortened(line(r.title), maxTitle), shortened(r.summary, maxRunText), shortened(r.text, maxRunText)
	o := &github.CheckRunOutput{Title: &title, Summary: &summary, Annotations: annotations}
	if body != "" {
		o.Text = &body
	}
	return o
}

// runs are our check runs of a commit, the latest of each name.
func (f *Forge) runs(ctx context.Context, head string) (map[string]*github.CheckRun, error) {
	out := map[string]*github.CheckRun{}
	err := everyPage(maxRunPages, func(page github.ListOptions) (*github.Response, error) {
		list, res, err := f.gh.Checks.ListCheckRunsForRef(ctx, f.cfg.Owner, f.cfg.Repo, head, &github.ListCheckRunsOptions{ListOptions: page})
		if err != nil {
			return nil, failed("list check runs", err)
		}
		for _, r := range list.CheckRuns {
			if f.wrote(r) && (out[r.GetName()] == nil || out[r.GetName()].GetID() < r.GetID()) {
				out[r.GetName()] = r
			}
		}
		return res, nil
	})
	return out, err
}

// wrote reports whether a check run is our App's. A token is no App's: then the
// names alone tell, which is good enough where only one App exists.
func (f *Forge) wrote(r *github.CheckRun) bool {
	return strings.HasPrefix(r.GetName(), "tidegate/") && (f.asApp == nil || r.GetApp().GetID() == f.cfg.App.ID)
}

// ensureRun makes a check run say what it shall, and writes only what changed.
func (f *Forge) ensureRun(ctx context.Context, want run, have map[string]*github.CheckRun) error {
	old := have[want.name]
	if old != nil && old.GetExternalID() == want.mark() && old.GetStatus() == want.status() && old.GetConclusion() == want.conclusion {
		return nil
	}
	// Annotations can be added and never taken away, so other ones need a new run.
	if old == nil || !strings.HasSuffix(old.GetExternalID(), " "+fingerprint(want.annotations)) {
		return f.createRun(ctx, want, have)
	}
	r, err := f.finishRun(ctx, old.GetID(), want, nil)
	if err == nil {
		have[want.name] = r
	}
	return err
}

// createRun makes a run. It is marked as whole only with its last annotations:
// half a run is made again.
func (f *Forge) createRun(ctx context.Context, want run, have map[string]*github.CheckRun) error {
	first, rest := want.annotations, [][]*github.CheckRunAnnotation(nil)
	for len(first) > maxAnnotations {
		rest, first = append(rest, first[len(first)-maxAnnotations:]), first[:len(first)-maxAnnotations]
	}
	opts := github.CreateCheckRunOptions{Name: want.name, HeadSHA: want.head, Status: github.String("in_progress"), Output: want.output(first)}
	if len(rest) == 0 {
		opts.Status, opts.ExternalID, opts.Conclusion = github.String(want.status()), github.String(want.mark()), notEmpty(want.conclusion)
	}
	r, _, err := f.gh.Checks.CreateCheckRun(ctx, f.cfg.Owner, f.cfg.Repo, opts)
	if err != nil {
		return failed("create check run", err)
	}
	for i, more := range rest {
		if i < len(rest)-1 {
			opts := github.UpdateCheckRunOptions{Name: want.name, Output: want.output(more)}
			_, _, err = f.gh.Checks.UpdateCheckRun(ctx, f.cfg.Owner, f.cfg.Repo, r.GetID(), opts)
		} else {
			r, err = f.finishRun(ctx, r.GetID(), want, more)
		}
		if err != nil {
			return failed("annotate check run", err)
		}
	}
	have[want.name] = r
	return nil
}

func (f *Forge) finishRun(ctx context.Context, id int64, want run, more []*github.CheckRunAnnotation) (*github.CheckRun, error) {
	opts := github.UpdateCheckRunOptions{Name: want.name, ExternalID: github.String(want.mark()), Status: github.String(want.status()),
		Conclusion: notEmpty(want.conclusion), Output: want.output(more)}
	r, _, err := f.gh.Checks.UpdateCheckRun(ctx, f.cfg.Owner, f.cfg.Repo, id, opts)
	if err != nil {
		return nil, failed("update check run", err)
	}
	return r, nil
}

func notEmpty(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// planRun shows the files: what is wrong in them, and what they would give. Its
// text is the report, from which the comment is drawn.
func planRun(r workflows.Report) run {
	out := run{name: planCheck, head: r.Head, external: "plan", conclusion: "success", title: upper(headline(r)), text: RenderReport(r),
		summary: "What this pull request would give is below."}
	if r.Refusal != "" || r.Diagnostics.HasErrors() {
		out.conclusion, out.summary = "failure", "Nothing can be given for this as it is; below is why."
	}
	var missing int
	out.annotations, missing = annotations(r.Diagnostics)
	if missing > 0 {
		out.summary += fmt.Sprintf(" %d complaints have no annotation: there are too many, or they belong to no file.", missing)
	}
	return out
}

// approvedRun shows the people: who agreed, and who is missing.
func approvedRun(r workflows.Report) run {
	out := run{name: approvedCheck, head: r.Head, external: "approved", conclusion: "success", title: "Everybody needed has agreed"}
	var why strings.Builder
	for _, g := range r.Grants[:min(len(r.Grants), maxItems)] {
		fmt.Fprintf(&why, "**%s**\n\n%s\n", code(clip(g.Plan.Request.ID, 100)), renderReason(g.Approval))
	}
	if r.Policy != nil {
		why.WriteString(renderReason(*r.Policy))
	}
	out.summary = shortened(strings.TrimSpace(why.String()), maxReport)
	waiting := 0
	for _, g := range r.Grants {
		if !g.Approval.Met {
			waiting++
		}
	}
	switch {
	case r.Refusal != "" || r.Diagnostics.HasErrors():
		out.conclusion, out.title = "failure", "This can't be approved as it is"
	case refused(r.Grants):
		out.conclusion, out.title = "failure", "Access was refused"
	case r.Policy != nil && !r.Policy.Met:
		out.conclusion, out.title = "", upper(headline(r))
	case r.Policy != nil: // agreed to
	case len(r.Grants) == 0:
		out.conclusion, out.title = "neutral", "No grant to approve"
	case waiting > 0:
		out.conclusion, out.title = "", fmt.Sprintf("%d of %s wait for approval", waiting, plural(len(r.Grants), "grant"))
	}
	if out.summary == "" {
		out.summary = out.title + "."
	}
	return out
}

func refused(grants []workflows.GrantReport) bool {
	for _, g := range grants {
		if g.State == access.StateRefused {
			return true
		}
	}
	return false
}

func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// annotations shows diagnostics at their lines; missing counts those without one.
func annotations(ds access.Diagnostics) (out []*github.CheckRunAnnotation, missing int) {
	for _, d := range ds {
		if d.File == "" || len(d.File) > maxPath || d.File != visible(d.File) || len(out) >= maxAllAnnotations {
			missing++
			continue
		}
		out = append(out, annotation(d))
	}
	return out, missing
}

func annotation(d access.Diagnostic) *github.CheckRunAnnotation {
	start := max(1, d.Line)
	end := max(start, d.EndLine)
	level := "failure"
	if d.Severity == access.SeverityWarning {
		level = "warning"
	}
	message := visible(clip(d.Detail, 4000))
	if strings.TrimSpace(message) == "" {
		message = "See the title."
	}
	a := &github.CheckRunAnnotation{Path: github.String(d.File), StartLine: &start, EndLine: &end, AnnotationLevel: &level, Message: &message}
	if title := shortened(line(d.Summary), maxTitle); title != "" {
		a.Title = &title
	}
	if start == end && d.Column > 0 && d.EndCol >= d.Column { // GitHub refuses columns over several lines
		a.StartColumn, a.EndColumn = github.Int(d.Column), github.Int(d.EndCol)
	}
	return a
}
