package postgres

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway"
	"github.com/tidegate/tidegate/gateway/gatewaytest"
	"github.com/tidegate/tidegate/gateway/mask"
)

const (
	mailCanary = "alice.canary@acme.test"
	passCanary = "hunter2canary"
)

// detecting is a rig before which a whole gateway stands, whose grant masks
// what it detects.
func detecting(t *testing.T) (*rig, *gatewaytest.Gate) {
	t.Helper()
	r := newRig(t, Config{})
	r.exec(`create table public.notes (id int, body text, card bigint, doc jsonb);
		grant select on public.notes to dev;
		insert into public.notes values (1, 'mail alice.canary@acme.test now', 4111111111111111, '{"u": "postgres://a:hunter2canary@db"}')`)
	lease := r.door.lease
	g := gatewaytest.New(t, gatewaytest.Options{
		Target: access.Target{TargetRef: access.TargetRef{Kind: "postgres", Name: "orders"}, Address: lease.Address},
		Masks:  []access.Mask{{Name: "found", Detect: []string{"email", "card", "secrets"}}},
		Lease: func(_ access.Grant, l *access.Lease) error {
			l.User, l.Password, l.ServerCA, l.Backing = lease.User, lease.Password, lease.ServerCA, lease.Backing
			return nil
		},
	})
	room, err := New(Config{TLS: r.certificate()})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, r.port, _ = net.SplitHostPort(l.Addr().String())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Server.Serve(ctx, l, room) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return r, g
}

func detectingDSN(r *rig, g *gatewaytest.Gate) string {
	u, err := url.Parse(r.dsn())
	if err != nil {
		r.t.Fatal(err)
	}
	u.User = url.UserPassword("me", g.Token("alice"))
	return u.String()
}

func wantNoCanary(t *testing.T, where, text string) {
	t.Helper()
	for _, c := range []string{mailCanary, passCanary} {
		if strings.Contains(text, c) {
			t.Errorf("%s shows %q: %s", where, c, text)
		}
	}
}

// wantNothingRecorded looks at all that the gateway recorded.
func wantNothingRecorded(t *testing.T, g *gatewaytest.Gate) {
	t.Helper()
	text, err := json.Marshal(g.Tape.Events(""))
	if err != nil {
		t.Fatal(err)
	}
	wantNoCanary(t, "the recording", string(text))
}

// TestDetectWithPsql: rows, COPY, errors, notices and notifications.
func TestDetectWithPsql(t *testing.T) {
	r, g := detecting(t)
	for _, c := range []struct{ sql, want string }{
		{`select * from notes`, `1|mail ********************** now|4111111111111111|{"u": "postgres://a:*************@db"}`},
		{`copy (select body, doc from notes) to stdout`, `mail ********************** now`},
		{`copy (select body, doc from notes) to stdout csv`, `mail ********************** now,`},
		{`select body::int from notes`, `invalid input syntax for type integer: "mail ********************** now"`},
		{`listen c; select pg_notify('c', body) from notes; select 1`, `payload "mail ********************** now"`},
		{`select '4111 1111 1111 1111'`, `**** **** **** ****`},
		{`prepare p as select body from notes; execute p`, `mail ********************** now`},
		{`begin; declare c cursor for select body from notes; fetch c; commit`, `mail ********************** now`},
		{`select 'password=hunter2canary'`, `password=*************`},
		{`explain verbose select body from notes where body = 'alice.canary@acme.test'`, `'**********************'`},
	} {
		got, err := r.psql(detectingDSN(r, g), c.sql)
		if err != nil && !strings.Contains(c.sql, "::int") {
			t.Errorf("%s: %v", c.sql, err)
		}
		wantNoCanary(t, c.sql, strings.ReplaceAll(got, c.sql, ""))
		if !strings.Contains(got, c.want) {
			t.Errorf("%s\n got %s\nwant %s", c.sql, got, c.want)
		}
	}
	wantNothingRecorded(t, g)
}

// TestDetectWithPgx: binary formats, portals that are read in portions, and
// parameters, which are recorded with a keyed hash.
func TestDetectWithPgx(t *testing.T) {
	r, g := detecting(t)
	c, err := pgx.Connect(t.Context(), detectingDSN(r, g))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	for range 2 { // the second time it is prepared, and not described again
		var body, doc, given string
		var card int64
		err = c.QueryRow(t.Context(), `select body, card, doc::text, $1::text from notes`, "password="+passCanary).Scan(&body, &card, &doc, &given)
		if err != nil || body != "mail ********************** now" || card != 4111111111111111 || given != "password=*************" {
			t.Fatalf("got %q, %d, %q, %q, %v", body, card, doc, given, err)
		}
		wantNoCanary(t, "a row", body+doc+given)
	}
	var shown *pgconn.PgError
	if _, err := c.Exec(t.Context(), `select body::int from notes`); !errors.As(err, &shown) || strings.Contains(shown.Message, mailCanary) {
		t.Errorf("got %v, want an error without the value", err)
	}
	wantNothingRecorded(t, g)
	text, _ := json.Marshal(g.Tape.Events(""))
	if !strings.Contains(string(text), "password=[withheld: 13 bytes, ") && !strings.Contains(string(text), "[withheld: 22 bytes, ") {
		t.Errorf("the parameter as it is recorded: %s", text)
	}
}

// TestDetectInLongValues: rows and COPY data that no buffer holds.
func TestDetectInLongValues(t *testing.T) {
	r, g := detecting(t)
	r.exec(`create table public.long (a text, b text); grant select on public.long to dev;
		insert into public.long select repeat('x,', 150000) || ' alice.canary@acme.test ' || repeat(',y', 150000), repeat('z ', 100000) || 'password=hunter2canary'`)
	c, err := pgx.Connect(t.Context(), detectingDSN(r, g))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	wantA := strings.Repeat("x,", 150000) + " ********************** " + strings.Repeat(",y", 150000)
	wantB := strings.Repeat("z ", 100000) + "password=*************"
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
		var a, b string
		if err := c.QueryRow(t.Context(), `select a, b from long`, mode).Scan(&a, &b); err != nil || a != wantA || b != wantB {
			t.Errorf("%v: got %d and %d bytes, %v, want the same with asterisks", mode, len(a), len(b), err)
		}
	}
	var out strings.Builder
	if _, err := c.PgConn().CopyTo(t.Context(), &out, `copy (select a, b from long) to stdout`); err != nil || out.String() != wantA+"\t"+wantB+"\n" {
		t.Errorf("COPY: got %d bytes, %v, want the same with asterisks", out.Len(), err)
	}
}

// TestDetectInAFailedTransaction: where the room asks what a portal's columns
// are, the target's refusal is the client's answer.
func TestDetectInAFailedTransaction(t *testing.T) {
	r, g := detecting(t)
	c, err := pgx.Connect(t.Context(), detectingDSN(r, g))
	if err != nil {
		t.Fatal(err)
	}
	h, err := c.PgConn().Hijack()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Conn.Close()
	h.Frontend.SendQuery(&pgproto3.Query{String: "begin"})
	if codes := untilReady(t, h.Frontend); len(codes) > 0 {
		t.Fatal(codes)
	}
	h.Frontend.SendParse(&pgproto3.Parse{Query: "select body from notes"})
	h.Frontend.SendBind(&pgproto3.Bind{DestinationPortal: "p"})
	h.Frontend.SendSync(&pgproto3.Sync{})
	if codes := untilReady(t, h.Frontend); len(codes) > 0 {
		t.Fatal(codes)
	}
	h.Frontend.SendQuery(&pgproto3.Query{String: "select 1/0"})
	if codes := untilReady(t, h.Frontend); !slices.Equal(codes, []string{"22012"}) {
		t.Fatal(codes)
	}
	h.Frontend.SendExecute(&pgproto3.Execute{Portal: "p"})
	h.Frontend.SendSync(&pgproto3.Sync{})
	if codes := untilReady(t, h.Frontend); !slices.Equal(codes, []string{"25P02"}) {
		t.Errorf("got the errors %q, want that the transaction is aborted", codes)
	}
}

// untilReady sends what is buffered, and collects the errors that come back.
func untilReady(t *testing.T, f *pgproto3.Frontend) (codes []string) {
	t.Helper()
	if err := f.Flush(); err != nil {
		t.Fatal(err)
	}
	for {
		m, err := f.Receive()
		if err != nil {
			t.Fatal(err)
		}
		switch m := m.(type) {
		case *pgproto3.ErrorResponse:
			codes = append(codes, m.Code)
		case *pgproto3.ReadyForQuery:
			return codes
		}
	}
}

type maskSet struct{ *mask.Set }

func (m maskSet) Stream() gateway.MaskStream { return m.Set.Stream(false) }

// TestLargeMessageInParts: a row that comes in any two parts, or byte by byte,
// keeps its frame and shows no value.
func TestLargeMessageInParts(t *testing.T) {
	set, err := mask.For([]string{"email"})
	if err != nil {
		t.Fatal(err)
	}
	row := []byte{0, 4}
	for _, v := range []string{"to alice.canary@acme.test.", "", "alice.canary@acme.test"} {
		row = append(binary.BigEndian.AppendUint32(row, uint32(len(v))), v...)
	}
	row = binary.BigEndian.AppendUint32(row, 0xffffffff)
	data := []byte("1\talice.canary@acme.test\n")
	for kind, body := range map[byte][]byte{'D': row, 'd': data} {
		msg := message(kind, body)
		want := strings.ReplaceAll(string(msg), mailCanary, strings.Repeat("*", len(mailCanary)))
		var each []int
		for cut := range len(msg) {
			each = append(each, cut)
			for _, cuts := range [][]int{{cut}, each} {
				m := &masking{masker: maskSet{set}}
				m.begin(kind, int64(len(msg)))
				var out, held []byte
				at := 0
				for _, c := range append(cuts[:len(cuts):len(cuts)], len(msg)) {
					held = append(held, msg[at:c]...)
					at = c
					n := m.more(held)
					out, held = append(out, held[:n]...), held[n:]
				}
				if string(out) != want {
					t.Fatalf("%c cut at %v\n got %q\nwant %q", kind, cuts, out, want)
				}
			}
		}
	}
}
