package gateway

import (
	"net"
	"net/netip"
	"testing"
)

// TestSourceOf: who has a network of addresses counts as one.
func TestSourceOf(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.1:5432":               "192.0.2.1",
		"[::ffff:192.0.2.1]:5432":      "192.0.2.1",
		"[2001:db8:1:2::1]:5432":       "2001:db8:1:2::/64",
		"[2001:db8:1:2:ffff::9]:40000": "2001:db8:1:2::/64",
		"[2001:db8:1:3::1]:5432":       "2001:db8:1:3::/64",
		"[fe80::1%eth0]:5432":          "fe80::/64",
	} {
		if got := SourceOf(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr))); got != want {
			t.Errorf("%s counts as %q, want %q", addr, got, want)
		}
	}
	if got := SourceOf(nil); got != "" {
		t.Errorf("nobody counts as %q", got)
	}
	if got := SourceOf(&net.UnixAddr{Name: "/run/x", Net: "unix"}); got != "/run/x" {
		t.Errorf("a socket counts as %q", got)
	}
}

// TestPendingOfOneNetwork: connections from many addresses of one network share
// its places, and leave others theirs.
func TestPendingOfOneNetwork(t *testing.T) {
	s := &Server{cfg: Config{MaxPending: 10, MaxPendingPerRemote: 2}, pending: map[string]int{}}
	from := func(addr string) bool {
		_, ok := s.admitConn(remoteConn{addr: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr))})
		return ok
	}
	if !from("[2001:db8::1]:1") || !from("[2001:db8::2]:1") {
		t.Error("the first two are kept out")
	}
	if from("[2001:db8::3]:1") {
		t.Error("a third address of the network is let in")
	}
	if !from("[2001:db8:0:1::3]:1") || !from("192.0.2.1:1") {
		t.Error("others are kept out")
	}
}

// remoteConn has a remote address and nothing else.
type remoteConn struct {
	net.Conn
	addr net.Addr
}

func (c remoteConn) RemoteAddr() net.Addr { return c.addr }
