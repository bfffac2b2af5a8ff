package postgres

import (
	"testing"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/postgres/backing"
)

// PostgreSQL counts and locks a hidden row that an index leads to before the
// view's condition hides it. The target does tell; the room does not ask it.
func TestCountsTellNothingOfHiddenRows(t *testing.T) {
	r := newRig(t, Config{})
	r.exec(`create table parcels (id int primary key, region text, code int);
		insert into parcels select g, case when g % 2 = 0 then 'eu' else 'us' end, g * 7 from generate_series(1, 20000) g;
		create index on parcels (code); analyze parcels;
		create schema m; create view m.parcels with (security_barrier) as select id, region, code from parcels where region = 'eu';
		grant usage on schema m to dev; grant select on m.parcels to dev; alter role dev set search_path = m, public`)
	var err error
	if r.door.lease.Backing, err = (backing.Backing{Role: "dev", Database: r.admin.Config().Database, SearchPath: []string{"m", "public"},
		Masked: []backing.MaskedTable{{Schema: "public", Table: "parcels", MaskSchema: "m", Limited: true}},
		Tables: []backing.Table{{Schema: "public", Name: "parcels", Columns: []string{"id", "region", "code"}}},
	}).Encode(); err != nil {
		t.Fatal(err)
	}
	r.door.judge = func(access.Operation) access.Verdict { return access.Allow }
	for what, sql := range map[string]string{
		"fetched":         "select idx_tup_fetch from pg_stat_xact_user_tables where relname = 'parcels'",
		"predicate locks": "select count(*) from pg_locks where mode = 'SIReadLock' and locktype = 'tuple'",
	} {
		tx := "begin isolation level serializable; set local role dev; select count(*) from m.parcels where code = 49; "
		if got := r.text(tx+sql) == "0"; got {
			t.Errorf("%s: the target itself tells nothing any more of a hidden row: no need to refuse it", what)
		}
	}
	for mode, exec := range protocols {
		c := r.connect()
		for _, sql := range []string{
			"select idx_tup_fetch from pg_stat_xact_user_tables", "select * from pg_catalog.pg_stat_user_indexes", "table pg_statio_all_tables", "select tup_fetched from pg_stat_database",
			"select pg_stat_get_xact_tuples_fetched(1)", "select pg_catalog.pg_stat_get_tuples_fetched(1)", "select (1::oid).pg_stat_get_numscans", "select x.pg_stat_get_xact_numscans from unnest(array[1::oid]) x",
			"select * from pg_locks", "select mode from pg_lock_status()", "create temp view v as select * from pg_locks", "copy pg_stat_all_tables to stdout", "select * from U&\"pg\\005flocks\"",
		} {
			if _, err := exec(t.Context(), c, sql); !refused(err) {
				t.Errorf("%s: %s: got %v, want the room's refusal", mode, sql, err)
			}
		}
		for _, sql := range []string{"select state from pg_stat_activity", "select ssl from pg_stat_ssl", "select count(*) from parcels where code = 49", "select relname, reltuples from pg_class"} {
			if _, err := exec(t.Context(), c, sql); err != nil {
				t.Errorf("%s: %s: %v", mode, sql, err)
			}
		}
	}
}

// text is the last value that statements of the administrator answer with.
func (r *rig) text(sql string) string {
	r.t.Helper()
	results, err := r.admin.PgConn().Exec(r.t.Context(), sql).ReadAll()
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.admin.Exec(r.t.Context(), "rollback"); err != nil {
		r.t.Fatal(err)
	}
	return string(results[len(results)-1].Rows[0][0])
}
