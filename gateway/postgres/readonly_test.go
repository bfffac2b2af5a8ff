package postgres

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/access/ledger/pgtest"
)

// readOnly are statements that a server has to agree about with the classifier.
var readOnly = []string{
	"select * from t", "select v from t where id = 1 order by 1 limit 1", "with x as (select 1) select * from x",
	"with x as (delete from t returning *) select * from x", "select nextval('s')", "select setval('s', 1)", "select f()", "select * from f()",
	"select 1 where f() = 1", "select * from t for update", "explain analyze delete from t", "explain delete from t", "explain analyze select f()",
	"select * into u from t", "create temp table u as select 1", "copy t from stdin", "copy t to stdout", "copy (select f()) to stdout",
	"insert into t values (1)", "update t set v = v", "truncate t", "lock t in exclusive mode", "vacuum t", "merge into t using t x on false when not matched then insert values (1)",
	"prepare p as insert into t values (1)", "declare c cursor for select f()", "notify x", "table t", "values (1)", "show work_mem", "comment on table t is 'x'",
	"refresh materialized view m", "create index on t (id)", "select lower(v), now(), random(), pg_sleep(0) from t", "set work_mem = '1MB'", "begin", "values (f())",
	"select pg_advisory_lock(1)", "select pg_try_advisory_lock_shared(1, 2)", "select pg_notify('a', 'b')", "select pg_stat_reset()", "select txid_current()",
	"select pg_export_snapshot()", "select setseed(0.5)", "select pg_stat_clear_snapshot()", "select pg_stat_force_next_flush()", "select lastval()",
	"select pg_sequence_last_value('s'::regclass)", "select pg_wal_replay_pause()", "select pg_backup_start('x')", "select pg_current_xact_id()",
	"select pg_collation_actual_version(1)", "select pg_relation_size('t')", "select pg_indexes_size('t')", "select cursor_to_xml('c', 1, true, true, '')",
	"select v from t where exists (select f())", "select (select f())", "select * from t, lateral f()", "select max(id) filter (where f() = 1) from t",
}

// What is called read-only changes nothing: a live server runs it in a
// transaction that may only read, and once more in one of its own, in which it
// may do what it can; the whole database is the same before and after.
func FuzzReadOnly(f *testing.F) {
	for _, s := range readOnly {
		f.Add(s)
	}
	c, look := readOnlyServer(f)
	before := look(f)
	f.Fuzz(func(t *testing.T, text string) {
		stmts, err := classify(text, &catalog{})
		if err != nil || len(stmts) != 1 {
			return
		}
		op := stmts[0].op
		if op.Guard != nil || op.Facts["writes"] != false || stmts[0].node.GetTransactionStmt() != nil || stmts[0].use != nil {
			return
		}
		switch op.Facts["kind"] {
		case "select", "explain", "copy", "show":
		default:
			return
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := c.Exec(ctx, "begin read only; set local statement_timeout = 500"); err != nil {
			t.Fatal(err)
		}
		_, err = c.PgConn().CopyTo(ctx, discard{}, text) // runs anything
		if codeOf(err) == "25006" {
			t.Errorf("%q is called read-only: %v", text, err)
		}
		if _, err := c.Exec(ctx, "rollback"); err != nil {
			t.Fatal(err)
		}
		_, _ = c.PgConn().CopyTo(ctx, discard{}, text)
		if after := look(t); after != before {
			t.Errorf("%q is called read-only and changed the database:\n%s\nbefore:\n%s", text, after, before)
			before = after
		}
	})
}

// everythingSQL is all that a session could leave behind, in one line for each
// kind of thing: rows, sequences, the catalog, roles and their settings, large
// objects, locks that outlive their transaction, what is listened to.
const everythingSQL = `select string_agg(what || ' ' || coalesce(md5(list), '-'), E'\n') from (
	select 'rows' as what, (select string_agg(t::text, ' ' order by t::text) from public.t t) as list
	union all select 'view', (select string_agg(m::text, ' ' order by m::text) from public.m m)
	union all select 'sequence', (select last_value::text || is_called::text from public.s)
	union all select 'relations', (select string_agg(concat_ws(' ', oid, relname, relnamespace, relfilenode, relacl, relkind, reloptions), ',' order by oid) from pg_class where relkind not in ('t', 'i') and oid >= 16384)
	union all select 'columns', (select string_agg(concat_ws(' ', attrelid, attname, atttypid, attacl, attoptions), ',' order by attrelid, attnum) from pg_attribute where attrelid >= 16384)
	union all select 'functions', (select string_agg(concat_ws(' ', oid, proname, prosrc, proacl), ',' order by oid) from pg_proc where oid >= 16384)
	union all select 'types', (select count(*)::text from pg_type)
	union all select 'schemas', (select string_agg(concat_ws(' ', nspname, nspacl), ',' order by oid) from pg_namespace where nspname !~ '^pg_(toast_)?temp_')
	union all select 'roles', (select string_agg(concat_ws(' ', rolname, rolpassword, rolsuper, rolvaliduntil), ',' order by oid) from pg_authid)
	union all select 'settings', (select string_agg(concat_ws(' ', setdatabase, setrole, setconfig), ',' order by 1) from pg_db_role_setting)
	union all select 'comments', (select string_agg(description, ',' order by objoid, objsubid) from pg_description where objoid >= 16384)
	union all select 'large objects', (select count(*)::text from pg_largeobject_metadata)
	union all select 'prepared', (select count(*)::text from pg_prepared_xacts)
	union all select 'replication', (select count(*)::text from pg_replication_slots)
	union all select 'counters', (select stats_reset::text from pg_stat_database where datname = current_database())
	union all select 'locks', (select string_agg(concat_ws(' ', locktype, classid, objid, mode), ',' order by objid) from pg_locks where pid = $1 and locktype <> 'virtualxid')) x`

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// readOnlyServer is a server, a connection to it as somebody with some rights,
// and a look at all that there is.
func readOnlyServer(f *testing.F) (*pgx.Conn, func(testing.TB) string) {
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
	c, err := pgx.Connect(ctx, s.DSN)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = c.Close(context.Background()) })
	for _, sql := range []string{
		"create table t (id int, v text)", "create sequence s", "create materialized view m as select 1",
		"create function f() returns int language sql volatile as 'insert into t values (1) returning id'",
		"create role reader login; grant select on t, m to reader; grant usage, update on sequence s to reader; grant insert, update, delete on t to reader",
		"insert into t values (1, 'x'), (2, 'y')", "set statement_timeout = 500", "set role reader",
	} {
		if _, err := c.Exec(ctx, sql); err != nil {
			f.Fatal(err)
		}
	}
	super, err := pgx.Connect(ctx, s.DSN)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = super.Close(context.Background()) })
	return c, func(t testing.TB) (all string) {
		if err := super.QueryRow(context.Background(), everythingSQL, int64(c.PgConn().PID())).Scan(&all); err != nil {
			t.Fatal(err)
		}
		return all
	}
}
