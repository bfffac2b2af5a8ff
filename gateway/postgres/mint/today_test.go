package mint

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/tidegate/tidegate/access"
)

// TestMintsShareAReading: mints of the same that come together read the
// catalog once or twice, those of another role once more, and each is whole.
func TestMintsShareAReading(t *testing.T) {
	b := newBench(t, shop)
	same, other := b.ask(t, readonly(), masks()...), b.ask(t, access.Role{Name: "o", Read: []string{"public.orders"}})
	var grants []access.Grant
	for i := range 8 {
		g := same
		g.Key.ID += fmt.Sprint("-", i)
		grants = append(grants, g)
	}
	grants = append(grants, other)
	errs := make([]error, len(grants))
	readings := loggedLike(t, "with picked as", func() {
		var wg sync.WaitGroup
		for i, g := range grants {
			wg.Go(func() { errs[i] = patiently(func() error { _, err := b.Mint(t.Context(), g); return err }) })
		}
		wg.Wait()
	})
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if readings >= len(grants) {
		t.Errorf("%d mints read the catalog %d times", len(grants), readings)
	}
	for _, g := range grants {
		g.Backing, g.State = []byte("{}"), access.StateActive // as far as a lease asks
		c := b.session(t, g)
		if got, err := say(t, c, "select total from orders"); err != nil || got != "10.50\n" {
			t.Errorf("%s: %q, %v", g.Key, got, err)
		}
		if got, err := say(t, c, "select email from users where id = 1"); (err == nil) != (g.Plan.Role.Name == "readonly") || raw(got) {
			t.Errorf("%s: %q, %v", g.Key, got, err)
		}
		b.end(t, g)
	}
}

// TestReadingOutlivesWhoGivesUp: who reads for others may be cancelled, and
// the others then read themselves.
func TestReadingOutlivesWhoGivesUp(t *testing.T) {
	b := newBench(t, shop)
	g := b.ask(t, readonly(), masks()...)
	p, err := b.pool(g.Plan.Target)
	if err != nil {
		t.Fatal(err)
	}
	approved, err := parseBody(g.Plan.Expansion.Body)
	if err != nil {
		t.Fatal(err)
	}
	// Nobody reads while the pool is empty: so the first waits with the key.
	taken := p.AcquireAllIdle(t.Context())
	for len(taken) < maxConns {
		c, err := p.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		taken = append(taken, c)
	}
	ctx, cancel := context.WithCancel(t.Context())
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { _, err := b.today(ctx, p, g.Plan, approved); first <- err }()
	go func() { _, err := b.today(t.Context(), p, g.Plan, approved); second <- err }()
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("who gave up got %v", err)
	}
	for _, c := range taken {
		c.Release()
	}
	if err := <-second; err != nil {
		t.Errorf("who waited got %v", err)
	}
}

// loggedLike counts the messages with these words.
func loggedLike(t *testing.T, words string, do func()) (n int) {
	t.Helper()
	for _, m := range loggedTexts(t, do) {
		if strings.Contains(m, words) {
			n++
		}
	}
	return n
}
