package postgres

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// TestVersions has the room before newer servers than Debian's: psql and its
// \d family, both protocols, cancelling, COPY and the ways around masks.
func TestVersions(t *testing.T) {
	for _, version := range []string{"17", "18"} {
		t.Run(version, func(t *testing.T) {
			if _, err := os.Stat("../../.cache/parts/postgres-" + version + "/version"); err != nil {
				missing(t, err)
			}
			r := newRigOn(t, Config{}, version)
			r.oldAndNew(t, version)
			r.forDrivers()
			r.tryNamed(t, "psql", "pgbench", "libpq by psycopg 3", "JDBC")
			testBypass(t, version)
		})
	}
}

// tryNamed runs the programs of some drivers.
func (r *rig) tryNamed(t *testing.T, names ...string) {
	dir, err := filepath.Abs("testdata/drivers")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range drivers {
		if slices.Contains(names, d.name) {
			t.Run(d.name, func(t *testing.T) { r.try(t, d, dir) })
		}
	}
}

func (r *rig) oldAndNew(t *testing.T, version string) {
	out, err := r.psql(r.dsn(), `show server_version_num;
\d t
\dt+
\dn+
\df lower
\du
\dp
copy t from stdin;
7	seven
\.
drop table t;
select 'after';
`)
	if err != nil || strings.Count(out, "ERROR") != 1 {
		t.Errorf("psql: %v\n%s", err, out)
	}
	for _, want := range []string{version + "0", "v|text", "42501", "after"} {
		if !strings.Contains(out, want) {
			t.Errorf("psql's output lacks %q:\n%s", want, out)
		}
	}
	c := r.connect()
	var v string
	if err := c.QueryRow(t.Context(), "select v from t where id = $1", 7).Scan(&v); err != nil || v != "seven" {
		t.Errorf("got %q, %v", v, err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := c.Exec(t.Context(), "select pg_sleep(60)", pgx.QueryExecModeSimpleProtocol)
		done <- err
	}()
	r.waitActive("pg_sleep(60)")
	if err := c.PgConn().CancelRequest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; codeOf(err) != "57014" {
		t.Errorf("cancelled statement gave %v, want 57014", err)
	}
}
