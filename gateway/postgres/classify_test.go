package postgres

import (
	"strings"
	"testing"

	"github.com/tidegate/tidegate/gateway/postgres/backing"
)

func TestClassifyKinds(t *testing.T) {
	for _, c := range []struct {
		sql, kind             string
		writes, where, denied bool
	}{
		{"SELECT email FROM users", "select", false, true, false},
		{"DELETE FROM users", "delete", true, false, false},
		{"DELETE FROM users WHERE true", "delete", true, false, false},
		{"DELETE FROM users WHERE 1=1", "delete", true, false, false},
		{"DELETE FROM users WHERE id = id", "delete", true, false, false},
		{"DELETE FROM users WHERE id = 1 OR true", "delete", true, false, false},
		{"DELETE FROM users WHERE id = 1 AND true", "delete", true, true, false},
		{"WITH x AS (DELETE FROM users RETURNING id) SELECT * FROM x", "delete", true, false, false},
		{"MERGE INTO orders o USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE", "delete", true, false, false},
		{"MERGE INTO orders o USING users u ON o.id = u.id WHEN MATCHED THEN DELETE", "delete", true, true, false},
		{"MERGE INTO orders o USING (SELECT 1) s ON true WHEN MATCHED AND o.id = 3 THEN DELETE", "delete", true, true, false},
		{"MERGE INTO orders o USING (SELECT 1) s ON true WHEN MATCHED THEN UPDATE SET note = ''", "update", true, false, false},
		{"MERGE INTO orders o USING users u ON o.id = u.id WHEN NOT MATCHED THEN INSERT (id) VALUES (1)", "merge", true, true, false},
		{"EXPLAIN ANALYZE DELETE FROM users", "delete", true, false, false},
		{"SELECT * FROM users FOR UPDATE", "select", true, true, false},
		{"SELECT nextval('s')", "select", true, true, false},
		{"SELECT pg_catalog.lower(email), count(*), now() FROM users", "select", false, true, false},
		{"SELECT do_something(id) FROM users", "select", true, true, false},
		{"SELECT public.lower(email) FROM users", "select", true, true, false},
		{`SELECT "LOWER"(email) FROM users`, "select", true, true, false},
		{"SELECT * INTO t FROM users", "create", true, true, false},
		{"DROP TABLE users", "drop", true, true, false},
		{"COPY users TO PROGRAM 'sh'", "copy", false, true, true},
		{"DO $$ BEGIN END $$", "", false, true, true},
		{"SET ROLE postgres", "set", false, true, true},
		{"RESET ROLE", "set", false, true, true},
		{"RESET ALL", "set", false, true, false},
		{"SET search_path = public", "set", false, true, true},
		{"SET standard_conforming_strings = off", "set", false, true, true},
		{"SELECT set_config('role','x',false)", "select", false, true, true},
		{"SELECT query_to_xml('select 1',true,true,'')", "select", false, true, true},
		{"UPDATE pg_settings SET setting='off' WHERE name='x'", "update", true, true, true},
		{"ALTER ROLE x SUPERUSER", "", false, true, true},
		{"CREATE EXTENSION dblink", "", false, true, true},
		{"CREATE SCHEMA s CREATE TABLE t (a int)", "create", true, true, false},
	} {
		got, err := classify(c.sql, &catalog{})
		if err != nil || len(got) != 1 {
			t.Errorf("%s: %d statements, %v", c.sql, len(got), err)
			continue
		}
		op := got[0].op
		f := op.Facts
		if f["kind"] != c.kind || f["writes"] != c.writes || f["has_where"] != c.where || (op.Guard != nil) != c.denied {
			t.Errorf("%s: kind %v writes %v has_where %v guard %v; want %+v", c.sql, f["kind"], f["writes"], f["has_where"], op.Guard, c)
		}
	}
}

func TestClassifyRefuses(t *testing.T) {
	for _, in := range []string{"SELEC 1", "SELECT '\xff'", strings.Repeat(" ", maxText+1)} {
		if got, err := classify(in, &catalog{}); err == nil {
			t.Errorf("%.20q: %d statements, want an error", in, len(got))
		}
	}
}

func FuzzClassify(f *testing.F) {
	f.Add("SELECT 1; DELETE FROM t")
	f.Fuzz(func(t *testing.T, in string) {
		got, err := classify(in, &catalog{})
		if err != nil {
			return
		}
		for _, s := range got {
			if s.op.Guard == nil && s.op.Facts["kind"] == "" {
				t.Errorf("%q has no kind and no guard", s.op.Text)
			}
		}
	})
}

func TestListenIsRefusedWhereColumnsAreMasked(t *testing.T) {
	masked := backing.Backing{Masked: []backing.MaskedTable{{Schema: "public", Table: "users"}}}
	for _, c := range []struct {
		sql    string
		plan   backing.Backing
		denied bool
	}{
		{"LISTEN x", masked, true},
		{"LISTEN x", backing.Backing{}, false},
		{"UNLISTEN x", masked, false},
		{"NOTIFY x", masked, false},
	} {
		stmts, err := classify(c.sql, &catalog{})
		if err != nil {
			t.Fatal(err)
		}
		guardMasked(stmts, c.plan)
		if got := stmts[0].op.Guard != nil; got != c.denied {
			t.Errorf("%s with %d masked tables: got denied %t, want %t", c.sql, len(c.plan.Masked), got, c.denied)
		}
	}
}
