package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger"
)

// chapter is where in a grant's story a part fails.
type chapter struct {
	name  string
	ends  access.State            // of the grant, whatever failed
	reach func(*testing.T, *cell) // plays up to the moment
	down  func(*testing.T, *cell) // what must hold while the part is down
	rest  func(*testing.T, *cell) // what follows when it is back
}

// chapters are all of them, in the story's order.
var chapters = []chapter{
	{"approved", access.StateRevoked, reachApproved, downApproved, restApproved},
	{"minting", access.StateRevoked, reachMinting, downMinting, restMinting},
	{"active", access.StateRevoked, reachActive, downActive, restActive},
	{"holding", access.StateRevoked, reachHolding, downHolding, restHolding},
	{"ending", access.StateExpired, reachEnding, downEnding, func(*testing.T, *cell) {}},
	{"revoking", access.StateRevoked, reachRevoking, downRevoking, func(*testing.T, *cell) {}},
}

// asks opens the pull request and gets bob's approval counted.
func (c *cell) asks(t *testing.T, role, lasts string) {
	t.Helper()
	must(t, c.push(t.Context(), "alice", c.id, "grants/alice/"+c.id+".hcl", asked{c.id, role, lasts}.file()))
	var err error
	c.number, err = c.pullRequest(t.Context(), "alice", c.id, "Access for "+c.id)
	must(t, err)
	must(t, c.bobApproves(t.Context(), c.number))
}

// opens plays until alice talks to the target.
func (c *cell) opens(t *testing.T, role, lasts string) {
	t.Helper()
	c.asks(t, role, lasts)
	must(t, c.merge(t.Context(), "bob", c.number))
	c.enters(t, c.id)
	c.talk = c.talkOn(t, demoTarget+"+"+c.id)
}

// sleeps gives psql a statement to wait for: without one it does not hear of
// its session's end.
func (c *cell) sleeps(t *testing.T) {
	t.Helper()
	if _, err := c.talk.in.WriteString("SELECT pg_sleep(200);\n"); err != nil {
		t.Fatal(err)
	}
}

// revokes says the command on the pull request.
func (c *cell) revokes(t *testing.T) {
	t.Helper()
	must(t, c.say(t.Context(), "alice", c.number, "/tidegate revoke "+c.id))
}

// approved: bob's review counts, and nothing is merged yet.

func reachApproved(t *testing.T, c *cell) { c.asks(t, "readonly", "10m") }

// downApproved merges under the fault: what happens then is not lost.
func downApproved(t *testing.T, c *cell) {
	c.noSession(t)
	must(t, c.merge(t.Context(), "bob", c.number))
}

func restApproved(t *testing.T, c *cell) {
	c.enters(t, c.id)
	c.revokes(t)
}

// minting: it landed, and the minter waits at the target.

func reachMinting(t *testing.T, c *cell) {
	c.asks(t, "readonly", "10m")
	c.locker = c.lock(t)
	must(t, c.merge(t.Context(), "bob", c.number))
	c.minterWaits(t)
}

func downMinting(t *testing.T, c *cell) {
	c.noSession(t)
	c.locker.release()
}

func restMinting(t *testing.T, c *cell) { restApproved(t, c) }

// active: a session is open.

func reachActive(t *testing.T, c *cell) { c.opens(t, "readonly", "10m") }

func downActive(t *testing.T, c *cell) {
	c.goesOn(t)
	c.newSession(t)
}

func restActive(t *testing.T, c *cell) {
	c.enters(t, c.id)
	if c.fault.cuts {
		c.revokes(t)
		return
	}
	c.talk.say(t, "SELECT 'still ' || 'here';", "still here")
	c.sleeps(t)
	c.revokes(t)
	c.talk.hears(t, "57P01", patience)
}

// holding: a statement waits for bob.

func reachHolding(t *testing.T, c *cell) {
	c.opens(t, "operator", "10m")
	if _, err := c.talk.in.WriteString("DELETE FROM orders;\n"); err != nil {
		t.Fatal(err)
	}
	err := eventually(t.Context(), patience, func() (bool, error) {
		all, err := c.comments(t.Context(), c.number)
		c.answer = answerLine.FindString(strings.Join(all, "\n"))
		return c.answer != "", err
	})
	if err != nil {
		t.Fatalf("want a hold on the pull request: %v", err)
	}
}

// downHolding: nobody answered, so nothing ran. Bob answers while the part is
// down, which nobody may hear of.
func downHolding(t *testing.T, c *cell) {
	if c.fault.cuts {
		c.cut(t)
	}
	if n := c.reached(t, c.since, "statement: DELETE"); n != 0 {
		t.Errorf("the held statement reached the target before anybody answered, %d times", n)
	}
	must(t, c.say(t.Context(), "bob", c.number, c.answer))
}

func restHolding(t *testing.T, c *cell) {
	if c.fault.cuts {
		c.waits(t, "nothing held", func(l *ledger.Ledger) (bool, error) {
			all, err := l.ListHelds(t.Context())
			return !slices.ContainsFunc(all, func(h access.Held) bool { return h.State == access.HeldOpen || h.State == access.HeldAnswered }), err
		})
	} else {
		c.talk.hears(t, "DELETE 100", patience)
		c.fill(t)
	}
	c.revokes(t)
}

// ending: the end comes while the part is down.

func reachEnding(t *testing.T, c *cell) {
	lasts := max(8*time.Second, 3*c.pace).Round(time.Second)
	c.opens(t, "readonly", fmt.Sprintf("%ds", int(lasts.Seconds())))
	c.waits(t, "grant "+c.id+" active", func(l *ledger.Ledger) (bool, error) {
		var err error
		c.grant, err = c.row(t.Context(), l, c.id)
		return c.grant.State == access.StateActive, err
	})
	if !c.fault.cuts {
		c.sleeps(t)
	}
	until(t.Context(), c.grant.NotAfter.Add(-beforeEnd))
}

// beforeEnd is how long before the end the part fails: the end finds it down.
const beforeEnd = 300 * time.Millisecond

// until waits for a moment.
func until(ctx context.Context, at time.Time) {
	select {
	case <-time.After(time.Until(at)):
	case <-ctx.Done():
	}
}

// downEnding: the gateway's own clock ends the session.
func downEnding(t *testing.T, c *cell) {
	if c.fault.cuts {
		c.cut(t)
	} else {
		c.talk.hears(t, "57P01", time.Until(c.grant.NotAfter)+5*time.Second)
	}
	until(t.Context(), c.grant.NotAfter)
	c.noSession(t)
}

// revoking: the row says revoked, and the revocation waits at the target.

func reachRevoking(t *testing.T, c *cell) {
	c.opens(t, "readonly", "10m")
	c.sleeps(t)
	c.locker = c.lock(t)
	c.revokes(t)
	c.talk.hears(t, "57P01", patience)
	c.minterWaits(t)
}

func downRevoking(t *testing.T, c *cell) {
	c.noSession(t)
	c.locker.release()
}

// fill brings the deleted orders back, for the next story.
func (c *cell) fill(t *testing.T) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), c.house.admin)
	must(t, err)
	defer conn.Close(context.Background())
	_, err = conn.Exec(t.Context(), "insert into public.orders select n, 1 + n % 20, 'paid', n * 1.5, null from generate_series(1, 100) n")
	must(t, err)
}
