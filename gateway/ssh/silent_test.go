package ssh

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"
)

// TestSilentHost: a host that does not answer to a signal holds nothing up,
// and one that does not answer to what it must is given up.
func TestSilentHost(t *testing.T) {
	h := newHouse(t, houseOptions{role: map[string]string{"exec": "true", "listen": "localhost:*"}, host: silentHost, config: Config{HostTime: 300 * time.Millisecond}})
	t.Run("signal", func(t *testing.T) {
		s, err := h.mustDial().NewSession()
		if err != nil {
			t.Fatal(err)
		}
		in, _ := s.StdinPipe()
		if err := s.Start("cat"); err != nil {
			t.Fatal(err)
		}
		for _, kind := range []string{"signal", "break"} {
			if ok, err := s.SendRequest(kind, true, gossh.Marshal(struct{ Signal string }{"TERM"})); err != nil || !ok {
				t.Errorf("%s: got %v, %v", kind, ok, err)
			}
		}
		_ = in.Close()
		if err := s.Wait(); err != nil {
			t.Errorf("the end did not arrive: %v", err)
		}
	})
	for name, ask := range map[string]func(*gossh.Client) error{
		"exec":   func(c *gossh.Client) error { s, _ := c.NewSession(); return s.Run("something else") },
		"listen": func(c *gossh.Client) error { _, err := c.Listen("tcp", "localhost:8080"); return err },
	} {
		t.Run(name, func(t *testing.T) {
			c := h.mustDial()
			s, told := startCat(t, c)
			if err := ask(c); err == nil {
				t.Error("what the host did not answer to was granted")
			}
			_ = s.Wait() // what it was told tells how it ended
			if !strings.Contains(told.String(), "The host does not answer.") {
				t.Errorf("told %q", told)
			}
			_ = c.Wait() // the connection ends
		})
	}
}

// startCat runs it until the connection ends, and notes what is said.
func startCat(t *testing.T, c *gossh.Client) (*gossh.Session, *heard) {
	t.Helper()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	told := &heard{}
	s.Stderr = told
	if _, err := s.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := s.Start("cat"); err != nil {
		t.Fatal(err)
	}
	return s, told
}

// TestLastWordsOfAQuickHost: a host that closes its side at once takes nothing
// of the last words away.
func TestLastWordsOfAQuickHost(t *testing.T) {
	for range 20 {
		h := newHouse(t, houseOptions{role: map[string]string{"exec": "true"}, host: silentHost})
		s, told := startCat(t, h.mustDial())
		h.gate.Revoke("inc-1", "The incident is over.")
		_ = s.Wait() // what it was told tells how it ended
		if !strings.Contains(told.String(), "The incident is over.") {
			t.Errorf("told %q", told)
		}
	}
}

// silentHost is a host that takes the user CA's certificates, runs "cat", and
// never answers to what it is asked for beside that.
func silentHost(t testing.TB, userCA gossh.PublicKey) (address, hostKey string) {
	t.Helper()
	key := newSigner(t)
	checker := &gossh.CertChecker{IsUserAuthority: func(k gossh.PublicKey) bool { return bytes.Equal(k.Marshal(), userCA.Marshal()) }}
	cfg := &gossh.ServerConfig{PublicKeyCallback: checker.Authenticate}
	cfg.AddHostKey(key)
	address = serveSSH(t, cfg, func(in <-chan gossh.NewChannel, asks <-chan *gossh.Request) {
		go func() {
			for range asks {
			}
		}()
		for one := range in {
			ch, requests, err := one.Accept()
			if err != nil {
				return
			}
			go echoAlone(ch, requests)
		}
	})
	return address, strings.TrimSpace(string(gossh.MarshalAuthorizedKey(key.PublicKey())))
}

func echoAlone(ch gossh.Channel, requests <-chan *gossh.Request) {
	for req := range requests {
		if req.Type != "exec" || !bytes.HasSuffix(req.Payload, []byte("cat")) {
			continue
		}
		_ = req.Reply(true, nil)
		go func() {
			_, _ = io.Copy(ch, ch)
			_, _ = ch.SendRequest("exit-status", false, exitStatus(0))
			_ = ch.Close()
		}()
	}
}

// serveSSH runs an SSH server on loopback until the test ends.
func serveSSH(t testing.TB, cfg *gossh.ServerConfig, serve func(<-chan gossh.NewChannel, <-chan *gossh.Request)) (address string) {
	t.Helper()
	return serveConn(t, cfg, func(_ gossh.Conn, in <-chan gossh.NewChannel, asks <-chan *gossh.Request) { serve(in, asks) })
}

func serveConn(t testing.TB, cfg *gossh.ServerConfig, serve func(gossh.Conn, <-chan gossh.NewChannel, <-chan *gossh.Request)) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() { // ends with the listener
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				if c, channels, requests, err := gossh.NewServerConn(conn, cfg); err == nil {
					serve(c, channels, requests)
				}
			}()
		}
	}()
	return l.Addr().String()
}
