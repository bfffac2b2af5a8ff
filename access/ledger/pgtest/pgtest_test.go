package pgtest

import (
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
