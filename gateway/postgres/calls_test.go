package postgres

import (
	"slices"
	"testing"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/postgres/backing"
)

func TestCallsOfTheCustomersFunctions(t *testing.T) {
	p := newPlanned(backing.Backing{
		Role: "r", Database: "d", SearchPath: []string{"public", "app"},
		Calls:    []backing.Routine{{Schema: "public", Name: "refund"}, {Schema: "app", Name: "close"}, {Schema: "far", Name: "f"}, {Schema: "public", Name: "Odd.Name"}},
		Builtins: []string{"uuidv7"}, Shadows: []string{"lower", "fullname", "close", "json_value"},
		Tables: []backing.Table{{Schema: "public", Name: "cards", Columns: []string{"id", "fullname", "close"}}},
	})
	for sql, refused := range map[string]bool{
		"select refund(1)": false, "select public.refund(1)": false, `select "Odd.Name"()`: false, "select far.f()": false, "select app.close(1)": false,
		"select upper('x'), count(*), sum(1) over (), extract(year from now()), substring('x' from 1)": false, "select pg_catalog.lower('x')": false,
		"select uuidv7()": false, "select information_schema._pg_expandarray(array[1])": false, "call public.refund(1)": false, "call refund(1)": false,
		"select * from generate_series(1, 2)": false, "select u.name from users u": false,
		"select c.fullname, public.cards.fullname from public.cards c, public.cards": false, "select x.fullname from (select * from public.cards) x": false,
		"select x.fullname from (values (1)) x(fullname)": false, "with x as (select 1 as fullname) select x.fullname from x": false,
		"select x.close from (select c.close from public.cards c union select 1) x": false, "select json_value(public.json_value('{}'), '$.a')": true,
		"select j.fullname from (public.cards c cross join (select 1) x) as j": false, "select json_exists('{}', '$')": false,

		"create temp table cards (a text)": true, "create table pg_temp.cards (a text)": true, "create temp view cards as select 1 as a": true,
		"select 1 as a into temp cards": true, "create temp table cards as select 1 as a": true, "alter table mine rename to cards": true,
		"create temp table other (a text)": false, "create temp table c as select * from public.cards": false,

		"select json_value('{}', '$')": true, "select (1).fullname": true, "select ((1).fullname).x": true, "select c.fullname from public.cards c(a)": true,
		"select x.fullname from generate_series(1, 2) x": true, "select x.fullname from generate_series(1, 2) x, (select 1 as fullname) y": true,
		"select x.fullname from (select * from other) x": true, "select (select x.fullname from generate_series(1, 2) x) from (select 1 as fullname) x": true,
		"select j.fullname from (public.cards a join public.cards b using (id) as j)": true, "select public.other.fullname from public.other": true,
		"select x.fullname from (select j.* from (public.cards c join (select 1 as id) y using (id) as j)) x": true,
		"select x.fullname from (select 1) x, (select 1 as fullname) y":                                       true, "with x(a) as (select 1 as fullname) select x.fullname from x": true,
		"insert into public.cards values (1) returning (cards).fullname": true, "select x.fullname from (select 1 as fullname) x(a)": true,
		"select f()": true, "select app.refund(1)": true, "select REFUND2(1)": true, `select "REFUND"(1)`: true, "call tidy()": true, "call app.tidy(1)": true,
		"select lower('x')": true, "select close(1)": true, "select u.fullname from users u": true, "select (u).fullname from users u": true,
		"select public.lower('x')": true, "select d.public.refund(1)": true, "select * from app.rows()": true, "insert into t values (app.x())": true,
		"select 1 where exists (select app.x())": true, "create table t (id int default app.x())": true, "explain select app.x()": true,
		"prepare p as select app.x()": true, "with a as (select app.x()) select 1": true, "select sum(app.x(1)) over (order by app.x(2))": true,
		"copy (select app.x()) to stdout": true, "select uuidv8()": true, "create index on t (app.x(id))": true, "select pg_temp.x()": true,
		"update t set id = app.x()": true, "select case when app.x() then 1 end": true, "declare c cursor for select app.x()": true,
	} {
		r, err := p.read([]byte(sql))
		if err != nil {
			t.Errorf("%s: %v", sql, err)
			continue
		}
		guard := r.ops[0].Guard
		if got := guard != nil && guard.Verdict == access.Deny && guard.Rule == "call"; got != refused {
			t.Errorf("%s: refused %v (%+v), want %v", sql, got, guard, refused)
		}
	}
}

func TestCallIsJudgedAsOne(t *testing.T) {
	p := newPlanned(backing.Backing{Role: "r", Database: "d", Calls: []backing.Routine{{Schema: "app", Name: "tidy"}}})
	r, err := p.read([]byte("call app.tidy(1)"))
	if err != nil {
		t.Fatal(err)
	}
	if f := r.ops[0].Facts; f["kind"] != "call" || f["writes"] != true {
		t.Errorf("facts are %v, want a call that writes", f)
	}
}

// TestCallByANameOfBoth: the server chooses among functions of one name by
// their arguments, and the customer's may change something.
func TestCallByANameOfBoth(t *testing.T) {
	p := newPlanned(backing.Backing{Role: "r", Database: "d", Calls: []backing.Routine{{Schema: "public", Name: "lower"}}})
	for sql, writes := range map[string]bool{
		"select lower('X')": true, "select public.lower('X')": true, "select u.lower from u": true,
		"select pg_catalog.lower('X')": false, "select upper('X')": false,
	} {
		r, err := p.read([]byte(sql))
		if err != nil {
			t.Fatal(err)
		}
		if got := r.ops[0].Facts["writes"]; got != writes {
			t.Errorf("%s: writes is %v, want %v", sql, got, writes)
		}
	}
}

func TestActingSessionStaysSo(t *testing.T) {
	for acts, want := range map[string]map[string]bool{
		"app_owner": {"discard all": true, "discard plans": false, "reset role": true, "set role none": true, "set session authorization default": true,
			"create table t (id int)": false, "alter table t add column x int": false, "drop table t": false},
		"": {"discard all": false},
	} {
		p := newPlanned(backing.Backing{Role: "r", Database: "d", Acts: acts})
		for sql, refused := range want {
			r, err := p.read([]byte(sql))
			if err != nil {
				t.Fatal(err)
			}
			if got := r.ops[0].Guard != nil; got != refused {
				t.Errorf("as %q: %s: refused %v, want %v", acts, sql, got, refused)
			}
		}
	}
}

// TestCallBehindADot: x.f is f(x) where x has no column f.
func TestCallBehindADot(t *testing.T) {
	p := newPlanned(backing.Backing{
		Role: "r", Database: "d", SearchPath: []string{"public"}, Calls: []backing.Routine{{Schema: "public", Name: "refund"}, {Schema: "public", Name: "json_value"}},
		Tables: []backing.Table{{Schema: "public", Name: "cards", Columns: []string{"id", "count"}}},
	})
	for _, c := range []struct {
		sql       string
		functions []string
		writes    bool
	}{
		{"select c.refund from cards c", []string{"refund"}, true},
		{"select (c).refund from cards c", []string{"refund"}, true},
		{"select (1).refund", []string{"refund"}, true},
		{"select ('s').nextval", []string{"nextval"}, true},
		{"select (4.0).sqrt", []string{"sqrt"}, false},
		{"select json_value('{}', '$.a')", []string{"json_value"}, true},
		{"select c.count, public.cards.count from cards c, public.cards", []string{}, false},
		{"select x.refund from (select 1 as refund) x", []string{}, false},
	} {
		r, err := p.read([]byte(c.sql))
		if err != nil {
			t.Errorf("%s: %v", c.sql, err)
			continue
		}
		f := r.ops[0].Facts
		if got := f["functions"].([]string); !slices.Equal(got, c.functions) || f["writes"] != c.writes {
			t.Errorf("%s: calls %q, writes %v; want %q, %v", c.sql, got, f["writes"], c.functions, c.writes)
		}
	}
}
