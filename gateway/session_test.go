package gateway_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway"
	"github.com/tidegate/tidegate/gateway/gatewaytest"
)

func wantCause(t *testing.T, s gateway.Session, code access.Code, words string) {
	t.Helper()
	err := context.Cause(s.Context())
	if err == nil || access.CodeOf(err) != code || !strings.Contains(access.Message(err), words) {
		t.Errorf("session's cause is %v, want %s with %q", err, code, words)
	}
}

// try knocks as alice, with a choice of grant or role.
func try(t *testing.T, g *gatewaytest.Gate, choice string) (gateway.Session, error) {
	k := g.Knock("alice")
	k.Choice = choice
	return g.Server.Door().Open(t.Context(), k)
}

func TestOpenWhoAndWhat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gatewaytest.New(t, gatewaytest.Options{Still: true, Empty: true})
		if _, err := try(t, g, ""); access.CodeOf(err) != access.CodeUnavailable {
			t.Errorf("open before a snapshot: %v, want unavailable", err)
		}
		first, second := g.NewGrant("inc-1", time.Hour), g.NewGrant("inc-2", time.Hour)
		second.Plan.Role.Name = "write"
		g.Put(first, second)
		_, err := try(t, g, "")
		if access.CodeOf(err) != access.CodeDenied || !strings.Contains(err.Error(), "orders-prod+inc-1 or orders-prod+inc-2") {
			t.Errorf("two grants and no choice: %v", err)
		}
		one, err := try(t, g, "write")
		if err != nil || one.Info().Grant.ID != "inc-2" {
			t.Fatalf("choice by role: %v", err)
		}
		if err := one.Close("done"); err != nil {
			t.Error(err)
		}
		if _, err := try(t, g, "nonesuch"); access.CodeOf(err) != access.CodeDenied {
			t.Errorf("choice of nothing: %v, want denied", err)
		}
		if _, err := g.Server.Door().Open(t.Context(), g.Knock("mallory")); access.CodeOf(err) != access.CodeDenied {
			t.Errorf("stranger: %v, want denied", err)
		}
		time.Sleep(2 * time.Minute)
		if _, err := try(t, g, "inc-1"); access.CodeOf(err) != access.CodeUnavailable {
			t.Errorf("stale snapshot: %v, want unavailable", err)
		}
	})
}

func TestRowsThatAreNotBelieved(t *testing.T) {
	for name, edit := range map[string]func(g *gatewaytest.Gate, old []gateway.SignedGrant) []gateway.SignedGrant{
		"rolled back": func(_ *gatewaytest.Gate, old []gateway.SignedGrant) []gateway.SignedGrant { return old },
		"forged": func(g *gatewaytest.Gate, _ []gateway.SignedGrant) []gateway.SignedGrant {
			rows := g.Ledger.Rows()
			rows[0].Signature[0] ^= 1
			return rows
		},
		"edited": func(g *gatewaytest.Gate, _ []gateway.SignedGrant) []gateway.SignedGrant {
			rows := g.Ledger.Rows()
			rows[0].Payload = []byte(strings.Replace(string(rows[0].Payload), "alice@", "mallory@", 1))
			return rows
		},
		"twice": func(g *gatewaytest.Gate, _ []gateway.SignedGrant) []gateway.SignedGrant {
			return append(g.Ledger.Rows(), g.Ledger.Rows()...)
		},
		"signed twice with one sequence": func(g *gatewaytest.Gate, _ []gateway.SignedGrant) []gateway.SignedGrant {
			payload := strings.Replace(string(g.Ledger.Rows()[0].Payload), `"generation":1`, `"generation":2`, 1)
			return []gateway.SignedGrant{g.Sign([]byte(payload))}
		},
		"signed and not JSON": func(g *gatewaytest.Gate, _ []gateway.SignedGrant) []gateway.SignedGrant {
			return []gateway.SignedGrant{g.Sign([]byte("{"))}
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := gatewaytest.New(t, gatewaytest.Options{Still: true})
			old := g.Ledger.Rows()
			g.Change("inc-1", func(x *access.Grant) { x.NotAfter = x.NotAfter.Add(time.Minute) })
			s := g.Open("alice")
			g.Ledger.SetRows(edit(g, old)...)
			if err := g.Server.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := try(t, g, ""); access.CodeOf(err) != access.CodeDenied {
				t.Errorf("got %v, want denied", err)
			}
			wantCause(t, s, access.CodeEnded, "no longer in the ledger")
		})
	}
}

// TestLedgerThatWentBackInTime: after a restore from an older backup nothing
// opens, not even what did not change since; what goes on by such a row goes
// on; and an end that is written then still cuts.
func TestLedgerThatWentBackInTime(t *testing.T) {
	g := gatewaytest.New(t, gatewaytest.Options{Still: true})
	if err := g.Server.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, backup := g.Open("alice"), g.Ledger.Rows()
	g.Put(g.NewGrant("inc-2", time.Hour), g.NewGrant("inc-3", time.Hour))
	g.Ledger.Restore(backup, 1)
	if err := g.Server.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := try(t, g, "inc-1"); access.CodeOf(err) != access.CodeUnavailable || !strings.Contains(access.Message(err), "back in time") {
		t.Errorf("got %v, want that the ledger went back in time", err)
	}
	if err := g.Server.Ready(); err == nil {
		t.Error("the gateway says that it is ready")
	}
	if s.Context().Err() != nil {
		t.Errorf("a session under an unchanged row ended: %v", context.Cause(s.Context()))
	}
	row, _ := g.Ledger.Grant("inc-1")
	row.State, row.Why, row.Sequence = access.StateRevoked, "It was restored.", 2
	payload, err := json.Marshal(row)
	if err != nil {
		t.Fatal(err)
	}
	g.Ledger.Restore([]gateway.SignedGrant{g.Sign(payload)}, 2)
	if err := g.Server.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantCause(t, s, access.CodeEnded, "It was restored.")
	g.Ledger.Restore(nil, 3) // past what was seen: other writes followed
	if err := g.Server.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := g.Server.Ready(); err != nil {
		t.Errorf("past what it had seen: %v", err)
	}
}

func TestThousandSessionsEndInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gatewaytest.New(t, gatewaytest.Options{Lasts: 30 * time.Second, Tune: func(c *gateway.Config) { c.MaxSessionsPerPerson = 1000 }})
		all := make([]gateway.Session, 1000)
		for i := range all {
			all[i] = g.Open("alice")
		}
		end := all[0].Info().NotAfter
		op, err := all[0].Admit(t.Context(), access.Operation{Kind: "query"})
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range all {
			<-one.Context().Done()
			wantCause(t, one, access.CodeEnded, "https://forge.test/pull/1")
		}
		if late := time.Since(end); late > 500*time.Millisecond {
			t.Errorf("the last session ended %s late", late)
		}
		if _, err := op.Tap(access.ToClient, []byte("row")); err == nil {
			t.Error("bytes passed after the end")
		}
	})
}

func TestRevokedSessionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gatewaytest.New(t, gatewaytest.Options{})
		s := g.Open("alice")
		g.Revoke("inc-1", "The incident is over.")
		wantCause(t, s, access.CodeEnded, "The incident is over.")
	})
}

func TestGrantOnHoldEndsItsSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gatewaytest.New(t, gatewaytest.Options{})
		s := g.Open("alice")
		g.Change("inc-1", func(x *access.Grant) { x.Paused = "bob: odd queries" })
		wantCause(t, s, access.CodeEnded, "put on hold by bob: odd queries")
		if _, err := try(t, g, "inc-1"); access.CodeOf(err) != access.CodeDenied {
			t.Error("a session opened under a grant on hold")
		}
		g.Change("inc-1", func(x *access.Grant) { x.Paused = "" })
		g.Open("alice")
	})
}

func TestRecorderFailureCutsBeforeForwarding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gatewaytest.New(t, gatewaytest.Options{})
		s := g.Open("alice")
		g.Fail(gatewaytest.PortAppend, errors.New("disk full"))
		if op, err := s.Admit(t.Context(), access.Operation{}); err == nil || op != nil {
			t.Errorf("admitted unrecorded: %v", err)
		}
		wantCause(t, s, access.CodeUnavailable, "recorded")
	})
}

func TestHold(t *testing.T) {
	reply := func(by string, yes bool) *gatewaytest.Reply {
		return &gatewaytest.Reply{By: gatewaytest.User(by), Approve: yes}
	}
	edited, forged, other := reply("carol", true), reply("carol", true), reply("carol", true)
	edited.Edit = func(a *access.Answer) { a.Digest = strings.Repeat("0", 64) }
	other.Edit = func(a *access.Answer) { a.Held = "another" }
	no := reply("carol", false)
	no.Forge = func(a *access.Answer) { a.Approve = true }
	forged.Forge = func(a *access.Answer) { a.Signature[0] ^= 1 }
	late := reply("carol", true)
	late.Edit = func(a *access.Answer) { a.At = a.At.Add(time.Hour) }
	for name, c := range map[string]struct {
		reply  *gatewaytest.Reply
		cancel bool
		code   access.Code // "" is admitted
		state  access.HeldState
	}{
		"approved":                {reply("carol", true), false, "", access.HeldConsumed},
		"denied":                  {reply("carol", false), false, access.CodeDenied, access.HeldAnswered},
		"by a person in grant":    {reply("alice", true), false, access.CodeDenied, access.HeldCancelled},
		"by somebody not asked":   {reply("mallory", true), false, access.CodeDenied, access.HeldCancelled},
		"nobody":                  {nil, false, access.CodeDenied, access.HeldTimedOut},
		"cancelled by the client": {nil, true, access.CodeCancelled, access.HeldCancelled},
		"for another digest":      {edited, false, access.CodeDenied, access.HeldCancelled},
		"for another hold":        {other, false, access.CodeDenied, access.HeldCancelled},
		"forged":                  {forged, false, access.CodeDenied, access.HeldCancelled},
		"a no made yes":           {no, false, access.CodeDenied, access.HeldCancelled},
		"after its end":           {late, false, access.CodeDenied, access.HeldCancelled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := gatewaytest.New(t, gatewaytest.Options{OnHeld: func(access.Held) *gatewaytest.Reply { return c.reply }})
				g.Rules(holdBig("alice", "carol"))
				s := g.Open("alice")
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if c.cancel {
					time.AfterFunc(time.Second, cancel)
				}
				op, err := s.Admit(ctx, deletion)
				if c.code == "" && (err != nil || op == nil) || c.code != "" && (err == nil || access.CodeOf(err) != c.code) {
					t.Errorf("got %v, want code %q", err, c.code)
				}
				if all := g.Ledger.AllHeld(); len(all) != 1 || all[0].State != c.state {
					t.Errorf("held: %+v, want one that is %s", all, c.state)
				}
			})
		})
	}
}

func TestHoldThatNobodyMayAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gatewaytest.New(t, gatewaytest.Options{})
		g.Rules(holdBig("alice"))
		if op, err := g.Open("alice").Admit(t.Context(), deletion); op != nil || access.CodeOf(err) != access.CodeDenied {
			t.Errorf("got %v, %v; want denied at once", op, err)
		}
		if n := len(g.Ledger.AllHeld()); n != 0 {
			t.Errorf("%d operations are held for nobody", n)
		}
	})
}
