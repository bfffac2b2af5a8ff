package postgres

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/tidegate/tidegate/access"
)

// talk sends messages and reads up to each ReadyForQuery: the rows, and the
// SQLSTATE of each failure.
func talk(t *testing.T, f *pgproto3.Frontend, msgs ...pgproto3.FrontendMessage) (rows int, codes []string) {
	t.Helper()
	ends := 0
	for _, m := range msgs {
		f.Send(m)
		switch m.(type) {
		case *pgproto3.Query, *pgproto3.Sync:
			ends++
		}
	}
	if err := f.Flush(); err != nil {
		t.Fatal(err)
	}
	for ends > 0 {
		m, err := f.Receive()
		if err != nil {
			t.Fatal(err)
		}
		switch m := m.(type) {
		case *pgproto3.DataRow, *pgproto3.CopyData:
			rows++
		case *pgproto3.ErrorResponse:
			codes = append(codes, m.Code)
		case *pgproto3.ReadyForQuery:
			ends--
		}
	}
	return rows, codes
}

func query(sql string) pgproto3.FrontendMessage { return &pgproto3.Query{String: sql} }

// A portal that nobody agreed to yet must not run by a cursor's name.
func TestHeldPortalIsNoCursor(t *testing.T) {
	r := newRig(t, Config{})
	f := r.frontend()
	talk(t, f, query("begin"))
	if _, codes := talk(t, f, &pgproto3.Parse{Name: "s", Query: "delete from t returning v"},
		&pgproto3.Bind{DestinationPortal: "p", PreparedStatement: "s"}, &pgproto3.Sync{}); codes != nil {
		t.Fatal(codes)
	}
	for i := range 3 {
		name := fmt.Sprintf("tg_p%d", i)
		for _, sql := range []string{"declare " + name + " cursor for select 1", `declare "` + name + `" cursor with hold for select 1`, "declare " + strings.ToUpper(name) + " cursor for select 1"} {
			talk(t, f, query("savepoint s"), query(sql), query("rollback to s"))
			if rows, codes := talk(t, f, query("savepoint s"), query("fetch all from "+name), query("rollback to s")); rows > 0 || codes == nil {
				t.Errorf("%s: the statement that waits ran: %d rows, %q", sql, rows, codes)
			}
		}
	}
}

// frontend is a session of which a test sends each message itself.
func (r *rig) frontend() *pgproto3.Frontend {
	r.t.Helper()
	h, err := r.connect().PgConn().Hijack()
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = h.Conn.Close() })
	return h.Frontend
}

// A FETCH is judged with what its cursor reads, whatever a DECLARE or a CLOSE
// that failed has said of it since, and whenever it was prepared.
func TestFetchIsJudgedByItsCursor(t *testing.T) {
	r := newRig(t, Config{})
	const hold = "declare c cursor with hold for select id from t"
	prepared := []pgproto3.FrontendMessage{&pgproto3.Parse{Name: "f", Query: "fetch all from c"}, &pgproto3.Sync{}}
	run := []pgproto3.FrontendMessage{&pgproto3.Bind{PreparedStatement: "f"}, &pgproto3.Execute{}, &pgproto3.Sync{}}
	queries := func(all ...string) (out []pgproto3.FrontendMessage) {
		for _, sql := range all {
			out = append(out, query(sql))
		}
		return out
	}
	for what, steps := range map[string][]pgproto3.FrontendMessage{
		"a declare that failed": queries(hold, "declare c cursor with hold for select 1", "fetch all from c"),
		"one in a transaction":  queries(hold, "begin", "savepoint s", "declare c cursor for select 1", "rollback to s", "fetch all from c", "commit"),
		"a close that failed":   queries(hold, "begin", "select 1/0", "close c", "rollback", "declare c cursor with hold for select 1", "fetch all from c"),
		"a close of all":        queries(hold, "begin", "select 1/0", "close all", "rollback", "fetch all from c"),
		"one of several":        queries(hold, "declare c cursor with hold for select 1; select 1", "fetch all from c"),
		"closed and another":    queries("declare c cursor with hold for select 1", "close c", hold, "fetch all from c"),
		"prepared before": slices.Concat(queries("declare c cursor with hold for select 1"), prepared,
			queries("close c", hold), run),
	} {
		f := r.frontend()
		rows, codes := talk(t, f, steps...)
		op := r.door.last().find("fetch all from c").op
		if tables, _ := op.Facts["tables"].([]string); !slices.Contains(tables, "public.t") || op.Facts["kind"] != "fetch" || rows < 3 {
			t.Errorf("%s: %d rows (%q) came, judged by %v", what, rows, codes, op.Facts)
		}
	}
	f := r.frontend()
	for _, q := range queries(hold, "close c", "declare c cursor with hold for select 1", "fetch all from c") {
		talk(t, f, q) // and waits, so that the room knows what became of it
	}
	if op := r.door.last().find("fetch all from c").op; len(op.Facts["tables"].([]string)) > 0 {
		t.Errorf("after it was closed its name still stands for %v", op.Facts)
	}
}

// What the protocol prepared and SQL's EXECUTE runs keeps what it is.
func TestExecuteOfWhatTheProtocolPrepared(t *testing.T) {
	r := newRig(t, Config{})
	r.door.limit = access.Limits{Rows: 2, Rule: "few", Say: "Look at few."}
	f := r.frontend()
	if _, codes := talk(t, f, &pgproto3.Parse{Name: "cp", Query: "copy t to stdout"}, &pgproto3.Sync{}); codes != nil {
		t.Fatal(codes)
	}
	for what, run := range map[string][]pgproto3.FrontendMessage{
		"itself":   {&pgproto3.Bind{PreparedStatement: "cp"}, &pgproto3.Execute{}, &pgproto3.Sync{}},
		"simple":   {query("execute cp")},
		"extended": {&pgproto3.Parse{Query: "execute cp"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{}},
	} {
		if rows, codes := talk(t, f, run...); rows > 0 || !slices.Equal(codes, []string{"42501"}) {
			t.Errorf("%s: %d rows of COPY came past the limit, %q", what, rows, codes)
		}
	}
	talk(t, f, query("declare c cursor with hold for select 1"))
	talk(t, f, &pgproto3.Parse{Name: "f", Query: "fetch all from c"}, &pgproto3.Sync{})
	talk(t, f, query("close c"))
	talk(t, f, query("declare c cursor with hold for select id from t"))
	for what, run := range map[string][]pgproto3.FrontendMessage{
		"execute f":           {query("execute f")},
		"execute f /* ext */": {&pgproto3.Parse{Query: "execute f /* ext */"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{}},
	} {
		talk(t, f, run...)
		if op := r.door.last().find(what).op; !slices.Contains(op.Facts["tables"].([]string), "public.t") {
			t.Errorf("%s is judged by %v", what, op.Facts)
		}
	}
}

// A DECLARE that the protocol prepared makes its cursor known when EXECUTE
// runs it, too.
func TestExecuteOfADeclare(t *testing.T) {
	r := newRig(t, Config{})
	f := r.frontend()
	for _, m := range [][]pgproto3.FrontendMessage{
		{&pgproto3.Parse{Name: "d", Query: "declare c cursor with hold for select id from t"}, &pgproto3.Sync{}},
		{query("begin")}, {query("declare c cursor for select 1")}, {query("rollback")},
		{query("execute d")},
	} {
		if _, codes := talk(t, f, m...); codes != nil {
			t.Fatal(codes)
		}
	}
	rows, codes := talk(t, f, query("fetch all from c"))
	if op := r.door.last().find("fetch all from c").op; rows != 3 || !slices.Contains(op.Facts["tables"].([]string), "public.t") {
		t.Errorf("%d rows (%q) came, judged by %v", rows, codes, op.Facts)
	}
	if _, codes := talk(t, f, query("close c; execute d")); codes == nil {
		t.Error("in one message with others, an EXECUTE of a DECLARE was not refused")
	}
}
