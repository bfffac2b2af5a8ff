package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger"
)

// What bench asks for, and how far it goes.
const (
	benchMaxGrants = 500
	benchMaxDue    = 200              // one person has at most 100 sessions, and two hold them
	benchPerPull   = 50               // a pull request has no more
	benchLasts     = "20s"            // of the grants that open one after another
	benchDueIn     = 45 * time.Second // the end of those that are due together, from their start;
	benchDueEach   = time.Second      // more for each grant: all must be open by then
	benchUsable    = 5 * time.Minute
	benchClosed    = 3 * time.Minute
)

// benched is what bench prints.
type benched struct {
	ByHand   *spread `json:"by_hand,omitempty"` // the SQL alone, without Tidegate
	OneByOne *spread `json:"one_by_one,omitempty"`
	Together *spread `json:"together,omitempty"` // merged together, one end
}

// bench measures a dev house from outside, with the clients that people have.
type bench struct {
	*demo
	watchers sync.WaitGroup

	mu   sync.Mutex
	errs []error
	seen map[string]*life
}

// life is what a watcher saw of one grant.
type life struct {
	usable time.Duration // from the merge to the first answer
	cut    time.Time
}

func newBench(d *demo) *bench { return &bench{demo: d, seen: map[string]*life{}} }

// runBench opens a house of its own, measures and closes it.
func runBench(ctx context.Context, args []string, io stdio) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	grants := flags.Int("grants", 50, "`number` of grants that open one after another")
	due, asJSON := flags.Int("due", 200, "`number` of grants that end in the same second"), flags.Bool("json", false, "print JSON")
	if err := parse(flags, args, io); err != nil {
		return err
	}
	if *grants < 0 || *grants > benchMaxGrants || *due < 0 || *due > benchMaxDue {
		return fmt.Errorf("%w: want 0 to %d grants and 0 to %d due", errUsage, benchMaxGrants, benchMaxDue)
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute+time.Duration(*grants)*10*time.Second)
	defer cancel()
	var found benched
	err := inHouse(ctx, func(d *demo) (err error) {
		fmt.Fprintf(io.err, "bench: %d grants one after another, then %d together\n", *grants, *due)
		if found.ByHand, err = byHand(ctx, d); err != nil {
			return err
		}
		if found.OneByOne, err = oneByOne(ctx, d, *grants); err != nil {
			return err
		}
		found.Together, err = together(ctx, d, *due)
		return err
	})
	if err != nil {
		return err
	}
	if *asJSON {
		return json.NewEncoder(io.out).Encode(found)
	}
	return found.tell(io.out)
}

// oneByOne lands each grant when the one before was merged and usable.
func oneByOne(ctx context.Context, d *demo, n int) (*spread, error) {
	b := newBench(d)
	ctx, cancel := context.WithCancel(ctx)
	defer b.watchers.Wait()
	defer cancel()
	for i := range n {
		id := fmt.Sprintf("one-%d", i+1)
		l, err := d.lands(ctx, asked{id, "readonly", benchLasts})
		if err != nil {
			return nil, fmt.Errorf("grant %d of %d: %w", i+1, n, err)
		}
		<-b.watch(ctx, watched{id: id, who: "alice", merged: l.merged})
	}
	return b.result(ctx)
}

// watched is a grant whose life is measured.
type watched struct {
	id, who string
	merged  time.Time
	active  <-chan struct{} // nil: not known; then its holder keeps trying
}

// watch uses a grant as soon as it can be used and holds the session until it
// is cut. The channel closes with the first answer, or when there is none.
func (b *bench) watch(ctx context.Context, w watched) <-chan struct{} {
	usable := make(chan struct{})
	b.watchers.Go(func() {
		l, err := b.live(ctx, w, usable)
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.seen[w.id] = l; err != nil {
			b.errs = append(b.errs, fmt.Errorf("grant %s: %w", w.id, err))
		}
	})
	return usable
}

func (b *bench) live(ctx context.Context, w watched, usable chan<- struct{}) (*life, error) {
	conn, err := b.use(ctx, w)
	l := &life{usable: time.Since(w.merged)}
	close(usable)
	if err != nil {
		return l, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.Exec(ctx, "SELECT pg_sleep(900)")
	l.cut = time.Now()
	if err == nil {
		return l, errors.New("want the session cut, it went on for 900 s")
	}
	return l, ctx.Err()
}

// use connects until a SELECT is answered.
func (b *bench) use(ctx context.Context, w watched) (conn *pgx.Conn, err error) {
	if w.active != nil {
		select {
		case <-w.active:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	host, port, _ := strings.Cut(b.house.Postgres, ":")
	cfg, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=%s dbname=%s+%s user=%s sslmode=verify-full sslrootcert=%s",
		host, port, demoTarget, w.id, w.who, b.house.CA))
	if err != nil {
		return nil, fmt.Errorf("read connection: %w", err)
	}
	cfg.Password = b.house.Tokens[w.who]
	var last error
	err = eventually(ctx, benchUsable, func() (bool, error) {
		if conn, last = pgx.ConnectConfig(ctx, cfg); last != nil {
			return false, nil
		}
		if _, last = conn.Exec(ctx, "SELECT id FROM users LIMIT 1"); last != nil {
			return false, conn.Close(ctx)
		}
		return true, nil
	})
	return conn, errors.Join(err, last)
}

// result waits until all were cut and are proved gone.
func (b *bench) result(ctx context.Context) (*spread, error) {
	b.watchers.Wait()
	if err := errors.Join(b.errs...); err != nil || len(b.seen) == 0 {
		return nil, err
	}
	grants, err := b.gone(ctx)
	if err != nil {
		return nil, err
	}
	if err := b.targetEmpty(ctx); err != nil {
		return nil, err
	}
	var usable, cut, gone []time.Duration
	for id, l := range b.seen {
		g := grants[id]
		usable, cut, gone = append(usable, l.usable), append(cut, l.cut.Sub(g.NotAfter)), append(gone, g.Closed.Sub(g.NotAfter))
	}
	return &spread{len(b.seen), percentiles(usable), percentiles(cut), percentiles(gone)}, nil
}

// gone reads the grants once all of them are proved closed.
func (b *bench) gone(ctx context.Context) (map[string]access.Grant, error) {
	found := map[string]access.Grant{}
	err := withLedger(ctx, b.dir, func(l *ledger.Ledger) error {
		return eventually(ctx, benchClosed, func() (bool, error) {
			grants, err := l.ListGrants(ctx)
			for _, g := range grants {
				if b.seen[g.Key.ID] != nil && !g.Closed.IsZero() {
					found[g.Key.ID] = g
				}
			}
			return len(found) == len(b.seen), err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("want %d grants closed, got %d: %w", len(b.seen), len(found), err)
	}
	return found, nil
}

// targetEmpty asks the target itself, past the minter.
func (b *bench) targetEmpty(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, b.house.admin)
	if err != nil {
		return fmt.Errorf("look at the target: %w", err)
	}
	defer conn.Close(ctx)
	var roles, schemas, sessions int
	err = conn.QueryRow(ctx, `SELECT (SELECT count(*) FROM pg_roles WHERE rolname ~ '^tg_.*_g[0-9]+$'),
		(SELECT count(*) FROM pg_namespace WHERE nspname ~ '^tg_.*_g[0-9]+_m_'),
		(SELECT count(*) FROM pg_stat_activity WHERE usename ~ '^tg_')`).Scan(&roles, &schemas, &sessions)
	if err == nil && roles+schemas+sessions > 0 {
		err = fmt.Errorf("%d roles, %d schemas and %d sessions are left", roles, schemas, sessions)
	}
	return err
}

func (r benched) tell(w io.Writer) error {
	t := table(w, "", "GRANTS", "MERGE TO USABLE p50/p99", "END TO CUT p50/p99", "END TO ROLE GONE p50/p99")
	for _, line := range []struct {
		name string
		*spread
	}{{"one after another", r.OneByOne}, {"in the same second", r.Together}, {"the SQL by hand", r.ByHand}} {
		if s := line.spread; s != nil {
			row(t, line.name, fmt.Sprint(s.Grants), s.Usable.String(), s.Cut.String(), s.Gone.String())
		}
	}
	return t.Flush()
}
