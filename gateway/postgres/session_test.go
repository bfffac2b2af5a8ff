package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidegate/tidegate/access"
)

func codeOf(err error) string {
	if e := (*pgconn.PgError)(nil); errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// protocols run a text in one of the two protocols.
var protocols = map[string]func(context.Context, *pgx.Conn, string) (pgconn.CommandTag, error){
	"simple": func(ctx context.Context, c *pgx.Conn, sql string) (pgconn.CommandTag, error) {
		return c.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol)
	},
	"extended": func(ctx context.Context, c *pgx.Conn, sql string) (pgconn.CommandTag, error) {
		return c.PgConn().ExecParams(ctx, sql, nil, nil, nil, nil).Close()
	},
}

func TestPsql(t *testing.T) {
	r := newRig(t, Config{})
	out, err := r.psql(r.dsn(), "select v from t where id=2;\ndrop table t;\nselect 'still here';\nselect 1; select 2;\n")
	if err != nil {
		t.Fatalf("psql: %v\n%s", err, out)
	}
	for _, want := range []string{"v2", "ERROR:  42501: The test's rule refuses this.", "DETAIL:  Rule: test-rule.", "still here"} {
		if !strings.Contains(out, want) {
			t.Errorf("psql's output lacks %q:\n%s", want, out)
		}
	}
	log, err := os.ReadFile(r.pg.Log)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(log), "drop table") {
		t.Error("the refused text reached the target")
	}
	if !strings.Contains(string(log), "select v from t") {
		t.Error("the allowed text is not in the target's log: the check above proves nothing")
	}
	s := r.door.last()
	if got := s.outcomes("select v from t"); len(got) != 1 || got[0].Status != "ok" || got[0].Rows != 1 {
		t.Errorf("outcome of the select is %+v, want ok with one row", got)
	}
}

func TestPsqlCopies(t *testing.T) {
	r := newRig(t, Config{})
	out, err := r.psql(r.dsn(), "copy t from stdin;\n8\teight\n9\tnine\n\\.\ncopy t (id) to stdout;\ncopy missing from stdin;\n\\.\ncopy t from stdin;\nnot a number\tx\n\\.\nselect 'after';\n")
	if err != nil {
		t.Fatalf("psql: %v\n%s", err, out)
	}
	if !strings.Contains(out, "8\n9\n") || !strings.Contains(out, "after") || !strings.Contains(out, "42P01") || !strings.Contains(out, "22P02") {
		t.Errorf("psql printed:\n%s", out)
	}
	if n := r.count(); n != 5 {
		t.Errorf("table has %d rows, want 5", n)
	}
}

func TestRefusedTransactionRollsBack(t *testing.T) {
	r := newRig(t, Config{})
	for name, exec := range protocols {
		c := r.connect()
		run := func(sql string) (pgconn.CommandTag, error) { return exec(t.Context(), c, sql) }
		for _, sql := range []string{"begin", "insert into t values (100)"} {
			if _, err := run(sql); err != nil {
				t.Fatalf("%s: %s: %v", name, sql, err)
			}
		}
		if _, err := run("drop table t"); codeOf(err) != "42501" {
			t.Errorf("%s: drop gave %v, want 42501", name, err)
		}
		if _, err := run("select 1"); codeOf(err) != "25P02" {
			t.Errorf("%s: next statement gave %v, want 25P02", name, err)
		}
		if tag, err := run("commit"); err != nil || tag.String() != "ROLLBACK" {
			t.Errorf("%s: commit gave %v, %v, want ROLLBACK", name, tag, err)
		}
		if n := r.count(); n != 3 {
			t.Errorf("%s: table has %d rows, want 3", name, n)
		}
	}
}

func TestPipelineWithRefusedIsNotCommitted(t *testing.T) {
	r := newRig(t, Config{})
	c := r.connect()
	var b pgx.Batch
	b.Queue("insert into t values ($1)", 100)
	b.Queue("insert into t values (101)")
	b.Queue("drop table t")
	b.Queue("insert into t values (102)")
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeExec, pgx.QueryExecModeCacheDescribe} {
		cfg := r.config()
		cfg.DefaultQueryExecMode = mode
		c, err := pgx.ConnectConfig(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(context.Background())
		if err := c.SendBatch(t.Context(), &b).Close(); codeOf(err) != "42501" {
			t.Errorf("batch gave %v, want 42501", err)
		}
		if n := r.count(); n != 3 {
			t.Errorf("table has %d rows, want 3", n)
		}
	}
	if _, err := c.Exec(t.Context(), "insert into t values (103); drop table t", pgx.QueryExecModeSimpleProtocol); codeOf(err) != "42501" {
		t.Errorf("text of two statements gave %v, want 42501", err)
	}
	if _, err := c.Exec(t.Context(), "insert into t values (104)"); err != nil || r.count() != 4 {
		t.Errorf("the session does not go on: %v, %d rows", err, r.count())
	}
}

func TestPreparedStatements(t *testing.T) {
	r := newRig(t, Config{})
	c := r.connect()
	if _, err := c.Prepare(t.Context(), "one", "select v from t where id = $1"); err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= 3; i++ {
		var v string
		if err := c.QueryRow(t.Context(), "one", i).Scan(&v); err != nil || v != fmt.Sprint("v", i) {
			t.Errorf("prepared statement gave %q, %v", v, err)
		}
	}
	if _, err := c.Prepare(t.Context(), "bad", "select nothing from nowhere"); codeOf(err) != "42P01" {
		t.Errorf("preparing a wrong statement gave %v, want the target's 42P01", err)
	}
	if err := c.Deallocate(t.Context(), "one"); err != nil {
		t.Errorf("close statement: %v", err)
	}
	var got string
	last := r.door.last()
	last.mu.Lock()
	for _, o := range last.opens {
		if strings.Contains(o.op.Text, "where id") {
			got += strings.Join(o.op.Params, ",") + ";"
		}
	}
	last.mu.Unlock()
	if !strings.Contains(got, `\x00000002`) && !strings.Contains(got, "2;") {
		t.Errorf("recorded parameters are %q", got)
	}
}

// An error leaves the old unnamed statement where the target would leave it;
// what runs must always be what was judged.
func TestSkippedParseNeverRunsAnotherStatement(t *testing.T) {
	r := newRig(t, Config{})
	c := r.connect().PgConn()
	for range 50 {
		p := c.StartPipeline(t.Context())
		p.SendQueryParams("select 1/0", nil, nil, nil, nil)
		p.SendQueryParams("insert into t values (7)", nil, nil, nil, nil)
		if err := p.Sync(); err != nil {
			t.Fatal(err)
		}
		p.SendQueryParams("select 'good'", nil, nil, nil, nil)
		if err := p.Sync(); err != nil {
			t.Fatal(err)
		}
		if err := p.Close(); codeOf(err) != "22012" {
			t.Fatalf("pipeline gave %v, want 22012", err)
		}
	}
	if n := r.count(); n != 3 {
		t.Errorf("table has %d rows, want 3", n)
	}
}

func TestHold(t *testing.T) {
	r := newRig(t, Config{})
	c := r.connect()
	ask := func(sql, protocol string) <-chan error {
		done := make(chan error, 1)
		go func() {
			_, err := protocols[protocol](context.Background(), c, sql)
			done <- err
		}()
		return done
	}
	for mode := range protocols {
		done := ask("delete from t where id=1", mode)
		h := r.takeHeld()
		r.door.last().warn <- "Somebody is being asked."
		if n := r.count(); n == 0 {
			t.Error("it ran before the answer")
		}
		h.answer <- access.Allow
		if err := <-done; err != nil {
			t.Errorf("approved statement: %v", err)
		}
		done = ask("delete from t where id=2", mode)
		r.takeHeld().answer <- access.Deny
		if err := <-done; codeOf(err) != "42501" {
			t.Errorf("denied statement gave %v, want 42501", err)
		}
		done = ask("delete from t where id=3", mode)
		h = r.takeHeld()
		if err := c.PgConn().CancelRequest(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-done; codeOf(err) != "57014" {
			t.Errorf("cancelled statement gave %v, want 57014", err)
		}
		<-h.gone
	}
	if n := r.count(); n != 2 {
		t.Errorf("table has %d rows, want 2", n)
	}
}

func TestHeldClientLeaves(t *testing.T) {
	r := newRig(t, Config{})
	c := r.connect()
	over := make(chan struct{})
	go func() { defer close(over); _, _ = c.Exec(context.Background(), "delete from t where id=3") }()
	h := r.takeHeld()
	_ = c.PgConn().Conn().Close()
	wait(t, h.gone)
	wait(t, over)
	waitClosed(t, r.door.last())
	if n := r.count(); n != 3 {
		t.Errorf("table has %d rows, want 3", n)
	}
}

func wait(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(10 * time.Second):
		t.Fatal("waited in vain")
	}
}

func waitClosed(t *testing.T, s *fakeSession) string {
	t.Helper()
	select {
	case reason := <-s.closed:
		return reason
	case <-time.After(10 * time.Second):
		t.Fatal("the session was not closed")
		return ""
	}
}

func TestCancelRunning(t *testing.T) {
	r := newRig(t, Config{})
	c := r.connect()
	done := make(chan error, 1)
	go func() {
		_, err := c.Exec(context.Background(), "select pg_sleep(60)", pgx.QueryExecModeSimpleProtocol)
		done <- err
	}()
	r.waitActive("pg_sleep(60)")
	if err := c.PgConn().CancelRequest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; codeOf(err) != "57014" {
		t.Errorf("cancelled statement gave %v, want 57014", err)
	}
}

// waitActive waits until the target runs the text.
func (r *rig) waitActive(text string) {
	r.t.Helper()
	r.waitCount(text, 1)
}

func (r *rig) waitCount(text string, want int) {
	r.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for n := -1; n != want; {
		if time.Now().After(deadline) {
			r.t.Fatalf("%d backends run %q, want %d", n, text, want)
		}
		err := r.admin.QueryRow(r.t.Context(), "select count(*) from pg_stat_activity, pg_sleep(0.02) where pid<>pg_backend_pid() and state='active' and query like '%'||$1||'%'", text).Scan(&n)
		if err != nil {
			r.t.Fatal(err)
		}
	}
}

func TestCut(t *testing.T) {
	for name, sql := range map[string]string{
		"idle": "", "running": "select pg_sleep(60)", "in a result": "select i, repeat('x',100) from generate_series(1,100000000) i",
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, Config{})
			c := r.connect()
			s := r.door.last()
			if sql == "" {
				s.cut(access.Errorf(access.CodeEnded, "Your grant tg-1 was revoked."))
				waitClosed(t, s)
				_, err := c.Exec(t.Context(), "select 1")
				if err == nil {
					t.Error("the connection still answers")
				}
				return
			}
			done := make(chan error, 1)
			go func() {
				rows, err := c.Query(context.Background(), sql, pgx.QueryExecModeSimpleProtocol)
				if err == nil {
					for rows.Next() {
					}
					err = rows.Err()
				}
				done <- err
			}()
			r.waitActive(sql[:12])
			s.cut(access.Errorf(access.CodeEnded, "Your grant tg-1 was revoked."))
			if err := <-done; codeOf(err) != "57P01" || !strings.Contains(err.Error(), "tg-1 was revoked") {
				t.Errorf("cut gave %v, want 57P01 with the reason", err)
			}
			waitClosed(t, s)
			r.waitCount(sql[:12], 0)
			if got := s.outcomes(sql); len(got) != 1 || got[0].Status == "open" || got[0].Status == "ok" {
				t.Errorf("outcome is %+v, want cut", got)
			}
		})
	}
}

func TestLargeResultsAndManySessions(t *testing.T) {
	r := newRig(t, Config{})
	var work sync.WaitGroup
	for i := range 20 {
		work.Go(func() {
			c, err := pgx.Connect(t.Context(), r.dsn())
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close(context.Background())
			n := 1000
			if i == 0 {
				n = 100_000
			}
			var count, sum int
			rows, _ := c.Query(t.Context(), "select i, repeat('y', i % 300) from generate_series(1,$1::int) i", n)
			var id int
			var text string
			_, err = pgx.ForEachRow(rows, []any{&id, &text}, func() error {
				count, sum = count+1, sum+id
				if len(text) != id%300 {
					return fmt.Errorf("row %d has %d bytes", id, len(text))
				}
				return nil
			})
			if err != nil || count != n || sum != n*(n+1)/2 {
				t.Errorf("%d rows with sum %d, %v; want %d", count, sum, err, n)
			}
			var big string
			if err := c.QueryRow(t.Context(), "select repeat('z', 3000000)").Scan(&big); err != nil || len(big) != 3_000_000 {
				t.Errorf("large value has %d bytes, %v", len(big), err)
			}
		})
	}
	work.Wait()
}
