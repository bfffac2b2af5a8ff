package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/tidegate/tidegate/access"
)

const (
	channel   = "tidegate_ledger"
	silence   = 30 * time.Second // after which a listener asks whether its server still lives
	pgReply   = 5 * time.Second
	pgOpenMax = 8 // connections
)

func connectPostgres(url string) (*sql.DB, dialect, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, dialect{}, &access.Error{
			Code: access.CodeInvalid, Message: "Ledger URL not understood: want postgres://user@host/database.", Cause: err,
		}
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = pgReply
	}
	config.RuntimeParams["application_name"] = "tidegate ledger"
	db := stdlib.OpenDB(*config)
	db.SetMaxOpenConns(pgOpenMax)
	return db, dialect{
		goose: goose.DialectPostgres, folder: "migrations/postgres",
		// The number is Tidegate's own: "tidegate" in ASCII.
		lock:    "select pg_advisory_xact_lock(8388346167643173989)",
		notify:  "select pg_notify('" + channel + "', '')",
		reading: sql.LevelRepeatableRead, transient: transientPostgres,
		listen: func(ctx context.Context) (listener, error) { return listenPostgres(ctx, config) },
	}, nil
}

// transientPostgres knows the two errors by which PostgreSQL asks for another
// try, and a pooled connection that turns out to be dead. A commit without an
// answer is not among them: it may have happened.
func transientPostgres(err error) bool {
	e := (*pgconn.PgError)(nil)
	again := errors.As(err, &e) && (e.Code == "40001" || e.Code == "40P01") // serialization failure, deadlock
	return again || errors.Is(err, errNotBegun)
}

// notifications hears what writers of any process tell.
type notifications struct{ conn *pgx.Conn }

func listenPostgres(ctx context.Context, config *pgx.ConnConfig) (listener, error) {
	conn, err := pgx.ConnectConfig(ctx, config.Copy())
	if err != nil {
		return nil, err
	}
	n := &notifications{conn}
	if _, err := conn.Exec(ctx, "listen "+channel); err != nil {
		n.close()
		return nil, fmt.Errorf("listen: %w", err)
	}
	return n, nil
}

func (n *notifications) wait(ctx context.Context) error {
	quiet, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	_, err := n.conn.WaitForNotification(quiet)
	if err == nil || ctx.Err() != nil || quiet.Err() == nil {
		return err
	}
	ask, cancelAsk := context.WithTimeout(ctx, pgReply)
	defer cancelAsk()
	return n.conn.Ping(ask)
}

func (n *notifications) close() {
	ctx, cancel := context.WithTimeout(context.Background(), pgReply) // the listener's own may be over
	defer cancel()
	_ = n.conn.Close(ctx) // nothing was written here
}
