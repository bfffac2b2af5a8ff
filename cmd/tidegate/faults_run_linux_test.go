package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger"
)

// soaking is set by `make soak`, which has time.
func soaking() bool { return os.Getenv("TIDEGATE_SOAK") == "1" }

// sample is what `make test` plays: each part once, at a moment that is its own.
var sample = []string{
	"minting/control-killed", "active/target-killed", "holding/gateway-killed", "holding/ledger-stopped", "revoking/temporal-killed",
}

// TestFaults kills or stops each part at each moment of a story that must end
// the same. Without `make soak` it is a sample.
func TestFaults(t *testing.T) {
	w := newFaultWorld(t)
	var table []string
	for _, ch := range chapters {
		for _, f := range faults {
			name := ch.name + "/" + f.part + "-" + f.how
			if !soaking() && !slices.Contains(sample, name) {
				continue
			}
			began := time.Now()
			played := false
			ok := t.Run(name, func(t *testing.T) { played = true; w.playCell(t, f, ch) })
			if !played {
				continue // -run chose others
			}
			table = append(table, fmt.Sprintf("%-28s %-5s %6.1f s", name, map[bool]string{true: "ok", false: "wrong"}[ok], time.Since(began).Seconds()))
		}
	}
	t.Logf("the story ended the same:\n%s", strings.Join(table, "\n"))
}

// Bounds of the soak.
const (
	soakGrants   = 200
	grantsAtOnce = 20 // in one pull request
)

// TestSoak opens many short grants while parts fail at random; a seed makes
// the same choices again.
func TestSoak(t *testing.T) {
	if !soaking() {
		t.Skip("it takes minutes: make soak")
	}
	seed := uint64(numberOf(t, "TIDEGATE_SOAK_SEED", int(time.Now().Unix())))
	left := numberOf(t, "TIDEGATE_SOAK_GRANTS", soakGrants)
	t.Logf("TIDEGATE_SOAK_SEED=%d, %d grants", seed, left)
	s := &soak{faultWorld: newFaultWorld(t), chance: rand.New(rand.NewPCG(seed, seed))}
	for round := 1; left > 0; round++ {
		n := min(left, grantsAtOnce)
		left -= n
		if !t.Run(fmt.Sprintf("round %d", round), func(t *testing.T) { s.round(t, round, n) }) {
			return
		}
	}
}

// numberOf is a number of the environment, or what it is without.
func numberOf(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		t.Fatalf("%s is %q, want a number", name, text)
	}
	return n
}

// soak is a world in which parts fail by chance.
type soak struct {
	*faultWorld
	chance *rand.Rand
}

// round opens one pull request of n grants of random lengths, and lets parts
// fail until the last is over. Then nothing may be left of any.
func (s *soak) round(t *testing.T, round, n int) {
	before := s.roles(t)
	branch, ids, files := fmt.Sprintf("soak-%d", round), []string{}, map[string]string{}
	longest := 4*s.pace + 20*time.Second
	for i := range n {
		id := fmt.Sprintf("%s-%d", branch, i)
		lasts := s.between(2*time.Second, longest)
		ids, files["grants/alice/"+id+".hcl"] = append(ids, id), asked{id, "readonly", fmt.Sprintf("%ds", int(lasts.Seconds()))}.file()
	}
	must(t, s.pushAll(t.Context(), "alice", branch, files))
	l, err := s.agreed(t.Context(), branch)
	must(t, err)
	failed := s.failUntil(t, l.merged.Add(longest))
	late := s.over(t, ids)
	if after := s.roles(t); after != before {
		t.Errorf("%d roles at the target after the round, %d before", after, before)
	}
	s.whole(t)
	t.Logf("%d grants, the last revocation %s after its end; %s", n, late.Round(time.Millisecond), strings.Join(failed, ", "))
}

func (s *soak) between(from, to time.Duration) time.Duration {
	return from + time.Duration(s.chance.Int64N(int64(to-from)))
}

// failUntil lets one part after the other fail, while alice comes and goes.
func (s *soak) failUntil(t *testing.T, end time.Time) (failed []string) {
	t.Helper()
	for time.Now().Before(end) {
		until(t.Context(), time.Now().Add(s.between(0, 4*time.Second)))
		f := faults[s.chance.IntN(len(faults))]
		f.strike(t, s.faultWorld)
		_, err := s.query(t.Context(), "alice", demoTarget, "SELECT 1;") // let in or not: it is recorded
		must(t, err)
		until(t.Context(), time.Now().Add(s.between(0, 3*time.Second)))
		f.mend(t, s.faultWorld)
		failed = append(failed, f.String())
	}
	return failed
}

// over waits until every grant is closed, and says how late the last was. One
// that could not be opened in its time is refused or revoked.
func (s *soak) over(t *testing.T, ids []string) (late time.Duration) {
	t.Helper()
	for _, id := range ids {
		var g access.Grant
		s.waits(t, "grant "+id+" closed", func(l *ledger.Ledger) (bool, error) {
			var err error
			g, err = s.row(t.Context(), l, id)
			return !g.Closed.IsZero(), err
		})
		opened := !strings.HasPrefix(g.Why, "It could not be opened")
		if g.State != access.StateExpired && g.State != access.StateRefused && opened {
			t.Errorf("grant %s is %s (%s), want expired, or one that could not be opened in its time", id, g.State, g.Why)
		}
		if g.Backing != nil {
			must(t, leftAt(t.Context(), s.house.admin, g))
		}
		late = max(late, g.Closed.Sub(g.NotAfter))
	}
	return late
}

// roles counts the logins at the target.
func (s *soak) roles(t *testing.T) (n int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.house.admin)
	must(t, err)
	defer conn.Close(context.Background())
	must(t, conn.QueryRow(t.Context(), "select count(*) from pg_roles").Scan(&n))
	return n
}
