package postgres

import (
	"testing"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/postgres/backing"
)

// The planner knows hidden rows: what it expects of ever other conditions
// would tell what is in them. So no condition changes what a rule reads.
func TestEstimatesTellNothingOfHiddenRows(t *testing.T) {
	r := newRig(t, Config{})
	r.exec(`create table parcels (id int, region text, note text);
		insert into parcels select i, case when i <= 100 then 'eu' else 'us' end, case when i % 2 = 0 then 'hidden' else 'n' || i end from generate_series(1, 6000) i;
		create schema m; create view m.parcels with (security_barrier, check_option = cascaded) as select id, region, note from parcels where region = 'eu';
		grant usage on schema m to dev; grant select, insert, update, delete on m.parcels to dev; alter role dev set search_path = m, public; analyze`)
	b, err := backing.Backing{Role: "dev", Database: r.admin.Config().Database, SearchPath: []string{"m", "public"},
		Masked: []backing.MaskedTable{{Schema: "public", Table: "parcels", MaskSchema: "m", Limited: true}}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	r.door.lease.Backing, r.door.reads = b, "rows"
	r.door.judge = func(op access.Operation) access.Verdict {
		if kind := op.Facts["kind"]; op.Facts["rows"] == nil && (kind == "select" || kind == "update" || kind == "insert") {
			return access.Deny
		}
		return access.Allow
	}
	scope := int64(0)
	for mode, exec := range protocols {
		c := r.connect()
		for _, step := range []struct{ sql, want string }{
			{"select * from parcels", "scope"},
			{"select * from parcels where note = 'hidden'", "scope"},
			{"select id, count(*) from public.parcels where note > 'i' group by id", "unknown"},
			{"select count(*) from public.parcels where note > 'i'", "scope"},
			{"update parcels set note = lower(note) where note = 'hidden'", "scope"},
			{"select * from parcels a join parcels b using (note)", "unknown"},
			{"select generate_series(1, 9) from parcels where note = 'hidden'", "unknown"},
			{"select (select count(*) from parcels where note = 'hidden')", "unknown"},
			{"with x as (select * from parcels where note = 'hidden') select * from x", "unknown"},
			{"insert into parcels values (1, 'eu', 'x'), (2, 'eu', 'y')", "2"},
			{"select * from t where id = 1", "1"},
			{"create temp view v as select * from parcels", ""},
			{"select * from v where note = 'hidden'", "unknown"},
		} {
			_, err := exec(t.Context(), c, step.sql)
			if step.want == "" {
				continue
			}
			rows, known := r.door.last().find(step.sql).op.Facts["rows"].(int64)
			if step.sql == "select * from parcels" {
				scope = rows
			}
			want := map[string]int64{"scope": scope, "1": 1, "2": 2}[step.want]
			if known != (step.want != "unknown") || known && rows != want || known != (err == nil) {
				t.Errorf("%s: %s: rows %d, known %v, %v; want %s (%d)", mode, step.sql, rows, known, err, step.want, scope)
			}
		}
	}
	if scope < 50 || scope > 400 {
		t.Errorf("the scope is taken for %d rows, of about 100", scope)
	}
	c := r.connect()
	for _, note := range []string{"hidden", "n7"} {
		if _, err := c.Exec(t.Context(), "select * from parcels where note = $1", note); err != nil {
			t.Fatal(err)
		}
		if rows := r.door.last().find("where note = $1").op.Facts["rows"]; rows != scope {
			t.Errorf("with the parameter %s: %v rows, want %d", note, rows, scope)
		}
	}
}
