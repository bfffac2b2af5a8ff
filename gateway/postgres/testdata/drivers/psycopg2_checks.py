# The checks of psycopg 2; see conformance_test.go for what they print.
import io, os, threading, time
import psycopg2, psycopg2.errors

DSN = "sslmode=verify-full sslrootcert=" + os.environ["PGSSLROOTCERT"]

def connect():
    return psycopg2.connect(DSN)

def check(name, f):
    try:
        f()
        print(name, "ok")
    except Exception as e:
        print(name, "failed:", type(e).__name__, str(e).replace("\n", " ")[:200])

def one(sql, args=None):
    c = connect()
    try:
        cur = c.cursor()
        cur.execute(sql, args)
        return cur.fetchone()
    finally:
        c.close()

def types():
    row = one("select 1.50::numeric, true, '2026-01-02 03:04:05+00'::timestamptz, '\\x00ff'::bytea, '{\"a\":1}'::jsonb, array[1,2], null")
    assert str(row[0]) == "1.50" and row[1] is True and bytes(row[3]) == b"\x00\xff" and row[4] == {"a": 1} and row[5] == [1, 2] and row[6] is None, row

def parameters():
    assert one("select v from t where id = %s and v <> %s", (2, "it's \\ é")) == ("v2",)

def prepared():
    c = connect(); cur = c.cursor()
    cur.execute("prepare q(int) as select v from t where id = $1")
    for i in (1, 2, 3):
        cur.execute("execute q(%s)", (i,)); assert cur.fetchone() == ("v%d" % i,)
    cur.execute("deallocate q"); c.close()

def transaction():
    c = connect(); cur = c.cursor()
    cur.execute("insert into t values (50, 'x')"); c.rollback()
    cur.execute("select count(*) from t where id = 50"); assert cur.fetchone() == (0,)
    c.close()

def refused():
    c = connect(); cur = c.cursor()
    try:
        cur.execute("drop table t"); assert False, "it ran"
    except psycopg2.errors.InsufficientPrivilege as e:
        assert e.pgcode == "42501"
    c.rollback()
    cur.execute("select 1"); assert cur.fetchone() == (1,)
    c.close()

def large():
    c = connect(); cur = c.cursor()
    cur.execute("select i, repeat('x', 100) from generate_series(1, 100000) i")
    assert len(cur.fetchall()) == 100000; c.close()

def cursor():
    c = connect(); cur = c.cursor("named"); cur.itersize = 100
    cur.execute("select i from generate_series(1, 1000) i")
    assert sum(r[0] for r in cur) == 500500; c.close()

def copy():
    c = connect(); cur = c.cursor()
    cur.copy_expert("copy t from stdin", io.StringIO("60\tsixty\n61\tmore\n"))
    out = io.StringIO(); cur.copy_expert("copy (select v from t where id >= 60 order by id) to stdout", out)
    assert out.getvalue() == "sixty\nmore\n", out.getvalue()
    c.rollback(); c.close()

def cancel():
    c = connect(); cur = c.cursor()
    threading.Timer(1.0, c.cancel).start()
    try:
        cur.execute("select pg_sleep(20)"); assert False, "it ran to its end"
    except psycopg2.errors.QueryCanceled:
        pass
    c.rollback(); c.close()

print("version", psycopg2.__version__.split()[0])
for f in (types, parameters, prepared, transaction, refused, large, cursor, copy, cancel):
    check(f.__name__, f)
