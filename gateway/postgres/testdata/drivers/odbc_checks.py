# The checks of psqlODBC, driven by pyodbc; see conformance_test.go for what they print.
import glob, os, threading
import pyodbc

DRIVER = glob.glob("/usr/lib/*/odbc/psqlodbcw.so")
DSN = (
    "Driver=" + (DRIVER or ["psqlodbcw.so"])[0] + ";Server=" + os.environ["PGHOST"] + ";Port=" + os.environ["PGPORT"]
    + ";Database=" + os.environ["PGDATABASE"] + ";Uid=" + os.environ["PGUSER"] + ";Pwd=" + os.environ["PGPASSWORD"]
    + ";SSLmode=verify-full;pqopt={sslrootcert=" + os.environ["PGSSLROOTCERT"] + "}"
)

def connect(**more):
    return pyodbc.connect(DSN + "".join(";%s=%s" % kv for kv in more.items()))

def check(name, f):
    try:
        f()
        print(name, "ok")
    except Exception as e:
        print(name, "failed:", type(e).__name__, str(e).replace("\n", " ")[:300])

def one(sql, *args):
    c = connect()
    try:
        return c.execute(sql, *args).fetchone()
    finally:
        c.close()

def types():
    row = one("select 1.50::numeric, '2026-01-02 03:04:05'::timestamp, '\\x00ff'::bytea, 'é', null")
    assert str(row[0]) == "1.50" and row[1].year == 2026 and bytes(row[2]) == b"\x00\xff" and row[3] == "é" and row[4] is None, row

def parameters():
    assert one("select v from t where id = ? and v <> ?", 2, "it's \\ é")[0] == "v2"

def prepared():
    c = connect(UseServerSidePrepare=1); cur = c.cursor()
    for i in (1, 2, 3, 1, 2, 3):
        assert cur.execute("select v from t where id = ?", i).fetchone()[0] == "v%d" % i
    c.close()

def transaction():
    c = connect(); cur = c.cursor()
    cur.executemany("insert into t values (?, ?)", [(50, "x"), (51, "y")]); c.rollback()
    assert cur.execute("select count(*) from t where id in (50, 51)").fetchone()[0] == 0
    c.close()

def refused():
    c = connect(); cur = c.cursor()
    try:
        cur.execute("drop table t"); assert False, "it ran"
    except pyodbc.Error as e:
        assert e.args[0] == "42501", e
    c.rollback()
    assert cur.execute("select 1").fetchone()[0] == 1
    c.close()

def large():
    c = connect()
    assert len(c.execute("select i, repeat('x', 100) from generate_series(1, 100000) i").fetchall()) == 100000
    c.close()

def cursor():
    c = connect(UseDeclareFetch=1, Fetch=100)
    assert sum(r[0] for r in c.execute("select i from generate_series(1, 1000) i")) == 500500
    c.close()

def cancel():
    c = connect(); cur = c.cursor()
    threading.Timer(1.0, cur.cancel).start()
    try:
        cur.execute("select pg_sleep(20)"); assert False, "it ran to its end"
    except pyodbc.Error as e:
        assert e.args[0] in ("57014", "HY008"), e
    c.rollback(); c.close()

def introspection():
    c = connect(); cur = c.cursor()
    assert "t" in [r.table_name for r in cur.tables(schema="public")]
    assert [r.column_name for r in cur.columns(table="t", schema="public")] == ["id", "v"]
    cur.primaryKeys("t").fetchall(); cur.statistics("t").fetchall(); cur.foreignKeys("t").fetchall(); cur.getTypeInfo().fetchall()
    c.close()

c = connect(); version = c.getinfo(pyodbc.SQL_DRIVER_VER); c.close()
print("version", version)
for f in (types, parameters, prepared, transaction, refused, large, cursor, cancel, introspection):
    check(f.__name__, f)
