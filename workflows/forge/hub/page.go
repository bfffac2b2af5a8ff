package hub

import (
	"html/template"
	"net/http"
	"strconv"
	"strings"
)

var pullPage = template.Must(template.New("pull").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>#{{.Pull.Number}} {{.Pull.Title}}</title>
<style>
body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;color:#1f2328}
h1{font-weight:500}h2{font-size:1.1rem;margin-top:2rem}
section,pre{border:1px solid #d1d9e0;border-radius:6px;padding:.6rem 1rem;margin:.6rem 0}
pre{background:#f6f8fa;overflow:auto;white-space:pre-wrap;font-size:13px}.state{border-radius:1rem;padding:.1rem .7rem;background:#eef}
small{color:#59636e}
</style>
<h1>{{.Pull.Title}} <small>#{{.Pull.Number}}</small></h1>
<p><span class="state">{{.State}}</span> {{.Author}} wants to merge <code>{{.Pull.Head}}</code> into <code>{{.Pull.Base}}</code>
<small>{{printf "%.12s" .Pull.HeadSHA}}</small></p>
{{with .Pull.Body}}<pre>{{.}}</pre>{{end}}
<h2>Reviews</h2>{{range .Reviews}}<section><b>{{.Who}}</b> {{.State}} <small>{{.When}}</small>{{with .Body}}<pre>{{.}}</pre>{{end}}</section>{{else}}<p>None yet.</p>{{end}}
<h2>Checks</h2>{{range .Checks}}<section><b>{{.Who}}</b> {{.State}}{{with .Body}}<pre>{{.}}</pre>{{end}}</section>{{else}}<p>None yet.</p>{{end}}
<h2>Comments</h2>{{range .Comments}}<section><b>{{.Who}}</b> <small>{{.When}}</small><pre>{{.Body}}</pre></section>{{else}}<p>None yet.</p>{{end}}
<h2>Files</h2>{{range .Files}}<section><code>{{.Path}}</code> {{.Status}} <small>+{{.Additions}} −{{.Deletions}}</small>{{with .Patch}}<pre>{{.}}</pre>{{end}}</section>{{end}}
</html>`))

type pageItem struct{ Who, State, When, Body string }

type pageData struct {
	Pull                      *pull
	State, Author             string
	Reviews, Checks, Comments []pageItem
	Files                     []fileChange
}

// servePage shows a pull request to a person.
func (h *Hub) servePage(w http.ResponseWriter, r *http.Request) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if _, err := h.identify(r); err != nil && (bearer(r) != "" || !isLoopback(r.RemoteAddr)) {
		w.Header().Set("WWW-Authenticate", `Basic realm="GitHub"`)
		http.Error(w, "the password is your token", http.StatusUnauthorized)
		return
	}
	_, n, _ := strings.Cut(r.URL.Path, "/pull/")
	number, _ := strconv.ParseInt(n, 10, 64) // not a number: there is no pull request 0
	p, ok := h.store.pulls[number]
	if !ok || r.Method != http.MethodGet {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if err := pullPage.Execute(w, h.pageData(r, p)); err != nil {
		h.log.Warn("write page", "number", p.Number, "error", err)
	}
}

func (h *Hub) pageData(r *http.Request, p *pull) pageData {
	d := pageData{Pull: p, State: p.State, Author: h.people.byID(p.Author).Login}
	if p.Merged != nil {
		d.State = "merged"
	}
	for _, v := range h.store.reviewsOf(p.Number) {
		d.Reviews = append(d.Reviews, pageItem{h.people.byID(v.Author).Login, v.State, stamp(v.Submitted), v.Body})
	}
	for _, v := range h.store.commentsOf(p.Number) {
		d.Comments = append(d.Comments, pageItem{h.people.byID(v.Author).Login, "", stamp(v.Updated), v.Body})
	}
	for _, v := range sorted(h.store.checks, func(v *checkRun) (int64, bool) { return v.ID, v.HeadSHA == p.HeadSHA }) {
		item := pageItem{Who: v.Name, State: v.Status + " " + v.Conclusion}
		if v.Output.Summary != nil {
			item.Body = *v.Output.Summary
		}
		d.Checks = append(d.Checks, item)
	}
	d.Files, _, _ = h.pullFiles(r.Context(), p) // without common history there is nothing to show
	return d
}
