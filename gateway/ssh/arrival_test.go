package ssh

import (
	"testing"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
)

// newChannel is a channel that a host asks for.
type newChannel struct {
	gossh.NewChannel
	of directPayload
}

func (newChannel) ChannelType() string { return "forwarded-tcpip" }
func (c newChannel) ExtraData() []byte { return gossh.Marshal(c.of) }

// TestArrivalIsAnAddress: what a host says of who came is shown to approvers
// and recorded, so it is an address and nothing else.
func TestArrivalIsAnAddress(t *testing.T) {
	b := &bridge{session: sessionAll{}}
	b.listens = []*listening{{listenPayload{"localhost", 8080}, b.stands(openAll{}, 1, nil)}}
	for _, c := range []struct {
		of directPayload
		ok bool
	}{
		{directPayload{"localhost", 8080, "192.0.2.7", 4711}, true}, {directPayload{"", 8080, "fe80::1%eth0", 4711}, true},
		{directPayload{"localhost", 8081, "192.0.2.7", 4711}, false}, {directPayload{"localhost", 0, "192.0.2.7", 4711}, false},
		{directPayload{"localhost", 8080, "192.0.2.7:1\nApproved by bob", 4711}, false}, {directPayload{"\x1b[2J", 8080, "192.0.2.7", 4711}, false},
		{directPayload{"localhost", 8080, "\xff", 4711}, false}, {directPayload{"\u202elocalhost", 8080, "192.0.2.7", 4711}, false},
	} {
		if op, ok := b.arrival(newChannel{of: c.of}); ok != c.ok || ok && op.Kind != kindArrival {
			t.Errorf("%+v: %v, want %v", c.of, ok, c.ok)
		}
	}
	b.listens[0].open = b.stands(openAll{}, 0, func() access.Operation {
		return access.Operation{Guard: deny("not-now", "Not now.")}
	})
	if _, ok := b.arrival(newChannel{of: directPayload{"localhost", 8080, "192.0.2.7", 4711}}); ok {
		t.Error("somebody came to a port that is given no longer")
	}
}
