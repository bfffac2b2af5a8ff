package postgres

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/postgres/backing"
)

// knowing gives the rig's plan its tables; those of which columns are named
// are masked, by views that the test does not need.
func (r *rig) knowing(masked ...string) {
	r.t.Helper()
	b := backing.Backing{Role: "dev", Database: r.admin.Config().Database, SearchPath: []string{"public"},
		Tables: []backing.Table{{Schema: "public", Name: "t", Columns: []string{"id", "v"}}}}
	if len(masked) > 0 {
		r.exec("create schema masks; create view masks.t with (security_barrier) as select id, '****'::text as v from public.t; grant usage on schema masks to dev; grant select on masks.t to dev")
		b.SearchPath = []string{"masks", "public"}
		m := backing.MaskedTable{Schema: "public", Table: "t", MaskSchema: "masks"}
		for _, c := range masked {
			m.Columns = append(m.Columns, backing.MaskedColumn{Name: c})
		}
		b.Masked = []backing.MaskedTable{m}
	}
	plan, err := b.Encode()
	if err != nil {
		r.t.Fatal(err)
	}
	r.door.lease.Backing = plan
}

func (s *fakeSession) find(text string) *fakeOpen {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range slices.Backward(s.opens) {
		if strings.Contains(o.op.Text, text) {
			return o
		}
	}
	return nil
}

// recorded is what the room had recorded of its results.
func (o *fakeOpen) recorded() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.tapped)
}

// A rule reads how many rows the planner expects; where nobody knows, it bites.
func TestRowsAreEstimated(t *testing.T) {
	r := newRig(t, Config{})
	r.exec("create sequence sq; grant all on sequence sq to dev; create table big as select i from generate_series(1, 5000) i; analyze big; analyze t; grant all on big to dev")
	r.door.reads = "rows"
	r.door.judge = func(op access.Operation) access.Verdict {
		rows, known := op.Facts["rows"].(int64)
		if op.Facts["kind"] == "set" || op.Facts["kind"] == "transaction" || known && rows <= 1000 {
			return access.Allow
		}
		return access.Deny
	}
	for mode, exec := range protocols {
		c := r.connect()
		for _, step := range []struct{ sql, want string }{
			{"select * from t", ""},
			{"select * from big", "42501"},
			{"select * from big limit 10", ""},
			{"update big set i = i", "42501"},
			{"delete from big where i = -1", ""},
			{"with x as (delete from big returning i) select count(*) from x", "42501"},
			{"insert into t select i, 'x' from big", "42501"},
			{"select nextval('sq')", "42501"}, // it may change something, and is not planned
			{"begin", ""},
			{"select * from t", ""},
			{"select * from big", "42501"},
			{"select * from t", "42501"}, // the transaction failed: nobody knows
			{"rollback", ""},
			{"begin", ""},
			{"select * from t", ""},
			{"commit", ""},
		} {
			if _, err := exec(t.Context(), c, step.sql); codeOf(err) != step.want && !(codeOf(err) == "25P02" && mode == "extended" && step.sql == "select * from t") {
				t.Errorf("%s: %s: got %v, want %q", mode, step.sql, err, step.want)
			}
		}
	}
	if n := r.countOf("big"); n != 5000 {
		t.Errorf("%d rows are left of 5000", n)
	}
	c := r.connect()
	for limit, want := range map[int]string{5: "", 4000: "42501"} {
		if _, err := c.Exec(t.Context(), "select * from big where i < $1", limit); codeOf(err) != want {
			t.Errorf("with the parameter %d: got %v, want %q", limit, err, want)
		}
	}
	if _, err := c.Exec(t.Context(), "select * from nowhere where i < $1", 3); codeOf(err) != "42P01" {
		t.Errorf("a table that is not there: got %v, want the server's own error", err)
	}
	if _, err := c.Exec(t.Context(), "select * from t; select * from big", pgx.QueryExecModeSimpleProtocol); codeOf(err) != "42501" {
		t.Errorf("the second of two statements: got %v", err)
	}
}

func (r *rig) countOf(table string) (n int) {
	r.t.Helper()
	if err := r.admin.QueryRow(r.t.Context(), "select count(*) from "+table).Scan(&n); err != nil {
		r.t.Fatal(err)
	}
	return n
}

func TestRowsAreLimited(t *testing.T) {
	r := newRig(t, Config{})
	r.exec("insert into t select i, 'v'||i from generate_series(4, 5000) i")
	r.door.limit = access.Limits{Rows: 100, Rule: "few", Say: "Look at few."}
	r.door.judge = func(access.Operation) access.Verdict { return access.Allow }
	for mode, query := range map[string]func(context.Context, *pgx.Conn, string) (pgx.Rows, error){
		"simple": func(ctx context.Context, c *pgx.Conn, sql string) (pgx.Rows, error) {
			return c.Query(ctx, sql, pgx.QueryExecModeSimpleProtocol)
		},
		"extended": func(ctx context.Context, c *pgx.Conn, sql string) (pgx.Rows, error) { return c.Query(ctx, sql) },
	} {
		c := r.connect()
		for _, step := range []struct {
			sql  string
			rows int
			want string
		}{
			{"select * from t", 100, "54000"},
			{"select * from t limit 100", 100, ""},
			{"select * from t limit 101", 100, "54000"},
			{"select * from t where false", 0, ""},
			{"select nothing", 0, "42703"},
			{"begin", 0, ""},
			{"update t set v = 'gone'", 0, ""},
			{"select 1", 1, ""},
			{"update t set v = 'gone' returning id", 100, "54000"},
			{"select 1", 0, "25P02"},
			{"rollback", 0, ""},
			{"declare c cursor with hold for select * from t", 0, ""},
			{"fetch 50 from c", 50, ""},
			{"fetch all from c", 100, "54000"},
			{"close c", 0, ""},
			{"explain select 1", 1, ""},
			{"show timezone", 1, ""},
		} {
			rows, err := query(t.Context(), c, step.sql)
			got := 0
			if err == nil {
				for rows.Next() {
					got++
				}
				err = rows.Err()
			}
			if codeOf(err) != step.want || got != step.rows {
				t.Errorf("%s: %s: got %d rows and %v, want %d and %q", mode, step.sql, got, err, step.rows, step.want)
			}
		}
		if _, err := c.PgConn().CopyTo(t.Context(), io.Discard, "copy t to stdout"); codeOf(err) != "42501" {
			t.Errorf("%s: copy: got %v", mode, err)
		}
		if _, err := c.PgConn().Exec(t.Context(), "select 1; select 2").ReadAll(); codeOf(err) != "42501" {
			t.Errorf("%s: two selects: got %v", mode, err)
		}
		if _, err := c.PgConn().Exec(t.Context(), "set timezone = utc; set datestyle = iso").ReadAll(); err != nil {
			t.Errorf("%s: two settings: got %v", mode, err)
		}
	}
	out := r.door.last().find("select * from t limit 101").result()
	if out.Status != "cut" || out.Rows != 100 {
		t.Errorf("recorded as %+v, want cut after 100 rows", out)
	}
	out2, err := r.psql(r.dsn(), "select id from t order by id limit 3;\nselect id from t;\n\\set FETCH_COUNT 30\nselect id from t;\nselect 'after';\n")
	if err != nil || !strings.Contains(out2, "1\n2\n3\n") || strings.Count(out2, "54000") != 1 || !strings.Contains(out2, "after") {
		t.Errorf("psql: %v\n%.600s", err, out2)
	}
}

// A portal that is fetched in portions has one limit for all of them.
func TestLimitHoldsForAllOfAPortal(t *testing.T) {
	r := newRig(t, Config{})
	r.exec("insert into t select i, 'v'||i from generate_series(4, 500) i")
	r.door.limit = access.Limits{Rows: 100, Rule: "few", Say: "Look at few."}
	r.door.judge = func(access.Operation) access.Verdict { return access.Allow }
	h, err := r.connect().PgConn().Hijack()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Conn.Close()
	f := h.Frontend
	f.SendParse(&pgproto3.Parse{Query: "select * from t"})
	f.SendBind(&pgproto3.Bind{})
	f.SendExecute(&pgproto3.Execute{MaxRows: 60})
	f.SendExecute(&pgproto3.Execute{MaxRows: 60})
	f.SendSync(&pgproto3.Sync{})
	if err := f.Flush(); err != nil {
		t.Fatal(err)
	}
	rows, code := 0, ""
	for over := false; !over; {
		m, err := f.Receive()
		if err != nil {
			t.Fatal(err)
		}
		switch m := m.(type) {
		case *pgproto3.DataRow:
			rows++
		case *pgproto3.ErrorResponse:
			code = m.Code
		case *pgproto3.ReadyForQuery:
			over = true
		}
	}
	if rows != 100 || code != "54000" {
		t.Errorf("got %d rows and %q, want 100 and 54000", rows, code)
	}
}

// Limits may be narrowed while a portal has shown more than they allow now.
func TestLimitBelowWhatWasShown(t *testing.T) {
	r := newRig(t, Config{})
	r.exec("insert into t select i, 'v'||i from generate_series(4, 500) i")
	r.door.limit = access.Limits{Rows: 100, Rule: "few", Say: "Look at few."}
	r.door.judge = func(access.Operation) access.Verdict { return access.Allow }
	h, err := r.connect().PgConn().Hijack()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Conn.Close()
	f := h.Frontend
	f.SendParse(&pgproto3.Parse{Query: "select * from t"})
	f.SendBind(&pgproto3.Bind{})
	f.SendExecute(&pgproto3.Execute{MaxRows: 60})
	f.Send(&pgproto3.Flush{})
	rows, code := 0, ""
	for over := false; !over; {
		if err := f.Flush(); err != nil {
			t.Fatal(err)
		}
		m, err := f.Receive()
		if err != nil {
			t.Fatal(err)
		}
		switch m := m.(type) {
		case *pgproto3.DataRow:
			rows++
		case *pgproto3.PortalSuspended:
			r.door.later.Store(&access.Limits{Rows: 10, Rule: "fewer", Say: "Look at fewer."})
			f.SendExecute(&pgproto3.Execute{})
			f.SendSync(&pgproto3.Sync{})
		case *pgproto3.ErrorResponse:
			code = m.Code
		case *pgproto3.ReadyForQuery:
			over = true
		}
	}
	if rows != 60 || code != "54000" {
		t.Errorf("got %d rows and %q, want the first 60 and 54000", rows, code)
	}
}

func TestTimeIsLimited(t *testing.T) {
	r := newRig(t, Config{})
	r.door.limit = access.Limits{Time: 1, Rule: "quick", Say: "Be quick."}
	r.door.judge = func(access.Operation) access.Verdict { return access.Allow }
	for mode, exec := range protocols {
		c := r.connect()
		for _, step := range []struct{ sql, want string }{
			{"select 1", ""},
			{"set statement_timeout = 0", ""},
			{"select pg_sleep(60)", "57014"},
			{"select 1", ""},
			{"begin", ""},
			{"insert into t values (9, 'x')", ""},
			{"select pg_sleep(60)", "57014"},
			{"commit", ""}, // a rollback: the transaction failed
			{"select 1", ""},
		} {
			began := time.Now()
			_, err := exec(t.Context(), c, step.sql)
			if codeOf(err) != step.want || time.Since(began) > 30*time.Second {
				t.Errorf("%s: %s: got %v after %s, want %q", mode, step.sql, err, time.Since(began), step.want)
			}
			if step.want == "57014" && !strings.Contains(fmt.Sprint(err), "Be quick.") {
				t.Errorf("%s: the error does not say whose limit it is: %v", mode, err)
			}
		}
	}
	if n := r.count(); n != 3 {
		t.Errorf("%d rows, want 3: what was cut was not committed", n)
	}
	c := r.connect().PgConn()
	if _, err := c.CopyFrom(t.Context(), &slowReader{ctx: t.Context()}, "copy t from stdin"); codeOf(err) != "57014" {
		t.Errorf("copy in: got %v", err)
	}
}

// slowReader has no end before the test's.
type slowReader struct{ ctx context.Context }

func (s *slowReader) Read(p []byte) (int, error) {
	select {
	case <-time.After(50 * time.Millisecond):
		return copy(p, "7\tx\n"), nil
	case <-s.ctx.Done():
		return 0, s.ctx.Err()
	}
}

func TestResultsAreRecorded(t *testing.T) {
	r := newRig(t, Config{})
	r.door.limit = access.Limits{Results: true}
	r.door.judge = func(access.Operation) access.Verdict { return access.Allow }
	for mode, exec := range protocols {
		c := r.connect()
		for sql, want := range map[string]string{
			"select id, v from t order by id": "1\tv1\n2\tv2\n3\tv3\n",
			"select null, E'a\\tb' as x":      "\\N\ta\\tb\n",
		} {
			if _, err := exec(t.Context(), c, sql); err != nil {
				t.Fatalf("%s: %s: %v", mode, sql, err)
			}
			got := r.door.last().find(sql).recorded()
			if mode == "simple" && got != want || !strings.Contains(got, "\t") {
				t.Errorf("%s: %s: recorded %q, want %q", mode, sql, got, want)
			}
		}
	}
	c := r.connect().PgConn()
	if _, err := c.CopyTo(t.Context(), io.Discard, "copy t to stdout"); err != nil {
		t.Fatal(err)
	}
	if got := r.door.last().find("copy t").recorded(); got != "1\tv1\n2\tv2\n3\tv3\n" {
		t.Errorf("copy: recorded %q", got)
	}
	if _, err := c.Exec(t.Context(), "select 1; select repeat('x', 500000); select 3").ReadAll(); err != nil {
		t.Fatal(err)
	}
	if got := r.door.last().find("repeat").recorded(); len(got) != 500001 {
		t.Errorf("a large row: %d bytes are recorded, want 500001", len(got))
	}
	if got := r.door.last().find("select 3").recorded(); got != "3\n" {
		t.Errorf("the third of three: recorded %q", got)
	}
}

func TestHoldShowsWhatTheAnswerRestsOn(t *testing.T) {
	r := newRig(t, Config{})
	r.knowing()
	r.exec("analyze t")
	for mode, exec := range protocols {
		c := r.connect()
		for _, sql := range []string{"begin", "update t set v = 'mine' where id = 1"} {
			if _, err := exec(t.Context(), c, sql); err != nil {
				t.Fatal(err)
			}
		}
		done := make(chan error, 1)
		go func() {
			_, err := exec(t.Context(), c, "delete from t where true")
			done <- err
		}()
		h := r.takeHeld()
		shown := strings.Join(h.op.Context, "\n")
		for _, want := range []string{"Estimated rows: 3", "In this transaction so far:\nbegin;\nupdate t set v = 'mine' where id = 1", "RowExclusiveLock public.t"} {
			if !strings.Contains(shown, want) {
				t.Errorf("%s: the approver does not see %q in\n%s", mode, want, shown)
			}
		}
		h.answer <- access.Allow
		if err := <-done; err != nil {
			t.Errorf("%s: after a yes: %v", mode, err)
		}
		if _, err := exec(t.Context(), c, "rollback"); err != nil {
			t.Error(err)
		}
	}
	if r.count() != 3 {
		t.Errorf("%d rows, want 3", r.count())
	}
}

// What was agreed to is what runs, not something of the same name.
func TestHeldStatementMeetsWhatWasShown(t *testing.T) {
	for what, change := range map[string]string{
		"dropped and made again": "drop table t; create table t (id int, v text); grant all on t to dev; insert into t values (1)",
		"renamed":                "alter table t rename to t_old; create table t as select * from t_old; grant all on t to dev",
		"altered":                "alter table t add column extra int",
		"given a trigger":        "create function f() returns trigger language plpgsql as 'begin return old; end'; create trigger x before delete on t for each row execute function f()",
		"granted to others":      "create role other; grant select (id) on t to other",
		"analyzed":               "analyze t",
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t, Config{})
			r.knowing()
			for mode, exec := range protocols {
				c := r.connect()
				done := make(chan error, 1)
				go func() {
					_, err := exec(t.Context(), c, "delete from t where id = -1")
					done <- err
				}()
				h := r.takeHeld()
				if mode == "simple" {
					r.exec(change)
				}
				h.answer <- access.Allow
				want := ""
				if mode == "simple" && what != "granted to others" && what != "analyzed" {
					want = "42501"
				}
				if err := <-done; codeOf(err) != want {
					t.Errorf("%s: got %v, want %q", mode, err, want)
				}
				if _, err := exec(t.Context(), c, "select 1"); err != nil {
					t.Errorf("the session is not usable after it: %v", err)
				}
			}
		})
	}
}

// The same where a session acts as an owner, who may rename what it likes from
// another session, and whose search path is the server's.
func TestHeldStatementOfAnOwnerMeetsWhatWasShown(t *testing.T) {
	r := newRig(t, Config{})
	plan, err := backing.Backing{Role: "dev", Database: r.admin.Config().Database, Acts: "dev"}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	r.door.lease.Backing = plan
	c := r.connect()
	done := make(chan error, 1)
	go func() {
		_, err := c.Exec(t.Context(), "delete from t")
		done <- err
	}()
	h := r.takeHeld()
	r.exec("create table other as select * from t; grant all on other to dev; alter table t rename to t_old; alter table other rename to t")
	h.answer <- access.Allow
	if err := <-done; codeOf(err) != "42501" {
		t.Errorf("got %v, want that it did not run", err)
	}
	if n := r.count(); n != 3 {
		t.Errorf("%d rows are left, want 3", n)
	}
}

func TestSecretValuesAreWithheld(t *testing.T) {
	r := newRig(t, Config{})
	r.knowing("v")
	r.door.judge = func(access.Operation) access.Verdict { return access.Allow }
	c := r.connect()
	for _, sql := range []string{
		"select id from t where v = 'zq7'",
		"select id from t x where lower(x.v) in ('a', 'zq7')",
		"insert into t (id, v) values (70, 'zq7')",
		"insert into t values (70, 'zq7')",
		"update t set v = 'zq7' where id = 70",
		"select id from t where case v when 'zq7' then true end",
		"alter role dev password 'zq7'",
		"create user mapping for dev server x options (password 'zq7')",
		"selec password 'zq7'",
		"selec id from t where v = 'zq7'",
		"select id from t where v = 'a' 'zq7'",
		"select 'host=x password=zq7'",
		"prepare p(text) as select id from t where v = $1",
		"execute p('zq7')",
		"begin; select id from t where v = 'zq7'; rollback",
		"insert into accounts (name, password) values ('bob', 'zq7')",
		"insert into accounts (name, password) select 'bob', crypt('zq7', gen_salt('bf'))",
		"update accounts set password_hash = crypt('zq7', 'x') where id = 1",
		"update accounts set pwd = 'zq7' where name = 'bob'",
		"merge into accounts a using (select 1) s on true when not matched then insert (password) values ('zq7')",
		"select 1 from accounts where hash = crypt('zq7', hash)",
		"select 1 from accounts where name = 'bob' and password in ('zq7', 'a')",
		"select 1 from accounts where lower(accounts.password) = lower('zq7')",
		"select 1 from accounts a where 'zq7' = a.password",
		"select pgp_sym_encrypt('data', 'zq7')",
		"select set_config('app.password', 'zq7', false)",
		"select dblink_connect('host=x dbname=y password=' || 'zq7')",
		"select dblink_connect('postgres://u:it''s/zq7@host/db'), 'Driver=x;Pwd=zq7'",
		"create user bob identified by 'zq7'",
		"prepare q(text) as insert into accounts (password) values ($1)",
		"execute q('zq7')",
		"alter user mapping for dev server x options (set pwd 'zq7')",
	} {
		_, _ = c.PgConn().Exec(t.Context(), sql).ReadAll()
	}
	if _, err := c.Exec(t.Context(), "select id from t where v = $1 and id = $2", "zq7", 70); err != nil {
		t.Error(err)
	}
	_, _ = c.Exec(t.Context(), "select id from (select id, v as password from t) accounts where id = $1 and password = $2", 70, "zq7")
	s := r.door.last()
	s.mu.Lock()
	defer s.mu.Unlock()
	withheld := 0
	for _, o := range s.opens {
		shown := fmt.Sprintf("%+v", o.op)
		if o.op.Guard != nil {
			shown += o.op.Guard.Say
		}
		if strings.Contains(shown, "zq7") {
			t.Errorf("recorded: %s", shown)
		}
		withheld += strings.Count(shown, "[withheld: 3 bytes]")
	}
	if withheld < 27 {
		t.Errorf("%d values were withheld, want one in each statement", withheld)
	}
	last := s.opens[len(s.opens)-2].op
	if len(last.Params) != 2 || last.Params[0] != "[withheld: 3 bytes]" {
		t.Errorf("parameters recorded as %q, want the first withheld", last.Params)
	}
	if n := r.countOf("t where v = 'zq7'"); n != 2 {
		t.Errorf("%d rows were written, want 2: what is sent stays as it is", n)
	}
}

// What runs at the grant's end may finish, and its transaction COMMIT.
func TestDrain(t *testing.T) {
	r := newRig(t, Config{})
	for what, run := range map[string]func(*pgx.Conn) error{
		"a transaction": func(c *pgx.Conn) error {
			_, err := c.Exec(t.Context(), "commit")
			return err
		},
		"a statement": nil,
		"nothing":     nil,
	} {
		r.door.draining = make(chan struct{})
		c := r.connect()
		done := make(chan error, 1)
		switch what {
		case "a transaction":
			for _, sql := range []string{"begin", "insert into t values (50, 'x')"} {
				if _, err := c.Exec(t.Context(), sql); err != nil {
					t.Fatal(err)
				}
			}
		case "a statement":
			go func() {
				_, err := c.Exec(t.Context(), "insert into t select 51, pg_sleep(1)::text")
				done <- err
			}()
			r.await("select count(*) from pg_stat_activity where state = 'active' and query like '%pg_sleep(1)%' and pid <> pg_backend_pid()", 1)
		}
		close(r.door.draining)
		var err error
		switch {
		case run != nil:
			err = run(c)
		case what == "a statement":
			err = <-done
		}
		if err != nil {
			t.Errorf("%s did not finish: %v", what, err)
		}
		select {
		case <-r.door.last().closed:
		case <-time.After(10 * time.Second):
			t.Errorf("%s: the session did not end after it", what)
		}
	}
	if n := r.count(); n != 5 {
		t.Errorf("%d rows, want 5", n)
	}
}

// await waits until a query past the room answers with the number.
func (r *rig) await(sql string, want int) {
	r.t.Helper()
	for range 200 {
		var n int
		if err := r.admin.QueryRow(r.t.Context(), sql).Scan(&n); err != nil {
			r.t.Fatal(err)
		}
		if n == want {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	r.t.Fatalf("never %d: %s", want, sql)
}
