package mint

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
)

// TestRevokeWaitsForNoOther: a mint hangs at the target before it did anything,
// and a revocation there gives up when its own time is up.
func TestRevokeWaitsForNoOther(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	arrived := make(chan net.Conn, 8)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			arrived <- c // and never an answer
		}
	}()
	m, err := New(Config{Installation: "hangs1", Key: []byte(strings.Repeat("k", 32)),
		Admin: adminOf(AdminLogin{User: "minter", Password: access.NewSecret("x")})})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	g := access.Grant{Key: access.GrantKey{Repo: 1, ID: "inc-1"}, Plan: access.Plan{
		Target: access.Target{TargetRef: access.TargetRef{Kind: Kind, Name: "hangs"}, Address: l.Addr().String() + "/shop", Admin: "a"}}}
	first, cancel := context.WithCancel(t.Context())
	hangs := make(chan error, 1)
	go func() { hangs <- m.Revoke(first, g) }()
	defer (<-arrived).Close()
	soon, done := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer done()
	if err := m.Revoke(soon, g); access.CodeOf(err) != access.CodeUnavailable {
		t.Errorf("got error %v, want that it is unavailable", err)
	}
	select {
	case err := <-hangs:
		t.Errorf("it waited for the first, which came to %v", err)
	default:
	}
	cancel()
	<-hangs
}
