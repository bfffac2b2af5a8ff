package postgres

import (
	"os/exec"
	"strings"
	"testing"
)

// TestPgDump: pg_dump of a table, and of one with a masked column, as a role
// that has rights on columns alone; and of a table that it may not read.
func TestPgDump(t *testing.T) {
	if _, err := exec.LookPath("pg_dump"); err != nil {
		missing(t, err)
	}
	r := newBypassRig(t, "")
	r.exec(`create table public.plain (id int generated always as identity primary key, v text not null);
		comment on table public.plain is 'kept'; create index on public.plain (v);
		insert into public.plain (v) select 'row '||i from generate_series(1, 3) i;
		grant select (id, v) on public.plain to dev; create table public.closed (v text)`)
	const noSequences = "--exclude-table-data=*_seq" // a grant to read a table gives no right on its sequence
	dump := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "pg_dump", append([]string{"--no-password", "-d", r.dsn()}, args...)...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := dump("-t", "public.plain", "-t", "public.users", noSequences)
	if err != nil {
		t.Fatalf("pg_dump: %v\n%s", err, out)
	}
	for _, want := range []string{"CREATE TABLE public.plain", "COMMENT ON TABLE public.plain IS 'kept'", "CREATE INDEX plain_v_idx", "1\trow 1\n2\trow 2\n3\trow 3", "1\tann\t****test\n2\tbo\t****test"} {
		if !strings.Contains(out, want) {
			t.Errorf("the dump lacks %q:\n%s", want, out)
		}
	}
	if s := (&seen{}); true {
		s.WriteString(out)
		if s.leaks() {
			t.Errorf("the dump shows a masked value:\n%s", out)
		}
	}
	if out, err := dump("-t", "public.plain", "--inserts", "--rows-per-insert=2", noSequences); err != nil || !strings.Contains(out, "'row 3'") {
		t.Errorf("as INSERTs: %v\n%s", err, out)
	}
	if out, err := dump("--schema-only", "-t", "public.users"); err != nil || !strings.Contains(out, "email text") {
		t.Errorf("schema only: %v\n%s", err, out)
	}
	if out, err := dump("-t", "public.closed"); err == nil || !strings.Contains(out, "permission denied for table closed") {
		t.Errorf("a table that the grant does not give: %v\n%s", err, out)
	}
}

// What set_config is given decides whether it is allowed: so a literal in it
// matters, and a text is never taken for another of its shape.
func TestSetConfig(t *testing.T) {
	p := newPlanned(plan)
	for _, c := range []struct {
		text   string
		denied bool
	}{
		{"select set_config('search_path', '', false)", false},
		{"select set_config('search_path', 'x', false)", true},
		{"select set_config('work_mem', '1MB', false)", false},
		{"select set_config('role', 'x', false)", true},
		{"select set_config('SEARCH_PATH', '', true)", false},
		{"select set_config($1, '', true)", true},
		{"select set_config('search_path', null, true)", true},
		{"select set_config('search_path', '' || 'x', true)", true},
		{"select set_config(name, 'view, foreign-table', false) from pg_settings where name = 'restrict_nonsystem_relation_kind'", false},
		{"select set_config(name, 'public', false) from pg_settings where name = 'search_path'", true},
		{"select set_config(name, 'public', false) from pg_settings where name <> 'restrict_nonsystem_relation_kind'", true},
		{"select set_config(name, 'public', false) from pg_settings", true},
		{"select set_config(setting, 'public', false) from pg_settings where name = 'restrict_nonsystem_relation_kind'", true},
	} {
		read, err := p.read([]byte(c.text))
		if err != nil {
			t.Fatalf("%s: %v", c.text, err)
		}
		if denied := read.ops[0].Guard != nil; denied != c.denied || read.shape != nil {
			t.Errorf("%s: denied: %t, want %t; kept by its shape: %t", c.text, denied, c.denied, read.shape != nil)
		}
	}
}

func TestLocksAndCopiesOfViews(t *testing.T) {
	b := &bridge{plan: newPlanned(plan), stmts: newNames('S', "tg_s"), portals: newNames('P', "tg_p")}
	for in, want := range map[string]string{
		"copy public.users (id, \"E\") to stdout":                `copy (SELECT "id", "E" FROM "m"."users") to stdout`,
		"COPY users TO STDOUT (FORMAT csv)":                      `COPY (SELECT * FROM "users") TO STDOUT (FORMAT csv)`,
		"copy /* to */ public . users /* x */ to stdout":         `copy /* to */ (SELECT * FROM "m"."users") /* x */ to stdout`,
		"copy public.users from stdin":                           "copy public.users from stdin",
		"copy users (id) from stdin":                             `copy "public".users (id) from stdin`,
		"copy public.orders to stdout":                           "copy public.orders to stdout",
		"copy (select 1) to stdout":                              "copy (select 1) to stdout",
		"LOCK TABLE public.users, only o IN ACCESS SHARE MODE":   `DECLARE "tidegate lock 1" NO SCROLL CURSOR FOR SELECT FROM "m".users UNION ALL SELECT FROM  only o `,
		"select 1; lock only (o) in access share mode; select 2": `select 1;DECLARE "tidegate lock 1" NO SCROLL CURSOR FOR SELECT FROM only (o) ; select 2`,
		"lock o in access share mode nowait":                     "lock o in access share mode nowait",
		"lock o":                                                 "lock o",
		"lock o in share mode":                                   "lock o in share mode",
	} {
		b.locks = 0
		read, err := b.plan.read([]byte(in))
		if err == nil {
			_, err = b.resolve(&read)
		}
		if err != nil || read.sent != want {
			t.Errorf("%s: sends %q, %v; want %q", in, read.sent, err, want)
		}
	}
}
