package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access/ledger/pgtest"
)

// played is a whole dev house of a test, and the people who act on it.
type played struct {
	*demo
	dev *devHouse
}

// playHouse starts a dev house that lives as long as the test.
func playHouse(t *testing.T) (context.Context, played) {
	t.Helper()
	needParts(t)
	ctx, cancel := context.WithTimeout(context.Background(), demoTimeout)
	t.Cleanup(cancel) // after the house has closed, which t.Context would not wait for
	root, err := os.MkdirTemp("", "tidegate-house-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	if err := os.Chmod(root, 0o711); err != nil { // PostgreSQL may run as another user, below it
		t.Fatal(err)
	}
	state, work := filepath.Join(root, "state"), filepath.Join(root, "work")
	log, closeLog, err := devLog(state)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(closeLog)
	house, err := startDev(ctx, devOptions{Dir: state, Log: log})
	if errors.Is(err, pgtest.ErrMissing) && os.Getenv("TIDEGATE_REQUIRE_PARTS") != "1" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := house.Close(); err != nil {
			t.Errorf("close house: %v", err)
		}
	})
	if err := os.Mkdir(work, 0o700); err != nil {
		t.Fatal(err)
	}
	return ctx, played{&demo{people: people{house.ready, work}, dir: state}, house}
}

// open plays a grant until it is active.
func (p played) open(ctx context.Context, t *testing.T, a asked) landed {
	t.Helper()
	l, err := p.opened(ctx, a)
	if err != nil {
		t.Fatalf("open %s: %v", a.id, err)
	}
	return l
}

// ended is how a session of psql ended, and when.
type ended struct {
	out string
	err error
	at  time.Time
}

// session runs statements in the background and waits until the session
// stands in the ledger.
func (p played) session(ctx context.Context, t *testing.T, grant string, statements ...string) <-chan ended {
	t.Helper()
	cmd, err := p.psql(ctx, "alice", demoTarget+"+"+grant)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan ended, 1)
	go func() {
		out, err := feed(cmd, statements)
		done <- ended{out, err, time.Now()}
	}()
	g, err := p.grant(ctx, grant)
	if err != nil {
		t.Fatal(err)
	}
	err = eventually(ctx, 10*time.Second, func() (bool, error) {
		open, err := p.dev.ledger.Sessions(ctx, g.Key)
		return len(open) > 0, err
	})
	if err != nil {
		t.Fatalf("want a session under %s: %v", grant, err)
	}
	return done
}

// wait waits for a session to end.
func wait(t *testing.T, done <-chan ended) ended {
	t.Helper()
	select {
	case s := <-done:
		if s.err != nil {
			t.Fatalf("psql: %v\n%s", s.err, s.out)
		}
		return s
	case <-time.After(40 * time.Second):
		t.Fatal("want the session to end, it goes on after 40 s")
		return ended{}
	}
}

// call runs one command line and answers with its code and all its words.
func call(t *testing.T, stdin string, args ...string) (int, string) {
	t.Helper()
	var out strings.Builder
	code := run(t.Context(), args, stdio{in: strings.NewReader(stdin), out: &out, err: &out})
	return code, out.String()
}
