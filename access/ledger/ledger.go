// Package ledger keeps who has what, durably. A grant is one row: its JSON,
// control's signature over it, and a sequence that rises over the whole
// ledger with each write. A write names the sequence that it read, so of two
// writers one wins and the other reads again. Held operations, sessions and
// the heads of their recordings are rows of the same database. Each change
// that matters writes a row of the hash-chained audit log in the same
// transaction.
//
// Writers take turns, whichever the database: SQLite has one writer, and on
// PostgreSQL a write begins with an advisory lock. So a transaction sees all
// that was written before it, and what it read stays true until it commits.
package ledger

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/tidegate/tidegate/access"
)

const (
	timeout  = 10 * time.Second // of one transaction, its retries included
	attempts = 5
	maxRow   = 16 << 20 // bytes of one row's JSON: a policy tree is the largest
	maxName  = 1024     // bytes of an id, an action, a subject
	maxList  = 1000     // rows of a list for people
)

// Config says where the ledger is and who writes.
type Config struct {
	URL          string             // "sqlite:/path" or "postgres://..."; it may hold a password
	Signer       ed25519.PrivateKey // control's; nil can't write grants or answers
	Installation string
	Existing     bool             // open what is there: neither make nor migrate it
	Now          func() time.Time // nil is time.Now
	Log          *slog.Logger     // nil discards
	Failed       func()           // called when the database did not do what it was asked; nil counts nothing

	// Gateways is the key by which a gateway signs what it holds; CodeDenied
	// says that it is not enrolled. A ledger that answers (one with a Signer)
	// shows and answers nothing that is not signed so.
	Gateways func(name string) (ed25519.PublicKey, error)

	// Watermark, of control alone, is what was seen of this ledger: an older one
	// opens nothing. Nil does not look.
	Watermark *Watermark

	// ForGateway is a gateway alone: its login may write little, and one that
	// could write what opens access is refused.
	ForGateway bool
}

// Ledger is an open ledger.
type Ledger struct {
	config  Config
	db      database
	dialect dialect
	hub     hub
}

// Open opens the ledger, makes it if need be, and brings its schema up to
// date. With Existing it takes it as it is, and refuses one of another schema.
// A login that may not bring it up to date is told so where it is not.
func Open(ctx context.Context, c Config) (*Ledger, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	db, d, err := connect(c)
	if err != nil {
		return nil, err
	}
	ready := migrate
	switch {
	case c.ForGateway:
		ready = openForGateway
	case c.Existing:
		ready = upToDate
	}
	if err := ready(ctx, db, d); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &Ledger{config: c, db: database{db, c.failed}, dialect: d, hub: newHub()}, nil
}

func connect(c Config) (*sql.DB, dialect, error) {
	if path, ok := strings.CutPrefix(c.URL, "sqlite:"); ok && path != "" {
		return connectSQLite(path, c.Existing)
	}
	if strings.HasPrefix(c.URL, "postgres://") || strings.HasPrefix(c.URL, "postgresql://") {
		return connectPostgres(c.URL)
	}
	return nil, dialect{}, access.Errorf(access.CodeInvalid, "Ledger URL not understood: want sqlite:/path or postgres://user@host/database.")
}

// Close ends the subscriptions of Changed and closes the ledger.
func (l *Ledger) Close() error {
	l.hub.close()
	return l.db.Close()
}

// errNotBegun marks a write of which the database heard nothing.
var errNotBegun = errors.New("no transaction")

// tx is a transaction that writes.
type tx struct {
	*sql.Tx
	tell  bool  // somebody waits in Changed for what it writes
	older error // the ledger is older than what was seen of it: only ends may be written
	head  mark  // the audit row that it wrote last
}

// write runs f in a transaction, again if the database asks for it; so f
// leaves nothing outside behind that a second run would trip over.
func (l *Ledger) write(ctx context.Context, f func(context.Context, *tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var err error
	for range attempts {
		if err = l.writeOnce(ctx, f); err == nil || !l.dialect.transient(err) {
			break
		}
	}
	err = classify(err)
	l.config.failed(err)
	return err
}

// failed counts an error that is the database's, and not its caller's.
func (c Config) failed(err error) {
	code := access.CodeOf(err)
	if err != nil && c.Failed != nil && (code == access.CodeUnavailable || code == access.CodeInternal) && !errors.Is(err, context.Canceled) && !errors.Is(err, errOlder) {
		c.Failed()
	}
}

// database counts what it could not answer outside of transactions.
type database struct {
	*sql.DB
	failed func(error)
}

func (d database) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	rows, err := d.DB.QueryContext(ctx, query, args...)
	d.failed(err)
	return rows, err
}

func (d database) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	row := d.DB.QueryRowContext(ctx, query, args...)
	d.failed(row.Err())
	return row
}

func (l *Ledger) writeOnce(ctx context.Context, f func(context.Context, *tx) error) error {
	t, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return unavailable("begin", errors.Join(errNotBegun, err))
	}
	w := &tx{Tx: t}
	if err := l.fill(ctx, w, f); err != nil {
		_ = t.Rollback() // err says what went wrong
		return err
	}
	if err := t.Commit(); err != nil {
		return unavailable("commit", err)
	}
	if w.tell {
		l.hub.notify()
	}
	l.note(ctx, w)
	return nil
}

// fill is what happens between begin and commit.
func (l *Ledger) fill(ctx context.Context, w *tx, f func(context.Context, *tx) error) error {
	if l.dialect.lock != "" {
		if _, err := w.ExecContext(ctx, l.dialect.lock); err != nil {
			return unavailable("wait for other writers", err)
		}
	}
	if w.older = l.older(ctx, w); w.older != nil && !errors.Is(w.older, errOlder) {
		return w.older
	}
	if err := f(ctx, w); err != nil {
		return err
	}
	if w.tell && l.dialect.notify != "" {
		if _, err := w.ExecContext(ctx, l.dialect.notify); err != nil {
			return unavailable("notify", err)
		}
	}
	return nil
}

// read runs f on one consistent state of the database.
func (l *Ledger) read(ctx context.Context, f func(context.Context, queryer) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	t, err := l.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true, Isolation: l.dialect.reading})
	if err != nil {
		err = unavailable("begin", err)
		l.config.failed(err)
		return err
	}
	err = f(ctx, t)
	_ = t.Rollback() // it wrote nothing
	err = classify(err)
	l.config.failed(err)
	return err
}

func classify(err error) error {
	if e := (*access.Error)(nil); err == nil || errors.As(err, &e) {
		return err
	}
	return unavailable("use ledger", err)
}

func unavailable(what string, err error) error {
	return &access.Error{Code: access.CodeUnavailable, Message: "The ledger does not answer; try again.", Cause: fmt.Errorf("%s: %w", what, err)}
}

// queryer is a database or a transaction.
type queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// one decodes the JSON that a query answers with; sql.ErrNoRows passes through.
func one[T any](ctx context.Context, q queryer, query string, args ...any) (v T, err error) {
	var b []byte
	if err := q.QueryRowContext(ctx, query, args...).Scan(&b); err != nil {
		return v, err
	}
	return v, decode(b, &v)
}

// list decodes the JSON of each row of a query.
func list[T any](ctx context.Context, q queryer, query string, args ...any) ([]T, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, unavailable("read ledger", err)
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		var b []byte
		if err := rows.Scan(&b); err != nil {
			return nil, unavailable("read ledger", err)
		}
		var v T
		if err := decode(b, &v); err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	if err := rows.Err(); err != nil {
		return nil, unavailable("read ledger", err)
	}
	return all, nil
}

func decode(b []byte, v any) error {
	if err := json.Unmarshal(b, v); err != nil {
		return &access.Error{Code: access.CodeInternal, Message: "A row of the ledger can't be read.", Cause: fmt.Errorf("decode row: %w", err)}
	}
	return nil
}

func encode(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, &access.Error{Code: access.CodeInternal, Message: "A row for the ledger can't be written.", Cause: fmt.Errorf("encode row: %w", err)}
	}
	if len(b) > maxRow {
		return nil, access.Errorf(access.CodeTooLarge, "This is %d bytes for one row of the ledger; %d is the most.", len(b), maxRow)
	}
	return b, nil
}

// named refuses ids and other short words that are none.
func named(what, s string) error {
	if s == "" || len(s) > maxName || s != clean(s) {
		return access.Errorf(access.CodeInvalid, "Got %s of %d bytes, want 1 to %d of UTF-8 without NUL.", what, len(s), maxName)
	}
	return nil
}

// clean is s without what PostgreSQL's text can't hold.
func clean(s string) string {
	return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), "\uFFFD")
}

func changed(r sql.Result, err error) (bool, error) {
	if err != nil {
		return false, err
	}
	n, err := r.RowsAffected()
	return n == 1, err
}
