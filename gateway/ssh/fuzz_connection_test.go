package ssh

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway"
	"github.com/tidegate/tidegate/gateway/gatewaytest"
	"github.com/tidegate/tidegate/gateway/ssh/backing"
)

// acceptAll is a host that takes whatever it is asked and runs nothing.
func acceptAll(t testing.TB, key gossh.Signer) string {
	t.Helper()
	cfg := &gossh.ServerConfig{PasswordCallback: func(gossh.ConnMetadata, []byte) (*gossh.Permissions, error) { return nil, nil }}
	cfg.AddHostKey(key)
	return serveConn(t, cfg, acceptOne)
}

func acceptOne(conn gossh.Conn, channels <-chan gossh.NewChannel, requests <-chan *gossh.Request) {
	defer conn.Close()
	go answerAll(requests)
	for in := range channels {
		ch, asks, err := in.Accept()
		if err != nil {
			return
		}
		go answerAll(asks)
		go func() { _, _ = io.Copy(ch, ch); _ = ch.Close() }() // ends with the channel
	}
}

func answerAll(requests <-chan *gossh.Request) {
	for r := range requests {
		_ = r.Reply(true, nil)
	}
}

// FuzzConnection: whatever an authenticated client opens and asks, in whatever
// order, the gateway answers or ends that connection, and goes on.
func FuzzConnection(f *testing.F) {
	for _, seed := range []string{
		"o\x07session", "osession\x00\x00", "\x01session|\x02pty-req|\x02shell", "gtcpip-forward\x00\x00\x00\x00\x00\x00\x00\x16",
		"\x01direct-tcpip|\x02exec|\x03keepalive@openssh.com|\x04", "\x01session|\x02exec\x00\x00\x00\x04true|\x04|\x02window-change",
	} {
		f.Add([]byte(seed))
	}
	address, said := fuzzGate(f)
	f.Fuzz(func(t *testing.T, script []byte) {
		conn, err := net.Dial("tcp", address.gate)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		c, channels, requests, err := gossh.NewClientConn(conn, address.gate, &gossh.ClientConfig{
			User: "web-1", Auth: []gossh.AuthMethod{gossh.Password(address.token)}, HostKeyCallback: gossh.InsecureIgnoreHostKey(),
		})
		if err != nil {
			t.Fatalf("the gateway lets nobody in any more: %v", err)
		}
		go gossh.DiscardRequests(requests)
		go func() { // ends with the connection
			for in := range channels {
				_ = in.Reject(gossh.Prohibited, "nothing here")
			}
		}()
		play(c, script)
		if text := said.String(); strings.Contains(text, "panicked") {
			t.Fatalf("the room panicked:\n%s", text)
		}
	})
}

// play does what the script says: its parts are divided by bars; the first
// byte of each says what it is, and where a zero byte stands the payload
// begins.
func play(c gossh.Conn, script []byte) {
	var last gossh.Channel
	for i, part := range bytes.Split(script, []byte("|")) {
		if len(part) == 0 || i > 20 {
			continue
		}
		name, payload, _ := bytes.Cut(part[1:], []byte{0})
		switch part[0] % 5 {
		case 0, 1:
			if ch, requests, err := c.OpenChannel(string(name), payload); err == nil {
				go gossh.DiscardRequests(requests)
				last = ch
			}
		case 2:
			if last != nil {
				_, _ = last.SendRequest(string(name), false, payload)
			}
		case 3:
			_, _, _ = c.SendRequest(string(name), false, payload)
		case 4:
			if last != nil {
				_, _ = last.Write(payload)
				_ = last.CloseWrite()
			}
		}
	}
	_ = c.Close()
}

type fuzzed struct{ gate, token string }

// fuzzGate is a gateway before a host that takes everything, with a role that
// gives everything.
func fuzzGate(f *testing.F) (fuzzed, *heard) {
	f.Helper()
	key := newSigner(f)
	host := acceptAll(f, key)
	plan := backing.Backing{
		Accounts: []string{"deploy"}, HostKeys: []string{string(gossh.MarshalAuthorizedKey(key.PublicKey()))}, Static: true, Shell: true, Exec: true,
		Read: []string{"/srv"}, Write: []string{"/srv"}, Forward: []string{"*:*"}, Listen: []string{"*:*"}, Env: []string{"*"}, Subsystems: []string{"any"}, Agent: true, X11: true,
	}
	body, err := plan.Encode()
	if err != nil {
		f.Fatal(err)
	}
	said := &heard{}
	gate := gatewaytest.New(f, gatewaytest.Options{
		Target: access.Target{TargetRef: access.TargetRef{Kind: "ssh", Name: "web-1"}, Address: host},
		Lease: func(_ access.Grant, l *access.Lease) error {
			l.Address, l.User, l.Password, l.Backing = host, "deploy", access.NewSecret("any"), body
			return nil
		},
		Tune: func(c *gateway.Config) {
			c.Log = slog.New(slog.NewTextHandler(said, nil))
			c.MaxSessionsPerPerson = 1000
		},
	})
	own := newSigner(f)
	room, err := New(Config{HostKeys: func([]string) ([]gossh.Signer, error) { return []gossh.Signer{own}, nil }})
	if err != nil {
		f.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- gate.Server.Serve(ctx, l, room) }()
	f.Cleanup(func() { cancel(); <-done })
	return fuzzed{l.Addr().String(), gate.Token("alice")}, said
}
