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
	e.Seq++
	e.At = l.config.Now().UTC()
	b, err := encode(e)
	if err != nil {
		return err
	}
	_, err = t.ExecContext(ctx, "insert into audit (seq, hash, entry) values ($1,$2,$3)", e.Seq, digest(b), b)
	return err
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// VerifyAudit walks the chain and names the first broken row. A tail that was
// cut off shows only against a hash kept elsewhere.
func (l *Ledger) VerifyAudit(ctx context.Context) error {
	rows, err := l.db.QueryContext(ctx, "select seq, hash, entry from audit order by seq")
	if err != nil {
		return unavailable("read audit log", err)
	}
	defer rows.Close()
	prev, want := "", int64(1)
	for ; rows.Next(); want++ {
		var seq int64
		var hash string
		var b []byte
		if err := rows.Scan(&seq, &hash, &b); err != nil {
			return unavailable("read audit log", err)
		}
		var e entry
		if json.Unmarshal(b, &e) != nil || seq != want || e.Seq != want || e.Prev != prev || digest(b) != hash {
			return access.Errorf(access.CodeInvalid, "The audit log is broken at row %d.", want)
		}
		prev = hash
	}
	if err := rows.Err(); err != nil {
		return unavailable("read audit log", err)
	}
	return nil
}
