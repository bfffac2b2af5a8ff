// Package ledger keeps who has what, durably. A grant is one row: its JSON,
// control's signature over it, and a sequence that rises over the whole
// ledger with each write. A write names the sequence that it read, so of two
// writers one wins and the other reads again. Each change writes a row of the
// hash-chained audit log in the same transaction.
package ledger

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/tidegate/tidegate/access"
)

//go:embed migrations
var migrations embed.FS

// Config says where the ledger is and who writes.
type Config struct {
	URL          string             // "sqlite:/path"
	Signer       ed25519.PrivateKey // control's; nil can't write grants
	Installation string
	Now          func() time.Time // nil is time.Now
	Log          *slog.Logger     // nil discards
}

// Ledger is an open ledger.
type Ledger struct {
	config Config
	db     *sql.DB
}

// Open opens the ledger, makes it if need be, and brings its schema up to date.
func Open(ctx context.Context, c Config) (*Ledger, error) {
	path, ok := strings.CutPrefix(c.URL, "sqlite:")
	if !ok || path == "" {
		return nil, access.Errorf(access.CodeInvalid, "Ledger URL not understood: want sqlite:/path.")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, unavailable("open ledger", err)
	}
	if err := errors.Join(f.Chmod(0o600), f.Close()); err != nil {
		return nil, unavailable("protect ledger", err)
	}
	q := url.Values{"_txlock": {"immediate"}, "_pragma": {"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)"}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, unavailable("open ledger", err)
	}
	db.SetMaxOpenConns(1)
	if err := migrate(ctx, db); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &Ledger{config: c, db: db}, nil
}

// Close closes the ledger.
func (l *Ledger) Close() error { return l.db.Close() }

// Installation is the name that this ledger's control mints under.
func (l *Ledger) Installation() string { return l.config.Installation }

func migrate(ctx context.Context, db *sql.DB) error {
	dir, err := fs.Sub(migrations, "migrations/sqlite")
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, dir)
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	have, want, err := p.GetVersions(ctx)
	if err != nil {
		return unavailable("read schema version", err)
	}
	if have > want {
		return access.Errorf(access.CodeInvalid, "The ledger's schema is version %d and this program knows %d: use a newer program.", have, want)
	}
	if _, err := p.Up(ctx); err != nil {
		return unavailable("migrate ledger", err)
	}
	return nil
}

// write runs f in one transaction of at most 10 seconds.
func (l *Ledger) write(ctx context.Context, f func(context.Context, *sql.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return unavailable("begin", err)
	}
	if err := f(ctx, tx); err != nil {
		_ = tx.Rollback() // err says what went wrong
		return classify(err)
	}
	if err := tx.Commit(); err != nil {
		return unavailable("commit", err)
	}
	return nil
}

func classify(err error) error {
	if e := (*access.Error)(nil); errors.As(err, &e) {
		return err
	}
	return unavailable("use ledger", err)
}

func unavailable(what string, err error) error {
	return &access.Error{Code: access.CodeUnavailable, Message: "The ledger does not answer; try again.", Cause: fmt.Errorf("%s: %w", what, err)}
}

// Once stores that a thing was done; false if it had been before.
func (l *Ledger) Once(ctx context.Context, kind, id string) (first bool, err error) {
	err = l.write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		first, err = changed(tx.ExecContext(ctx, "insert into done values ($1,$2) on conflict do nothing", kind, id))
		return err
	})
	return first && err == nil, err
}

// Pin joins an e-mail to the first subject that logs in with it.
func (l *Ledger) Pin(ctx context.Context, id access.Identity) error {
	email := strings.ToLower(id.Email)
	return l.write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "insert into pins values ($1,$2,$3,$4) on conflict do nothing", id.Provider, email, id.Issuer, id.Subject); err != nil {
			return err
		}
		var issuer, subject string
		err := tx.QueryRowContext(ctx, "select issuer, subject from pins where provider=$1 and email=$2", id.Provider, email).Scan(&issuer, &subject)
		if err == nil && (issuer != id.Issuer || subject != id.Subject) {
			return access.Errorf(access.CodeDenied, "%s belongs to another subject since its first login; a policy pull request must name the new one.", id)
		}
		return err
	})
}

func changed(r sql.Result, err error) (bool, error) {
	if err != nil {
		return false, err
	}
	n, err := r.RowsAffected()
	return n == 1, err
}
