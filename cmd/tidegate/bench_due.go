package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger"
)

// together lands n grants by as few merges as can be, close to one another;
// all of them end at the same moment.
func together(ctx context.Context, d *demo, n int) (*spread, error) {
	if n == 0 {
		return nil, nil
	}
	b := newBench(d)
	ctx, cancel := context.WithCancel(ctx)
	defer b.watchers.Wait()
	defer cancel()
	from := time.Now().UTC().Truncate(time.Second)
	until := from.Add(benchDueIn + time.Duration(n)*benchDueEach)
	pulls, err := b.ask(ctx, n, from, until)
	if err != nil {
		return nil, err
	}
	active := map[string]chan struct{}{}
	for _, p := range pulls {
		merged := time.Now()
		if err := d.merge(ctx, "bob", p.number); err != nil {
			return nil, err
		}
		for _, id := range p.ids {
			active[id] = make(chan struct{})
			b.watch(ctx, watched{id, p.who, merged, active[id]})
		}
	}
	if err := b.announce(ctx, active); err != nil {
		return nil, err
	}
	return b.result(ctx)
}

// dueFile is a request with an absolute end.
func dueFile(id, who string, from, until time.Time) string {
	text := grantFile(id, who, "readonly", "?")
	window := fmt.Sprintf("from   = %q\n  until  = %q", from.Format(time.RFC3339), until.Format(time.RFC3339))
	return strings.Replace(text, `lasts  = "?"`, window, 1)
}

// duePull is an approved pull request and what it asks for.
type duePull struct {
	number int
	who    string
	ids    []string
}

// ask opens the pull requests and has them approved, all before the first is
// merged. Two people share the sessions: one may not have so many.
func (b *bench) ask(ctx context.Context, n int, from, until time.Time) ([]duePull, error) {
	var pulls []duePull
	for k := 0; k < n; k += benchPerPull {
		p := duePull{who: []string{"alice", "carol"}[len(pulls)%2]}
		files := map[string]string{}
		for i := k; i < min(n, k+benchPerPull); i++ {
			id := fmt.Sprintf("due-%d", i+1)
			p.ids = append(p.ids, id)
			files["grants/"+p.who+"/"+id+".hcl"] = dueFile(id, p.who, from, until)
		}
		branch := fmt.Sprintf("due-%d", len(pulls))
		if err := b.pushAll(ctx, "alice", branch, files); err != nil {
			return nil, err
		}
		var err error
		if p.number, err = b.pullRequest(ctx, "alice", branch, "Access for "+branch); err != nil {
			return nil, err
		}
		pulls = append(pulls, p)
	}
	for _, p := range pulls {
		if err := b.bobApproves(ctx, p.number); err != nil {
			return nil, err
		}
	}
	return pulls, nil
}

// announce tells the watchers whose grant is active. Each of them knocking
// until it is let in would measure the knocking.
func (b *bench) announce(ctx context.Context, active map[string]chan struct{}) error {
	err := withLedger(ctx, b.dir, func(l *ledger.Ledger) error {
		return eventually(ctx, benchUsable, func() (bool, error) {
			grants, err := l.Unclosed(ctx)
			for _, g := range grants {
				if c := active[g.Key.ID]; c != nil && g.State == access.StateActive {
					close(c)
					delete(active, g.Key.ID)
				}
			}
			return len(active) == 0, err
		})
	})
	if err != nil {
		return fmt.Errorf("%d grants did not become active: %w", len(active), err)
	}
	return nil
}

// byHandTimes is how often the SQL is played by hand.
const byHandTimes = 20

// byHand plays the SQL that one grant comes to at the target, by one
// connection of an administrator: what opening and closing cost without
// asking, approving, recording or proving.
func byHand(ctx context.Context, d *demo) (*spread, error) {
	conn, err := pgx.Connect(ctx, strings.Replace(d.house.admin, "/postgres?", "/orders?", 1))
	if err != nil {
		return nil, fmt.Errorf("look at the target: %w", err)
	}
	defer conn.Close(ctx)
	var opened, gone []time.Duration
	for range byHandTimes {
		for _, part := range []struct {
			sql  string
			took *[]time.Duration
		}{{handOpens, &opened}, {handCloses, &gone}} {
			start := time.Now()
			if _, err := conn.Exec(ctx, part.sql); err != nil {
				return nil, fmt.Errorf("play by hand: %w", err)
			}
			*part.took = append(*part.took, time.Since(start))
		}
	}
	return &spread{byHandTimes, percentiles(opened), measure{}, percentiles(gone)}, nil
}

const (
	handOpens = `BEGIN; CREATE ROLE by_hand LOGIN NOINHERIT VALID UNTIL '2099-01-01' PASSWORD 'by hand';
GRANT CONNECT ON DATABASE orders TO by_hand; GRANT USAGE ON SCHEMA public TO by_hand;
CREATE SCHEMA by_hand_m; GRANT USAGE ON SCHEMA by_hand_m TO by_hand;
CREATE VIEW by_hand_m.users WITH (security_barrier) AS SELECT id, name, '****' || right(email, 4) AS email, NULL::text AS ssn FROM public.users;
GRANT SELECT ON by_hand_m.users TO by_hand;
GRANT SELECT (id, user_id, status, total, note) ON public.orders TO by_hand; GRANT SELECT (id, kind, state) ON public.jobs TO by_hand;
ALTER ROLE by_hand SET search_path TO by_hand_m, public; COMMIT`
	handCloses = `BEGIN; ALTER ROLE by_hand NOLOGIN PASSWORD NULL; COMMIT;
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'by_hand';
BEGIN; DROP SCHEMA by_hand_m CASCADE; DROP OWNED BY by_hand; DROP ROLE by_hand; COMMIT`
)
