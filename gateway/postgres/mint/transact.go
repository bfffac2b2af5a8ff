package mint

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Bounds of what a transaction at a target may hold and wait for. Whoever
// wants a table that a mint has read for a view waits for the mint's end, and
// everybody else behind him: so a transaction touches few tables, and gives
// up soon where it would have to wait itself.
const (
	tries     = 6
	viewsEach = 200 // views that one transaction makes or drops; each takes four places in the server's table of locks
	turnWait  = "10s"
	lockWait  = "200ms"
	endBound  = 5 * time.Second // of a rollback
)

// inBatches runs what plan says in as few transactions as viewsEach allows.
// Before each but the first, still looks whether the rest is still wanted. A
// failure leaves what was done: the same again goes on from any state.
func (m *Minter) inBatches(ctx context.Context, p *pool, plan func(context.Context, *pgx.Conn) ([]string, error), still func(context.Context, *pgx.Conn) error) error {
	var todo [][]string
	for first := true; first || len(todo) > 0; first = false {
		err := m.locked(ctx, p, func(ctx context.Context, c *pgx.Conn) error {
			if !first {
				if err := still(ctx, c); err != nil {
					return err
				}
				return execute(ctx, c, todo[0])
			}
			statements, err := plan(ctx, c)
			if err != nil || len(statements) == 0 {
				return err
			}
			if m.inject != nil {
				statements = m.inject(statements)
			}
			todo = batches(statements, m.viewsEach)
			return execute(ctx, c, todo[0])
		})
		if err != nil {
			return err
		}
		todo = todo[min(1, len(todo)):]
	}
	return nil
}

// batches cuts a list where it has made or dropped enough views. What runs as
// another role does so after the cut as well.
func batches(statements []string, each int) [][]string {
	var out [][]string
	var now []string
	views, as := 0, ""
	for _, s := range statements {
		if strings.HasPrefix(s, "create view ") || strings.HasPrefix(s, "drop view ") {
			if views++; views > each {
				if as != "" {
					now = append(now, "reset role")
				}
				out, now, views = append(out, now), nil, 1
				if as != "" {
					now = append(now, as)
				}
			}
		}
		switch {
		case strings.HasPrefix(s, "set local role "):
			as = s
		case s == "reset role":
			as = ""
		}
		now = append(now, s)
	}
	return append(out, now)
}

func execute(ctx context.Context, c *pgx.Conn, statements []string) error {
	_, err := c.PgConn().Exec(ctx, strings.Join(statements, ";\n")).ReadAll()
	return err
}

// locked runs f in a transaction that no other mint or revoke on the database
// runs beside. Who waits for a turn in this process holds no connection.
func (m *Minter) locked(ctx context.Context, p *pool, f func(context.Context, *pgx.Conn) error) error {
	return m.transact(ctx, func() error {
		select {
		case p.turn <- struct{}{}:
			defer func() { <-p.turn }()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		return p.AcquireFunc(ctx, func(c *pgxpool.Conn) error { return m.underLock(ctx, p, c.Conn(), f) })
	})
}

func (m *Minter) underLock(ctx context.Context, p *pool, c *pgx.Conn, f func(context.Context, *pgx.Conn) error) (err error) {
	defer func() {
		if err != nil { // a connection whose transaction can't be ended goes with it
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endBound)
			defer cancel()
			_ = execute(ctx, c, []string{"rollback"})
		}
	}()
	if err := m.lock(ctx, p, c); err != nil {
		return err
	}
	if err := f(ctx, c); err != nil {
		return err
	}
	if err := refusedGrant(c); err != nil {
		return err
	}
	return execute(ctx, c, []string{"commit"})
}

// lock begins a transaction and waits until no other mint or revoke runs; the
// transaction's end lets the next go.
func (m *Minter) lock(ctx context.Context, p *pool, c *pgx.Conn) error {
	// A row in a schema that only the minter can use: an advisory lock
	// could be taken by any minted role, and would block a revoke.
	statements := []string{"begin", "set local lock_timeout to '" + turnWait + "'",
		"select from " + ident(m.names.lock(), "lock") + " for update", "set local lock_timeout to '" + lockWait + "'"}
	results, err := c.PgConn().Exec(ctx, strings.Join(statements, ";\n")).ReadAll()
	if err != nil {
		p.forget()
		return fmt.Errorf("lock target: %w", err)
	}
	if n := results[2].CommandTag.RowsAffected(); n != 1 {
		return fmt.Errorf("lock target: table %s.lock has %d rows, want 1; insert its default row", m.names.lock(), n)
	}
	return nil
}

// transact runs a transaction, and again if the server was in the way.
func (m *Minter) transact(ctx context.Context, transaction func() error) error {
	var err error
	for try := range tries {
		if err = transaction(); err == nil || !passing(err) || ctx.Err() != nil {
			return err
		}
		m.cfg.Log.Info("target was busy, trying again", "try", try+1, "error", err)
		wait := time.Duration(10<<try)*time.Millisecond + rand.N(10*time.Millisecond)
		if !sleep(ctx, wait) {
			return context.Cause(ctx)
		}
	}
	return err
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// passing reports whether the same again may succeed.
func passing(err error) bool {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code {
	case "40001", "40P01", "55P03", "23505": // 23505: two transactions made the same catalog row
		return true
	case "XX000":
		return strings.HasPrefix(e.Message, "tuple concurrently ")
	}
	return false
}
