package hub

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	maxBody    = 4 << 20
	docsURL    = "https://docs.github.com/rest"
	rateBudget = 15_000
)

type obj = map[string]any

// apiError is an answer that is not a success, in GitHub's form.
type apiError struct {
	Status  int
	Message string
	Errors  []fieldError
}

type fieldError struct {
	Resource string `json:"resource"`
	Field    string `json:"field,omitempty"`
	Code     string `json:"code"`
	Message  string `json:"message,omitempty"`
}

func (e *apiError) Error() string { return fmt.Sprintf("%d %s", e.Status, e.Message) }

func fail(status int, format string, args ...any) error {
	return &apiError{Status: status, Message: fmt.Sprintf(format, args...)}
}

func invalid(resource, field, message string) error {
	return &apiError{Status: http.StatusUnprocessableEntity, Message: "Validation Failed",
		Errors: []fieldError{{Resource: resource, Field: field, Code: "custom", Message: message}}}
}

var notFound = &apiError{Status: http.StatusNotFound, Message: "Not Found"}

func writeError(w http.ResponseWriter, e *apiError) {
	body := obj{"message": e.Message, "documentation_url": docsURL, "status": strconv.Itoa(e.Status)}
	if e.Errors != nil {
		body["errors"] = e.Errors
	}
	data, _ := json.Marshal(body) // strings only
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(e.Status)
	_, _ = w.Write(data) // the client may have gone
}

// call is one request to the API on its way through a handler. Handlers run
// with the hub locked: shared for GET, alone for everything else.
type call struct {
	*Hub
	r      *http.Request
	me     User
	header http.Header
	status int
	body   any
	raw    []byte // instead of body
}

type handler func(*call) error

// route is a line of the API: its pattern and what it needs.
type route struct {
	pattern string
	need    Role
	do      handler
}

func (h *Hub) routes() http.Handler {
	mux := http.NewServeMux()
	for _, list := range [][]route{h.repoRoutes(), h.pullRoutes(), h.talkRoutes(), h.checkRoutes(), h.gitRoutes(), h.orgRoutes(), h.hookRoutes(), h.appRoutes()} {
		for _, r := range list {
			mux.Handle(r.pattern, h.serve(r))
		}
	}
	mux.Handle("POST /graphql", h.serve(route{"POST /graphql", RoleRead, graphQL}))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { writeError(w, notFound) })
	return mux
}

func (h *Hub) serve(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &call{Hub: h, r: r, header: w.Header(), status: http.StatusOK}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err == nil {
			c.raw = body
			err = c.run(rt)
		} else {
			err = fail(http.StatusRequestEntityTooLarge, "Request body is too large, want at most %d bytes", maxBody)
		}
		h.answer(w, c, err)
	})
}

// run authenticates, locks, handles and makes durable.
func (c *call) run(rt route) error {
	if c.r.Method == http.MethodGet {
		c.mu.RLock()
		defer c.mu.RUnlock()
	} else {
		c.mu.Lock()
		defer c.mu.Unlock()
	}
	input := c.raw
	c.raw = nil
	c.r.Body = io.NopCloser(strings.NewReader(string(input)))
	if err := c.authenticate(rt.need); err != nil {
		return err
	}
	if err := c.inRepo(); err != nil {
		return err
	}
	err := rt.do(c)
	if c.r.Method == http.MethodGet {
		return err
	}
	// What an error leaves behind is still true: a handler changes records
	// only after it has checked everything.
	return errors.Join(err, c.commit())
}

func (c *call) inRepo() error {
	owner, repo := c.r.PathValue("owner"), c.r.PathValue("repo")
	if owner != "" && (!strings.EqualFold(owner, c.cfg.Owner) || !strings.EqualFold(repo, c.cfg.Repo)) {
		return notFound
	}
	if org := c.r.PathValue("org"); org != "" && !strings.EqualFold(org, c.cfg.Owner) {
		return notFound
	}
	if id := c.r.PathValue("org_id"); id != "" && id != strconv.FormatInt(c.cfg.OwnerID, 10) {
		return notFound
	}
	return nil
}

// roleNone marks routes that look after their own authentication.
const roleNone Role = "none"

func (c *call) authenticate(need Role) error {
	if need == roleNone {
		return nil
	}
	user, err := c.identify(c.r)
	if err != nil {
		return err
	}
	c.me = user
	if !user.can(need) {
		return fail(http.StatusForbidden, "Must have %s rights to Repository.", need)
	}
	return nil
}

// identify finds the user behind a bearer token or the password of basic auth.
func (h *Hub) identify(r *http.Request) (User, error) {
	token := bearer(r)
	if token == "" {
		return User{}, fail(http.StatusUnauthorized, "Requires authentication")
	}
	if u, ok := h.people.byToken[tokenKey(token)]; ok {
		return *u, nil
	}
	if t, ok := h.tokens[tokenKey(token)]; ok && h.cfg.Now().Before(t.expires) {
		return t.user, nil
	}
	return User{}, fail(http.StatusUnauthorized, "Bad credentials")
}

func bearer(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	switch strings.ToLower(scheme) {
	case "bearer", "token":
		return strings.TrimSpace(token)
	case "basic":
		_, password, _ := r.BasicAuth()
		return password
	}
	return ""
}

func (h *Hub) answer(w http.ResponseWriter, c *call, err error) {
	h.rateHeaders(w.Header(), c.r)
	var known *apiError
	switch {
	case errors.Is(err, errNotFound):
		writeError(w, notFound)
		return
	case errors.As(err, &known):
		writeError(w, known)
		return
	case err != nil:
		h.log.Error("request failed", "method", c.r.Method, "path", c.r.URL.Path, "error", err)
		writeError(w, &apiError{Status: http.StatusInternalServerError, Message: "Server Error"})
		return
	}
	data := c.raw
	if data == nil && c.body != nil {
		if data, err = json.Marshal(c.body); err != nil {
			h.log.Error("encode answer", "path", c.r.URL.Path, "error", err)
			writeError(w, &apiError{Status: http.StatusInternalServerError, Message: "Server Error"})
			return
		}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
	}
	send(w, c, data)
}

func send(w http.ResponseWriter, c *call, data []byte) {
	if c.r.Method == http.MethodGet && c.status == http.StatusOK {
		sum := sha256.Sum256(data)
		etag := fmt.Sprintf(`W/"%x"`, sum[:16])
		w.Header().Set("ETag", etag)
		w.Header().Set("Cache-Control", "private, max-age=60, s-maxage=60")
		w.Header().Set("Vary", "Accept, Authorization")
		if strings.TrimPrefix(c.r.Header.Get("If-None-Match"), "W/") == strings.TrimPrefix(etag, "W/") {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	w.WriteHeader(c.status)
	_, _ = w.Write(data) // the client may have gone
}

// rateHeaders shows a budget that never shrinks: the hub does not limit.
func (h *Hub) rateHeaders(header http.Header, r *http.Request) {
	resource := "core"
	if r.URL.Path == "/graphql" {
		resource = "graphql"
	}
	header.Set("X-RateLimit-Limit", strconv.Itoa(rateBudget))
	header.Set("X-RateLimit-Remaining", strconv.Itoa(rateBudget))
	header.Set("X-RateLimit-Used", "0")
	header.Set("X-RateLimit-Reset", strconv.FormatInt(h.cfg.Now().Add(time.Hour).Unix(), 10))
	header.Set("X-RateLimit-Resource", resource)
	header.Set("X-GitHub-Media-Type", "github.v3; format=json")
}

func (c *call) reply(status int, body any) error {
	c.status, c.body = status, body
	return nil
}

func (c *call) decode(v any) error {
	data, err := io.ReadAll(c.r.Body)
	if err != nil {
		return fail(http.StatusBadRequest, "Problems reading the body")
	}
	if len(data) == 0 {
		return nil
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fail(http.StatusBadRequest, "Problems parsing JSON")
	}
	return nil
}

func (c *call) id(name string) (int64, error) {
	n, err := strconv.ParseInt(c.r.PathValue(name), 10, 64)
	if err != nil || n <= 0 {
		return 0, notFound
	}
	return n, nil
}

// page cuts a list to the page asked for and says where the others are.
func page[T any](c *call, all []T) []T {
	q := c.r.URL.Query()
	per := number(q.Get("per_page"), 30, 100)
	at := number(q.Get("page"), 1, 1<<20)
	last := max(1, (len(all)+per-1)/per)
	var links []string
	link := func(rel string, n int) {
		q.Set("page", strconv.Itoa(n))
		u := url.URL{Path: c.r.URL.Path, RawQuery: q.Encode()}
		links = append(links, fmt.Sprintf(`<%s%s>; rel="%s"`, c.apiBase(), u.String(), rel))
	}
	if at > 1 {
		link("prev", at-1)
	}
	if at < last {
		link("next", at+1)
		link("last", last)
	}
	if at > 1 {
		link("first", 1)
	}
	if links != nil {
		c.header.Set("Link", strings.Join(links, ", "))
	}
	from := min((at-1)*per, len(all))
	return all[from:min(from+per, len(all))]
}

func number(s string, fallback, most int) int {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return fallback
	}
	return min(n, most)
}

// list answers with a page of records, each shown by view.
func list[T any](c *call, all []T, view func(T) (obj, error)) error {
	out := []obj{}
	for _, v := range page(c, all) {
		o, err := view(v)
		if err != nil {
			return err
		}
		out = append(out, o)
	}
	return c.reply(http.StatusOK, out)
}

// shown makes a view that cannot fail fit list.
func shown[T any](view func(T) obj) func(T) (obj, error) {
	return func(v T) (obj, error) { return view(v), nil }
}
