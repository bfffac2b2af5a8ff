package postgres

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/tidegate/tidegate/access"
)

const testPanic = "the test's own panic"

// takeTestPanic does what the server does: a panic ends one connection.
func (r *rig) takeTestPanic() {
	if p := recover(); p != nil && !strings.Contains(fmt.Sprint(p), testPanic) {
		panic(p)
	}
}

// All sessions share the goroutine that meets the panic.
func TestPanicEndsItsOwnSession(t *testing.T) {
	r := newRig(t, Config{})
	r.door.judge = func(op access.Operation) access.Verdict {
		if strings.Contains(op.Text, "panic") {
			panic(testPanic)
		}
		return testJudge(op)
	}
	other, c := r.connect(), r.connect()
	if _, err := c.Exec(t.Context(), "select 'panic'"); err == nil {
		t.Error("the session went on after a panic")
	}
	if _, err := c.Exec(t.Context(), "select 1"); err == nil {
		t.Error("the session was still open after a panic")
	}
	if _, err := other.Exec(t.Context(), "select 2"); err != nil {
		t.Errorf("another session: %v", err)
	}
	select {
	case <-r.door.sessions[1].closed:
	case <-time.After(10 * time.Second):
		t.Error("the session was not closed")
	}
}

// A client that does not read what it asked for holds up nobody else, and can
// be cut.
func TestClientThatDoesNotRead(t *testing.T) {
	r := newRig(t, Config{})
	slow, quick := r.connect(), r.connect()
	if err := slow.PgConn().Conn().SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	slow.PgConn().Frontend().SendQuery(&pgproto3.Query{String: "select repeat('x', 1000) from generate_series(1, 100000)"})
	if err := slow.PgConn().Frontend().Flush(); err != nil {
		t.Fatal(err)
	}
	r.waitActive("repeat(")
	for range 50 {
		if _, err := quick.Exec(t.Context(), "select 1"); err != nil {
			t.Fatal(err)
		}
	}
	r.door.sessions[0].cut(access.Errorf(access.CodeEnded, "The test ends it."))
	select {
	case <-r.door.sessions[0].closed:
	case <-time.After(20 * time.Second):
		t.Error("the session of the client that does not read was not closed")
	}
}

// Many sessions at once, each in lockstep, all of them served by few
// goroutines.
func TestManySessions(t *testing.T) {
	r := newRig(t, Config{})
	var work sync.WaitGroup
	for i := range 20 {
		c := r.connect()
		work.Go(func() {
			for j := range 50 {
				var got int
				if err := c.QueryRow(t.Context(), "select $1::int + 1", i*100+j).Scan(&got); err != nil || got != i*100+j+1 {
					t.Errorf("session %d, query %d: got %d, %v", i, j, got, err)
					return
				}
			}
		})
	}
	work.Wait()
}
