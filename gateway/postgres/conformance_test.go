package postgres

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"
)

// driver is a client library with a program of checks in testdata/drivers. A
// program prints "version V" and for each check "NAME ok" or "NAME failed: …".
type driver struct {
	name string
	run  func(t *testing.T, dir string) *exec.Cmd
	more bool // of `make conformance` alone
}

var drivers = []driver{
	{name: "psql", run: shell("psql_checks.sh")},
	{name: "pgbench", run: shell("pgbench_checks.sh")},
	{name: "pg_dump", run: shell("pg_dump_checks.sh")},
	{name: "libpq by psycopg2", run: python("psycopg2_checks.py")},
	{name: "libpq by psycopg 3", run: python("psycopg3_checks.py")},
	{name: "psqlODBC by pyodbc", run: python("odbc_checks.py"), more: true},
	{name: "Ruby pg", run: program("ruby", "ruby_checks.rb"), more: true},
	{name: "PHP PDO", run: program("php", "php_checks.php"), more: true},
	{name: "node pg", run: node("pg_checks.js")},
	{name: "node postgres", run: node("postgres_checks.mjs")},
	{name: "Go lib/pq", run: func(t *testing.T, dir string) *exec.Cmd {
		a, err := txtar.ParseFile(filepath.Join(dir, "libpq.txtar"))
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), "go", "run", ".")
		cmd.Dir = t.TempDir()
		for _, f := range a.Files {
			if err := os.WriteFile(filepath.Join(cmd.Dir, f.Name), f.Data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return cmd
	}},
	{name: "JDBC", run: func(t *testing.T, dir string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), "java", "-cp", "/usr/share/java/postgresql.jar", filepath.Join(dir, "jdbc", "Checks.java"))
		cmd.Env = []string{"TOOLS_SQL=" + filepath.Join(dir, "jdbc", "tools.sql")}
		return cmd
	}},
}

func program(name, file string) func(*testing.T, string) *exec.Cmd {
	return func(t *testing.T, dir string) *exec.Cmd {
		return exec.CommandContext(t.Context(), name, filepath.Join(dir, file))
	}
}

func python(file string) func(*testing.T, string) *exec.Cmd { return program("/usr/bin/python3", file) }
func shell(file string) func(*testing.T, string) *exec.Cmd  { return program("bash", file) }

func node(file string) func(*testing.T, string) *exec.Cmd {
	return func(t *testing.T, dir string) *exec.Cmd {
		modules, err := filepath.Abs("../../.cache/parts/postgres-drivers/node_modules")
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), "node", filepath.Join(dir, file))
		cmd.Env = []string{"NODE_PATH=" + modules}
		return cmd
	}
}

// conformed is what one driver printed.
type conformed struct {
	version string
	checks  map[string]string
	order   []string
}

// TestDrivers has real client libraries do what people do. With
// TIDEGATE_CONFORMANCE it writes the table of docs/ to that file.
func TestDrivers(t *testing.T) {
	r := newRig(t, Config{})
	r.forDrivers()
	dir, err := filepath.Abs("testdata/drivers")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]conformed{}
	for _, d := range drivers {
		if d.more && os.Getenv("TIDEGATE_CONFORMANCE") == "" {
			continue
		}
		t.Run(d.name, func(t *testing.T) { all[d.name] = r.try(t, d, dir) })
	}
	if path := os.Getenv("TIDEGATE_CONFORMANCE"); path != "" && !t.Failed() {
		if err := os.WriteFile(path, []byte(conformanceTable(all)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.door.last().outcomes("drop table"); len(got) > 0 && got[0].Status != "refused" {
		t.Errorf("a drop ended as %v", got)
	}
}

// forDrivers makes what the programs use besides the rig's table.
func (r *rig) forDrivers() {
	r.exec(`create table public.pgbench_accounts (aid int primary key, bid int, abalance int, filler char(84));
		insert into public.pgbench_accounts select i, 1, 0, '' from generate_series(1, 100000) i; analyze public.pgbench_accounts;
		grant select (aid, bid, abalance, filler) on public.pgbench_accounts to dev; grant update (abalance) on public.pgbench_accounts to dev;
		create table public.pgbench_branches (bid int); insert into public.pgbench_branches values (1); grant select on public.pgbench_branches to dev`)
}

func (r *rig) try(t *testing.T, d driver, dir string) conformed {
	cmd := d.run(t, dir)
	if _, err := exec.LookPath(cmd.Path); err != nil {
		missing(t, err)
	}
	cmd.Env = append(append(os.Environ(), cmd.Env...), "PGHOST=localhost", "PGPORT="+r.port, "PGDATABASE=orders", "PGUSER=me",
		"PGPASSWORD="+goodToken, "PGSSLROOTCERT="+r.ca, "PGCLIENTENCODING=UTF8", "GOWORK=off")
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	c := conformed{checks: map[string]string{}}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		name, result, ok := strings.Cut(lines.Text(), " ")
		switch {
		case name == "version":
			c.version = result
		case ok && result == "ok":
			c.checks[name] = "yes"
		case ok && strings.HasPrefix(result, "failed:"):
			t.Errorf("%s %s", name, result)
		default:
			continue
		}
		c.order = append(c.order, name)
	}
	if c.version == "" && absent.Match(out) {
		missing(t, fmt.Errorf("%s does not run: %w\n%s", d.name, err, out))
	}
	if len(c.checks) < 5 || err != nil {
		t.Errorf("%s: %d checks, %v:\n%s", d.name, len(c.checks), err, out)
	}
	return c
}

// absent is what interpreters say of a library that is not installed.
var absent = regexp.MustCompile(`ModuleNotFoundError|ERR_MODULE_NOT_FOUND|MODULE_NOT_FOUND|package org.postgresql does not exist|module lookup disabled|dial tcp`)

// missing skips, but not where every part must be there.
func missing(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("TIDEGATE_REQUIRE_PARTS") == "1" {
		t.Fatal(err)
	}
	t.Skipf("install it with .ci/parts/postgres-drivers.sh: %v", err)
}

var conformanceChecks = []string{"types", "parameters", "prepared", "transaction", "refused", "large", "cursor", "copy", "cancel", "pipeline", "introspection", "tools"}

func conformanceTable(all map[string]conformed) string {
	var out strings.Builder
	out.WriteString(`# PostgreSQL clients

Each row is a client or client library that was run against the gateway, over TLS, with a token as password; ` + "`make conformance`" + ` runs them and writes this page. A check that fails fails the tests, so an empty place is one that the program of that library does not have.

| client | version | ` + strings.Join(conformanceChecks, " | ") + " |\n|---|---|" + strings.Repeat("---|", len(conformanceChecks)) + "\n")
	for _, d := range drivers {
		c, ok := all[d.name]
		if !ok {
			continue
		}
		cells := []string{d.name, c.version}
		for _, check := range conformanceChecks {
			cells = append(cells, c.checks[check])
		}
		out.WriteString("| " + strings.Join(cells, " | ") + " |\n")
	}
	out.WriteString(`
What the checks do: values of eight types, in text and where the library can in binary; parameters with quotes and accents; a prepared statement used again and again; a transaction rolled back, where the library has batches with one; a statement that a rule refuses (SQLSTATE 42501), after which the session goes on; 100,000 rows; a cursor or fetch size; COPY in and out; cancelling a statement; a pipeline; and introspection, such as psql's \d family. Tools are, for psql, \watch and \gexec; for pgbench its own script in all three query modes; for pg_dump definitions, rows and INSERTs; for JDBC the statements that DataGrip and DBeaver send when they connect and open a table (gateway/postgres/testdata/drivers/jdbc/tools.sql; the tools themselves were not run).

Besides these the tests use Go's pgx throughout, and PostgreSQL 17 and 18.
`)
	return out.String()
}
