package postgres

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/postgres/backing"
)

// A rule about a table sees it behind whatever the session made of it.
func TestRulesSeeThroughWhatASessionMakes(t *testing.T) {
	r := newRig(t, Config{})
	r.knowing()
	r.exec("create sequence sq; grant all on sequence sq to dev; create table other (id int, v text); grant all on other to dev; alter table other owner to dev")
	r.door.judge = func(op access.Operation) access.Verdict {
		reads := slices.Contains([]string{"select", "declare", "fetch", "copy"}, fmt.Sprint(op.Facts["kind"]))
		if tables, _ := op.Facts["tables"].([]string); reads && (slices.Contains(tables, "public.t") || op.Facts["writes"] == true) {
			return access.Deny
		}
		return access.Allow
	}
	for what, steps := range map[string][]string{
		"a view":                        {"create temp view v as select v from t", "select * from v"},
		"a view by its schema":          {"create temp view v as select v from t", "select * from pg_temp.v"},
		"a view of a view":              {"create temp view v as select v from t", "create temp view w as select * from v", "select * from w"},
		"a table made of it":            {"create temp table c as select * from t", "select v from c"},
		"SELECT INTO":                   {"select * into temp c from t", "table c"},
		"a lasting table":               {"create table lasting as select * from t", "select * from public.lasting"},
		"filled later":                  {"create temp table c (id int, v text)", "insert into c select * from t", "select * from c"},
		"filled behind a view":          {"create temp table c (id int, v text)", "create temp view w as select v from c", "insert into c select * from t", "select * from w"},
		"filled by an UPDATE":           {"create temp table c (id int, v text)", "insert into c values (1)", "update c set v = (select max(v) from t)", "select * from c"},
		"filled in a WITH":              {"create temp table c (id int, v text)", "with x as (insert into c select * from t returning 1) insert into other select 1", "select * from c"},
		"filled by a prepared one":      {"create temp table c (id int, v text)", "prepare p as insert into c select * from t", "execute p", "select * from c"},
		"filled through a view":         {"create temp table c (id int, v text)", "create temp view w as select * from c", "insert into w select * from t", "select * from c"},
		"filled by a foreign key":       {"create temp table a (v text unique)", "create temp table b (v text references a (v) on update cascade)", "insert into a values ('x')", "insert into b values ('x')", "update a set v = (select max(v) from t)", "select * from b"},
		"into a partition":              {"create temp table p (id int, v text) partition by list (id)", "create temp table p1 partition of p default", "insert into p select * from t", "select * from p1"},
		"renamed":                       {"create temp table c as select * from t", "alter table c rename to d", "select * from d"},
		"a child of another":            {"create temp table kid () inherits (other)", "insert into kid select * from t", "select * from other"},
		"made a child later":            {"create temp table kid (id int, v text)", "alter table kid inherit other", "insert into kid select * from t", "select * from other"},
		"a cursor":                      {"create temp view v as select v from t", "declare c cursor with hold for select * from v"},
		"COPY":                          {"create temp view v as select v from t", "copy (select * from v) to stdout"},
		"a view that writes":            {"create temp view v as select nextval('sq')", "select * from v"},
		"rolled back and still counted": {"begin", "create temp view v as select v from t", "rollback", "select * from v"},
	} {
		for mode, exec := range protocols {
			c := r.connect()
			for i, sql := range steps {
				want := map[bool]string{true: "42501", false: ""}[i == len(steps)-1]
				if _, err := exec(t.Context(), c, sql); codeOf(err) != want {
					t.Errorf("%s, %s: %s: got %v, want %q", what, mode, sql, err, want)
				}
			}
			_ = c.Close(t.Context())
			r.exec("drop table if exists lasting")
		}
	}
	c := r.connect()
	if _, err := c.PgConn().Exec(t.Context(), "create temp view v as select v from t; select * from v").ReadAll(); codeOf(err) != "42501" {
		t.Errorf("in one message: got %v", err)
	}
	for mode, exec := range protocols {
		c := r.connect()
		for _, sql := range []string{"create temp table c (id int, v text)", "insert into c values (1, 'x')", "insert into c select id, v from other", "select * from c", "update other set v = ''", "select * from other"} {
			if _, err := exec(t.Context(), c, sql); err != nil {
				t.Errorf("what has nothing to do with it, %s: %s: %v", mode, sql, err)
			}
		}
	}
}

// A temporary table that stands before one of the plan's may lack its columns:
// then a name within means a column further out.
func TestTemporaryTableVouchesForNoColumn(t *testing.T) {
	r := newRig(t, Config{})
	r.knowing()
	r.exec("create table other (id int, v text); grant all on other to dev")
	plan, err := backing.Parse(r.door.lease.Backing)
	if err != nil {
		t.Fatal(err)
	}
	plan.Tables = append(plan.Tables, backing.Table{Schema: "public", Name: "other", Columns: []string{"id", "v"}})
	if r.door.lease.Backing, err = plan.Encode(); err != nil {
		t.Fatal(err)
	}
	r.door.judge = func(op access.Operation) access.Verdict {
		columns, _ := op.Facts["columns"].([]string)
		if op.Facts["kind"] == "select" && (slices.Contains(columns, "public.t.v") || slices.Contains(columns, "*.*.*")) {
			return access.Deny
		}
		return access.Allow
	}
	for mode, exec := range protocols {
		c := r.connect()
		for _, sql := range []string{"create temp table other (id int)", "insert into pg_temp.other values (1)", "select id from t"} {
			if _, err := exec(t.Context(), c, sql); err != nil {
				t.Errorf("%s: %s: %v", mode, sql, err)
			}
		}
		if _, err := exec(t.Context(), c, "select (select v from other limit 1) from t"); codeOf(err) != "42501" {
			t.Errorf("%s: got %v, want it denied: it reads t.v", mode, err)
		}
	}
}

// A statement that was prepared meets what has its name when it runs.
func TestPreparedStatementMeetsAnotherView(t *testing.T) {
	r := newRig(t, Config{})
	r.knowing()
	r.door.judge = func(op access.Operation) access.Verdict {
		if tables, _ := op.Facts["tables"].([]string); op.Facts["kind"] == "select" && slices.Contains(tables, "public.t") {
			return access.Deny
		}
		return access.Allow
	}
	c := r.connect()
	run := func(sql string) {
		t.Helper()
		if _, err := protocols["simple"](t.Context(), c, sql); err != nil {
			t.Fatal(err)
		}
	}
	run("create temp view v as select 1 as id")
	if _, err := c.PgConn().Prepare(t.Context(), "p", "select id from v", nil); err != nil {
		t.Fatal(err)
	}
	run("drop view v")
	run("create temp view v as select id from t")
	if res := c.PgConn().ExecPrepared(t.Context(), "p", nil, nil, nil).Read(); codeOf(res.Err) != "42501" {
		t.Errorf("got %d rows, %v; want it refused", len(res.Rows), res.Err)
	}
}

func TestWhatASessionMadeIsBounded(t *testing.T) {
	var m made
	for i := range maxMade + 10 {
		m.add(flow{makes: []string{fmt.Sprint("v", i)}}, access.Facts{"tables": []string{"public.users"}}, newPlanned(plan))
	}
	behind := m.behind(access.Facts{"tables": []string{"public.v3"}})
	if tables, _ := behind["tables"].([]string); !slices.Contains(tables, "*.*") || len(m.of) > maxMade {
		t.Errorf("%d are kept, and behind one of them is %v; want everything", len(m.of), behind)
	}
	wide := access.Facts{"tables": []string{"public.users", strings.Repeat("x", maxMadeSize)}}
	m = made{}
	if m.add(flow{makes: []string{"v"}}, wide, newPlanned(plan)); m.rest == nil || m.size > maxMadeSize {
		t.Errorf("%d bytes are kept", m.size)
	}
}

// A temporary table may have the name of one that the role knows.
func TestWhatGoesIntoATableOfAKnownName(t *testing.T) {
	var m made
	p := newPlanned(plan)
	m.add(flow{makes: []string{"users"}}, access.Facts{"tables": []string{"public.users"}}, p)
	m.add(flow{changes: []string{"users"}}, access.Facts{"tables": []string{"public.users", "public.secrets"}}, p)
	m.add(flow{changes: []string{"parcels"}}, access.Facts{"tables": []string{"public.parcels", "public.secrets"}}, p)
	for name, want := range map[string]bool{"public.users": true, "pg_temp.users": true, "public.parcels": false} {
		tables, _ := m.behind(access.Facts{"tables": []string{name}})["tables"].([]string)
		if got := slices.Contains(tables, "public.secrets"); got != want {
			t.Errorf("behind %s is %v, want the secrets: %v", name, tables, want)
		}
	}
}

// A temporary table of a masked table's name is the one that is met, as long
// as it is there.
func TestTemporaryTableOfAMaskedName(t *testing.T) {
	r := newRig(t, Config{})
	r.knowing("v")
	r.exec("alter role dev set search_path = masks, public")
	r.door.judge = func(access.Operation) access.Verdict { return access.Allow }
	for mode, exec := range protocols {
		c := r.connect()
		real := r.count()
		for _, step := range []struct {
			sql  string
			real int // rows of the masked table afterwards
			want string
		}{
			{"create temp table t (id int, v text)", real, ""},
			{"insert into t values (7, 'mine')", real, ""},
			{"update t set v = v || '!' where v = 'mine' returning *", real, ""},
			{"insert into public.t values (8, 'real')", real + 1, ""},
			{"lock table t", real + 1, "25P01"},
			{"alter table t add column more int", real + 1, ""},
			{"create index on t (v)", real + 1, ""},
			{"comment on column t.v is 'x'", real + 1, ""},
			{"truncate t", real + 1, ""},
			{"alter table public.t add column more int", real + 1, "42501"},
			{"create table t (id int)", real + 1, "42501"},
			{"drop table t", real + 1, ""},
			{"update t set v = 'x' where v = 'mine'", real + 1, "42501"},
			{"insert into t values (9, 'real')", real + 2, ""},
			{"begin", real + 2, ""},
			{"create temp table t (id int, v text)", real + 2, ""},
			{"insert into t values (7, 'mine')", real + 2, ""},
			{"rollback", real + 2, ""},
			{"insert into t values (10, 'real')", real + 3, ""},
			{"create temp table t2 (id int, v text)", real + 3, ""},
			{"alter table t2 rename to t", real + 3, ""},
			{"insert into t values (7, 'mine')", real + 3, ""},
		} {
			if _, err := exec(t.Context(), c, step.sql); codeOf(err) != step.want || r.count() != step.real {
				t.Errorf("%s: %s: got %v and %d rows; want %q and %d", mode, step.sql, err, r.count(), step.want, step.real)
			}
		}
	}
	before := r.count()
	res, err := r.connect().PgConn().Exec(t.Context(), "create temp table t as select * from public.t limit 1; insert into t values (7, 'mine'); select v from t where id = 7").ReadAll()
	if err != nil || r.count() != before || len(res[2].Rows) != 1 || string(res[2].Rows[0][0]) != "mine" {
		t.Errorf("in one message: %v, %d rows, want %d", err, r.count(), before)
	}
}
