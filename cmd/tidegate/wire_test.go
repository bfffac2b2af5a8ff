package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger"
	"github.com/tidegate/tidegate/gateway/postgres/mint"
)

// targetTap stands before a PostgreSQL server. It ends the TLS of whoever
// comes, goes on in plain text, and keeps every byte of both ways.
type targetTap struct {
	listener net.Listener
	target   string
	conf     *tls.Config
	conns    sync.WaitGroup
	to, from kept
}

// kept is what went one way.
type kept struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (k *kept) Write(b []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.text.Write(b)
}

// tapTarget stands before the target until Close. Its certificate is of a CA
// of its own, which takes the place of the target's.
func tapTarget(t *testing.T, target *devTarget) *targetTap {
	t.Helper()
	cert, caPEM := loopbackTLS(t, t.TempDir())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address, database, _ := strings.Cut(target.address, "/")
	tap := &targetTap{listener: l, target: address, conf: &tls.Config{Certificates: []tls.Certificate{*cert}}}
	target.address, target.CAPEM = l.Addr().String()+"/"+database, caPEM
	tap.conns.Go(func() { tap.accept(t.Context()) })
	t.Cleanup(func() { tap.Close() })
	return tap
}

// Close ends the tap and answers with what went to the target and came back.
func (t *targetTap) Close() (to, from []byte) {
	t.listener.Close()
	t.conns.Wait()
	return t.to.text.Bytes(), t.from.text.Bytes()
}

func (t *targetTap) accept(ctx context.Context) {
	for {
		conn, err := t.listener.Accept()
		if err != nil {
			return
		}
		t.conns.Go(func() {
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			if err := t.relay(conn); err != nil {
				_, _ = fmt.Fprintf(&t.from, "tap: %v\n", err) // shows where the test looks
			}
		})
	}
}

func (t *targetTap) relay(conn net.Conn) error {
	var ask [8]byte
	if _, err := io.ReadFull(conn, ask[:]); err != nil {
		return err
	}
	if ask != [8]byte{0, 0, 0, 8, 4, 210, 22, 47} {
		return errors.New("want a request for TLS first, got something else")
	}
	if _, err := conn.Write([]byte("S")); err != nil {
		return err
	}
	client := tls.Server(conn, t.conf)
	server, err := net.Dial("tcp", t.target)
	if err != nil {
		return err
	}
	defer server.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(io.MultiWriter(&t.to, server), client) // ends with either side
		server.Close()
	}()
	_, _ = io.Copy(io.MultiWriter(&t.from, client), server) // likewise
	conn.Close()
	<-done
	return nil
}

// TestWire listens on both sides of a serve: what the client receives after
// its TLS, and what goes to the target and comes back. No raw value is on any
// of them, nothing that was refused reaches the target, and no password is
// anywhere in clear.
func TestWire(t *testing.T) {
	var target *targetTap
	w := newServeWorldBehind(t, func(d *devTarget) { target = tapTarget(t, d) })
	_, stop := w.start(t)
	number := w.open(t, asked{"wire-1", "operator", "30m"})
	passwords := append(w.mintedPassword(t, "wire-1"), w.secret...)
	client := w.throughTap(t, number)
	if err := w.say(t.Context(), "alice", number, "/tidegate revoke"); err != nil {
		t.Fatal(err)
	}
	w.waitGrant(t, "wire-1", access.StateRevoked)
	stop()
	to, from := target.Close()
	for _, side := range []struct {
		name        string
		text        []byte
		want, never []string
	}{
		{"what the client received", client, []string{allowedMark, "42501", "left: 100", "****test"}, []string{canary}},
		{"what went to the target", withoutPlanned(to), []string{allowedMark, "tidegate-mint", "wire_ok"}, []string{refusedMark, heldMark, canary}},
		{"what the target answered", from, []string{allowedMark, "****test"}, []string{refusedMark, heldMark, canary, "tap: "}},
	} {
		for _, word := range side.want {
			if !bytes.Contains(side.text, []byte(word)) {
				t.Errorf("%s: want %q in its %d bytes: the test would prove nothing", side.name, word, len(side.text))
			}
		}
		for _, word := range append(side.never, passwords...) {
			if bytes.Contains(side.text, []byte(word)) {
				t.Errorf("%s: %s", side.name, around(side.text, word))
			}
		}
	}
}

// throughTap plays alice's session through a tap of her own, with a refused
// and a denied statement in it, and answers with all that she received.
func (w *serveWorld) throughTap(t *testing.T, number int) []byte {
	t.Helper()
	tap, err := w.tap()
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(tap.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	cmd, err := w.psqlAt(t.Context(), "alice", fmt.Sprintf("host=127.0.0.1 port=%s dbname=%s user=alice sslmode=disable", port, demoTarget))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan ended, 1)
	go func() {
		out, err := feed(cmd, []string{
			"SELECT id, email, '" + allowedMark + "' FROM users ORDER BY id LIMIT 2;",
			"COPY (SELECT email FROM public.users) TO STDOUT;",
			"SELECT CAST(email AS int) FROM users;",
			"DROP TABLE public." + refusedMark + ";",
			heldDelete + ";",
			"SELECT 'left: ' || count(*) AS wire_ok FROM orders;",
		})
		done <- ended{out, err, time.Now()}
	}()
	played{demo: &w.demo}.deny(t.Context(), t, number)
	wait(t, done)
	return tap.Close()
}

// mintedPassword derives the password of a grant's role, as control does.
func (w *serveWorld) mintedPassword(t *testing.T, id string) []string {
	t.Helper()
	keys, err := openOwnKeys(filepath.Join(w.folder(), "state", keysDir))
	if err != nil {
		t.Fatal(err)
	}
	m, err := mint.New(mint.Config{Installation: "serve1", Key: keys.mint, Admin: func(context.Context, access.Target) (mint.AdminLogin, error) {
		return mint.AdminLogin{}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	var out []string
	err = w.look(t.Context(), func(l *ledger.Ledger) error {
		grants, err := l.ListGrants(t.Context())
		for _, g := range grants {
			if g.Key.ID != id {
				continue
			}
			lease, err := m.Lease(t.Context(), g, "wire")
			if err != nil {
				return err
			}
			out = append(out, lease.Password.Reveal())
		}
		return err
	})
	if err != nil || len(out) != 1 {
		t.Fatalf("derive the password of %s: %d found, %v", id, len(out), err)
	}
	return out
}
