package pgtest

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestCommittedRowsSurviveKill(t *testing.T) {
	s := Start(t, Options{SSL: true, Config: map[string]string{"work_mem": "5MB"}})
	dsn := s.NewDatabase(t)
	query(t, dsn, "create table t as select 7 as n; select 'made'", "made")
	query(t, dsn, "show work_mem", "5MB")
	query(t, dsn, "select ssl::text from pg_stat_ssl where pid = pg_backend_pid()", "true")
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if conn, err := pgx.Connect(t.Context(), dsn); err == nil {
		conn.Close(t.Context())
		t.Fatal("a killed server answers")
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	query(t, dsn, "select n::text from t", "7")
}

func TestDirIsKept(t *testing.T) {
	dir, err := os.MkdirTemp("", "pgtest-kept-") // t.TempDir is closed to PostgreSQL's user when root runs the test
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	o := Options{Dir: dir, SSL: true}
	first := Start(t, o)
	query(t, first.DSN, "create table t as select 7 as n; select 'made'", "made")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	o.Port = first.Port
	again := Start(t, o)
	query(t, first.DSN, "select n::text from t", "7")
	query(t, again.DSN, "show fsync", "on")
	if string(first.CAPEM) != string(again.CAPEM) || len(first.CAPEM) == 0 {
		t.Error("the second start made another CA")
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "data")); err != nil {
		t.Error(err)
	}
}

func TestStrangeDirRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Run(t.Context(), Options{Dir: dir})
	if errors.Is(err, ErrMissing) {
		t.Skip(err)
	}
	if err == nil {
		s.Close()
		t.Fatal("a directory with something else in it was taken")
	}
}

func query(t *testing.T, dsn, sql, want string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	results, err := conn.PgConn().Exec(t.Context(), sql).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if got := string(results[len(results)-1].Rows[0][0]); got != want {
		t.Errorf("%s: got %q, want %q", sql, got, want)
	}
}

// TestClosedDirSaysSo: where root's folders are closed to PostgreSQL's user,
// the folder is named and not initdb blamed.
func TestClosedDirSaysSo(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root's cluster runs as another user")
	}
	s, err := Run(t.Context(), Options{Dir: filepath.Join(t.TempDir(), "closed")})
	if errors.Is(err, ErrMissing) {
		t.Skip(err)
	}
	if err == nil {
		s.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "want one that everybody can enter") {
		t.Errorf("got %v", err)
	}
}
