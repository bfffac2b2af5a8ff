package workflows

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
)

func grantOn(w *world, id, target string, ends time.Time) access.Grant {
	r := request(id, 3600)
	r.On.Name = target
	g, err := w.Create(context.Background(), access.Grant{
		Key: access.GrantKey{Repo: repoID, ID: id}, Generation: 1, State: access.StateActive, NotBefore: ends.Add(-time.Hour), NotAfter: ends,
		Plan: access.Plan{Request: r, Target: access.Target{TargetRef: r.On}}, Backing: []byte("{}"), Pull: access.Pull{Repo: repoID, Number: 7},
	})
	if err != nil {
		panic(err)
	}
	w.minted[g.Key] = true
	return g
}

// hangs is a minter at which one target hangs until its caller gives up.
type hangs struct {
	fakeMinter
	target string
	asked  *int
}

func (m hangs) Revoke(ctx context.Context, g access.Grant) error {
	if g.Plan.Target.Name != m.target {
		return m.fakeMinter.Revoke(ctx, g)
	}
	m.w.mu.Lock()
	*m.asked++
	m.w.mu.Unlock()
	<-ctx.Done()
	return &access.Error{Code: access.CodeUnavailable, Message: "It does not answer.", Cause: ctx.Err()}
}

// TestDeadTargetDelaysNoOther: the grants of a target that answers are closed
// while another hangs, which is asked once a sweep.
func TestDeadTargetDelaysNoOther(t *testing.T) {
	w := newWorld(t)
	a := w.activities()
	asked := 0
	a.Minters = map[string]Minter{"postgres": hangs{fakeMinter{w}, "dead", &asked}}
	ended := time.Now().Add(-2 * time.Minute)
	for _, id := range []string{"a", "b", "c"} {
		grantOn(w, "dead-"+id, "dead", ended)
	}
	living := grantOn(w, "living", "living", ended)
	ctx, cancel := context.WithCancel(t.Context())
	var sweeping sync.WaitGroup
	sweeping.Go(func() {
		if err := newSweeper(a).sweep(ctx); err == nil {
			t.Error("a target that hangs is silent")
		}
	})
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for closed := false; !closed; {
		select {
		case <-tick.C:
			closed = !w.grant(t, living.Key).Closed.IsZero()
		case <-t.Context().Done():
			t.Fatal("the living target's grant was not closed while the other hung")
		}
	}
	cancel()
	sweeping.Wait()
	alerts := slices.DeleteFunc(w.audits, func(line string) bool { return !strings.Contains(line, " grant.alert ") })
	if asked != 1 || len(alerts) != 3 {
		t.Errorf("the dead target was asked %d times, with alerts %q; want once, and one for each grant", asked, alerts)
	}
}

func TestGateLeavesRoom(t *testing.T) {
	g := newGate()
	one, other := access.TargetRef{Kind: "postgres", Name: "one"}, access.TargetRef{Kind: "postgres", Name: "other"}
	for range maxPerTarget {
		if !g.enter(one) {
			t.Fatal("full too soon")
		}
	}
	if err := g.through(one, func() error { t.Error("one more went in"); return nil }); !isBusy(err) || activityError(err) != err {
		t.Errorf("got %v, want an error that is tried again soon", err)
	}
	inside := errors.New("inside")
	if err := g.through(other, func() error { return inside }); err != inside {
		t.Errorf("got %v at another target", err)
	}
	g.leave(one)
	if err := g.through(one, func() error { return nil }); err != nil {
		t.Error(err)
	}
	for range maxPerTarget - 1 {
		g.leave(one)
	}
	if len(g.inside) != 0 {
		t.Errorf("it remembers %v", g.inside)
	}
}
