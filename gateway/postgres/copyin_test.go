package postgres

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/tidegate/tidegate/access"
)

// talk sends messages and reads up to the given number of ReadyForQuery. It
// answers in letters what came, and with the last error's SQLSTATE.
func (w *wireClient) talk(ready int, msgs ...pgproto3.FrontendMessage) (letters, code string) {
	w.t.Helper()
	for _, m := range msgs {
		w.f.Send(m)
	}
	if err := w.f.Flush(); err != nil {
		w.t.Fatal(err)
	}
	for ready > 0 {
		m, err := w.f.Receive()
		if err != nil {
			w.t.Fatalf("after %q: %v", letters, err)
		}
		switch m := m.(type) {
		case *pgproto3.ParseComplete:
			letters += "1"
		case *pgproto3.BindComplete:
			letters += "2"
		case *pgproto3.NoData:
			letters += "n"
		case *pgproto3.CopyInResponse:
			letters += "G"
		case *pgproto3.CommandComplete:
			letters += "C"
		case *pgproto3.ErrorResponse:
			letters, code = letters+"E", m.Code
		case *pgproto3.ReadyForQuery:
			letters += "Z"
			ready--
		}
	}
	return letters, code
}

type wireClient struct {
	t *testing.T
	f *pgproto3.Frontend
}

func (r *rig) wire() *wireClient {
	r.t.Helper()
	h, err := r.connect().PgConn().Hijack()
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = h.Conn.Close() })
	return &wireClient{r.t, h.Frontend}
}

type messages []pgproto3.FrontendMessage

func prepareCopy(sql string) messages {
	return messages{&pgproto3.Parse{Query: sql}, &pgproto3.Bind{}, &pgproto3.Describe{ObjectType: 'P'}, &pgproto3.Execute{}}
}

var (
	goodData = messages{&pgproto3.CopyData{Data: []byte("8\teight\n9\tni")}, &pgproto3.CopyData{Data: []byte("ne\n")}, &pgproto3.CopyDone{}}
	badData  = messages{&pgproto3.CopyData{Data: []byte("no number\tx\n")}, &pgproto3.CopyData{Data: []byte("1\tx\n")}, &pgproto3.CopyDone{}}
	endSync  = messages{&pgproto3.Sync{}}
)

// libpq's PQexecParams sends a Sync behind the Execute, others send it behind
// the data, or everything at once.
func TestCopyInExtended(t *testing.T) {
	r := newRig(t, Config{})
	w := r.wire()
	for _, step := range []struct {
		what, letters, code string
		ready, rows         int
		msgs                messages
	}{
		{"all at once", "12nGCZ", "", 1, 5, slices.Concat(prepareCopy("copy t from stdin"), goodData, endSync)},
		{"a Sync that a copying target passes over", "12nGCZ", "", 1, 7, slices.Concat(prepareCopy("copy t from stdin"), endSync, goodData, endSync)},
		{"bad data", "12nGEZ", "22P02", 1, 7, slices.Concat(prepareCopy("copy t from stdin"), badData, endSync)},
		{"bad data and a Sync before", "12nGEZ", "22P02", 1, 7, slices.Concat(prepareCopy("copy t from stdin"), endSync, badData, endSync)},
		{"a client that gives up", "12nGEZ", "57014", 1, 7, slices.Concat(prepareCopy("copy t from stdin"), messages{&pgproto3.CopyFail{Message: "no"}}, endSync)},
		{"no such table", "12nEZ", "42P01", 1, 7, slices.Concat(prepareCopy("copy missing from stdin"), goodData, endSync)},
		{"no such column, libpq's way", "12nEZEZ", "42703", 2, 7, slices.Concat(prepareCopy("copy t (nothing) from stdin"), endSync, messages{&pgproto3.Query{String: "select nothing"}})},
		{"refused", "EZ", "42501", 1, 7, slices.Concat(prepareCopy("copy t from program 'id'"), goodData, endSync)},
		{"what follows in the pipeline", "12nGC12nCZ", "", 1, 10, slices.Concat(prepareCopy("copy t from stdin"), goodData, prepareCopy("insert into t values (1)"), endSync)},
		{"what follows one that fails", "12nGEZ", "22P02", 1, 10, slices.Concat(prepareCopy("copy t from stdin"), badData, prepareCopy("insert into t values (1)"), endSync)},
		{"prepared, then executed by SQL", "1ZGCZ", "", 2, 12, slices.Concat(messages{&pgproto3.Parse{Name: "p", Query: "copy t from stdin"}}, endSync, messages{&pgproto3.Query{String: "execute p"}}, goodData)},
		{"executed by SQL that is prepared", "12nGCZ", "", 1, 14, slices.Concat(prepareCopy("execute p"), goodData, endSync)},
		{"and the session goes on", "CZ", "", 1, 14, messages{&pgproto3.Query{String: "select 1"}}},
	} {
		if letters, code := w.talk(step.ready, step.msgs...); strings.ReplaceAll(letters, "T", "") != step.letters || code != step.code || r.count() != step.rows {
			t.Errorf("%s: got %s, %q and %d rows; want %s, %q and %d", step.what, letters, code, r.count(), step.letters, step.code, step.rows)
		}
	}
	if got := r.door.last().outcomes("copy t from stdin"); len(got) == 0 || got[0].Status != "ok" || got[0].Rows != 2 {
		t.Errorf("recorded as %+v, want two rows at first", got)
	}
}

// It is held and limited in time as any other statement.
func TestCopyInExtendedIsJudged(t *testing.T) {
	r := newRig(t, Config{})
	r.door.judge = func(op access.Operation) access.Verdict {
		if op.Facts["kind"] == "insert" && r.door.later.Load() == nil {
			return access.Hold
		}
		return access.Allow
	}
	w := r.wire()
	for _, step := range []struct {
		answer     access.Verdict
		code       string
		ready, sum int
	}{{access.Deny, "42501", 2, 3}, {access.Allow, "", 1, 5}} {
		go func() { r.takeHeld().answer <- step.answer }()
		_, code := w.talk(step.ready, slices.Concat(prepareCopy("copy t from stdin"), endSync, goodData, endSync)...)
		if code != step.code || r.count() != step.sum {
			t.Errorf("after %v: got %q and %d rows, want %q and %d", step.answer, code, r.count(), step.code, step.sum)
		}
	}
	r.door.later.Store(&access.Limits{Time: 1, Rule: "quick", Say: "Be quick."})
	w.talk(0, prepareCopy("copy t from stdin")...)
	over, sent := make(chan struct{}), make(chan struct{})
	go func() { // a server that waits for data heeds no cancel
		defer close(sent)
		for {
			select {
			case <-over:
				return
			case <-time.After(20 * time.Millisecond):
				w.f.Send(&pgproto3.CopyData{Data: []byte("7\tx\n")})
				_ = w.f.Flush()
			}
		}
	}()
	for {
		m, err := w.f.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := m.(*pgproto3.ErrorResponse); ok {
			if e.Code != "57014" || !strings.Contains(e.Message, "Be quick.") {
				t.Errorf("when the time is over: %s: %s", e.Code, e.Message)
			}
			break
		}
	}
	close(over)
	<-sent
	if letters, _ := w.talk(1, slices.Concat(goodData, endSync)...); letters != "Z" || r.count() != 5 {
		t.Errorf("afterwards: %s and %d rows", letters, r.count())
	}
}
