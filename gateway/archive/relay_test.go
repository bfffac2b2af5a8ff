package archive

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// relay stands before a server and counts what goes to it.
type relay struct {
	listener net.Listener
	sent     atomic.Int64

	mu     sync.Mutex
	limit  int64 // of sent, at which then is called once
	then   func()
	open   []net.Conn
	serves sync.WaitGroup
}

func newRelay(t *testing.T) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return &relay{listener: l}
}

func (r *relay) addr() string { return r.listener.Addr().String() }

// at has something done once so many bytes went to the server from now on.
func (r *relay) at(bytes int64, do func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent.Store(0)
	r.limit, r.then = bytes, do
}

func (r *relay) serve(t *testing.T, target string) {
	r.serves.Go(func() {
		for {
			in, err := r.listener.Accept()
			if err != nil {
				return
			}
			r.serves.Go(func() { r.join(in, target) })
		}
	})
	t.Cleanup(func() {
		_ = r.listener.Close()
		r.mu.Lock()
		for _, c := range r.open {
			_ = c.Close()
		}
		r.mu.Unlock()
		r.serves.Wait()
	})
}

func (r *relay) join(in net.Conn, target string) {
	defer in.Close()
	out, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer out.Close()
	r.mu.Lock()
	r.open = append(r.open, in, out)
	r.mu.Unlock()
	back := make(chan struct{})
	go func() {
		defer close(back)
		_, _ = io.Copy(in, out)
		_ = in.Close()
	}()
	_, _ = io.Copy(counting{r, out}, in)
	_ = out.Close()
	<-back
}

// counting is one connection to the server.
type counting struct {
	*relay
	to net.Conn
}

// Write implements io.Writer.
func (c counting) Write(b []byte) (int, error) {
	sent := c.sent.Add(int64(len(b)))
	c.mu.Lock()
	then := c.then
	if then != nil && sent >= c.limit {
		c.then = nil
	} else {
		then = nil
	}
	c.mu.Unlock()
	if then != nil {
		then()
		return 0, errors.New("it was killed")
	}
	return c.to.Write(b)
}

// free is an address where nobody listens.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func answers(addr string) error {
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			return conn.Close()
		}
		if time.Now().After(end) {
			return err
		}
	}
}

// part is a program of .ci/parts/object-stores.sh.
func part(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs("../../.cache/parts/object-stores/" + name)
	if err == nil {
		_, err = os.Stat(path)
	}
	if errors.Is(err, os.ErrNotExist) && os.Getenv("TIDEGATE_REQUIRE_PARTS") != "1" {
		t.Skipf("%s is missing: .ci/parts/object-stores.sh brings it", name)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}
