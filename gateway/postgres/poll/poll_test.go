package poll

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// pair is a taken connection and its peer.
func pair(t *testing.T) (*Conn, *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	peer, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c := New(near)
	ok, err := c.Take()
	if err != nil {
		t.Fatal(err)
	}
	if !ok {
		t.Skip("connections are not taken on this system")
	}
	t.Cleanup(func() { _ = c.Close(); _ = peer.Close() })
	return c, peer.(*net.TCPConn)
}

// echo sends back what comes, in turns.
func echo(c *Conn) func() bool {
	buf := make([]byte, 4<<10)
	return func() (over bool) {
		for {
			n, err := c.Read(buf)
			if err == ErrAgain {
				return false
			}
			if err != nil {
				return true
			}
			if _, err := c.Write(buf[:n]); err != nil {
				return true
			}
		}
	}
}

func TestTurns(t *testing.T) {
	var all sync.WaitGroup
	for range 20 {
		c, peer := pair(t)
		if err := c.Start(echo(c)); err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			got := make([]byte, 5)
			for range 200 {
				if _, err := peer.Write([]byte("hello")); err != nil {
					t.Error(err)
				}
				if _, err := io.ReadFull(peer, got); err != nil || string(got) != "hello" {
					t.Errorf("got %q, %v", got, err)
				}
			}
			_ = peer.CloseWrite()
			<-c.Over() // the end is seen, however it came
		})
	}
	all.Wait()
}

// More than any buffer holds goes both ways, to a peer that reads late: writes
// of a turn wait, and others' turns go on meanwhile.
func TestFullBuffersHoldUpNobodyElse(t *testing.T) {
	slow, peer := pair(t)
	if err := slow.Start(echo(slow)); err != nil {
		t.Fatal(err)
	}
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	var writing sync.WaitGroup
	writing.Go(func() {
		if _, err := peer.Write(sent); err != nil {
			t.Error(err)
		}
	})
	quick, other := pair(t)
	if err := quick.Start(echo(quick)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 1)
	for range 100 {
		_, _ = other.Write([]byte("x"))
		if _, err := io.ReadFull(other, got); err != nil {
			t.Fatal(err)
		}
	}
	all := make([]byte, len(sent))
	if _, err := io.ReadFull(peer, all); err != nil || !bytes.Equal(all, sent) {
		t.Errorf("what came back differs, %v", err)
	}
	writing.Wait()
}

// A turn that blocks without saying so holds up others for some milliseconds.
func TestBlockedTurnHoldsUpNobodyElse(t *testing.T) {
	stuck, peer := pair(t)
	release := make(chan struct{})
	var first atomic.Bool
	if err := stuck.Start(func() bool {
		if !first.Swap(true) {
			return false // the one that Start runs by itself
		}
		<-release
		return true
	}); err != nil {
		t.Fatal(err)
	}
	_, _ = peer.Write([]byte("x"))
	for range 40 { // on every loop
		quick, other := pair(t)
		if err := quick.Start(echo(quick)); err != nil {
			t.Fatal(err)
		}
		_, _ = other.Write([]byte("x"))
		if _, err := io.ReadFull(other, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	close(release)
	stuck.Stop()
}

// What comes while somebody else reads is read by him, until the deadline.
func TestPatientReader(t *testing.T) {
	c, peer := pair(t)
	got, ended := make(chan string), make(chan error)
	var turns atomic.Int32
	if err := c.Start(func() (over bool) {
		if turns.Add(1) > 1 {
			return false
		}
		c.Patient(true)
		defer c.Patient(false)
		go func() {
			buf := make([]byte, 10)
			n, err := c.Read(buf)
			if err != nil {
				t.Error(err)
			}
			got <- string(buf[:n])
			_, err = c.Read(buf)
			ended <- err
		}()
		if s := <-got; s != "ahead" {
			t.Errorf("the reader got %q", s)
		}
		_ = c.SetReadDeadline(time.Unix(1, 0))
		if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the reader ended with %v, want its deadline", err)
		}
		return false
	}); err != nil {
		t.Fatal(err)
	}
	_, _ = peer.Write([]byte("ahead"))
	c.Stop()
}

// Close ends a write that waits, and Stop returns when no turn runs.
func TestCloseEndsWaiting(t *testing.T) {
	c, _ := pair(t)
	began := make(chan struct{})
	var failed error
	if err := c.Start(func() (over bool) {
		close(began)
		_, failed = c.Write(make([]byte, 64<<20)) // nobody reads
		return true
	}); err != nil {
		t.Fatal(err)
	}
	<-began
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c.Stop()
	if !errors.Is(failed, net.ErrClosed) {
		t.Errorf("the write ended with %v, want that it was closed", failed)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("reading after the end gave %v", err)
	}
}

func TestWriteDeadline(t *testing.T) {
	c, _ := pair(t)
	var failed error
	if err := c.Start(func() (over bool) {
		_, failed = c.Write(make([]byte, 64<<20))
		return true
	}); err != nil {
		t.Fatal(err)
	}
	_ = c.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
	<-c.Over()
	if !errors.Is(failed, os.ErrDeadlineExceeded) {
		t.Errorf("the write ended with %v, want its deadline", failed)
	}
}

// What is no socket has a goroutine of its own.
func TestNotTaken(t *testing.T) {
	near, far := net.Pipe()
	c := New(near)
	if ok, err := c.Take(); ok || err != nil {
		t.Fatalf("Take said %v, %v", ok, err)
	}
	if err := c.Start(echo(c)); err != nil {
		t.Fatal(err)
	}
	_, _ = far.Write([]byte("x"))
	if _, err := io.ReadFull(far, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	_ = far.Close()
	c.Stop()
}
