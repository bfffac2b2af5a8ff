package postgres

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/gateway/postgres/backing"
)

// TestNamesInOtherEncodings: a database in LATIN1 lowers É, which the parser
// here does not.
func TestNamesInOtherEncodings(t *testing.T) {
	r := newRig(t, Config{})
	r.exec(`create database latin encoding 'LATIN1' lc_collate 'C' lc_ctype 'C' template template0`)
	plan, err := backing.Backing{Role: "dev", Database: "latin", SearchPath: []string{"pg_catalog"}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	address, _, _ := strings.Cut(r.door.lease.Address, "/")
	r.door.lease.Address, r.door.lease.Backing = address+"/latin", plan
	c := r.connect()
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
		for sql, want := range map[string]string{
			`select 1 as École`:                               "write it in double quotes",
			`select 1 as e, 2 as _é`:                          "write it in double quotes",
			`select 1 as "École"`:                             "",
			`select 'École' as x --É`:                         "",
			`select U&'É' as x /*É*/`:                         "",
			`select $é$x$é$ as x`:                             "",
			`select 1 as "` + strings.Repeat("é", 31) + `"`:   "",
			`select 1 as "` + strings.Repeat("é", 32) + `"`:   "over 63 bytes in UTF-8",
			`select 1 as U&"` + strings.Repeat("é", 40) + `"`: "over 63 bytes in UTF-8",
		} {
			_, err := c.Exec(t.Context(), sql, mode)
			if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("%s: got %v, want %q", sql, err, want)
			}
		}
	}
}

// TestNamesInUTF8 are read alike on both sides.
func TestNamesInUTF8(t *testing.T) {
	c := newRig(t, Config{}).connect()
	if _, err := c.Exec(t.Context(), `select v as École from public.t`); err != nil {
		t.Error(err)
	}
}
