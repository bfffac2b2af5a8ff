package postgres

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger/pgtest"
)

// target is a server that a test plays: it does TLS, and then what the test
// says.
type target struct {
	listener net.Listener
	heard    chan []byte // what came after the answer
}

// playTarget answers to a startup with say, after TLS unless plain.
func playTarget(t *testing.T, conf *tls.Config, say func(startup []byte) []byte) *target {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &target{l, make(chan []byte, 1)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			p.play(conn, conf, say)
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return p
}

func (p *target) play(conn net.Conn, conf *tls.Config, say func([]byte) []byte) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := readPacket(conn); err != nil { // SSLRequest
		return
	}
	if conf == nil {
		_, _ = conn.Write(say(nil))
		p.listen(conn)
		return
	}
	_, _ = conn.Write([]byte{'S'})
	t := tls.Server(conn, conf)
	start, err := readPacket(t)
	if err != nil {
		p.heard <- nil
		return
	}
	_, _ = t.Write(say(start))
	p.listen(t)
}

func (p *target) listen(conn net.Conn) {
	buf := make([]byte, 4096)
	n, _ := conn.Read(buf)
	p.heard <- buf[:n]
}

// auth is an authentication request.
func auth(code uint32, rest string) []byte {
	return message('R', append(binary.BigEndian.AppendUint32(nil, code), rest...))
}

const (
	authOK        = 0
	authCleartext = 3
	authMD5       = 5
	authSASL      = 10
)

// TestTargetsThatAskForTheWrongThing: whatever a server in the target's place
// asks for, neither password nor anything made of it alone leaves the gateway.
func TestTargetsThatAskForTheWrongThing(t *testing.T) {
	r := newRig(t, Config{})
	certificate, err := tls.X509KeyPair(ofServer(t, r.pg, "server.pem"), ofServer(t, r.pg, "server.key"))
	if err != nil {
		t.Fatal(err)
	}
	good := &tls.Config{Certificates: []tls.Certificate{certificate}}
	other, _ := otherCertificate(r)
	fixed := func(b []byte) func([]byte) []byte { return func([]byte) []byte { return b } }
	for name, c := range map[string]struct {
		tls *tls.Config
		say func([]byte) []byte
	}{
		"cleartext":                   {good, fixed(auth(authCleartext, ""))},
		"MD5":                         {good, fixed(auth(authMD5, "salt"))},
		"nothing":                     {good, fixed(append(auth(authOK, ""), message('Z', []byte{'I'})...))},
		"another mechanism":           {good, fixed(auth(authSASL, "OAUTHBEARER\x00\x00"))},
		"channel binding alone":       {good, fixed(auth(authSASL, "SCRAM-SHA-256-PLUS\x00\x00"))},
		"SCRAM-SHA-1":                 {good, fixed(auth(authSASL, "SCRAM-SHA-1\x00\x00"))},
		"no TLS":                      {nil, fixed([]byte{'N'})},
		"an error in TLS's place":     {nil, fixed(message('E', []byte("SFATAL\x00C28000\x00Mno\x00\x00")))},
		"plain bytes behind its yes":  {nil, fixed(append([]byte{'S'}, auth(authCleartext, "")...))},
		"a message of a gigabyte":     {good, fixed([]byte{'R', 0x3f, 0xff, 0xff, 0xff})},
		"a certificate of another CA": {other, fixed(auth(authCleartext, ""))},
	} {
		p := playTarget(t, c.tls, c.say)
		lease := r.door.lease
		_, database, _ := strings.Cut(lease.Address, "/")
		lease.Address = p.listener.Addr().String() + "/" + database
		room := &Room{roots: newRoots()}
		plan, err := newPlans().parse(lease.Backing)
		if err != nil {
			t.Fatal(err)
		}
		up, err := room.dialTarget(t.Context(), lease, plan.Backing, nil)
		if err == nil {
			t.Errorf("%s: logged in as %d", name, up.pid)
		}
		if heard := <-p.heard; bytes.Contains(heard, []byte(lease.Password.Reveal())) || bytes.Contains(heard, []byte("md5")) || len(heard) > 0 && heard[0] == 'p' {
			t.Errorf("%s: the target heard %q", name, heard)
		}
	}
}

// otherCertificate is one for 127.0.0.1 of a CA of its own, in the file.
func otherCertificate(r *rig) (conf *tls.Config, ca string) {
	gate := r.ca
	conf = r.certificate()
	ca, r.ca = r.ca, gate
	return conf, ca
}

func ofServer(t *testing.T, s *pgtest.Server, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(s.Dir + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestTargetTLS: what does not verify is not connected to.
func TestTargetTLS(t *testing.T) {
	r := newRig(t, Config{})
	for name, edit := range map[string]func(*access.Lease){
		"another CA":   func(l *access.Lease) { l.ServerCA = ofFile(t, r.ca) },
		"no CA":        func(l *access.Lease) { l.ServerCA = nil }, // the system's do not know ours
		"another name": func(l *access.Lease) { l.ServerName = "db.internal" },
		"no PEM":       func(l *access.Lease) { l.ServerCA = []byte("x") },
	} {
		lease := r.door.lease
		edit(&r.door.lease)
		_, err := pgx.Connect(t.Context(), r.dsn())
		r.door.lease = lease
		if codeOf(err) != stateUnavailable || strings.Contains(err.Error(), "x509") {
			t.Errorf("%s: got %v, want %s without the log's words", name, err, stateUnavailable)
		}
	}
	if c, err := pgx.Connect(t.Context(), r.dsn()); err != nil {
		t.Errorf("as it was: %v", err)
	} else {
		_ = c.Close(context.Background())
	}
}

func ofFile(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// between leads a connection to the real server through TLS of its own, as
// somebody does who has the server's key but not its password, and may change
// what the server says.
func between(t *testing.T, r *rig, conf *tls.Config, change func([]byte) []byte) (addr string, mechanisms chan string) {
	t.Helper()
	mechanisms = make(chan string, 2)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			relay(conn, r, conf, change, mechanisms)
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String(), mechanisms
}

func relay(conn net.Conn, r *rig, conf *tls.Config, change func([]byte) []byte, mechanisms chan string) {
	defer conn.Close()
	far, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", r.pg.Port))
	if err != nil {
		return
	}
	defer far.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	_ = far.SetDeadline(time.Now().Add(10 * time.Second))
	request, err := readPacket(conn)
	if err != nil {
		return
	}
	_, _ = far.Write(append([]byte{0, 0, 0, 8}, request...))
	_, _ = io.ReadFull(far, make([]byte, 1))
	_, _ = conn.Write([]byte{'S'})
	near := tls.Server(conn, conf)
	server := tls.Client(far, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the test is the man in the middle
	over := make(chan struct{})
	go func() {
		defer close(over)
		buf := make([]byte, 64<<10)
		for {
			n, err := server.Read(buf)
			if err != nil {
				_ = near.Close()
				return
			}
			_, _ = near.Write(change(buf[:n]))
		}
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := near.Read(buf)
		if err != nil {
			break
		}
		if m := regexp.MustCompile(`SCRAM-SHA-256(-PLUS)?\x00....([ynp][^,]*),`).FindSubmatch(buf[:n]); m != nil {
			mechanisms <- "SCRAM-SHA-256" + string(m[1]) + " " + string(m[2])
		}
		_, _ = server.Write(buf[:n])
	}
	_ = far.Close()
	<-over
}

// TestChannelBinding: where the server can bind the login to its certificate,
// it is bound; one in the middle with another certificate is found out, and so
// is one who says that the server can't.
func TestChannelBinding(t *testing.T) {
	r := newRig(t, Config{})
	ours, err := tls.X509KeyPair(ofServer(t, r.pg, "server.pem"), ofServer(t, r.pg, "server.key"))
	if err != nil {
		t.Fatal(err)
	}
	other, otherCA := otherCertificate(r)
	same := func(b []byte) []byte { return b }
	offer := func(mechanisms string) []byte { return auth(authSASL, mechanisms+"SCRAM-SHA-256\x00\x00") }
	shorter := func(b []byte) []byte { return bytes.Replace(b, offer("SCRAM-SHA-256-PLUS\x00"), offer(""), 1) }
	for _, c := range []struct {
		name   string
		conf   *tls.Config
		change func([]byte) []byte
		says   string
		in     bool
	}{
		{"the server's own certificate", &tls.Config{Certificates: []tls.Certificate{ours}}, same, "SCRAM-SHA-256-PLUS p=tls-server-end-point", true},
		{"another certificate that verifies", other, same, "SCRAM-SHA-256-PLUS p=tls-server-end-point", false},
		{"told that the server can't", &tls.Config{Certificates: []tls.Certificate{ours}}, shorter, "SCRAM-SHA-256 y", false},
	} {
		lease := r.door.lease
		addr, mechanisms := between(t, r, c.conf, c.change)
		_, database, _ := strings.Cut(lease.Address, "/")
		r.door.lease.Address = addr + "/" + database
		r.door.lease.ServerCA = append(append([]byte{}, lease.ServerCA...), ofFile(t, otherCA)...)
		conn, err := pgx.Connect(t.Context(), r.dsn())
		r.door.lease = lease
		if (err == nil) != c.in {
			t.Errorf("%s: logged in: %t, %v; want %t", c.name, err == nil, err, c.in)
		}
		if err == nil {
			_ = conn.Close(context.Background())
		}
		select {
		case got := <-mechanisms:
			if got != c.says {
				t.Errorf("%s: the gateway chose %q, want %q", c.name, got, c.says)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s: nothing was chosen", c.name)
		}
	}
}

// FuzzStepper: what hands the login's messages on never takes a byte of the
// next one, however the bytes come, and changes none.
func FuzzStepper(f *testing.F) {
	f.Add([]byte("R\x00\x00\x00\x08\x00\x00\x00\x00Z\x00\x00\x00\x05I"), uint8(3))
	f.Add([]byte("S\x00\x00\x00\x00"), uint8(1))
	f.Add([]byte("S\xff\xff\xff\xffx"), uint8(7))
	f.Fuzz(func(t *testing.T, sent []byte, step uint8) {
		if len(sent) > 1000 {
			return
		}
		r := bytes.NewReader(sent)
		s := &stepper{r: r}
		var got []byte
		buf := make([]byte, int(step)+1)
		for {
			rest := len(sent) - r.Len()
			n, err := s.Read(buf)
			if err != nil || n == 0 {
				break
			}
			if end := messageEnd(sent, rest); rest+n > end {
				t.Fatalf("read %d bytes at %d, over a message's end at %d", n, rest, end)
			}
			got = append(got, buf[:n]...)
		}
		if !bytes.Equal(got, sent) {
			t.Errorf("got %q, want %q", got, sent)
		}
	})
}

// messageEnd is where the message ends that the byte at the place is of.
func messageEnd(p []byte, at int) int {
	for from := 0; ; {
		if len(p)-from < headSize {
			return len(p)
		}
		end := from + headSize + max(0, int(int32(binary.BigEndian.Uint32(p[from+1:])))-4)
		if at < end {
			return end
		}
		from = end
	}
}
