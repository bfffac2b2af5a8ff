package postgres

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func startup(params ...string) []byte {
	body := []byte{0, 3, 0, 0}
	for _, p := range params {
		body = append(append(body, p...), 0)
	}
	body = append(body, 0)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4)), body...)
}

func TestConnectRefusals(t *testing.T) {
	r := newRig(t, Config{})
	for name, c := range map[string]struct{ dsn, code, say string }{
		"wrong token": {strings.Replace(r.dsn(), goodToken, "wrong", 1), "28000", "token was not accepted"},
		"options":     {r.dsn() + "&options=-csearch_path%3Dx", "28000", `"options"`},
		"replication": {r.dsn() + "&replication=database", "28000", `"replication"`},
		"encoding":    {r.dsn() + "&client_encoding=LATIN1", "28000", "PGCLIENTENCODING"},
		"plain text":  {strings.Replace(r.dsn(), "verify-full", "disable", 1), "28000", "TLS only"},
	} {
		_, err := pgx.Connect(t.Context(), c.dsn)
		if codeOf(err) != c.code || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: got %v, want %s with %q", name, err, c.code, c.say)
		}
	}
}

func TestChoiceAndPsqlOptions(t *testing.T) {
	r := newRig(t, Config{})
	out, err := r.psql(strings.Replace(r.dsn(), "/orders?", "/orders%2Breader?application_name=tool&gssencmode=prefer&", 1), "", "-c", "show application_name")
	if err != nil || !strings.Contains(out, "tool") {
		t.Fatalf("psql: %v\n%s", err, out)
	}
	k := r.door.knocks[0]
	if k.Target.String() != "postgres.orders" || k.Choice != "reader" || k.Client != "tool (user me)" {
		t.Errorf("knock is %+v", k)
	}
}

func TestRawBytes(t *testing.T) {
	r := newRig(t, Config{})
	for name, c := range map[string]struct {
		send []byte
		want string
	}{
		"oversized":     {[]byte{0, 1, 0, 0, 0, 3, 0, 0}, "claims 65532 bytes"},
		"negative":      {[]byte{0xff, 0xff, 0xff, 0xff, 0, 3, 0, 0}, "claims"},
		"old protocol":  {[]byte{0, 0, 0, 8, 0, 2, 0, 0}, "TLS only"},
		"twice":         {startup("user", "x", "user", "y"), "TLS only"},
		"bytes ahead":   {append([]byte{0, 0, 0, 8, 4, 210, 22, 47}, startup("user", "x")...), "S"},
		"wrong cancel":  {append([]byte{0, 0, 0, 16, 4, 210, 22, 46}, make([]byte, 8)...), ""},
		"gss then text": {append([]byte{0, 0, 0, 8, 4, 210, 22, 48}, startup("user", "x")...), "NE"},
	} {
		conn, err := net.Dial("tcp", r.addr.String())
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := conn.Write(c.send); err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(conn)
		_ = conn.Close()
		if !strings.Contains(string(got), c.want) {
			t.Errorf("%s: got %q, want %q in it", name, got, c.want)
		}
	}
	if len(r.door.knocks) != 0 {
		t.Error("somebody came to the door")
	}
}

func TestUnknownMessagesEndTheSession(t *testing.T) {
	r := newRig(t, Config{})
	for name, msg := range map[string][]byte{
		"function call": message('F', make([]byte, 10)),
		"unknown":       message('?', nil),
		"too large":     {'Q', 0x7f, 0xff, 0xff, 0xff},
		"torn query":    message('Q', []byte("select 1")),
		"torn bind":     message('B', []byte("\x00\x00\x00\x05")),
	} {
		c := r.connect()
		s := r.door.last()
		conn := c.PgConn().Conn().(*tls.Conn)
		if _, err := conn.Write(msg); err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(conn)
		if !strings.Contains(string(got), "FATAL") || !strings.Contains(string(got), "08P01") {
			t.Errorf("%s: got %q, want FATAL 08P01", name, got)
		}
		waitClosed(t, s)
	}
}

func TestShutdownSpeaks(t *testing.T) {
	r := newRig(t, Config{})
	room, err := New(Config{AllowPlainLoopback: true})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan struct{})
	go func() {
		defer close(served)
		if conn, err := l.Accept(); err == nil {
			_ = room.Serve(ctx, conn, r.door)
		}
	}()
	c, err := pgx.Connect(t.Context(), "postgres://me:"+goodToken+"@"+l.Addr().String()+"/orders?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	got, _ := io.ReadAll(c.PgConn().Conn())
	if !strings.Contains(string(got), "57P01") || !strings.Contains(string(got), "shutting down") {
		t.Errorf("got %q, want 57P01", got)
	}
	wait(t, served)
}

func TestNewWantsTLS(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("a room without TLS was made")
	}
}

func FuzzParseStartup(f *testing.F) {
	for _, p := range [][]byte{
		startup("user", "a", "database", "orders+r")[4:], startup()[4:], startup("user", "a", "USER", "b")[4:],
		startup("user")[4:], {0, 3, 0, 0}, {0, 3, 0, 2, 0, 1}, startup("_pq_.x", "1", "database", "d")[4:], startup("replication", "true")[4:],
	} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) < 4 || len(p) > maxStartup {
			return
		}
		h, err := parseStartup(p)
		if err != nil {
			return
		}
		if h.target == "" || h.settings["options"] != "" || h.settings["replication"] != "" {
			t.Errorf("accepted %+v", h)
		}
	})
}

func FuzzParseBind(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 0})
	f.Add([]byte{0, 1, 0, 1, 0, 1, 0, 0, 0, 2, 'a', 'b', 0, 0})
	f.Add([]byte{0, 2, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, p []byte) {
		if params, _, ok := parseBind(p, func(_ int, v []byte, format uint16) string { return showParam(v, format) }); ok && len(params)*4 > len(p) {
			t.Errorf("%d parameters of %d bytes", len(params), len(p))
		}
	})
}

func TestDirectTLS(t *testing.T) {
	r := newRig(t, Config{})
	c, err := pgx.Connect(t.Context(), r.dsn()+"&sslnegotiation=direct")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	var n int
	if err := c.QueryRow(t.Context(), "select 7").Scan(&n); err != nil || n != 7 {
		t.Errorf("got %d, %v", n, err)
	}
	conn, err := tls.Dial("tcp", r.addr.String(), &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // what is tested comes after the handshake
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if got, _ := io.ReadAll(conn); !strings.Contains(string(got), "ALPN") {
		t.Errorf("TLS without ALPN got %q, want a refusal that names it", got)
	}
}

// Both lengths of keys cancel the caller's own statement, and no other's.
func TestCancelKeys(t *testing.T) {
	r := newRig(t, Config{})
	other := r.connect()
	for version, size := range map[string]int{"3.0": 4, "3.2": 32} {
		c, err := pgx.Connect(t.Context(), r.dsn()+"&max_protocol_version="+version)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(context.Background())
		if got := len(c.PgConn().SecretKey()); got != size {
			t.Errorf("protocol %s: the secret has %d bytes, want %d", version, got, size)
		}
		sleep := "select pg_sleep(60), " + strings.Replace(version, ".", "", 1)
		done := make(chan error, 1)
		go func() {
			_, err := c.Exec(context.Background(), sleep, pgx.QueryExecModeSimpleProtocol)
			done <- err
		}()
		r.waitActive(sleep)
		if err := other.PgConn().CancelRequest(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.waitActive(sleep) // somebody else's key did nothing to it
		if err := c.PgConn().CancelRequest(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-done; codeOf(err) != "57014" {
			t.Errorf("protocol %s: cancelled statement gave %v, want 57014", version, err)
		}
	}
}
