package console

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/workflows/forge"
)

//go:embed static
var static embed.FS

//go:embed pages
var pages embed.FS

var staticFiles = func() fs.FS { sub, _ := fs.Sub(static, "static"); return sub }() // the folder is embedded: it is there

// version changes with the static files, so that a browser may keep each for ever.
var version = func() string {
	sum := sha256.New()
	for _, name := range []string{"static/style.css", "static/live.js"} {
		b, err := static.ReadFile(name)
		if err != nil {
			panic(err) // a mistake in this package
		}
		sum.Write(b)
	}
	return hex.EncodeToString(sum.Sum(nil)[:6])
}()

var templates = template.Must(template.New("").Funcs(template.FuncMap{
	"when": when, "machine": func(t time.Time) string { return t.UTC().Format(time.RFC3339) }, "length": length, "short": short,
	"join": strings.Join, "lower": func(s any) string { return strings.ToLower(fmt.Sprint(s)) }, "parties": parties, "mask": maskWords,
	"version": func() string { return version }, "rows": rows, "terms": terms,
}).ParseFS(pages, "pages/*.html"))

// answer is a page to render.
type answer struct {
	page, title string
	status      int // 0 is 200
	live        bool
	viewer      *viewer
	data        any
}

// frame is what the layout reads.
type frame struct {
	Title, Page, User, Identity, Secret, Flash string
	All, Blind, Live                           bool
	Body                                       template.HTML
}

// render writes a whole page or none. What people wrote is escaped by the
// templates; what a reader would not see is made visible in all of it.
func (c *Console) render(w http.ResponseWriter, r *http.Request, a answer) {
	var body, page bytes.Buffer
	err := templates.ExecuteTemplate(&body, a.page+".html", view{Viewer: a.viewer, Data: a.data})
	f := frame{Title: a.title, Page: a.page, Live: a.live, Body: template.HTML(body.String())}
	if v := a.viewer; v != nil {
		f.User, f.Identity, f.Secret, f.All, f.Blind = v.user.Login, v.login.identity.String(), v.login.secret, v.all, v.blind
		f.Flash = v.login.said()
	}
	if err == nil {
		err = templates.ExecuteTemplate(&page, "layout.html", f)
	}
	if err == nil && page.Len() > maxPage {
		err = errors.New("the page is too large")
	}
	if err != nil {
		c.cfg.Log.Error("console: page not made", "path", r.URL.Path, "error", err)
		http.Error(w, "The page could not be made; the operator's log has the reason.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if a.status != 0 {
		w.WriteHeader(a.status)
	}
	_, _ = w.Write([]byte(forge.Visible(page.String()))) // the reader left: nobody is there to tell
}

// view is what a page's template reads.
type view struct {
	Viewer *viewer
	Data   any
}

// Secret goes into each form.
func (v view) Secret() string {
	if v.Viewer == nil {
		return ""
	}
	return v.Viewer.login.secret
}

func (c *Console) refuse(w http.ResponseWriter, r *http.Request, err error) {
	c.refuseTo(w, r, nil, err)
}

// refuseTo says why not. An error that nobody classified is logged, not shown.
func (c *Console) refuseTo(w http.ResponseWriter, r *http.Request, v *viewer, err error) {
	code := access.CodeOf(err)
	if code == access.CodeInternal || code == access.CodeUnavailable {
		c.cfg.Log.Error("console: request failed", "path", r.URL.Path, "error", err)
	}
	status, title := statusOf(code)
	c.render(w, r, answer{page: "refused", title: title, status: status, viewer: v, data: refusal{title, access.Message(err)}})
}

// refusal is what the page of a refusal shows.
type refusal struct{ Title, Why string }

func statusOf(code access.Code) (int, string) {
	switch code {
	case access.CodeUnauthenticated:
		return http.StatusUnauthorized, "Not logged in"
	case access.CodeDenied:
		return http.StatusForbidden, "Not allowed"
	case access.CodeNotFound:
		return http.StatusNotFound, "Not found"
	case access.CodeInvalid:
		return http.StatusBadRequest, "Not understood"
	case access.CodeConflict, access.CodeEnded:
		return http.StatusConflict, "Too late"
	case access.CodeTooLarge:
		return http.StatusRequestEntityTooLarge, "Too large"
	case access.CodeUnavailable:
		return http.StatusServiceUnavailable, "Not now"
	}
	return http.StatusInternalServerError, "Something went wrong"
}

// static serves the two files that pages name, for ever: their name changes.
func (c *Console) static(w http.ResponseWriter, r *http.Request) {
	kinds := map[string]string{"style.css": "text/css; charset=utf-8", "live.js": "text/javascript; charset=utf-8"}
	kind, ok := kinds[r.PathValue("file")]
	if !ok {
		c.refuse(w, r, errNotFound)
		return
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	http.ServeFileFS(w, r, staticFiles, r.PathValue("file"))
}

func same(got, want string) bool {
	return want != "" && subtle.ConstantTimeCompare([]byte(got), []byte(want)) == 1
}

// titled are the rows of a table whose last times have a name.
type titled struct {
	Time string
	Rows []grantRow
}

func rows(time string, all []grantRow) titled { return titled{time, all} }

// when is a moment for people: UTC, to the second.
func when(t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	return t.UTC().Format("2006-01-02 15:04:05")
}

// length is a time for people, in its two largest units: "1 h 5 min".
func length(d time.Duration) string {
	d = d.Round(time.Second)
	switch {
	case d >= 24*time.Hour:
		return fmt.Sprintf("%d d %d h", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%d min %d s", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%d s", max(0, d/time.Second))
}

// short is the beginning of a digest or an id, which the title has whole.
func short(s string) string { return s[:min(len(s), 8)] }

func parties(list []access.Party) string {
	var names []string
	for _, p := range list {
		names = append(names, p.Name)
	}
	if len(names) == 0 {
		return "nobody"
	}
	return strings.Join(names, " or ")
}

// terms are what a role says besides what may be read and written: which rows,
// and its settings, which for SSH are all that it gives.
func terms(r access.Role) []string {
	var all []string
	for _, only := range r.Rows {
		all = append(all, "of "+cmp.Or(only.Tables, "each table")+" rows where "+only.Where)
	}
	if r.Record != "" {
		all = append(all, "record = "+r.Record)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Settings)) {
		all = append(all, name+" = "+strings.ReplaceAll(r.Settings[name], "\n", ", "))
	}
	return all
}

func maskWords(m access.MaskWith) string {
	switch m.Kind {
	case access.MaskConstant:
		return fmt.Sprintf("shown as %q", m.Text)
	case access.MaskPartial:
		return fmt.Sprintf("the last %d characters are shown", m.Keep)
	}
	return "shown as NULL"
}

// web is an address that a link may lead to, or nothing.
func web(s string) string {
	if strings.HasPrefix(s, "https://") || strings.HasPrefix(s, "http://") {
		return s
	}
	return ""
}
