package ssh

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"
)

// TestListensOfAGrant: the ports of a grant are bounded over all its
// connections, none stays open at the host that was refused here, and each
// closes with its session.
func TestListensOfAGrant(t *testing.T) {
	h := newHouse(t, houseOptions{role: map[string]string{"listen": "localhost:*"}, sshd: []string{"LogLevel DEBUG1"}})
	one, two := h.mustDial(), h.mustDial()
	var open []net.Listener
	listen := func(c *gossh.Client) error {
		l, err := c.Listen("tcp", "localhost:0")
		if err == nil {
			open = append(open, l)
		}
		return err
	}
	for i := range maxListens {
		if err := listen([]*gossh.Client{one, two}[i%2]); err != nil {
			t.Fatalf("port %d: %v", i, err)
		}
	}
	for _, c := range []*gossh.Client{one, two, h.mustDial()} {
		if err := listen(c); err == nil {
			t.Error("one more was given")
		}
	}
	// sshd may listen at both addresses of localhost.
	if n := strings.Count(h.host.LogText(), "Local forwarding listening on 127.0.0.1"); n != maxListens {
		t.Errorf("the host listened on %d ports, want %d", n, maxListens)
	}
	if err := open[0].Close(); err != nil {
		t.Fatal(err)
	}
	if err := listen(two); err != nil {
		t.Errorf("in the place of one that was given back: %v", err)
	}
	_ = one.Close()
	eventually(t, "the ports of a connection that is over count no more", func() bool { return listen(two) == nil })
	h.gate.Revoke("inc-1", "The incident is over.")
	for _, l := range open {
		at := fmt.Sprintf("127.0.0.1:%d", l.Addr().(*net.TCPAddr).Port)
		eventually(t, "the host listens no more at "+at, func() bool {
			conn, err := net.DialTimeout("tcp", at, time.Second)
			if err == nil {
				_ = conn.Close()
			}
			return err != nil
		})
	}
}
