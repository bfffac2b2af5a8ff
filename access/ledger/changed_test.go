package ledger

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
)

const patience = 20 * time.Second // far more than anything here takes

func hears(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case _, ok := <-c:
		if !ok {
			t.Fatalf("%s: the channel closed", what)
		}
	case <-time.After(patience):
		t.Fatalf("%s: nothing heard", what)
	}
}

// ends waits until c is closed; late values are fine.
func ends(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	over := time.After(patience)
	for {
		select {
		case _, ok := <-c:
			if !ok {
				return
			}
		case <-over:
			t.Fatalf("%s: the channel is still open", what)
		}
	}
}

func testChanged(t *testing.T, r *rig) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	here, err := r.Changed(ctx)
	check(t, err)
	away := r.again(t)
	there, err := away.Changed(t.Context())
	check(t, err)
	g := r.active(t, "a")
	hears(t, "a grant, here", here)
	hears(t, "a grant, in another process", there)
	r.hold(t, g, "h1")
	hears(t, "a held operation, in another process", there)
	breakListeners(t, r)
	drain(here)
	check(t, away.CancelHeld(t.Context(), "h1", access.HeldCancelled))
	hears(t, "an end, after the break", here)
	cancel()
	ends(t, "cancelled", here)
	check(t, away.Close())
	ends(t, "ledger closed", there)
	if _, err := away.Changed(t.Context()); err == nil {
		t.Error("a closed ledger took a subscriber")
	}
}

func drain(c <-chan struct{}) {
	select {
	case <-c:
	default:
	}
}

// breakListeners ends the listeners' connections where they are a server's,
// and waits until there are new ones.
func breakListeners(t *testing.T, r *rig) {
	t.Helper()
	if !strings.HasPrefix(r.config.URL, "postgres") {
		return
	}
	const listeners = " from pg_stat_activity where datname = current_database() and query = 'listen " + channel + "'"
	var old time.Time
	check(t, r.db.QueryRow("select max(backend_start)"+listeners).Scan(&old))
	var n int
	check(t, r.db.QueryRow("select count(pg_terminate_backend(pid))"+listeners).Scan(&n))
	if n != 2 {
		t.Fatalf("got %d listening connections, want 2", n)
	}
	for end := time.Now().Add(patience); ; {
		check(t, r.db.QueryRow("select count(*)"+listeners+" and backend_start > $1", old).Scan(&n))
		if n == 2 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("got %d listening connections after the break, want 2", n)
		}
	}
}

func TestBrokenListenerIsReplaced(t *testing.T) {
	r := newRig(t, "sqlite:"+t.TempDir()+"/l.db")
	broken, whole := make(chan error), make(chan error)
	turns := []listener{fake(broken), fake(whole)}
	r.dialect.listen = func(context.Context) (listener, error) {
		l := turns[0]
		turns = turns[1:]
		return l, nil
	}
	c, err := r.Changed(t.Context())
	check(t, err)
	broken <- context.DeadlineExceeded
	hears(t, "the break itself", c)
	whole <- nil
	hears(t, "a change after it", c)
	r.active(t, "a")
	hears(t, "a write of this process, of which the listener says nothing", c)
}

// fake is a listener that hears what the test says.
type fake chan error

func (f fake) wait(ctx context.Context) error {
	select {
	case err := <-f:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (fake) close() {}
