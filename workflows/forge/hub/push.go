package hub

import (
	"bytes"
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const maxPush = 64 << 20

func removeFile(path string) error { return os.Remove(path) }

// serveGit is git over HTTP. Reading is open on loopback and asks for a token
// elsewhere; pushing needs a token with write permission.
func (h *Hub) serveGit(w http.ResponseWriter, r *http.Request) {
	push := strings.HasSuffix(r.URL.Path, "/git-receive-pack") || r.URL.Query().Get("service") == "git-receive-pack"
	h.mu.RLock()
	user, err := h.identify(r)
	h.mu.RUnlock()
	if err != nil && (push || bearer(r) != "" || !isLoopback(r.RemoteAddr)) {
		w.Header().Set("WWW-Authenticate", `Basic realm="GitHub"`)
		http.Error(w, "Authentication failed: the password is your token.", http.StatusUnauthorized)
		return
	}
	if push && !user.can(RoleWrite) {
		http.Error(w, "Write access to repository not granted.", http.StatusForbidden)
		return
	}
	if !strings.HasSuffix(r.URL.Path, "/git-receive-pack") {
		h.backend(user).ServeHTTP(w, r)
		return
	}
	h.receivePack(w, r, user)
}

// receivePack runs a push. Its body is read before the lock is taken, so that a
// slow client holds up nobody but itself.
func (h *Hub) receivePack(w http.ResponseWriter, r *http.Request, user User) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxPush))
	if err != nil {
		http.Error(w, "push is too large", http.StatusRequestEntityTooLarge)
		return
	}
	in := r.Clone(r.Context())
	in.Body, in.ContentLength, in.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
	out := &buffer{header: http.Header{}, status: http.StatusOK}
	err = h.changeRefs(context.WithoutCancel(r.Context()), user, func() error {
		h.backend(user).ServeHTTP(out, in)
		return nil
	})
	if err != nil {
		h.log.Error("push failed", "user", user.Login, "error", err)
		http.Error(w, "Server Error", http.StatusInternalServerError)
		return
	}
	for k, v := range out.header {
		w.Header()[k] = v
	}
	w.WriteHeader(out.status)
	_, _ = w.Write(out.body.Bytes()) // the client may have gone
}

// buffer holds an answer until the push has been noted.
type buffer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (b *buffer) Header() http.Header         { return b.header }
func (b *buffer) WriteHeader(status int)      { b.status = status }
func (b *buffer) Write(p []byte) (int, error) { return b.body.Write(p) }

func (h *Hub) backend(user User) http.Handler {
	admin := "no"
	if user.can(RoleAdmin) {
		admin = "yes"
	}
	root := "/" + h.cfg.Owner + "/" + h.cfg.Repo + ".git"
	return http.StripPrefix(root, &cgi.Handler{
		Path: h.git.bin, Args: []string{"http-backend"}, Dir: h.git.dir, Root: "/",
		InheritEnv: []string{"PATH"}, Logger: log.New(io.Discard, "", 0), Stderr: io.Discard,
		Env: append(slices.Clone(h.git.env), "GIT_PROJECT_ROOT="+h.git.dir, "GIT_HTTP_EXPORT_ALL=1",
			"REMOTE_USER="+user.Login, "TIDEGATE_HUB_ADMIN="+admin, "TIDEGATE_HUB_PROTECTED="+h.cfg.Branch,
			"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0="+filepath.ToSlash(h.git.dir)),
	})
}

func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// move is one ref that changed.
type move struct {
	ref, old, new string
	merge         bool // of a pull request
}

// changeRefs runs a change of the repository alone and lets everything follow
// that GitHub lets follow: heads of pull requests, events.
func (h *Hub) changeRefs(ctx context.Context, by User, change func() error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.watchRefs(ctx, by, change); err != nil {
		return err
	}
	return h.commit()
}

// watchRefs is changeRefs for those who hold the lock.
func (h *Hub) watchRefs(ctx context.Context, by User, change func() error) error {
	before, err := h.git.refs(ctx)
	if err != nil {
		return err
	}
	if err := change(); err != nil {
		return err
	}
	after, err := h.git.refs(ctx)
	if err != nil {
		return err
	}
	for _, m := range moves(before, after) {
		h.refMoved(ctx, m, by)
	}
	return nil
}

func moves(before, after map[string]string) []move {
	var out []move
	for ref, sha := range after {
		if before[ref] != sha {
			out = append(out, move{ref: ref, old: before[ref], new: sha})
		}
	}
	for ref, sha := range before {
		if _, ok := after[ref]; !ok {
			out = append(out, move{ref: ref, old: sha})
		}
	}
	slices.SortFunc(out, func(a, b move) int { return strings.Compare(a.ref, b.ref) })
	return out
}

func (h *Hub) refMoved(ctx context.Context, m move, by User) {
	h.keepActivity(ctx, m, by)
	h.sendPush(ctx, m, by)
	for _, p := range h.store.openPulls() {
		if m.ref == "refs/heads/"+p.Head {
			h.headMoved(ctx, p, m, by)
		}
		if m.ref == "refs/heads/"+p.Base && m.new != "" && p.State == "open" {
			h.baseMoved(ctx, p, m, by)
		}
	}
}

func (h *Hub) headMoved(ctx context.Context, p *pull, m move, by User) {
	if m.new == "" {
		h.closePull(ctx, p, by)
		return
	}
	p.HeadSHA, p.Updated = m.new, h.now()
	h.savePull(ctx, p)
	h.sendPull(ctx, p, by, "synchronize", obj{"before": m.old, "after": m.new})
}

// baseMoved closes a pull request as merged when its commits reached the base
// by another road, as GitHub does after a direct push.
func (h *Hub) baseMoved(ctx context.Context, p *pull, m move, by User) {
	arrived := m.old != "" && !h.git.isAncestor(ctx, p.HeadSHA, m.old) && h.git.isAncestor(ctx, p.HeadSHA, m.new)
	if !arrived {
		if now := h.now(); m.old != "" && !h.git.isAncestor(ctx, m.old, m.new) {
			p.Updated, p.Rebased, p.RebasedBy = now, &now, "BaseRefForcePushedEvent"
		}
		p.BaseSHA = m.new
		h.savePull(ctx, p)
		return
	}
	h.setMerged(ctx, p, by, p.HeadSHA)
}

func (h *Hub) setMerged(ctx context.Context, p *pull, by User, sha string) {
	now := h.now()
	p.State, p.Merged, p.Closed, p.MergedBy, p.MergeSHA, p.Updated = "closed", &now, &now, by.ID, sha, now
	h.savePull(ctx, p)
	h.sendPull(ctx, p, by, "closed", nil)
}

func (h *Hub) closePull(ctx context.Context, p *pull, by User) {
	now := h.now()
	p.State, p.Closed, p.Updated = "closed", &now, now
	h.savePull(ctx, p)
	h.sendPull(ctx, p, by, "closed", nil)
}

// savePull keeps the record and refs/pull/N/head, which holds the commits of a
// pull request when its branch is gone.
func (h *Hub) savePull(ctx context.Context, p *pull) {
	h.store.put("pull", p.Number, p)
	if err := h.git.setRef(ctx, pullRef(p), p.HeadSHA, ""); err != nil {
		h.log.Error("set head of pull request", "number", p.Number, "error", err)
	}
}
