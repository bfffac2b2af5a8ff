package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/tidegate/tidegate/access"
)

// What people look at. Nothing opens by what is read here.

const (
	maxTail    = 1000   // rows of the audit log at once
	maxScanned = 20_000 // rows that a search in the audit log looks at
	perScan    = 1000   // of them in one query, so that writers get in between
)

// Entry is a row of the audit log.
type Entry struct {
	Seq     int64
	At      time.Time // UTC
	Actor   string
	Action  string
	Subject string
	Detail  string
}

// auditRow is a row as it is stored.
type auditRow struct {
	seq   int64
	hash  string
	entry []byte
}

// AuditTail reads the last n rows of the audit log, newest first. It proves
// that they are whole and follow one another: a break is CodeInvalid, and
// comes with the rows behind it.
func (l *Ledger) AuditTail(ctx context.Context, n int) ([]Entry, error) {
	rows, err := l.auditRows(ctx, math.MaxInt64, min(n, maxTail))
	if err != nil {
		return nil, err
	}
	var out []Entry
	want := "" // the hash that the next older row must have
	for i, r := range rows {
		var e entry
		if json.Unmarshal(r.entry, &e) != nil || e.Seq != r.seq || digest(r.entry) != r.hash ||
			i > 0 && (r.hash != want || r.seq != rows[i-1].seq-1) {
			return out, access.Errorf(access.CodeInvalid, "The audit log is broken at row %d.", r.seq)
		}
		out, want = append(out, e.shown()), e.Prev
	}
	return out, nil
}

// AuditOf reads the rows about any of the subjects, oldest first, among the
// last 20,000 of the log. more is true if older ones were not looked at.
func (l *Ledger) AuditOf(ctx context.Context, subjects []string) (out []Entry, more bool, err error) {
	var marks [][]byte
	for _, s := range subjects {
		b, err := json.Marshal(s)
		if err != nil {
			return nil, false, fmt.Errorf("encode subject: %w", err)
		}
		marks = append(marks, append([]byte(`"subject":`), b...))
	}
	before := int64(math.MaxInt64)
	for range maxScanned / perScan {
		rows, err := l.auditRows(ctx, before, perScan)
		if err != nil {
			return nil, false, err
		}
		for _, r := range rows {
			if e, ok := about(r, marks); ok {
				out = append(out, e.shown())
			}
		}
		if len(rows) < perScan {
			before = 0
			break
		}
		before = rows[len(rows)-1].seq
	}
	slices.Reverse(out)
	return out, before > 1, nil
}

// about decodes a row only if its bytes hold one of the marks.
func about(r auditRow, marks [][]byte) (e entry, ok bool) {
	for _, m := range marks {
		if bytes.Contains(r.entry, m) && json.Unmarshal(r.entry, &e) == nil {
			return e, true
		}
	}
	return e, false
}

func (e entry) shown() Entry {
	return Entry{Seq: e.Seq, At: e.At, Actor: e.Actor, Action: e.Action, Subject: e.Subject, Detail: e.Detail}
}

// auditRows reads at most n rows below a sequence, newest first.
func (l *Ledger) auditRows(ctx context.Context, below int64, n int) (out []auditRow, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	rows, err := l.db.QueryContext(ctx, "select seq, hash, entry from audit where seq < $1 order by seq desc limit $2", below, n)
	if err != nil {
		return nil, unavailable("read audit log", err)
	}
	defer rows.Close()
	for rows.Next() {
		var r auditRow
		if err := rows.Scan(&r.seq, &r.hash, &r.entry); err != nil {
			return nil, unavailable("read audit log", err)
		}
		out = append(out, r)
	}
	if err := rows.Err(); err != nil {
		return nil, unavailable("read audit log", err)
	}
	return out, nil
}

// Session reads one session and why it ended ("" while it is open).
func (l *Ledger) Session(ctx context.Context, id string) (s access.SessionInfo, reason string, err error) {
	return readSession(ctx, l.db, id)
}

// ListHelds lists held operations, the last to expire first, at most 1000.
// Control gets none that it can't believe.
func (l *Ledger) ListHelds(ctx context.Context) ([]access.Held, error) {
	rows, err := l.heldRows(ctx, "select id, payload from held order by expires desc, id limit $1", maxList)
	if err != nil {
		return nil, err
	}
	var all []access.Held
	for _, r := range rows {
		h, err := l.heldOfRow(r)
		if err == nil {
			all = append(all, h)
		} else if access.CodeOf(err) != access.CodeDenied {
			return nil, err
		}
	}
	return all, nil
}
