package lease_test

import (
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/lease"
)

// TestGoneControlSide: nothing answers at the control side's address, not even
// a refusal. A session is told so in seconds: when it can't be reached, or, where
// its kernel still says hello, when it does not greet.
func TestGoneControlSide(t *testing.T) {
	w := newWorld(t)
	c, err := lease.NewClient(deafAddress(t), w.conf)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	began := time.Now()
	if _, err := c.Lease(t.Context(), grant, "s-1"); access.CodeOf(err) != access.CodeUnavailable {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > 12*time.Second {
		t.Errorf("told after %s", took)
	}
}

// deafAddress is one whose kernel takes no more connections, and says nothing.
func deafAddress(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	at, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", at.(*syscall.SockaddrInet4).Port)
	for range 16 {
		conn, err := net.DialTimeout("tcp", address, 200*time.Millisecond)
		if err != nil {
			return address
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	t.Skip("this kernel takes connections that nobody accepts")
	return ""
}
