// The checks of JDBC; see conformance_test.go for what they print.
import java.io.*;
import java.nio.file.*;
import java.sql.*;
import java.util.*;
import org.postgresql.PGConnection;

public class Checks {
    interface Check { void run(Connection c) throws Exception; }

    static Connection connect() throws Exception {
        Properties p = new Properties();
        p.setProperty("user", System.getenv("PGUSER"));
        p.setProperty("password", System.getenv("PGPASSWORD"));
        p.setProperty("sslmode", "verify-full");
        p.setProperty("sslrootcert", System.getenv("PGSSLROOTCERT"));
        p.setProperty("prepareThreshold", "2");
        return DriverManager.getConnection("jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/" + System.getenv("PGDATABASE"), p);
    }

    static void that(boolean ok, Object what) {
        if (!ok) throw new IllegalStateException("got " + what);
    }

    static void check(String name, Check f) {
        try (Connection c = connect()) {
            f.run(c);
            System.out.println(name + " ok");
        } catch (Exception e) {
            System.out.println(name + " failed: " + String.valueOf(e).replaceAll("\\s+", " "));
        }
    }

    public static void main(String[] args) throws Exception {
        System.out.println("version " + org.postgresql.Driver.class.getPackage().getImplementationVersion());
        check("types", c -> {
            ResultSet r = c.createStatement().executeQuery("select 1.50::numeric, true, '2026-01-02 03:04:05+00'::timestamptz, '\\x00ff'::bytea, array[1,2], null");
            r.next();
            that(r.getBigDecimal(1).toString().equals("1.50") && r.getBoolean(2) && r.getBytes(4)[1] == (byte) 0xff && r.getObject(6) == null, r.getObject(1));
        });
        check("parameters", c -> {
            PreparedStatement s = c.prepareStatement("select v from t where id = ? and v <> ?");
            s.setInt(1, 2); s.setString(2, "it's \\ é");
            ResultSet r = s.executeQuery(); r.next();
            that(r.getString(1).equals("v2"), r.getString(1));
        });
        check("prepared", c -> {
            PreparedStatement s = c.prepareStatement("select v from t where id = ?");
            for (int round = 0; round < 4; round++) for (int i = 1; i <= 3; i++) {
                s.setInt(1, i);
                ResultSet r = s.executeQuery(); r.next();
                that(r.getString(1).equals("v" + i), r.getString(1));
            }
        });
        check("transaction", c -> {
            c.setAutoCommit(false);
            PreparedStatement s = c.prepareStatement("insert into t values (?, ?)");
            for (int i = 0; i < 5; i++) { s.setInt(1, 50 + i); s.setString(2, "x"); s.addBatch(); }
            that(s.executeBatch().length == 5, "batch");
            c.rollback();
            ResultSet r = c.createStatement().executeQuery("select count(*) from t where id >= 50"); r.next();
            that(r.getInt(1) == 0, r.getInt(1));
        });
        check("refused", c -> {
            try { c.createStatement().execute("drop table t"); that(false, "it ran"); } catch (SQLException e) { that("42501".equals(e.getSQLState()), e); }
            ResultSet r = c.createStatement().executeQuery("select 1"); r.next();
            that(r.getInt(1) == 1, r.getInt(1));
        });
        check("large", c -> {
            ResultSet r = c.createStatement().executeQuery("select i, repeat('x', 100) from generate_series(1, 100000) i");
            int n = 0; while (r.next()) n++;
            that(n == 100000, n);
        });
        check("cursor", c -> {
            c.setAutoCommit(false);
            Statement s = c.createStatement(); s.setFetchSize(100);
            ResultSet r = s.executeQuery("select i from generate_series(1, 1000) i");
            int sum = 0; while (r.next()) sum += r.getInt(1);
            that(sum == 500500, sum);
        });
        check("copy", c -> {
            c.setAutoCommit(false);
            var copy = c.unwrap(PGConnection.class).getCopyAPI();
            that(copy.copyIn("copy t from stdin", new StringReader("60\tsixty\n61\tmore\n")) == 2, "copy in");
            StringWriter out = new StringWriter();
            copy.copyOut("copy (select v from t where id >= 60 order by id) to stdout", out);
            that(out.toString().equals("sixty\nmore\n"), out);
            c.rollback();
        });
        check("cancel", c -> {
            Statement s = c.createStatement(); s.setQueryTimeout(1);
            try { s.execute("select pg_sleep(20)"); that(false, "it ran to its end"); } catch (SQLException e) { that("57014".equals(e.getSQLState()), e); }
        });
        check("introspection", c -> {
            DatabaseMetaData m = c.getMetaData();
            ResultSet r = m.getTables(null, "public", "%", null);
            int n = 0; while (r.next()) n++;
            that(n >= 1, n);
            r = m.getColumns(null, "public", "t", null); n = 0; while (r.next()) n++;
            that(n == 2, n);
            m.getPrimaryKeys(null, "public", "t"); m.getIndexInfo(null, "public", "t", false, false);
            m.getImportedKeys(null, "public", "t"); m.getTypeInfo(); m.getSchemas(); m.getCatalogs(); m.getFunctions(null, null, "%");
        });
        check("tools", c -> {
            String text = Files.readString(Path.of(System.getenv("TOOLS_SQL")));
            for (String sql : text.split("\n\n")) {
                sql = sql.replaceAll("(?m)^-- .*\n?", "");
                if (sql.isBlank()) continue;
                try { c.createStatement().execute(sql); } catch (SQLException e) { throw new IllegalStateException(e + " in: " + sql); }
            }
        });
    }
}
