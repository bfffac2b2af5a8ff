package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/tidegate/tidegate/access"
)

// OpenSession stores a session as it opens, under an active grant.
func (l *Ledger) OpenSession(ctx context.Context, s access.SessionInfo) error {
	if err := named("a session id", s.ID); err != nil {
		return err
	}
	s.Started, s.NotAfter = s.Started.UTC(), s.NotAfter.UTC()
	b, err := encode(s)
	if err != nil {
		return err
	}
	return l.write(ctx, func(ctx context.Context, t *tx) error {
		if _, err := readActive(ctx, t, s.Grant); err != nil {
			return err
		}
		ok, err := changed(t.ExecContext(ctx, `insert into sessions (id, repo, grant_id, started, reason, payload)
			values ($1,$2,$3,$4,'',$5) on conflict (id) do nothing`, s.ID, s.Grant.Repo, s.Grant.ID, s.Started.UnixMicro(), b))
		if err != nil {
			return err
		}
		if !ok {
			return access.Errorf(access.CodeConflict, "A session %s is in the ledger already.", s.ID)
		}
		t.tell = true
		return l.audit(ctx, t, entry{Actor: s.Person.Login, Action: "session.open", Subject: s.ID,
			Detail: fmt.Sprintf("grant %s on %s as %s, from %s, by gateway %s", s.Grant, s.Target, s.Role, s.Remote, s.Gateway)})
	})
}

// CloseSession stores that a session ended, and why. A second call changes nothing.
func (l *Ledger) CloseSession(ctx context.Context, id string, reason string) error {
	return l.write(ctx, func(ctx context.Context, t *tx) error {
		s, _, err := readSession(ctx, t, id)
		if err != nil || !s.Ended.IsZero() {
			return err
		}
		if _, err := t.ExecContext(ctx, "update sessions set ended=$2, reason=$3 where id=$1",
			id, l.config.Now().UnixMicro(), clean(reason)); err != nil {
			return err
		}
		t.tell = true
		return l.audit(ctx, t, entry{Actor: s.Person.Login, Action: "session.close", Subject: id, Detail: reason})
	})
}

// Abandon ends what a gateway left behind when it ended without a word: the
// sessions that it lists, and what it held. It is for the start of the one
// gateway of that name.
func (l *Ledger) Abandon(ctx context.Context, gateway string) error {
	open, err := l.sessions(ctx, math.MaxInt, func(s access.SessionInfo) bool { return s.Gateway == gateway }, "ended is null")
	if err != nil {
		return err
	}
	for _, s := range open {
		if err := l.CloseSession(ctx, s.ID, "The gateway ended before the session was closed."); err != nil {
			return err
		}
	}
	waiting, err := l.heldRows(ctx, "select id, payload from held where state in ('open', 'answered')")
	if err != nil {
		return err
	}
	for _, r := range waiting {
		var h access.Held
		if decode(r.payload, &h) != nil || h.Gateway != gateway {
			continue // what can't be read is no gateway's: control voids it
		}
		if err := l.CancelHeld(ctx, r.id, access.HeldCancelled); err != nil && access.CodeOf(err) != access.CodeConflict {
			return err
		}
	}
	return nil
}

// Sessions lists the sessions of a grant, oldest first.
func (l *Ledger) Sessions(ctx context.Context, grant access.GrantKey) ([]access.SessionInfo, error) {
	return l.sessions(ctx, math.MaxInt, func(access.SessionInfo) bool { return true }, "repo=$1 and grant_id=$2 order by started, id", grant.Repo, grant.ID)
}

// ListSessions lists the last sessions, newest first, at most 1000.
func (l *Ledger) ListSessions(ctx context.Context) ([]access.SessionInfo, error) {
	return l.FindSessions(ctx, SessionFilter{})
}

// SessionFilter says which sessions are wanted: those that all of it fits.
type SessionFilter struct {
	Person string // a login, in any case
	Target string // "postgres.orders-prod", or the name alone
	Grant  string // an id
	Since  time.Time
	Until  time.Time // with Since: open at some moment between the two
}

func (f SessionFilter) matches(s access.SessionInfo) bool {
	return (f.Person == "" || strings.EqualFold(f.Person, s.Person.Login)) &&
		(f.Target == "" || f.Target == s.Target.String() || f.Target == s.Target.Name) &&
		(f.Grant == "" || f.Grant == s.Grant.ID)
}

// FindSessions lists the last sessions that fit, newest first, at most 1000.
func (l *Ledger) FindSessions(ctx context.Context, f SessionFilter) (found []access.SessionInfo, err error) {
	since, until := int64(0), int64(math.MaxInt64)
	if !f.Since.IsZero() {
		since = f.Since.UnixMicro()
	}
	if !f.Until.IsZero() {
		until = f.Until.UnixMicro()
	}
	return l.sessions(ctx, maxList, f.matches, "started < $1 and (ended is null or ended >= $2) order by started desc, id", until, since)
}

// sessionColumns is what a session is read from. Its payload never changes; a
// gateway's login can write the end alone.
const sessionColumns = "select id, repo, grant_id, ended, reason, payload from sessions where "

// sessions reads at most so many that match.
func (l *Ledger) sessions(ctx context.Context, most int, matches func(access.SessionInfo) bool, where string, args ...any) (found []access.SessionInfo, err error) {
	rows, err := l.db.QueryContext(ctx, sessionColumns+where, args...)
	if err != nil {
		return nil, unavailable("read sessions", err)
	}
	defer rows.Close()
	for len(found) < most && rows.Next() {
		s, _, err := scanSession(rows.Scan)
		if err != nil {
			return nil, unavailable("read sessions", err)
		}
		if matches(s) {
			found = append(found, s)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, unavailable("read sessions", err)
	}
	return found, nil
}

func readSession(ctx context.Context, q queryer, id string) (s access.SessionInfo, reason string, err error) {
	s, reason, err = scanSession(q.QueryRowContext(ctx, sessionColumns+"id=$1", id).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return s, "", access.Errorf(access.CodeNotFound, "No session %s in the ledger.", clean(id))
	}
	if err != nil {
		return s, "", unavailable("read session", err)
	}
	return s, reason, nil
}

// scanSession reads one row. Whose it is and when it ended, the columns say; a
// payload that can't be read is nobody's session, and hides no other.
func scanSession(scan func(...any) error) (s access.SessionInfo, reason string, err error) {
	var payload []byte
	var ended sql.NullInt64
	var id string
	var grant access.GrantKey
	if err := scan(&id, &grant.Repo, &grant.ID, &ended, &reason, &payload); err != nil {
		return s, "", err
	}
	if decode(payload, &s) != nil {
		s = access.SessionInfo{}
	}
	s.ID, s.Grant, s.Ended = id, grant, time.Time{}
	if ended.Valid {
		s.Ended = time.UnixMicro(ended.Int64).UTC()
	}
	return s, reason, nil
}

// Anchor keeps a recording's head outside the recording. Segments rise, one
// hash each, and a sealed one is the last: CodeConflict says that somebody
// tells another story than before. The same head twice is fine.
func (l *Ledger) Anchor(ctx context.Context, h access.Head) error {
	if err := errors.Join(named("a session id", h.Session), named("a head's hash", h.Hash)); err != nil {
		return err
	}
	if h.Segment > math.MaxInt64 {
		return access.Errorf(access.CodeInvalid, "Got segment %d, want at most %d.", h.Segment, int64(math.MaxInt64))
	}
	h.Time = h.Time.UTC()
	b, err := encode(h)
	if err != nil {
		return err
	}
	return l.write(ctx, func(ctx context.Context, t *tx) error {
		last, err := one[access.Head](ctx, t, "select payload from heads where session=$1 order by segment desc limit 1", h.Session)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if err == nil && (last.Sealed || h.Segment <= last.Segment) {
			return sameHead(ctx, t, h)
		}
		_, err = t.ExecContext(ctx, "insert into heads (session, segment, payload) values ($1,$2,$3)", h.Session, int64(h.Segment), b)
		return err
	})
}

// sameHead accepts a head that was anchored before, just so.
func sameHead(ctx context.Context, t *tx, h access.Head) error {
	old, err := one[access.Head](ctx, t, "select payload from heads where session=$1 and segment=$2", h.Session, int64(h.Segment))
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if err == nil && old.Hash == h.Hash && old.Sealed == h.Sealed {
		return nil
	}
	return access.Errorf(access.CodeConflict, "Segment %d of session %s does not continue what was anchored.", h.Segment, h.Session)
}

// Heads lists what was anchored of a session, in order.
func (l *Ledger) Heads(ctx context.Context, session string) ([]access.Head, error) {
	return list[access.Head](ctx, l.db, "select payload from heads where session=$1 order by segment", session)
}
