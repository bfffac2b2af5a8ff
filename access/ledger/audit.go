package ledger

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"time"

	"github.com/tidegate/tidegate/access"
)

const maxDetail = 64 << 10 // bytes

// entry is a row of the audit log; its hash covers the hash before it.
type entry struct {
	Seq     int64     `json:"seq"`
	Prev    string    `json:"prev"`
	At      time.Time `json:"at"`
	Actor   string    `json:"actor"`
	Action  string    `json:"action"`
	Subject string    `json:"subject"`
	Detail  string    `json:"detail"`
}

// Audit appends to the audit log.
func (l *Ledger) Audit(ctx context.Context, actor, action, subject, detail string) error {
	e := entry{Actor: actor, Action: action, Subject: subject, Detail: detail}
	if err := named("an action", action); err != nil {
		return err
	}
	if n := len(actor) + len(subject) + len(detail); n > maxDetail {
		return access.Errorf(access.CodeTooLarge, "This is %d bytes for one row of the audit log; %d is the most.", n, maxDetail)
	}
	return l.write(ctx, func(ctx context.Context, t *tx) error { return l.audit(ctx, t, e) })
}

func (l *Ledger) audit(ctx context.Context, t *tx, e entry) error {
	err := t.QueryRowContext(ctx, "select seq, hash from audit order by seq desc limit 1").Scan(&e.Seq, &e.Prev)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	e.Actor, e.Subject, e.Detail = clean(e.Actor), clean(e.Subject), clean(e.Detail) // PostgreSQL reads the row, too
	e.Seq++
	e.At = l.config.Now().UTC()
	b, err := encode(e)
	if err != nil {
		return err
	}
	if _, err = t.ExecContext(ctx, "insert into audit (seq, hash, entry) values ($1,$2,$3)", e.Seq, digest(b), b); err != nil || l.config.Watermark == nil {
		return err
	}
	t.head, err = headOf(ctx, t)
	return err
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// VerifyAudit walks the chain and names the first broken row. A tail that was
// cut off shows only against a hash kept elsewhere. It reads in steps, so that
// writers get in between.
func (l *Ledger) VerifyAudit(ctx context.Context) error {
	w := walk{want: 1}
	for {
		n, err := l.walkAudit(ctx, &w)
		if err != nil || n < perScan {
			return err
		}
	}
}

// walk is where the walk along the chain stands.
type walk struct {
	prev string
	want int64
}

// walkAudit takes one step and answers with the number of its rows.
func (l *Ledger) walkAudit(ctx context.Context, w *walk) (n int, err error) {
	rows, err := l.db.QueryContext(ctx, "select seq, hash, entry from audit where seq >= $1 order by seq limit $2", w.want, perScan)
	if err != nil {
		return 0, unavailable("read audit log", err)
	}
	defer rows.Close()
	for ; rows.Next(); n++ {
		var r auditRow
		if err := rows.Scan(&r.seq, &r.hash, &r.entry); err != nil {
			return 0, unavailable("read audit log", err)
		}
		var e entry
		if json.Unmarshal(r.entry, &e) != nil || r.seq != w.want || e.Seq != w.want || e.Prev != w.prev || digest(r.entry) != r.hash {
			return 0, access.Errorf(access.CodeInvalid, "The audit log is broken at row %d.", w.want)
		}
		w.prev, w.want = r.hash, w.want+1
	}
	if err := rows.Err(); err != nil {
		return 0, unavailable("read audit log", err)
	}
	return n, nil
}
