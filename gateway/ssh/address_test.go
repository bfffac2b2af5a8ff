package ssh

import (
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway"
	"github.com/tidegate/tidegate/gateway/gatewaytest"
)

// TestPlainHost: however a host is spelled, it is judged and shown in one way.
func TestPlainHost(t *testing.T) {
	for host, want := range map[string]string{
		"db.internal": "db.internal", "DB.Internal": "db.internal", "db.internal.": "db.internal", "a": "a", "_dmarc.a-b": "_dmarc.a-b",
		"127.0.0.1": "127.0.0.1", "::ffff:127.0.0.1": "127.0.0.1", "0:0:0:0:0:0:0:1": "::1", "2001:DB8::0007": "2001:db8::7",
		"": "-", "*": "-", "localho\u017ft": "-", "a b": "-", "a\x1b[2J": "-", "a\n": "-", "\xff": "-", "::1%lo": "-", "a..": "-", ".": "-", "-a": "-", "a:80": "-", "\u202ea": "-",
		strings.Repeat("a", 257): "-",
	} {
		if got, ok := plainHost(host); ok && got != want || ok != (want != "-") {
			t.Errorf("%q is %q, %v; want %q", host, got, ok, want)
		}
	}
}

// TestRulesKnowAddressesByEachName: mallory may forward to many addresses, and
// writes one that a rule names in another way.
func TestRulesKnowAddressesByEachName(t *testing.T) {
	echo := echoes(t)
	_, port, _ := net.SplitHostPort(echo)
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	named := ""
	h := newHouse(t, houseOptions{role: map[string]string{"forward": "*:*", "listen": "*:*"}, gate: gatewaytest.Options{
		Judge: func(op access.Operation) access.Decision {
			if op.Facts["address"] == named {
				return access.Decision{Verdict: access.Deny, Rule: "not-there", Say: "Not there."}
			}
			return access.Decision{Verdict: access.Allow}
		},
	}})
	c := h.mustDial()
	dial := func(host string) error {
		ch, requests, err := c.OpenChannel("direct-tcpip", gossh.Marshal(directPayload{host, uint32(n), "127.0.0.1", 1}))
		if err == nil {
			go gossh.DiscardRequests(requests)
			_ = ch.Close()
		}
		return err
	}
	listen := func(host string) error {
		ok, _, err := c.SendRequest("tcpip-forward", true, gossh.Marshal(listenPayload{host, 0}))
		if err == nil && !ok {
			err = net.ErrClosed
		}
		return err
	}
	for _, rule := range []string{"localhost", "127.0.0.1", "[::1]"} {
		named = rule + ":" + port
		for _, host := range []string{"localhost", "LocalHost", "127.0.0.1", "::1", "::ffff:127.0.0.1", "127.0.0.2", "localhost."} {
			if err := dial(host); err == nil || !strings.Contains(err.Error(), "Not there.") {
				t.Errorf("%s denied: to %s: %v", named, host, err)
			}
		}
		named = rule + ":0"
		for _, host := range []string{"localhost", "LOCALHOST", "127.0.0.1", "::1"} {
			if err := listen(host); err == nil {
				t.Errorf("%s denied: the host listens on %s", named, host)
			}
		}
	}
	for _, rule := range []string{":0", "*:0", "0.0.0.0:0", "[::]:0"} {
		named = rule
		for _, host := range []string{"", "*", "0.0.0.0", "::"} {
			if err := listen(host); err == nil {
				t.Errorf("%s denied: the host listens on %q", named, host)
			}
		}
	}
	named = "another:" + port
	if err := dial("LOCALHOST"); err != nil {
		t.Errorf("nothing denied: %v", err)
	}
	if err := listen(""); err != nil {
		t.Errorf("nothing denied: listen: %v", err)
	}
	for _, host := range []string{"a\x1b[2J", "localho\u017ft"} {
		if err := dial(host); err == nil || !strings.Contains(err.Error(), "neither a name nor a number") {
			t.Errorf("%q: %v", host, err)
		}
	}
}

// TestNameIsJudgedByItsNumber: a rule about a number bites on the name that
// stands for it, and who approves sees both.
func TestNameIsJudgedByItsNumber(t *testing.T) {
	denied := "192.0.2.7:5432"
	b := &bridge{session: judgesAddress(func(address any) access.Verdict {
		if address == denied {
			return access.Deny
		}
		return access.Allow
	})}
	op := access.Operation{Text: "db.internal:5432", Facts: access.Facts{"address": "db.internal:5432"}, Context: []string{"as deploy"}}
	got := b.atAddress(op, "db.internal", "192.0.2.7", 5432)
	if got.Guard.Verdict != access.Deny || !slices.Contains(got.Context, "at 192.0.2.7:5432") || got.Text != op.Text || len(op.Context) != 1 {
		t.Errorf("got %+v, guarded by %+v", got, got.Guard)
	}
	denied = "db.internal:5432"
	if got := b.atAddress(op, "db.internal", "192.0.2.7", 5432); got.Guard.Verdict != access.Deny {
		t.Errorf("by its name: %+v", got.Guard)
	}
	denied = "192.0.2.7:5432"
	if got := b.atAddress(op, "db.internal", "64:ff9b::c000:207", 5432); got.Guard.Verdict != access.Deny {
		t.Errorf("by the number that a network translates: %+v", got.Guard)
	}
	denied = "other:5432"
	if got := b.atAddress(op, "db.internal", "192.0.2.7", 5432); got.Guard.Verdict != access.Allow {
		t.Errorf("nothing denied: %+v", got.Guard)
	}
}

// judgesAddress is a session of which only rules on addresses are asked.
func judgesAddress(judge func(address any) access.Verdict) gateway.Session {
	return addressSession{judge: judge}
}

type addressSession struct {
	gateway.Session
	judge func(address any) access.Verdict
}

func (s addressSession) Judge(op access.Operation) access.Decision {
	return access.Decision{Verdict: s.judge(op.Facts["address"])}
}
