package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/record"
)

const (
	maxEvents = 400       // on one page
	maxText   = 64 << 10  // bytes of one event that are shown, and of its parameters
	maxShown  = 1 << 20   // bytes of all events of a page; escaped, they may be five times as many
	maxReplay = 128 << 20 // bytes of a recording that are read for a page
	maxFilter = 200
)

func sessionURL(id string) string { return "/sessions/" + url.PathEscape(id) }

// sessionRow is a session in a list.
type sessionRow struct {
	access.SessionInfo
	Now time.Time
}

// URL is the session's page, and GrantURL its grant's.
func (s sessionRow) URL() string      { return sessionURL(s.ID) }
func (s sessionRow) GrantURL() string { return grantURL(s.Grant) }

// Lasted is how long it was, or is, open.
func (s sessionRow) Lasted() time.Duration {
	if s.Ended.IsZero() {
		return s.Now.Sub(s.Started)
	}
	return s.Ended.Sub(s.Started)
}

// filter is what a list of sessions is narrowed to. Empty fields match all.
type filter struct{ Person, Target, Grant, State string }

func (f filter) matches(s access.SessionInfo) bool {
	has := func(part, whole string) bool { return strings.Contains(strings.ToLower(whole), strings.ToLower(part)) }
	return has(f.Person, s.Person.Login) && has(f.Target, s.Target.String()) && has(f.Grant, s.Grant.ID) &&
		(f.State != "open" || s.Ended.IsZero()) && (f.State != "ended" || !s.Ended.IsZero())
}

type sessionsView struct {
	filter
	Sessions []sessionRow
	More     int
	Last     int // so many sessions, the last of all, were looked at
}

func (c *Console) sessionsPage(w http.ResponseWriter, r *http.Request, v *viewer) error {
	q := func(name string) string { s := r.URL.Query().Get(name); return s[:min(len(s), maxFilter)] }
	out := sessionsView{filter: filter{q("person"), q("target"), q("grant"), q("state")}}
	all, err := c.sessions(r.Context())
	if err != nil {
		return err
	}
	out.Last = len(all)
	seen := map[access.GrantKey]bool{} // one question for each grant
	for _, s := range all {
		if !out.matches(s) {
			continue
		}
		may, known := seen[s.Grant]
		if s.Person.ID == v.user.ID {
			may = true
		} else if !known {
			may = c.seesSession(r.Context(), v, s)
			seen[s.Grant] = may
		}
		if may && len(out.Sessions) < maxRows {
			out.Sessions = append(out.Sessions, sessionRow{s, c.cfg.Now()})
		} else if may {
			out.More++
		}
	}
	c.render(w, r, answer{page: "sessions", title: "Sessions", live: true, viewer: v, data: out})
	return nil
}

type sessionView struct {
	sessionRow
	Reason    string
	SeesGrant bool
	Elsewhere string // why there is nothing to replay here
	Proof     proof
	Events    []eventRow
	From      int
	Next      int // 0 is no further page
	Prev      int // -1 is none
	Cut       bool
	Size      int64
}

// proof is what verifying the recording found.
type proof struct {
	record.Report
	Whole    bool
	Fault    string // where not
	Anchored int    // heads of the ledger that were compared
}

func (c *Console) sessionPage(w http.ResponseWriter, r *http.Request, v *viewer) error {
	s, reason, err := c.sessionOf(r, v)
	if err != nil {
		return err
	}
	ctx := r.Context()
	from, err := strconv.Atoi(r.URL.Query().Get("from"))
	if err != nil || from < 0 {
		from = 0
	}
	out := sessionView{sessionRow: sessionRow{s, c.cfg.Now()}, Reason: reason, From: from, Prev: -1}
	if from > 0 {
		out.Prev = max(0, from-maxEvents)
	}
	if g, err := c.cfg.Ledger.Grant(ctx, s.Grant); err == nil {
		out.SeesGrant = c.seesGrant(ctx, v, g)
	}
	give, err := turn(ctx, c.reading)
	if err != nil {
		return err
	}
	defer give()
	if err := c.replay(ctx, &out); err != nil {
		return err
	}
	if out.Elsewhere == "" && v.login.first(s.ID) {
		c.audit(ctx, v.user.Login, "console.viewed", s.ID, "the recording")
	}
	c.render(w, r, answer{page: "session", title: "Session " + short(s.ID), viewer: v, data: out})
	return nil
}

// sessionOf is the session that the address names, if the viewer may see it.
func (c *Console) sessionOf(r *http.Request, v *viewer) (access.SessionInfo, string, error) {
	s, reason, err := c.cfg.Ledger.Session(r.Context(), r.PathValue("id"))
	if access.CodeOf(err) == access.CodeNotFound && err != nil {
		return s, "", errNotFound
	}
	if err != nil {
		return s, "", err
	}
	if !c.seesSession(r.Context(), v, s) {
		return access.SessionInfo{}, "", errNotFound
	}
	return s, reason, nil
}

// replay reads a page of events, and proves the whole recording.
func (c *Console) replay(ctx context.Context, out *sessionView) error {
	f, err := c.recording(ctx, out.SessionInfo)
	if access.CodeOf(err) == access.CodeNotFound && err != nil {
		out.Elsewhere = access.Message(err)
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	out.Size = f.Size()
	if out.Size > maxReplay {
		out.Elsewhere = fmt.Sprintf("The recording has %d MiB, and the console replays %d: download it, then use tidegate replay and tidegate verify.", out.Size>>20, maxReplay>>20)
		return nil
	}
	if out.Proof, err = c.prove(ctx, f, out.ID); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read recording: %w", err)
	}
	return out.read(patient{ctx, f})
}

// recording opens a session's recording, or says where it lies.
func (c *Console) recording(ctx context.Context, s access.SessionInfo) (Recording, error) {
	if c.cfg.Recordings == nil {
		return nil, access.Errorf(access.CodeNotFound, "Recordings lie with the gateways, not here: use tidegate replay %s on the machine of gateway %s.", s.ID, s.Gateway)
	}
	f, err := c.cfg.Recordings.Open(ctx, s.ID)
	if access.CodeOf(err) == access.CodeNotFound && err != nil {
		return nil, access.Errorf(access.CodeNotFound, "The recording is not here. It was written by gateway %s.", s.Gateway)
	}
	return f, err
}

// prove verifies the whole recording with the recorders' keys and the heads
// that were anchored in the ledger.
func (c *Console) prove(ctx context.Context, f io.Reader, session string) (proof, error) {
	heads, err := c.cfg.Ledger.Heads(ctx, session)
	if err != nil {
		return proof{}, err
	}
	keys, err := c.cfg.Keys()
	if err != nil {
		return proof{}, err
	}
	report, err := record.Verify(patient{ctx, f}, keys, heads)
	p := proof{Report: report, Whole: err == nil, Anchored: len(heads)}
	var fault *record.Fault
	switch {
	case errors.As(err, &fault):
		p.Fault = fault.Error()
	case err != nil:
		return p, fmt.Errorf("verify recording: %w", err)
	case report.Session != session:
		p.Whole, p.Fault = false, "it is the recording of another session"
	}
	return p, nil
}

// eventRow is one event as a person reads it.
type eventRow struct {
	At, Kind, Class string
	Op              uint64
	Text            string
	Params          []string
	Note            string
	Left            int // bytes of Text that are not shown
}

func (out *sessionView) read(r io.Reader) error {
	n, shown := 0, 0
	for e, err := range record.Read(r) {
		if fault := (*record.Fault)(nil); errors.As(err, &fault) {
			out.Cut = true // the proof says where; what stands before it is shown
			return nil
		}
		if err != nil {
			return fmt.Errorf("read recording: %w", err)
		}
		switch {
		case n >= out.From+maxEvents, shown > maxShown:
			out.Next = n
			return nil
		case n >= out.From:
			row := rowOf(e)
			out.Events, shown = append(out.Events, row), shown+row.size()
		}
		n++
	}
	return nil
}

// download hands out the recording as it lies there.
func (c *Console) download(w http.ResponseWriter, r *http.Request, v *viewer) error {
	s, _, err := c.sessionOf(r, v)
	if err != nil {
		return err
	}
	give, err := turn(r.Context(), c.sending)
	if err != nil {
		return err
	}
	defer give()
	f, err := c.recording(r.Context(), s)
	if err != nil {
		return err
	}
	defer f.Close()
	c.audit(r.Context(), v.user.Login, "console.downloaded", s.ID, fmt.Sprintf("the recording, %d bytes", f.Size()))
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", `attachment; filename="`+fileName(s.ID)+`.tgr"`)
	w.Header().Set("Content-Length", strconv.FormatInt(f.Size(), 10))
	send(w, io.LimitReader(f, f.Size()))
	return nil
}

// send writes a file to a browser that keeps up. Where it does not, or left,
// the length says that the file is not whole.
func send(w http.ResponseWriter, r io.Reader) {
	control, end := http.NewResponseController(w), time.Now().Add(fileTimeout)
	for {
		at := time.Now().Add(chunkTimeout)
		if at.After(end) {
			at = end
		}
		_ = control.SetWriteDeadline(at) // one that can't be set is that of the server
		if n, err := io.CopyN(w, r, fileChunk); err != nil || n == 0 {
			return
		}
	}
}

// fileName is a session's id as a file name: what record.Find lets pass.
func fileName(id string) string {
	return strings.Map(func(r rune) rune {
		if r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return -1
	}, id)
}

// patient reads until its context ends.
type patient struct {
	ctx context.Context
	io.Reader
}

func (p patient) Read(b []byte) (int, error) {
	if p.ctx.Err() != nil {
		return 0, access.Errorf(access.CodeUnavailable, "Reading the recording takes too long: download it.")
	}
	return p.Reader.Read(b)
}
