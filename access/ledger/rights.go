package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/pressly/goose/v3"

	"github.com/tidegate/tidegate/access"
)

// right is one thing that a gateway's login may do with a table, or with some
// of its columns.
type right struct {
	table, verb string
	columns     []string // none: all
}

// gatewayRights is all that a gateway needs. What it may write opens nothing:
// grants, answers and rules count by control's signature or are not its to
// write, pins only narrow, and the rest is for people to read.
var gatewayRights = []right{
	{"grants", "select", nil},
	{"adopted", "select", nil},
	{"held", "select", nil}, {"held", "insert", nil}, {"held", "update", []string{"state", "payload"}},
	{"sessions", "select", nil}, {"sessions", "insert", nil}, {"sessions", "update", []string{"ended", "reason"}},
	{"heads", "select", nil}, {"heads", "insert", nil},
	{"pins", "select", nil}, {"pins", "insert", nil},
	{"audit", "select", []string{"seq", "hash"}}, {"audit", "insert", nil},
	{"goose_db_version", "select", nil},
}

// grant is the right as a statement.
func (r right) grant(schema, login string) string {
	what := r.verb
	if len(r.columns) > 0 {
		what += " (" + strings.Join(r.columns, ", ") + ")"
	}
	return fmt.Sprintf("grant %s on %s.%s to %s", what, schema, ident(r.table), login)
}

// held asks whether the current login has the right.
func (r right) held(ctx context.Context, db *sql.DB) (yes bool, err error) {
	if len(r.columns) == 0 {
		err = db.QueryRowContext(ctx, "select has_table_privilege($1, $2)", r.table, r.verb).Scan(&yes)
		return yes, err
	}
	for _, c := range r.columns {
		if err := db.QueryRowContext(ctx, "select has_column_privilege($1, $2, $3)", r.table, c, r.verb).Scan(&yes); err != nil || !yes {
			return false, err
		}
	}
	return true, nil
}

// controlOnly are the tables that no gateway writes.
var controlOnly = []string{"grants", "adopted", "reviews", "pushers", "done", "counters", "goose_db_version"}

// SetupOptions say for whom SetupSQL writes.
type SetupOptions struct {
	Database string
	Schema   string // of the ledger's tables; empty is public
	Gateway  string // a gateway's login, to be made
}

// SetupSQL is what a superuser of the ledger's server runs once control has
// made the tables, and again after an upgrade: it makes a gateway's login,
// without a password (psql's \password sends a verifier only), and gives it
// its rights, no more.
func SetupSQL(o SetupOptions) string {
	if o.Schema == "" {
		o.Schema = "public"
	}
	database, schema, login := ident(o.Database), ident(o.Schema), ident(o.Gateway)
	lines := []string{
		fmt.Sprintf("do $$ begin create role %s; exception when duplicate_object then null; end $$", login),
		fmt.Sprintf("alter role %s with login nosuperuser nocreatedb nocreaterole noreplication nobypassrls", login),
		fmt.Sprintf("revoke temporary on database %s from public", database),
		fmt.Sprintf("revoke create on schema %s from public", schema),
		fmt.Sprintf("grant connect on database %s to %s", database, login),
		fmt.Sprintf("grant usage on schema %s to %s", schema, login),
		fmt.Sprintf("revoke all on all tables in schema %s from %s", schema, login),
	}
	for _, r := range gatewayRights {
		lines = append(lines, r.grant(schema, login))
	}
	return strings.Join(lines, ";\n") + ";\n"
}

func ident(name string) string { return pgx.Identifier{name}.Sanitize() }

// openForGateway finds the schema up to date and the login without rights
// that would open access, or says what to do.
func openForGateway(ctx context.Context, db *sql.DB, d dialect) error {
	if d.goose != goose.DialectPostgres {
		return access.Errorf(access.CodeInvalid, "A gateway alone wants a ledger in PostgreSQL: whoever can write a file can write grants in it.")
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := upToDate(ctx, db, d); err != nil {
		return err
	}
	return leastRights(ctx, db)
}

func upToDate(ctx context.Context, db *sql.DB, d dialect) error {
	p, err := provider(db, d)
	if err != nil {
		return err
	}
	sources := p.ListSources()
	want := sources[len(sources)-1].Version
	var have int64
	err = db.QueryRowContext(ctx, "select coalesce(max(version_id), 0) from goose_db_version where is_applied").Scan(&have)
	switch {
	case sqlState(err) == "42P01": // undefined table
		return access.Errorf(access.CodeUnavailable, "The ledger has no tables yet: start the control side first, which makes them.")
	case sqlState(err) == denied:
		return lacking("read the ledger")
	case err != nil:
		return unavailable("read schema version", err)
	case have > want:
		return newer(have, want)
	case have < want:
		return older(have, want, nil)
	}
	return nil
}

// leastRights refuses a login that could write what control alone writes, and
// one that lacks what a gateway needs.
func leastRights(ctx context.Context, db *sql.DB) error {
	var mighty bool
	if err := db.QueryRowContext(ctx, "select rolsuper or rolcreaterole from pg_roles where rolname = current_user").Scan(&mighty); err != nil {
		return unavailable("read rights", err)
	}
	if mighty {
		return tooMuch("make itself what it likes")
	}
	var may []string
	for _, table := range controlOnly {
		var yes bool
		err := db.QueryRowContext(ctx, `select has_table_privilege($1, 'insert, update, delete, truncate, trigger')
			or has_any_column_privilege($1, 'insert, update') or pg_has_role(relowner, 'member') from pg_class where oid = $1::regclass`, table).Scan(&yes)
		if err != nil {
			return unavailable("read rights", err)
		}
		if yes {
			may = append(may, table)
		}
	}
	if len(may) > 0 {
		return tooMuch("write " + strings.Join(may, ", "))
	}
	for _, r := range gatewayRights {
		yes, err := r.held(ctx, db)
		if err != nil {
			return unavailable("read rights", err)
		}
		if !yes {
			return lacking(r.verb + " in " + r.table)
		}
	}
	return nil
}

const denied = "42501" // PostgreSQL's insufficient_privilege

func sqlState(err error) string {
	if e := (*pgconn.PgError)(nil); errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func tooMuch(what string) error {
	return access.Errorf(access.CodeDenied, "The gateway's login to the ledger may %s, which the control side alone may: give it a login of its own, by what `tidegate setup ledger` prints.", what)
}

func lacking(what string) error {
	return access.Errorf(access.CodeDenied, "This login may not %s: run what `tidegate setup ledger` prints, also after an upgrade.", what)
}

func newer(have, want int64) error {
	return access.Errorf(access.CodeInvalid, "The ledger's schema is version %d and this program knows %d: use a newer program.", have, want)
}

func older(have, want int64, cause error) error {
	return &access.Error{Code: access.CodeUnavailable, Cause: cause, Message: fmt.Sprintf(
		"The ledger's schema is version %d and this program needs %d, which this login can't make: start the control side of this version first.", have, want)}
}
