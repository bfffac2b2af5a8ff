package postgres

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/postgres/backing"
)

// PostgreSQL evaluates what ON CONFLICT DO UPDATE says of a row that a view
// hides, and only then finds that it is hidden.
func TestConflictsTellNothingOfHiddenRows(t *testing.T) {
	r := newRig(t, Config{})
	r.exec(`create table parcels (id int primary key, region text, note text); insert into parcels values (1, 'eu', 'a'), (2, 'us', '` + canary + `');
		create table plain (id int primary key, n int); insert into plain values (1, 1); grant all on plain to dev;
		create schema m; create view m.parcels with (security_barrier, check_option = cascaded) as select id, region, note from parcels where region = 'eu';
		grant usage on schema m to dev; grant select, insert, delete, update (id, note) on m.parcels to dev; alter role dev set search_path = m, public`)
	var err error
	if r.door.lease.Backing, err = (backing.Backing{Role: "dev", Database: r.admin.Config().Database, SearchPath: []string{"m", "public"},
		Masked: []backing.MaskedTable{{Schema: "public", Table: "parcels", MaskSchema: "m", Limited: true}},
		Tables: []backing.Table{{Schema: "public", Name: "parcels", Columns: []string{"id", "region", "note"}}, {Schema: "public", Name: "plain", Columns: []string{"id", "n"}}},
	}).Encode(); err != nil {
		t.Fatal(err)
	}
	r.door.judge = func(access.Operation) access.Verdict { return access.Allow }
	for mode, exec := range protocols {
		c := r.connect()
		if _, err := exec(t.Context(), c, "create temp view mine as select * from parcels"); err != nil {
			t.Fatal(err)
		}
		for _, table := range []string{"parcels", "public.parcels", "m.parcels", "mine", "mine as excluded"} {
			for _, do := range []string{
				"set note = 'x' where %s.note::int = 1", "set note = %s.note::int", "set note = 'x' where note like 'zq7%%'", "set note = upper(note)",
				"set note = 'x' where (%s).note::int = 1", "set note = 'x' where %s.note is not null", "set (note) = (select %s.note)",
				"set note = (select 'x' from (select %[1]s.*) y where y.note like 'z%%')",
				"set note = excluded.note", "set note = 'long enough to break the check'",
			} {
				if strings.Contains(do, "%s") || strings.Contains(do, "%[1]s") {
					do = fmt.Sprintf(do, table[strings.LastIndexAny(table, ". ")+1:])
				}
				sql := "insert into " + table + " (id, region) values (2, 'eu') on conflict (id) do update " + do
				_, err := exec(t.Context(), c, sql)
				if e, ok := err.(*pgconn.PgError); !ok || !refused(err) || strings.Contains(fmt.Sprint(*e), canary) {
					t.Errorf("%s: %s: got %v, want the room's refusal", mode, sql, err)
				}
			}
		}
		for _, sql := range []string{"create temp view plain as select id, length(region) as n from parcels", "alter view mine rename to plain", "alter table mine rename to plain"} {
			if _, err := exec(t.Context(), c, sql); !refused(err) {
				t.Errorf("%s: %s: got %v, want the room's refusal", mode, sql, err)
			}
		}
		for _, sql := range []string{
			"update parcels set note = 'b' where id = 1", "insert into plain values (1, 1) on conflict (id) do update set n = plain.n + 1",
			"insert into public.plain values (1, 1) on conflict (id) do update set n = plain.n + 1",
			"insert into plain values (1, 1) on conflict (id) do update set n = 2", "insert into parcels (id, region) values (2, 'eu') on conflict do nothing",
		} {
			if _, err := exec(t.Context(), c, sql); err != nil {
				t.Errorf("%s: %s: %v", mode, sql, err)
			}
		}
	}
}
