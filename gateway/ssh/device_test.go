package ssh

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
)

// browser is where a login is finished, or never.
type browser struct {
	h       *house
	finish  atomic.Bool
	started atomic.Int32
}

func (b *browser) login(context.Context) (string, func(context.Context) (access.Secret, error), error) {
	b.started.Add(1)
	return "Open https://idp.test/device and type ABCD.", func(ctx context.Context) (access.Secret, error) {
		if !b.finish.Load() {
			<-ctx.Done()
			return access.Secret{}, context.Cause(ctx)
		}
		return access.NewSecret(b.h.gate.Token("alice")), nil
	}, nil
}

// watched is a client's connection that tells when it is over.
type watched struct {
	net.Conn
	once sync.Once
	over chan struct{}
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if err != nil {
		w.once.Do(func() { close(w.over) })
	}
	return n, err
}

// begin begins a login in a browser from an address, which answers to the
// question or never does.
func (h *house) begin(from string, asked func(over <-chan struct{})) error {
	conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).Dial("tcp", h.address)
	if err != nil {
		return err
	}
	defer conn.Close()
	w := &watched{Conn: conn, over: make(chan struct{})}
	c, channels, requests, err := gossh.NewClientConn(w, h.address, &gossh.ClientConfig{
		User: "web-1", HostKeyCallback: gossh.InsecureIgnoreHostKey(),
		Auth: []gossh.AuthMethod{gossh.RetryableAuthMethod(gossh.KeyboardInteractive(func(_, _ string, questions []string, _ []bool) ([]string, error) {
			asked(w.over)
			return make([]string, len(questions)), nil
		}), maxAuthTries)},
	})
	if err != nil {
		return err
	}
	return errors.Join(gossh.NewClient(c, channels, requests).Close())
}

// TestUnfinishedLogins: mallory begins 50 logins in a browser, six times each,
// and finishes none. Others log in meanwhile, in a browser as well, and each of
// hers ends by itself.
func TestUnfinishedLogins(t *testing.T) {
	o, _ := withLogin(t, houseOptions{role: map[string]string{"exec": "true"}})
	browser := &browser{}
	o.config.Device, o.config.DeviceTime = browser.login, 3*time.Second
	h := newHouse(t, o)
	browser.h = h
	const many = 50
	asked, ended := make(chan struct{}, many), make(chan error, many)
	began := time.Now()
	for i := range many {
		go func() {
			ended <- h.begin("127.0.0.2", func(over <-chan struct{}) {
				asked <- struct{}{}
				if i%2 == 0 {
					<-over // not even Enter is pressed
				}
			})
		}()
	}
	for range maxSourceDevices {
		<-asked
	}
	for range many - maxSourceDevices { // refused at once, and told why
		if err := <-ended; err == nil {
			t.Error("a login that was not finished let somebody in")
		}
	}
	browser.finish.Store(true)
	if err := h.begin("127.0.0.1", func(<-chan struct{}) {}); err != nil {
		t.Errorf("a login from elsewhere: %v", err)
	}
	if _, err := h.dial("web-1", gossh.PublicKeys(h.certificate("alice", newSigner(t)))); err != nil {
		t.Errorf("a login by a certificate: %v", err)
	}
	for range maxSourceDevices {
		if err := <-ended; err == nil {
			t.Error("a login that was not finished let somebody in")
		}
	}
	t.Logf("the last ended after %s", time.Since(began).Round(time.Millisecond))
	if n := browser.started.Load(); n != maxSourceDevices+1 {
		t.Errorf("the identity provider was asked %d times, want %d", n, maxSourceDevices+1)
	}
	if err := h.begin("127.0.0.2", func(<-chan struct{}) {}); err == nil {
		t.Error("another login from there at once")
	}
	r := h.run(with(h.client("alice", "ssh", "web-1@127.0.0.1", "true"), "-o", "PreferredAuthentications=keyboard-interactive", "-o", "BindAddress=127.0.0.2"))
	if r.code == 0 || !strings.Contains(r.err, "Too many log in by a browser from your address") {
		t.Errorf("the reason: got %+v", r)
	}
}
