package postgres

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidegate/tidegate/access/ledger/pgtest"
	"github.com/tidegate/tidegate/gateway/postgres/backing"
)

// liveServer is a server of one fuzz target, and a superuser's connection to
// it. What the server says unasked goes to notice.
func liveServer(f *testing.F, notice func(*pgconn.PgError), setup ...string) *pgx.Conn {
	f.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := pgtest.Run(ctx, pgtest.Options{})
	if err != nil {
		if os.Getenv("TIDEGATE_REQUIRE_PARTS") == "1" {
			f.Fatal(err)
		}
		f.Skip(err)
	}
	f.Cleanup(func() { _ = s.Close() })
	cfg, err := pgx.ParseConfig(s.DSN)
	if err != nil {
		f.Fatal(err)
	}
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notice((*pgconn.PgError)(n)) }
	cfg.RuntimeParams = map[string]string{"search_path": "m, public", "statement_timeout": "300", "lock_timeout": "300"} // which RESET brings back
	c, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = c.Close(context.Background()) })
	for _, sql := range setup {
		if _, err := c.Exec(ctx, sql); err != nil {
			f.Fatal(err)
		}
	}
	return c
}

func isSeveral(err error) bool {
	return err != nil && strings.Contains(err.Error(), "cannot insert multiple commands")
}

// FuzzSplit: what the room takes for one statement or for several, a live
// server does as well, and each piece of several is one.
func FuzzSplit(f *testing.F) {
	for _, s := range append([]string{
		"select 1; select 2", ";;select 1;;", "select ';'; --;\nselect 2", "select $$;$$; select $a$;$b$;$a$", "select e'\\';'; select 2", "/* ; /* ; */ ; */ select 1",
		"create schema s create table t (a int) create view v as select 1; select 3", "select U&';' uescape '!'; select 1", `select ";" from t; select 2`, "begin; commit", "values (1);;", "--",
	}, readOnly...) {
		f.Add(s)
	}
	c := liveServer(f, func(*pgconn.PgError) {})
	f.Fuzz(func(t *testing.T, text string) {
		stmts, err := classify(text, &catalog{})
		if err != nil || len(text) > 10_000 {
			return
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err = c.PgConn().Prepare(ctx, "", text, nil)
		if codeOf(err) == stateSyntax && !isSeveral(err) {
			return // an older or newer grammar
		}
		if got, want := isSeveral(err), len(stmts) > 1; got != want {
			t.Errorf("%q: the room finds %d statements, the server several: %t (%v)", text, len(stmts), got, err)
		}
		for _, s := range stmts {
			if _, err := c.PgConn().Prepare(ctx, "", s.op.Text, nil); isSeveral(err) {
				t.Errorf("%q: the piece %q is several statements to the server", text, s.op.Text)
			}
		}
	})
}

// FuzzMaskedReads: whatever the room lets through, changed as it changes it,
// shows a superuser of a live server no masked value.
func FuzzMaskedReads(f *testing.F) {
	for _, b := range readBypasses(f) {
		if b.second == "" {
			for _, s := range b.statements {
				f.Add(s)
			}
		}
	}
	shown := new(seen)
	c := liveServer(f, func(e *pgconn.PgError) { shown.report(e) },
		"create table public.users (id int primary key, name text check (name <> ''), email text); "+bypassRows,
		"create table public.orders (id int, user_id int); insert into public.orders values (1, 1); create table public.notes (v text)",
		"create schema m; create view m.users with (security_barrier) as select id, name, '****'||right(email, 4) as email from public.users",
		"analyze")
	b := backing.Backing{Role: "dev", Database: "postgres", SearchPath: []string{"m", "public"},
		Masked: []backing.MaskedTable{{Schema: "public", Table: "users", MaskSchema: "m", Columns: []backing.MaskedColumn{{Name: "email"}}}}}
	p := newPlanned(b)
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(strings.ToLower(text), canary[:4]) || len(text) > 10_000 {
			return // then it would show itself
		}
		read, err := p.read([]byte(text))
		if err != nil || read.names {
			return
		}
		for i, op := range read.ops {
			if op.Guard != nil || op.Facts["kind"] == "transaction" || op.Facts["kind"] == "vacuum" || read.stmts[i].copyIn {
				return
			}
		}
		shown.Reset()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := c.Exec(ctx, "begin"); err != nil {
			t.Fatal(err)
		}
		shown.all(ctx, c, read.sent)
		if _, err := c.Exec(ctx, "rollback"); err != nil {
			t.Fatal(err)
		}
		if shown.leaks() {
			t.Errorf("%q was sent as %q and shows:\n%s", text, read.sent, shown)
		}
	})
}

// all runs a text, COPY TO among it, and keeps everything that comes back.
func (s *seen) all(ctx context.Context, c *pgx.Conn, text string) {
	var rows strings.Builder
	_, err := c.PgConn().CopyTo(ctx, &rows, text) // reads rows away unless it copies
	s.WriteString(rows.String())
	if err == nil {
		results, failed := c.PgConn().Exec(ctx, text).ReadAll()
		for _, res := range results {
			s.rows(res)
		}
		err = failed
	}
	if err != nil {
		fmt.Fprintf(s, "%+v\n", err)
	}
}
