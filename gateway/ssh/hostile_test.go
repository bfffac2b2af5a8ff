package ssh

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/gateway"
)

// tampered changes one byte of what a client sends, once it is told to.
type tampered struct {
	net.Conn
	now atomic.Bool
}

func (c *tampered) Write(p []byte) (int, error) {
	if c.now.Load() {
		p = bytes.Clone(p)
		p[len(p)-1] ^= 1
	}
	return c.Conn.Write(p)
}

// TestBadPacketsEndTheirConnectionAlone: what comes broken, at whatever time,
// ends that connection and no other.
func TestBadPacketsEndTheirConnectionAlone(t *testing.T) {
	h := newHouse(t, houseOptions{role: map[string]string{"exec": "true"}})
	good := h.mustDial()
	s, err := good.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	in, _ := s.StdinPipe()
	out, _ := s.StdoutPipe()
	if err := s.Start("cat"); err != nil {
		t.Fatal(err)
	}
	noise := make([]byte, 100_000)
	_, _ = rand.Read(noise)
	for name, sent := range map[string][]byte{
		"noise": noise, "no SSH": []byte("GET / HTTP/1.1\r\n\r\n"), "version 1": []byte("SSH-1.5-old\r\n"),
		"noise after the greeting": append([]byte("SSH-2.0-mallory\r\n"), noise...), "an endless line": bytes.Repeat([]byte("x"), 100_000),
		"a packet of 2 GiB": append([]byte("SSH-2.0-mallory\r\n"), 0x7f, 0xff, 0xff, 0xff, 4),
	} {
		if left := h.raw(sent); left {
			t.Errorf("%s: the connection stays", name)
		}
	}
	conn, err := net.Dial("tcp", h.address)
	if err != nil {
		t.Fatal(err)
	}
	bad := &tampered{Conn: conn}
	c, channels, requests, err := gossh.NewClientConn(bad, h.address, &gossh.ClientConfig{
		User: "web-1", Auth: []gossh.AuthMethod{gossh.Password(h.gate.Token("alice"))}, HostKeyCallback: gossh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		t.Fatal(err)
	}
	go gossh.DiscardRequests(requests)
	client := gossh.NewClient(c, channels, nil)
	if _, err := client.NewSession(); err != nil {
		t.Fatal(err)
	}
	bad.now.Store(true)
	_, _, _ = client.SendRequest("keepalive@openssh.com", false, nil)
	if err := client.Wait(); err == nil {
		t.Error("a broken packet was taken")
	}
	if _, err := in.Write([]byte("still here")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len("still here"))
	if _, err := io.ReadFull(out, got); err != nil || string(got) != "still here" {
		t.Errorf("the other connection: %q, %v", got, err)
	}
}

// raw sends bytes and reports whether the gateway keeps the connection.
func (h *house) raw(sent []byte) (stays bool) {
	h.t.Helper()
	conn, err := net.Dial("tcp", h.address)
	if err != nil {
		h.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = conn.Write(sent) // it may be closed meanwhile
	_, err = io.Copy(io.Discard, conn)
	netErr, ok := err.(net.Error)
	return ok && netErr.Timeout()
}

// TestBoundsBeforeAuthentication: whoever says nothing is cut, and holds no
// more than a few places meanwhile.
func TestBoundsBeforeAuthentication(t *testing.T) {
	o := houseOptions{role: map[string]string{"exec": "true"}}
	o.gate.Tune = func(c *gateway.Config) { c.MaxPendingPerRemote, c.PendingTimeout = 3, time.Second }
	h := newHouse(t, o)
	var silent []net.Conn
	for range 3 {
		conn, err := net.Dial("tcp", h.address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.ReadFull(conn, make([]byte, len(version)+2)); err != nil {
			t.Fatal(err)
		}
		silent = append(silent, conn)
	}
	if _, err := h.dial("web-1", gossh.Password(h.gate.Token("alice"))); err == nil {
		t.Error("a fourth connection of the address was taken")
	}
	for _, conn := range silent {
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.Copy(io.Discard, conn); err != nil {
			t.Errorf("a silent client was not cut: %v", err)
		}
	}
	eventually(t, "there is room again", func() bool {
		c, err := h.dial("web-1", gossh.Password(h.gate.Token("alice")))
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	if _, err := h.dial("web-1", gossh.RetryableAuthMethod(gossh.PasswordCallback(func() (string, error) { return "no token", nil }), 100)); err == nil {
		t.Error("a wrong token let somebody in")
	}
	if _, err := h.dial("web-1", gossh.Password(strings.Repeat("x", maxToken+1))); err == nil {
		t.Error("a password that can't be a token let somebody in")
	}
}

// TestHostSaysNothingInASignal: what a host says of how a program ended is a
// name and no text, which nobody would have masked or recorded.
func TestHostSaysNothingInASignal(t *testing.T) {
	said := make(chan signalPayload, 1)
	h := newHouse(t, houseOptions{role: map[string]string{"exec": "true"}, host: func(t testing.TB, _ gossh.PublicKey) (address, hostKey string) {
		key := newSigner(t)
		cfg := &gossh.ServerConfig{PublicKeyCallback: func(gossh.ConnMetadata, gossh.PublicKey) (*gossh.Permissions, error) { return nil, nil }}
		cfg.AddHostKey(key)
		address = serveConn(t, cfg, func(_ gossh.Conn, in <-chan gossh.NewChannel, asks <-chan *gossh.Request) {
			go gossh.DiscardRequests(asks)
			for one := range in {
				ch, requests, err := one.Accept()
				if err != nil {
					return
				}
				go func() {
					for req := range requests {
						if _ = req.Reply(true, nil); req.Type == "exec" {
							_, _ = ch.SendRequest("exit-signal", false, gossh.Marshal(<-said))
							_ = ch.Close()
						}
					}
				}()
			}
		})
		return address, strings.TrimSpace(string(gossh.MarshalAuthorizedKey(key.PublicKey())))
	}})
	for _, c := range []struct{ sent, want signalPayload }{
		{signalPayload{Signal: "TERM", Message: "alice@acme.test\x1b[2J"}, signalPayload{Signal: "TERM"}},
		{signalPayload{Signal: "X@example.com", Core: true}, signalPayload{Signal: "X@example.com"}},
		{signalPayload{Signal: "a text\x1b[2J", Message: "more"}, signalPayload{}},
		{signalPayload{Signal: strings.Repeat("A", 10_000)}, signalPayload{}},
	} {
		s, err := h.mustDial().NewSession()
		if err != nil {
			t.Fatal(err)
		}
		said <- c.sent
		var got signalPayload
		if exit := (*gossh.ExitError)(nil); errors.As(s.Run("anything"), &exit) {
			got.Signal, got.Message = exit.Signal(), exit.Msg()
		}
		if got != c.want {
			t.Errorf("of %.80s the client hears %+v", c.sent.Signal, got)
		}
	}
	if strings.Contains(h.events(), "a text") {
		t.Errorf("the recording has it:\n%s", h.events())
	}
}
