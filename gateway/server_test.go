package gateway_test

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/tidegate/tidegate/gateway"
	"github.com/tidegate/tidegate/gateway/gatewaytest"
)

// clumsyRoom panics for its first client and greets the others.
type clumsyRoom struct{ first chan struct{} }

func (clumsyRoom) Kind() string { return "postgres" }

func (r clumsyRoom) Serve(_ context.Context, conn net.Conn, _ gateway.Door) error {
	select {
	case <-r.first:
		panic("a hostile message")
	default:
		_, err := conn.Write([]byte("hello"))
		return err
	}
}

func TestPanicEndsOneConnectionAlone(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{Still: true}).Server
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	room := clumsyRoom{make(chan struct{}, 1)}
	room.first <- struct{}{}
	go func() { served <- s.Serve(ctx, ln, room) }()
	for _, want := range []string{"", "hello"} {
		conn, err := net.DialTimeout("tcp", ln.Addr().String(), 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		if got, err := io.ReadAll(conn); string(got) != want || err != nil {
			t.Errorf("read %q, %v; want %q", got, err, want)
		}
		_ = conn.Close()
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}
