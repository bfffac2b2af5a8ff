package postgres

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/access"
)

// PREPARE and its like share their names with the protocol's statements, and
// are judged by what they run.
func TestSQLPreparedStatements(t *testing.T) {
	r := newRig(t, Config{})
	for mode, exec := range protocols {
		c := r.connect()
		run := func(sql, want string) {
			t.Helper()
			if _, err := exec(t.Context(), c, sql); codeOf(err) != want {
				t.Errorf("%s: %s: got %v, want %q", mode, sql, err, want)
			}
		}
		run(`prepare "A b"(int) as select v from t where id = $1`, "")
		run(`execute "A b"(1)`, "")
		run(`prepare /* again */ "A b" as select 1`, "42P05")
		run(`explain analyze execute "A b"(2)`, "")
		run("execute nothing", "26000")
		run("prepare d as drop table t", "42601")
		run(`deallocate prepare "A b"`, "")
		run(`execute "A b"(1)`, "26000")
		run("prepare bad as select nothing from nowhere", "42P01")
		run("prepare bad as select 1", "")
		run("deallocate all", "")
		run("execute bad", "26000")
		run("create temp table y as execute x", "42501")
	}
	out := r.door.last().outcomes("execute")
	if len(out) == 0 {
		t.Error("no execute was recorded")
	}
}

// In one message with others they do what they do alone. What a statement did
// before another one failed stays done: PostgreSQL rolls no name back.
func TestSQLPreparedStatementsAmongOthers(t *testing.T) {
	r := newRig(t, Config{})
	c := r.connect()
	for _, step := range []struct{ sql, shows, want string }{
		{"prepare a as select 1; execute a; deallocate a", "1", ""},
		{"execute a", "", "26000"},
		{"prepare a as select 1; prepare a as select 2", "", "42P05"},
		{"prepare a as select 1; select 1/0; prepare b as select 2", "", "22012"},
		{"execute a; select 5", "1 5", ""},
		{"execute b", "", "26000"},
		{"deallocate a; prepare a as select 3; execute a", "3", ""},
		{"deallocate a; select 1/0; prepare a as select 4", "", "22012"},
		{"execute a", "", "26000"},
		{"prepare a as select 6; deallocate all; prepare a as select 7; execute a", "7", ""},
		{"deallocate all; execute a", "", "26000"},
		{"select 1/0; deallocate a; prepare a as select 8", "", "22012"},
		{"execute a", "7", ""},
		{"begin; prepare c as select 9; rollback; execute c", "9", ""},
		{"prepare d as update nowhere set id = 1; execute d", "", "42P01"},
		{"prepare d(int) as select $1; execute d(4); select 'x'; execute d(5)", "4 x 5", ""},
	} {
		results, err := c.PgConn().Exec(t.Context(), step.sql).ReadAll()
		var shown []string
		for _, res := range results {
			for _, row := range res.Rows {
				shown = append(shown, string(row[0]))
			}
		}
		if codeOf(err) != step.want || step.want == "" && strings.Join(shown, " ") != step.shows {
			t.Errorf("%s: got %q, %v; want %q, %q", step.sql, shown, err, step.shows, step.want)
		}
	}
	done := make(chan error, 1)
	go func() {
		_, err := c.PgConn().Exec(t.Context(), "prepare gone as delete from t; execute gone").ReadAll()
		done <- err
	}()
	h := r.takeHeld()
	if h.op.Facts["kind"] != "delete" {
		t.Errorf("held as %+v, want the delete that it runs", h.op)
	}
	h.answer <- access.Deny
	if err := <-done; codeOf(err) != "42501" || r.count() != 3 {
		t.Errorf("got %v, %d rows are left", err, r.count())
	}
}

func TestExecuteIsJudgedAsItsStatement(t *testing.T) {
	r := newRig(t, Config{})
	c := r.connect()
	if _, err := c.Exec(t.Context(), "prepare gone as delete from t", pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatalf("preparing is not held, it gave %v", err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := c.Exec(t.Context(), "execute gone", pgx.QueryExecModeSimpleProtocol)
		done <- err
	}()
	h := r.takeHeld()
	if h.op.Facts["kind"] != "delete" || !strings.Contains(strings.Join(h.op.Context, "\n"), "prepare gone as delete from t") {
		t.Errorf("held as %+v, want the delete that it runs, and its text", h.op)
	}
	h.answer <- access.Deny
	if err := <-done; codeOf(err) != "42501" || r.count() != 3 {
		t.Errorf("got %v, %d rows are left", err, r.count())
	}
}

// What the protocol prepared, SQL may execute and close: pools and ORMs do.
func TestDeallocateOfTheProtocolsStatements(t *testing.T) {
	r := newRig(t, Config{})
	c := r.connect().PgConn()
	if _, err := c.Prepare(t.Context(), "p1", "select 7", nil); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{"execute p1", "deallocate p1"} {
		if _, err := c.Exec(t.Context(), sql).ReadAll(); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
	if res := c.ExecPrepared(t.Context(), "p1", nil, nil, nil).Read(); codeOf(res.Err) != "26000" {
		t.Errorf("a statement that was deallocated gave %v", res.Err)
	}
	if _, err := c.Prepare(t.Context(), "p1", "select 8", nil); err != nil {
		t.Errorf("preparing it anew gave %v", err)
	}
	if _, err := c.Exec(t.Context(), "discard all").ReadAll(); err != nil {
		t.Fatal(err)
	}
	if res := c.ExecPrepared(t.Context(), "p1", nil, nil, nil).Read(); codeOf(res.Err) != "26000" {
		t.Errorf("after DISCARD ALL: %v", res.Err)
	}
}

func TestCursors(t *testing.T) {
	r := newRig(t, Config{})
	out, err := r.psql(r.dsn(), `begin;
declare c cursor for select v from t order by id;
fetch 2 from c;
move c;
fetch c;
close c;
fetch c;
rollback;
begin\; declare d cursor for select v from t order by id\; fetch 1 from d\; close d;
rollback;
begin\; fetch e\; declare e cursor for select 1;
rollback;
fetch stranger;
select 'after';
\set FETCH_COUNT 2
select v from t order by id;
`)
	if err != nil {
		t.Fatalf("psql: %v\n%s", err, out)
	}
	for _, want := range []string{"v1\nv2\nMOVE 1\nCLOSE CURSOR", "The cursor \"c\" was not declared", "The cursor \"stranger\" was not declared", "DECLARE CURSOR\nv1\nCLOSE CURSOR", "The cursor \"e\" was not declared", "after", "v1\nv2\nv3"} {
		if !strings.Contains(out, want) {
			t.Errorf("psql's output lacks %q:\n%s", want, out)
		}
	}
}
