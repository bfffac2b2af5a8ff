package ssh

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway"
	"github.com/tidegate/tidegate/gateway/ssh/backing"
)

// targetsOnly is a door behind which only the list of targets is.
type targetsOnly struct {
	gateway.Door
	targets []access.Target
}

func (d targetsOnly) Targets(string) []access.Target { return d.targets }

func target(address string) access.Target {
	return access.Target{TargetRef: access.TargetRef{Kind: "ssh", Name: "other"}, Address: address}
}

// TestTargetIsFoundByItsNumber: whatever name leads to a target's address.
func TestTargetIsFoundByItsNumber(t *testing.T) {
	for _, c := range []struct {
		configured string
		ip         string
		port       int
		is         bool
	}{
		{"192.0.2.7:22", "192.0.2.7", 22, true},
		{"192.0.2.7:22", "192.0.2.7", 2222, false},
		{"192.0.2.7:22", "192.0.2.8", 22, false},
		{"localhost:22", "127.0.0.1", 22, true},
		{"[2001:db8::7]:22", "2001:db8::7", 22, true},
		{"[::ffff:192.0.2.7]:22", "192.0.2.7", 22, true},
		{"no-such-name.invalid:22", "192.0.2.9", 22, true}, // it can't be found out, so it may be
		{"no-such-name.invalid:22", "192.0.2.9", 23, false},
	} {
		b := &bridge{door: targetsOnly{targets: []access.Target{target(c.configured)}}}
		if got := b.isTarget(t.Context(), netip.MustParseAddr(c.ip).Unmap(), c.port); got != c.is {
			t.Errorf("%s for target %s: %v, want %v", net.JoinHostPort(c.ip, fmt.Sprint(c.port)), c.configured, got, c.is)
		}
	}
}

// TestForwardNeverLeadsToATarget: a role that gives every address gives none
// of a target's, however it is written, nor of the link or the gateway.
func TestForwardNeverLeadsToATarget(t *testing.T) {
	b := &bridge{
		ctx: t.Context(), door: targetsOnly{targets: []access.Target{target("192.0.2.7:22"), target("[2001:db8::7]:22")}},
		session: leaseOnly{lease: access.Lease{Address: "192.0.2.1:22"}}, plan: backing.Backing{Forward: []string{"*:*"}},
	}
	for _, c := range []struct {
		host  string
		port  int
		given bool
	}{
		{"192.0.2.7", 22, false}, {"::ffff:192.0.2.7", 22, false}, {"::ffff:c000:207", 22, false}, {"2001:db8::7", 22, false},
		{"2001:0db8:0:0:0:0:0:7", 22, false}, {"169.254.169.254", 80, false}, {"::ffff:169.254.169.254", 80, false}, {"fe80::1", 80, false}, {"fd00:ec2::254", 80, false}, {"fd20:ce::254", 80, false}, {"::ffff:100.100.100.200", 80, false},
		{"fe80::1%lo", 80, false}, {"0.0.0.0", 80, false}, {"::", 80, false}, {"224.0.0.1", 80, false}, {"localhost", 22, false},
		{"127.0.0.1", 22, false}, {"::1", 22, false}, {"::ffff:127.0.0.1", 22, false}, {"no-such-name.invalid", 80, false},
		{"64:ff9b::192.0.2.7", 22, false}, {"64:ff9b::a9fe:a9fe", 80, false}, {"64:ff9b::7f00:1", 8080, false}, {"64:ff9b::", 80, false},
		{"192.0.2.7", 443, true}, {"64:ff9b::192.0.2.7", 443, true}, {"192.0.2.8", 22, true}, {"localhost", 8080, true},
	} {
		at, err := b.allowed(c.host, c.port)
		if (err == nil) != c.given {
			t.Errorf("%s port %d: leads to %q, %v; want given %v", c.host, c.port, at, err, c.given)
		}
	}
}

// TestNamesAreNotLookedUpForNothing: where a role gives nothing that a name
// could stand for, nobody learns whether the gateway knows it.
func TestNamesAreNotLookedUpForNothing(t *testing.T) {
	for _, c := range []struct {
		forward []string
		asks    bool
	}{
		{nil, false}, {[]string{"localhost:9"}, false}, {[]string{"db.internal:80"}, false}, {[]string{"*:81", "10.0.0.0/8:81"}, false},
		{[]string{"*:80"}, true}, {[]string{"10.0.0.0/8:*"}, true}, {[]string{"192.0.2.7:80"}, true}, {[]string{"no-such-name.invalid:80"}, true},
	} {
		b := &bridge{ctx: t.Context(), door: targetsOnly{}, session: leaseOnly{lease: access.Lease{Address: "192.0.2.1:22"}}, plan: backing.Backing{Forward: c.forward}}
		_, err := b.allowed("no-such-name.invalid", 80)
		if asked := err != nil && strings.Contains(err.Error(), "is not known here"); err == nil || asked != c.asks {
			t.Errorf("%q: %v; want the name looked up: %v", c.forward, err, c.asks)
		}
	}
}

// leaseOnly is a session of which only the lease is asked.
type leaseOnly struct {
	gateway.Session
	lease access.Lease
}

func (s leaseOnly) Lease() access.Lease { return s.lease }

// TestTargetsAreNoTunnels: whatever way a client names a target's address, the
// gateway ends the SSH inside, or refuses.
func TestTargetsAreNoTunnels(t *testing.T) {
	h := newHouse(t, houseOptions{role: map[string]string{"exec": "true", "forward": "*:*"}})
	_, port, _ := net.SplitHostPort(h.host.Address)
	c := h.mustDial()
	for _, host := range []string{"127.0.0.1", "localhost", "LOCALHOST", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]"} {
		conn, err := c.Dial("tcp", host+":"+port)
		if err != nil {
			continue // refused
		}
		line := make([]byte, len(version))
		if _, err := io.ReadFull(conn, line); err != nil || string(line) != version {
			t.Errorf("%s: %q answers, %v; want the gateway", host, line, err)
		}
		_ = conn.Close()
	}
	if conn, err := c.Dial("tcp", "web-1:22"); err != nil {
		t.Errorf("the target by its name: %v", err)
	} else {
		_ = conn.Close()
	}
	for _, e := range h.gate.Tape.Events("") {
		if e.Type == access.EventOpen && e.Operation.Kind == kindForward && e.Decision.Verdict == access.Allow && strings.HasSuffix(e.Operation.Text, ":"+port) {
			t.Errorf("a tunnel to the target: %s", e.Operation.Text)
		}
	}
}
