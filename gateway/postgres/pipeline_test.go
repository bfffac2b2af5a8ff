package postgres

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/tidegate/tidegate/access"
)

// talker is one side's connection, of which every message is looked at.
type talker struct {
	conn net.Conn
	*pgproto3.Frontend
}

func (r *rig) talk(dsn string) *talker {
	c, err := pgx.Connect(context.Background(), dsn)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := c.PgConn().SyncConn(context.Background()); err != nil {
		r.t.Fatal(err)
	}
	h, err := c.PgConn().Hijack()
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = h.Conn.Close() })
	return &talker{h.Conn, pgproto3.NewFrontend(h.Conn, h.Conn)}
}

// answer is all that comes up to so many ReadyForQuery, a line a message.
func (k *talker) answer(ready int) string {
	var out strings.Builder
	_ = k.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	for ready > 0 {
		m, err := k.Receive()
		switch m := m.(type) {
		case *pgproto3.ErrorResponse:
			if m.Code == stateNoStatement || m.Code == stateNoPortal || m.Code == "25P02" { // of a name that leads nowhere in a transaction that failed: either
				m.Code = "nothing"
			}
			fmt.Fprintf(&out, "E %s\n", m.Code)
		case *pgproto3.NoticeResponse, *pgproto3.ParameterStatus:
		case *pgproto3.RowDescription: // tables have other numbers
			for _, f := range m.Fields {
				fmt.Fprintf(&out, "T %s %d %d\n", f.Name, f.DataTypeOID, f.Format)
			}
		case *pgproto3.ReadyForQuery:
			ready--
			fmt.Fprintf(&out, "Z %c\n", m.TxStatus)
		default:
			fmt.Fprintf(&out, "%T %v\n", m, m)
		}
		if err != nil {
			fmt.Fprintf(&out, "then: %v\n", err)
			return out.String()
		}
	}
	return out.String()
}

var pipelined = []string{
	"select 1", "select generate_series(1, 3)", "select 1/0", "begin", "commit", "rollback", "insert into p values (1)", "insert into p values (2) returning v",
	"", "selec", "select v from p order by v limit 2", "savepoint s", "rollback to s", "delete from p", "copy (select 1) to stdout", "select 'a', null, '" + strings.Repeat("x", 300) + "'",
	"declare c cursor for select generate_series(1, 5)", "update p set v = 1/(v-2) where v is not null", "set constraints all immediate", "insert into p values (null)",
	"select repeat('$who', 3000)", "select '$who' || i from generate_series(1, 900) i", "show work_mem", "explain (costs off) select 1",
}

var batches = []string{"select 1; select 2", "insert into p values (3); select 1/0; select 3", "begin; select 4", "select 5; ; commit", "copy (select 6) to stdout; select 7", "prepare q as select 8; execute q; deallocate q", ";"}

// pipeline makes up what a client sends at once.
type pipeline struct {
	x       *rand.Rand
	who     string
	limited bool   // COPY and several statements at once are refused then
	name    string // the last one that was made; a simple query drops the unnamed one
	ready   int    // how many ReadyForQuery the server answers
	sent    []pgproto3.FrontendMessage
}

func (p *pipeline) one(of []string) string {
	for {
		text := of[p.x.IntN(len(of))]
		if !p.limited || !strings.HasPrefix(text, "copy") && !strings.Contains(text, "; ") {
			return text
		}
	}
}

// part is some messages more. Each statement has a name of its own: where one
// replaces another and is then skipped, the room refuses the name rather than
// go back to what it meant before, see names.
func (p *pipeline) part() []pgproto3.FrontendMessage {
	switch p.x.IntN(11) {
	case 0, 1, 2, 3, 4:
		name := p.one([]string{"", fmt.Sprintf("n%d", p.x.Uint32())})
		if name != "" {
			p.name = name
		}
		m := []pgproto3.FrontendMessage{&pgproto3.Close{ObjectType: 'S', Name: name}, &pgproto3.Parse{Name: name, Query: p.statement()}, &pgproto3.Close{ObjectType: 'P', Name: name},
			&pgproto3.Bind{DestinationPortal: name, PreparedStatement: name}, &pgproto3.Describe{ObjectType: 'P', Name: name}, &pgproto3.Execute{Portal: name, MaxRows: []uint32{0, 0, 1, 2}[p.x.IntN(4)]}}
		return m[:len(m)-max(0, p.x.IntN(15)-9)]
	case 5:
		return []pgproto3.FrontendMessage{&pgproto3.Execute{Portal: p.name, MaxRows: 1}}
	case 6:
		return []pgproto3.FrontendMessage{&pgproto3.Describe{ObjectType: "SP"[p.x.IntN(2)], Name: p.name}}
	case 7:
		return []pgproto3.FrontendMessage{&pgproto3.Flush{}}
	case 8:
		p.ready++
		return []pgproto3.FrontendMessage{&pgproto3.Sync{}}
	case 9:
		p.ready += 2
		return []pgproto3.FrontendMessage{&pgproto3.Sync{}, &pgproto3.Query{String: p.one(batches)}}
	}
	p.ready += 2
	return []pgproto3.FrontendMessage{&pgproto3.Sync{}, &pgproto3.Query{String: p.statement()}}
}

func (p *pipeline) statement() string { return strings.ReplaceAll(p.one(pipelined), "$who", p.who) }

// send sends it to each, in pieces of any size.
func (p *pipeline) send(to ...*talker) error {
	for range 1 + p.x.IntN(12) {
		p.sent = append(p.sent, p.part()...)
	}
	p.sent = append(p.sent, &pgproto3.Sync{}, &pgproto3.Query{String: "rollback"})
	p.ready += 2
	for _, m := range p.sent {
		for _, t := range to {
			if t.Send(m); p.x.IntN(8) == 0 {
				_ = t.Flush() // the last one tells
			}
		}
	}
	for _, t := range to {
		if err := t.Flush(); err != nil {
			return err
		}
	}
	return nil
}

func (p *pipeline) String() string {
	var out strings.Builder
	for _, m := range p.sent {
		fmt.Fprintf(&out, "%T %.200v\n", m, m)
	}
	return out.String()
}

// TestPipelinesAnswerAsTheServerDoes: whatever is sent at once, what comes
// back, and its order, is what the server itself answers; and what comes to
// one session is never another's.
func TestPipelinesAnswerAsTheServerDoes(t *testing.T) {
	for name, limit := range map[string]access.Limits{"without limits": {}, "limited": {Rows: 5000, Results: true}} {
		t.Run(name, func(t *testing.T) { testPipelines(t, limit) })
	}
}

func testPipelines(t *testing.T, limit access.Limits) {
	r := newRig(t, Config{})
	r.door.judge, r.door.limit = func(access.Operation) access.Verdict { return access.Allow }, limit
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	direct := fmt.Sprintf("host=127.0.0.1 port=%d dbname=%s user=dev password=secret sslmode=require", r.pg.Port, r.admin.Config().Database)
	var all sync.WaitGroup
	for who := range uint64(4) {
		through, beside := r.talk(r.dsn()), r.talk(direct)
		all.Go(func() {
			p := &pipeline{x: rand.New(rand.NewPCG(seed, who)), who: fmt.Sprint("session ", who), name: "none", limited: limit.Rows > 0}
			if err := p.compare(through, beside); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

func (p *pipeline) compare(through, beside *talker) error {
	for range 30 {
		p.ready, p.sent = 1, []pgproto3.FrontendMessage{&pgproto3.Query{String: "create temp table if not exists p (v int not null)"}}
		if err := p.send(through, beside); err != nil {
			return err
		}
		if got, want := through.answer(p.ready), beside.answer(p.ready); got != want {
			return fmt.Errorf("sent\n%s\ngot\n%s\nwant\n%s", p, got, want)
		}
	}
	return nil
}
