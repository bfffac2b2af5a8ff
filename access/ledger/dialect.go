package ledger

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"time"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/tidegate/tidegate/access"
)

//go:embed migrations
var migrations embed.FS

// dialect is what differs between the databases. The statements do not: both
// number their parameters $1, $2.
type dialect struct {
	goose     goose.Dialect
	folder    string             // of its migrations
	lock      string             // begins a write, if beginning does not lock by itself
	notify    string             // tells other processes of a write
	reading   sql.IsolationLevel // in which two reads see one state
	transient func(error) bool   // worth running again at once
	listen    func(context.Context) (listener, error)
}

func connectSQLite(path string, existing bool) (*sql.DB, dialect, error) {
	d := dialect{
		goose: goose.DialectSQLite3, folder: "migrations/sqlite",
		transient: func(error) bool { return false }, // busy_timeout waits in SQLite itself
	}
	take := makeFile
	if existing {
		take = findFile
	}
	if err := take(path); err != nil {
		return nil, d, err
	}
	q := url.Values{"_txlock": {"immediate"}, "_pragma": {"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)"}}
	dsn := (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String()
	db, err := openSQLite(dsn)
	d.listen = func(ctx context.Context) (listener, error) { return listenSQLite(ctx, dsn) }
	return db, d, err
}

// findFile only looks for the ledger: who reads it need not own it.
func findFile(path string) error {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a file")
	}
	if err != nil {
		return &access.Error{Code: access.CodeNotFound, Message: fmt.Sprintf("There is no ledger at %s.", path), Cause: err}
	}
	return nil
}

// makeFile makes the file, if there is none, and makes it ours alone.
func makeFile(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return unavailable("open ledger", err)
	}
	if err := errors.Join(f.Chmod(0o600), f.Close()); err != nil {
		return unavailable("protect ledger", err)
	}
	return nil
}

func openSQLite(dsn string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, unavailable("open ledger", err)
	}
	db.SetMaxOpenConns(1)
	return db, nil
}

// dataVersion hears of changes by any other connection, of this process or
// another, by asking SQLite for a number that they change.
type dataVersion struct {
	db   *sql.DB
	conn *sql.Conn // the number means something on one connection only
	last int64
}

func listenSQLite(ctx context.Context, dsn string) (listener, error) {
	db, err := openSQLite(dsn)
	if err != nil {
		return nil, err
	}
	v := &dataVersion{db: db}
	if v.conn, err = db.Conn(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if v.last, err = v.read(ctx); err != nil {
		v.close()
		return nil, err
	}
	return v, nil
}

func (v *dataVersion) read(ctx context.Context) (n int64, err error) {
	return n, v.conn.QueryRowContext(ctx, "pragma data_version").Scan(&n)
}

func (v *dataVersion) wait(ctx context.Context) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		n, err := v.read(ctx)
		if err != nil {
			return fmt.Errorf("read data version: %w", err)
		}
		if n != v.last {
			v.last = n
			return nil
		}
	}
}

func (v *dataVersion) close() {
	_ = v.conn.Close() // nothing was written here
	_ = v.db.Close()
}

// migrate brings the schema up to date. Two processes may meet here: the one
// that fails looks again at what the other left.
func migrate(ctx context.Context, db *sql.DB, d dialect) error {
	p, err := provider(db, d)
	if err != nil {
		return err
	}
	for i := range attempts {
		err = up(ctx, p)
		if err == nil || access.CodeOf(err) == access.CodeInvalid || sqlState(err) == denied {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Duration(i+1) * 50 * time.Millisecond):
		}
	}
	return err
}

func provider(db *sql.DB, d dialect) (*goose.Provider, error) {
	dir, err := fs.Sub(migrations, d.folder)
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	p, err := goose.NewProvider(d.goose, db, dir)
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	return p, nil
}

// up changes nothing where the schema is up to date, so that a login without
// the right to change it may look.
func up(ctx context.Context, p *goose.Provider) error {
	have, want, err := p.GetVersions(ctx)
	if err != nil {
		return unavailable("read schema version", err)
	}
	if have > want {
		return newer(have, want)
	}
	if have == want {
		return nil
	}
	_, err = p.Up(ctx)
	if sqlState(err) == denied {
		return older(have, want, err)
	}
	if err != nil {
		return unavailable("migrate ledger", err)
	}
	return nil
}
