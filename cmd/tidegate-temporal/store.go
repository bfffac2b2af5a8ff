package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/crc32"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/persistence/sql/sqlplugin"
	"go.temporal.io/server/common/persistence/sql/sqlplugin/sqlite"
	"go.temporal.io/server/common/primitives/timestamp"
	sqliteschema "go.temporal.io/server/schema/sqlite"
)

const (
	// retention is how long a closed workflow stays readable.
	retention = 72 * time.Hour

	// applicationID marks our files: "TgTm".
	applicationID = 0x5467546d

	setupTimeout = 30 * time.Second
)

// prepareStore makes path ready (schema, owner's eyes only, used by nobody
// else) and returns how the server reaches it. An empty path is a store in
// memory.
func prepareStore(ctx context.Context, path string) (*config.SQL, error) {
	if path == "" {
		// The plugin itself sets up the schema of a store in memory.
		return memoryStore(), nil
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("resolve --db: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	if err := createPrivate(path); err != nil {
		return nil, err
	}
	if err := setupFile(ctx, path); err != nil {
		return nil, fmt.Errorf("prepare %s: %w", path, err)
	}
	return fileStore(path), nil
}

func memoryStore() *config.SQL {
	return &config.SQL{
		PluginName:        sqlite.PluginName,
		DatabaseName:      "tidegate",
		ConnectAttributes: map[string]string{"mode": "memory", "cache": "shared"},
		MaxConns:          1,
	}
}

// fileStore trades nothing that a killed process could lose for speed: with a
// write-ahead log, NORMAL syncs at checkpoints only. Losing the machine's power
// may lose the last moments, which git and the ledger know. SQLite's defaults
// are about nine times slower.
//
// The exclusive lock keeps a second server off the file, which would fight
// over the shards and damage both; it works because there is one connection.
func fileStore(path string) *config.SQL {
	return &config.SQL{
		PluginName: sqlite.PluginName,
		// The plugin pastes the name into a URI.
		DatabaseName: uriPath(path),
		ConnectAttributes: map[string]string{
			"mode":         "rw",
			"busy_timeout": "10000",
			"journal_mode": "wal",
			"locking_mode": "exclusive",
			"synchronous":  "normal",
		},
		MaxConns: 1,
	}
}

// uriPath is an absolute path as a SQLite URI has it: in front of a drive
// letter there is a slash too.
func uriPath(path string) string {
	path = filepath.ToSlash(path)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	return (&url.URL{Path: path}).EscapedPath()
}

// createPrivate creates the file for its owner alone, since histories name
// people and tickets; SQLite gives its side files the same mode.
func createPrivate(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("open --db: the folder %s does not exist: create it first", filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("open --db: %w", err)
	}
	return f.Close()
}

// setupFile writes the schema into an empty file, and refuses a file that is
// not ours, is of another schema, or is in use.
func setupFile(ctx context.Context, path string) error {
	db, err := sql.Open("sqlite", "file:"+uriPath(path)+"?mode=rw&_pragma=busy_timeout%3d2000")
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	conn, err := db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer conn.Close()
	// IMMEDIATE, so that a server on this file is noticed before its data is
	// read. All in one transaction: a kill in the middle leaves an empty file.
	if _, err := conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return fmt.Errorf("open for writing: %w (if it is locked, another server uses it)", err)
	}
	if err := checkOrCreate(ctx, conn); err != nil {
		_, rollback := conn.ExecContext(ctx, "ROLLBACK")
		return errors.Join(err, rollback)
	}
	if _, err := conn.ExecContext(ctx, "COMMIT"); err != nil {
		return fmt.Errorf("commit schema: %w", err)
	}
	return nil
}

func checkOrCreate(ctx context.Context, conn *sql.Conn) error {
	var tables, application, version int64
	row := conn.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM sqlite_schema), application_id, user_version
		FROM pragma_application_id, pragma_user_version`)
	if err := row.Scan(&tables, &application, &version); err != nil {
		return fmt.Errorf("read file marks: %w", err)
	}
	switch {
	case tables == 0:
		return createSchema(ctx, conn)
	case application != applicationID:
		return errors.New("this SQLite file was not made by tidegate-temporal: give another --db")
	case version != schemaVersion():
		return fmt.Errorf("this file has another schema than Temporal's %s/%s, and the server cannot migrate it: move it away (grants are started again from git and the ledger)",
			sqliteschema.Version, sqliteschema.VisibilityVersion)
	}
	return nil
}

// schemaVersion is a number for the two versions that the server's schema has:
// SQLite keeps 32 bits for it.
func schemaVersion() int64 {
	sum := crc32.ChecksumIEEE([]byte(sqliteschema.Version + "/" + sqliteschema.VisibilityVersion))
	return int64(sum >> 1)
}

func createSchema(ctx context.Context, conn *sql.Conn) error {
	if err := sqliteschema.SetupSchemaOnDB(execOnly{ctx: ctx, conn: conn}); err != nil {
		return fmt.Errorf("create schema: %w", err)
	}
	marks := fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d", applicationID, schemaVersion())
	if _, err := conn.ExecContext(ctx, marks); err != nil {
		return fmt.Errorf("mark file: %w", err)
	}
	return nil
}

// execOnly lets the server's schema helper run inside our transaction: Exec is
// all that it calls, and anything else panics on the nil interface.
type execOnly struct {
	sqlplugin.AdminDB
	ctx  context.Context
	conn *sql.Conn
}

func (e execOnly) Exec(statement string, args ...any) error {
	_, err := e.conn.ExecContext(e.ctx, statement, args...)
	return err
}

// registerNamespace writes the namespace before the server starts, so that it
// is known from the first request on. One that exists stays as it is.
func registerNamespace(store *config.SQL, name string) error {
	ns, err := sqliteschema.NewNamespaceConfig(clusterName, name, false, nil)
	if err != nil {
		return fmt.Errorf("describe namespace %s: %w", name, err)
	}
	ns.Detail.Config.Retention = timestamp.DurationPtr(retention)
	if err := sqliteschema.CreateNamespaces(store, ns); err != nil {
		return fmt.Errorf("register namespace %s: %w", name, err)
	}
	return nil
}
