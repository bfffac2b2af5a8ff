# The checks of psycopg 3; see conformance_test.go for what they print.
import os, threading
import psycopg

DSN = "sslmode=verify-full sslrootcert=" + os.environ["PGSSLROOTCERT"]

def connect():
    return psycopg.connect(DSN)

def check(name, f):
    try:
        f()
        print(name, "ok")
    except Exception as e:
        print(name, "failed:", type(e).__name__, str(e).replace("\n", " ")[:200])

def types():
    for binary in (False, True):
        with connect() as c:
            row = c.cursor(binary=binary).execute("select 1.50::numeric, true, '2026-01-02 03:04:05+00'::timestamptz, '\\x00ff'::bytea, '{\"a\":1}'::jsonb, array[1,2], null").fetchone()
            assert str(row[0]) == "1.50" and row[1] is True and row[3] == b"\x00\xff" and row[4] == {"a": 1} and row[5] == [1, 2] and row[6] is None, row

def parameters():
    with connect() as c:
        assert c.execute("select v from t where id = %s and v <> %s", (2, "it's \\ é")).fetchone() == ("v2",)

def prepared():
    with connect() as c:
        c.prepared_max = 2
        for i in (1, 2, 3):
            assert c.execute("select v from t where id = %s", (i,), prepare=True).fetchone() == ("v%d" % i,)
            assert c.execute("select v || '%s' from t where id = %%s" % i, (i,), prepare=True).fetchone() == ("v%d%d" % (i, i),)

def transaction():
    with connect() as c:
        c.execute("insert into t values (50, 'x')"); c.rollback()
        assert c.execute("select count(*) from t where id = 50").fetchone() == (0,)

def refused():
    with connect() as c:
        try:
            c.execute("drop table t"); assert False, "it ran"
        except psycopg.errors.InsufficientPrivilege as e:
            assert e.sqlstate == "42501"
        c.rollback()
        with c.pipeline():
            c.execute("insert into t values (51, 'x')")
        c.rollback()
        assert c.execute("select 1").fetchone() == (1,)

def large():
    with connect() as c:
        assert len(c.execute("select i, repeat('x', 100) from generate_series(1, 100000) i").fetchall()) == 100000

def cursor():
    with connect() as c, c.cursor("named") as cur:
        cur.itersize = 100
        cur.execute("select i from generate_series(1, 1000) i")
        assert sum(r[0] for r in cur) == 500500

def copy():
    with connect() as c:
        cur = c.cursor()
        with cur.copy("copy t from stdin") as w:
            w.write_row((60, "sixty")); w.write_row((61, "more"))
        with cur.copy("copy (select v from t where id >= 60 order by id) to stdout") as r:
            assert [x[0] for x in r.rows()] == ["sixty", "more"]
        c.rollback()

def cancel():
    with connect() as c:
        threading.Timer(1.0, c.cancel).start()
        try:
            c.execute("select pg_sleep(20)"); assert False, "it ran to its end"
        except psycopg.errors.QueryCanceled:
            c.rollback()

print("version", psycopg.__version__)
for f in (types, parameters, prepared, transaction, refused, large, cursor, copy, cancel):
    check(f.__name__, f)
