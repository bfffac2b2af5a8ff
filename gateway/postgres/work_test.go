package postgres

import (
	"strings"
	"testing"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/postgres/backing"
)

var workPlan = backing.Backing{Role: "dev", SearchPath: []string{"m", "public"},
	Tables: []backing.Table{{Schema: "public", Name: "t", Columns: []string{"id", "v", "email"}}},
	Masked: []backing.MaskedTable{{Schema: "public", Table: "t", MaskSchema: "m", Columns: []backing.MaskedColumn{{Name: "email"}}}}}

func again(n int, s string) string { return strings.Repeat(s, n) }

// TestTextsOutOfProportion: what would take gigabytes or minutes to understand,
// of some kilobytes, is refused.
func TestTextsOutOfProportion(t *testing.T) {
	for name, text := range map[string]string{
		"columns of many tables":       "select v" + again(2000, ",v") + " from t" + again(2000, ",t"),
		"unknown names of many tables": "select x" + again(2000, ",x") + " from t" + again(2000, ",t"),
		"names with a table's":         "select t.v" + again(2000, ",t.v") + " from t" + again(2000, ",t"),
		"stars of stars":               again(9, "select *,*,*,*,*,*,*,*,*,* from (") + "select v from t" + again(9, ") x"),
		"stars of a table's":           again(9, "select x.*,x.*,x.*,x.*,x.*,x.*,x.* from (") + "select v from t" + again(9, ") x"),
		"stars of many tables":         "select *" + again(2000, ",*") + " from t" + again(2000, ",t"),
		"stars of WITH":                "with a as (select 1 as v)" + again(30, ", a as (select *,* from a)") + " select * from a",
		"literals beside a masked one": "select " + again(500, "concat(") + "email" + again(8000, ",1") + again(500, ")") + " from t",
		"comparisons in one another":   "select " + again(500, "(") + "v in (v" + again(8000, ",v") + ")" + again(500, "=true)") + " from t",
		"joins by using":               "select v from t" + again(700, " join t using (v,v,v,v,v)"),
		"natural joins":                "select v from t" + again(700, " natural join t"),
		"subqueries":                   again(400, "select (") + "select x" + again(4000, ",x") + " from t" + again(400, ") from t"),
		"in a text of many":            again(1500, "select x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x from t,t,t,t,t,t,t,t,t,t,t,t,t,t,t,t,t,t,t,t;"),
	} {
		if _, err := newPlanned(workPlan).parse(text, nil, false); access.CodeOf(err) != access.CodeTooLarge || !strings.Contains(err.Error(), "too many names") {
			t.Errorf("%s, %d bytes: got %v, want it to be refused", name, len(text), err)
		}
	}
	changes := again(100, "with a as (update t set v=(") + "select array[1" + again(20000, ",1") + "]" + again(100, ")) select 1")
	u, err := newPlanned(workPlan).parse(changes, nil, false)
	if err != nil || u.stmts[0].op.Guard == nil {
		t.Errorf("changes in one another: got %v, want it to be denied", err)
	}
}

// TestLargeTextsAreUnderstood: what programs write is not out of proportion.
func TestLargeTextsAreUnderstood(t *testing.T) {
	arms := again(500, "when (id=1) then 'a' ")
	for name, text := range map[string]string{
		"rows":         "insert into t (email) values ('x')" + again(20_000, ",('x')"),
		"list":         "update t set v = 'x' where id in (1" + again(30_000, ",1") + ")",
		"arms":         "update t set v = case " + arms + "end, id = case " + arms + "end where id in (1,2)",
		"wide":         "select t.v" + again(1500, ",t.v") + " from t join t b on t.id = b.id join t c on c.id = b.id",
		"copies":       again(2_000, "copy t to stdout;"),
		"many texts":   again(2_000, "select email from t where id = 1;"),
		"deep, a star": again(100, "select * from (") + "select * from t" + again(100, ") x"),
	} {
		u, err := newPlanned(workPlan).parse(text, nil, false)
		if err != nil || u.stmts[0].op.Guard != nil {
			t.Errorf("%s: got %v, want it to be understood", name, err)
		}
	}
}
