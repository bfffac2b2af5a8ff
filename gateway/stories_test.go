package gateway_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway"
	"github.com/tidegate/tidegate/gateway/gatewaytest"
	"github.com/tidegate/tidegate/gateway/identify/devissuer"
)

// holdBig asks a team about everything that deletes.
func holdBig(asked ...string) access.Rule {
	return access.Rule{Name: "big", Hold: "delete", Say: "Big.", Ask: []access.Party{gatewaytest.Team("acme/dba", asked...)}}
}

var deletion = access.Operation{Kind: "query", Text: "delete from orders"}

type admitted struct {
	op  gateway.Open
	err error
}

// admit asks in the background; the test goes on once it waits.
func admit(ctx context.Context, s gateway.Session, op access.Operation) <-chan admitted {
	out := make(chan admitted, 1)
	go func() {
		o, err := s.Admit(ctx, op)
		out <- admitted{o, err}
	}()
	return out
}

func TestAnswerArrivesWhileAdmitWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gatewaytest.New(t, gatewaytest.Options{})
		g.Rules(holdBig("carol"))
		s := g.Open("alice")
		waiting := admit(t.Context(), s, deletion)
		h := g.NextHeld()
		time.Sleep(7*time.Minute + time.Millisecond) // beside the beat of every poll
		synctest.Wait()
		select {
		case got := <-waiting:
			t.Fatalf("nobody answered, and got %v, %v", got.op, got.err)
		case text := <-s.Warnings():
			if !strings.Contains(text, "/tidegate approve H1 "+h.Short()) || !strings.Contains(text, "acme/dba") {
				t.Errorf("the person is told %q, want how to answer", text)
			}
		default:
			t.Error("the person is told nothing")
		}
		answered := time.Now()
		g.Answer(h, gatewaytest.Reply{By: gatewaytest.User("carol"), Approve: true})
		got := <-waiting
		if got.err != nil {
			t.Fatal(got.err)
		}
		if late := time.Since(answered); late != 0 {
			t.Errorf("the answer was seen after %s, want at once: it was announced", late)
		}
		if say := got.op.Decision().Say; say != "Approved by carol (H1)." {
			t.Errorf("the decision says %q", say)
		}
		if err := got.op.Close(access.Outcome{Status: "ok"}); err != nil {
			t.Error(err)
		}
		want := []access.EventType{access.EventSessionStart, access.EventOpen, access.EventHoldOpen, access.EventNotice, access.EventHoldAnswer, access.EventClose}
		if diff := cmp.Diff(want, g.Tape.Types(s.Info().ID)); diff != "" {
			t.Errorf("recording (-want +got):\n%s", diff)
		}
		if again := g.Ledger.AllHeld(); len(again) != 1 || again[0].State != access.HeldConsumed {
			t.Errorf("held: %+v, want one that is consumed", again)
		}
	})
}

func TestHoldEndsWithItsGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gatewaytest.New(t, gatewaytest.Options{})
		g.Rules(holdBig("carol"))
		waiting := admit(t.Context(), g.Open("alice"), deletion)
		h := g.NextHeld()
		g.Revoke("inc-1", "Over.")
		if got := <-waiting; access.CodeOf(got.err) != access.CodeEnded {
			t.Errorf("got %v, want ended", got.err)
		}
		if now, _ := g.Ledger.Held(t.Context(), h.ID); now.State != access.HeldCancelled {
			t.Errorf("the hold is %s, want cancelled", now.State)
		}
	})
}

func TestHoldThatCannotBeStoredOrTaken(t *testing.T) {
	for _, port := range []gatewaytest.Port{gatewaytest.PortOpenHeld, gatewaytest.PortConsumeHeld} {
		t.Run(string(port), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := gatewaytest.New(t, gatewaytest.Options{OnHeld: func(access.Held) *gatewaytest.Reply {
					return &gatewaytest.Reply{By: gatewaytest.User("carol"), Approve: true}
				}})
				g.Rules(holdBig("carol"))
				s := g.Open("alice")
				g.Fail(port, errors.New("database is locked"))
				if op, err := s.Admit(t.Context(), deletion); op != nil || access.CodeOf(err) != access.CodeUnavailable {
					t.Errorf("got %v, %v; want unavailable", op, err)
				}
				if _, err := s.Admit(t.Context(), access.Operation{Text: "select 1"}); err != nil {
					t.Errorf("the session is not usable after it: %v", err)
				}
			})
		})
	}
}

func TestRulesChangeWhileSessionIsOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gatewaytest.New(t, gatewaytest.Options{})
		s := g.Open("alice")
		before := s.Generation()
		if d := s.Judge(deletion); d.Verdict != access.Allow {
			t.Fatalf("got %+v, want allow", d)
		}
		g.Put(g.NewGrant("inc-2", time.Hour))
		if s.Generation() != before {
			t.Error("another grant changed the generation; kept decisions are lost for nothing")
		}
		g.Rules(access.Rule{Name: "freeze", Deny: "delete", Say: "Frozen."})
		if s.Generation() == before {
			t.Error("the rules changed and the generation did not")
		}
		if op, err := s.Admit(t.Context(), deletion); op != nil || access.CodeOf(err) != access.CodeDenied || access.Message(err) != "Frozen." {
			t.Errorf("got %v, %v; want the rule's sentence", op, err)
		}
		g.Fail(gatewaytest.PortCompile, errors.New("line 3"))
		g.Rules(access.Rule{Name: "broken", Say: "?"})
		wantCause(t, s, access.CodeUnavailable, "rules")
	})
}

func TestRulesTightenWhileHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gatewaytest.New(t, gatewaytest.Options{})
		g.Rules(holdBig("carol"))
		waiting := admit(t.Context(), g.Open("alice"), deletion)
		h := g.NextHeld()
		g.Rules(holdBig("carol"), access.Rule{Name: "freeze", Deny: "delete", Say: "Frozen."})
		g.Answer(h, gatewaytest.Reply{By: gatewaytest.User("carol"), Approve: true})
		if got := <-waiting; access.CodeOf(got.err) != access.CodeDenied || access.Message(got.err) != "Frozen." {
			t.Errorf("got %v, want the newer rule to win over the yes", got.err)
		}
	})
}

// TestChangeWhileTheAnswerIsTaken is the last moment before bytes go out.
func TestChangeWhileTheAnswerIsTaken(t *testing.T) {
	for name, c := range map[string]struct {
		change func(g *gatewaytest.Gate, id string)
		code   access.Code
	}{
		"the rules": {func(g *gatewaytest.Gate, _ string) {
			g.Rules(holdBig("carol"), access.Rule{Name: "freeze", Deny: "delete", Say: "Frozen."})
		}, access.CodeDenied},
		"the grant": {func(g *gatewaytest.Gate, _ string) { g.Revoke("inc-1", "Over.") }, access.CodeEnded},
		"the hold": {func(g *gatewaytest.Gate, id string) {
			_ = g.Ledger.CancelHeld(context.Background(), id, access.HeldCancelled)
		}, access.CodeConflict},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := gatewaytest.New(t, gatewaytest.Options{OnConsume: c.change, OnHeld: func(access.Held) *gatewaytest.Reply {
					return &gatewaytest.Reply{By: gatewaytest.User("carol"), Approve: true}
				}})
				g.Rules(holdBig("carol"))
				if op, err := g.Open("alice").Admit(t.Context(), deletion); op != nil || access.CodeOf(err) != c.code {
					t.Errorf("got %v, %v; want %s", op, err, c.code)
				}
			})
		})
	}
}

func TestExtensionMovesTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gatewaytest.New(t, gatewaytest.Options{Lasts: 10 * time.Minute})
		s := g.Open("alice")
		first := s.Info().NotAfter
		g.Change("inc-1", func(x *access.Grant) { x.NotAfter = x.NotAfter.Add(time.Hour) })
		if got := s.Info().NotAfter; !got.Equal(first.Add(time.Hour)) {
			t.Errorf("the end is %s, want an hour after %s", got, first)
		}
		time.Sleep(time.Until(first) + time.Minute)
		if op, err := s.Admit(t.Context(), access.Operation{Text: "select 1"}); err != nil {
			t.Fatalf("after the first end: %v", err)
		} else if err := op.Close(access.Outcome{Status: "ok"}); err != nil {
			t.Error(err)
		}
		g.Change("inc-1", func(x *access.Grant) { x.NotAfter = time.Now().Add(30 * time.Second) })
		shortened := time.Now()
		<-s.Context().Done()
		if took := time.Since(shortened); took != 30*time.Second {
			t.Errorf("the shortened grant ended after %s, want 30s", took)
		}
		wantCause(t, s, access.CodeEnded, "Ask again: https://forge.test/pull/1")
	})
}

func TestWarnings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gatewaytest.New(t, gatewaytest.Options{Lasts: 20 * time.Minute})
		s := g.Open("alice")
		end := s.Info().NotAfter
		at := end.UTC().Format("15:04 UTC")
		for _, want := range []struct {
			before time.Duration
			text   string
		}{
			{5 * time.Minute, "Your grant inc-1 ends in 5 minutes, at " + at + "."},
			{time.Minute, "Your grant inc-1 ends in 1 minute, at " + at + "."},
		} {
			if got := <-s.Warnings(); got != want.text || !time.Now().Equal(end.Add(-want.before)) {
				t.Errorf("%s before the end: got %q; want %q %s before", time.Until(end), got, want.text, want.before)
			}
		}
		notices := 0
		for _, e := range g.Tape.Events(s.Info().ID) {
			if e.Type == access.EventNotice {
				notices++
			}
		}
		if notices != 2 {
			t.Errorf("%d warnings are in the recording, want 2", notices)
		}
	})
}

func TestStaleSnapshot(t *testing.T) {
	for _, c := range []struct {
		when string
		ends bool
	}{{"end", true}, {"", false}} {
		t.Run("when_stale="+c.when, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				target := access.Target{TargetRef: access.TargetRef{Kind: "postgres", Name: "orders-prod"}, WhenStale: c.when}
				g := gatewaytest.New(t, gatewaytest.Options{Target: target})
				s := g.Open("alice")
				g.Fail(gatewaytest.PortSnapshot, errors.New("connection refused"))
				time.Sleep(4 * time.Minute)
				if s.Context().Err() != nil {
					t.Errorf("ended after 4 minutes: %v", context.Cause(s.Context()))
				}
				if _, err := g.Server.Door().Open(t.Context(), g.Knock("alice")); access.CodeOf(err) != access.CodeUnavailable {
					t.Errorf("a new session while stale: %v, want unavailable", err)
				}
				time.Sleep(90 * time.Second)
				synctest.Wait()
				if ended := s.Context().Err() != nil; ended != c.ends {
					t.Errorf("after 5 min 30 s the session ended: %t, want %t", ended, c.ends)
				}
				if c.ends {
					wantCause(t, s, access.CodeUnavailable, "not heard from its ledger")
				}
				g.Fail(gatewaytest.PortSnapshot, nil)
				time.Sleep(20 * time.Second)
				g.Open("alice")
			})
		})
	}
}

func TestCloseWhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gatewaytest.New(t, gatewaytest.Options{})
		bobs := g.NewGrant("inc-2", time.Hour)
		bobs.Plan.People = []access.Person{gatewaytest.Person("bob")}
		g.Put(bobs)
		a, b := g.Open("alice"), g.Open("bob")
		// It needs no other part.
		for _, p := range []gatewaytest.Port{gatewaytest.PortSnapshot, gatewaytest.PortIssuer, gatewaytest.PortLease, gatewaytest.PortAppend, gatewaytest.PortCloseSession} {
			g.Fail(p, errors.New("down"))
		}
		n := g.Server.CloseWhere(func(s access.SessionInfo) bool { return s.Person.Login == "alice" }, "Alice's laptop was stolen.")
		if n != 1 {
			t.Errorf("closed %d sessions, want 1", n)
		}
		wantCause(t, a, access.CodeEnded, "Alice's laptop was stolen.")
		if err := b.Context().Err(); err != nil {
			t.Errorf("bob's session ended too: %v", context.Cause(b.Context()))
		}
		if op, err := a.Admit(t.Context(), access.Operation{Text: "select 1"}); op != nil || access.CodeOf(err) != access.CodeEnded {
			t.Errorf("after it: %v, %v; want ended", op, err)
		}
	})
}

// TestEndIsToldWhenTheLedgerIsBack: a session that ends while the ledger is
// away does not stay open in it.
func TestEndIsToldWhenTheLedgerIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gatewaytest.New(t, gatewaytest.Options{})
		s := g.Open("alice")
		id := s.Info().ID
		g.Fail(gatewaytest.PortCloseSession, errors.New("down"))
		if err := s.Close("Alice left."); err == nil {
			t.Error("want an error: the ledger was not told")
		}
		g.Fail(gatewaytest.PortCloseSession, nil)
		time.Sleep(time.Minute) // of the fake clock: some polls
		synctest.Wait()
		if reason, ok := g.Ledger.Closed(id); !ok || reason != "Alice left." {
			t.Errorf("the session's end is %q, %t; want why it ended", reason, ok)
		}
	})
}

func TestReasonIsKeptEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gatewaytest.New(t, gatewaytest.Options{})
		s := g.Open("alice")
		op, err := s.Admit(t.Context(), access.Operation{Text: "select 1"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := op.Tap(access.ToClient, []byte("row")); err != nil {
			t.Fatal(err)
		}
		g.Server.CloseWhere(func(access.SessionInfo) bool { return true }, "Stolen.")
		if err := s.Close("The client left."); err != nil {
			t.Error(err)
		}
		id := s.Info().ID
		if reason, ok := g.Ledger.Closed(id); !ok || reason != "Stolen." {
			t.Errorf("the ledger has %q, want the cause of the cut", reason)
		}
		if reason, ok := g.Tape.Sealed(id); !ok || reason != "Stolen." {
			t.Errorf("the recording is sealed with %q", reason)
		}
		events := g.Tape.Events(id)
		last, cut := events[len(events)-1], events[len(events)-2]
		if last.Type != access.EventSessionEnd || last.Text != "Stolen." || cut.Type != access.EventClose || cut.Outcome.Status != "cut" || cut.Outcome.Bytes != 3 {
			t.Errorf("the recording ends with %+v, %+v", cut, last)
		}
		if heads := g.Ledger.Heads(); len(heads) == 0 || !heads[len(heads)-1].Sealed {
			t.Errorf("anchored heads: %+v, want the sealed one last", heads)
		}
	})
}

func TestSessionsPerPerson(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gatewaytest.New(t, gatewaytest.Options{Tune: func(c *gateway.Config) { c.MaxSessionsPerPerson, c.MaxSessions = 2, 3 }})
		bobs := g.NewGrant("inc-2", time.Hour)
		bobs.Plan.People = []access.Person{gatewaytest.Person("bob")}
		g.Put(bobs)
		one := g.Open("alice")
		g.Open("alice")
		if _, err := g.Server.Door().Open(t.Context(), g.Knock("alice")); access.CodeOf(err) != access.CodeTooLarge || !strings.Contains(access.Message(err), "2 sessions") {
			t.Errorf("alice's third session: %v, want too large", err)
		}
		g.Open("bob")
		if err := one.Close("done"); err != nil {
			t.Error(err)
		}
		if err := one.Close("again"); err != nil {
			t.Error(err)
		}
		g.Open("alice")
		if _, err := g.Server.Door().Open(t.Context(), g.Knock("bob")); access.CodeOf(err) != access.CodeUnavailable || !strings.Contains(access.Message(err), "its most") {
			t.Errorf("the fourth session in all: %v, want unavailable", err)
		}
	})
}

// TestFailureInsideOpen lets each step of the road in fail, and wants nothing
// left of what was begun: no place taken, nothing listed, nothing unsealed.
func TestFailureInsideOpen(t *testing.T) {
	broken := errors.New("secret detail of the inside")
	for _, c := range []struct {
		port gatewaytest.Port
		code access.Code
	}{
		{gatewaytest.PortIssuer, access.CodeUnavailable},
		{gatewaytest.PortPin, access.CodeUnavailable},
		{gatewaytest.PortLease, access.CodeUnavailable},
		{gatewaytest.PortCompile, access.CodeUnavailable},
		{gatewaytest.PortRecord, access.CodeUnavailable},
		{gatewaytest.PortAppend, access.CodeUnavailable},
		{gatewaytest.PortOpenSession, access.CodeUnavailable},
	} {
		t.Run(string(c.port), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := gatewaytest.New(t, gatewaytest.Options{Tune: func(c *gateway.Config) { c.MaxSessionsPerPerson = 1 }})
				g.Fail(c.port, broken)
				s, err := g.Server.Door().Open(t.Context(), g.Knock("alice"))
				if s != nil || access.CodeOf(err) != c.code || strings.Contains(access.Message(err), "secret detail") {
					t.Errorf("got %v, %v; want %s without the inside", s, err, c.code)
				}
				if !errors.Is(err, broken) && c.port != gatewaytest.PortIssuer {
					t.Errorf("the cause is lost for the log: %v", err)
				}
				nothingLeft(t, g)
				g.Fail(c.port, nil)
				time.Sleep(3 * time.Second) // an issuer is not asked again at once
				g.Open("alice")
			})
		})
	}
}

func nothingLeft(t *testing.T, g *gatewaytest.Gate) {
	t.Helper()
	if n := len(g.Server.Sessions()); n != 0 {
		t.Errorf("the server lists %d sessions, want none", n)
	}
	if n := len(g.Ledger.Sessions()); n != 0 {
		t.Errorf("the ledger lists %d sessions, want none", n)
	}
	if ids := g.Tape.Unsealed(); len(ids) != 0 {
		t.Errorf("%d recordings are not sealed", len(ids))
	}
}

func TestOpenRefusesWhatIsNotWhole(t *testing.T) {
	leaseOf := func(edit func(*access.Lease)) gatewaytest.Options {
		return gatewaytest.Options{Lease: func(_ access.Grant, l *access.Lease) error { edit(l); return nil }}
	}
	claims := func(c devissuer.Claims) func(*gatewaytest.Gate, *gateway.Knock) {
		return func(g *gatewaytest.Gate, k *gateway.Knock) { k.Token = access.NewSecret(g.Mint(c)) }
	}
	for name, c := range map[string]struct {
		opts gatewaytest.Options
		edit func(*gatewaytest.Gate, *gateway.Knock)
		code access.Code
	}{
		"no token":             {edit: func(_ *gatewaytest.Gate, k *gateway.Knock) { k.Token = access.Secret{} }, code: access.CodeUnauthenticated},
		"token for others":     {edit: claims(devissuer.Claims{Subject: "alice", Email: "alice@acme.test", EmailVerified: true, Audience: "payroll"}), code: access.CodeUnauthenticated},
		"unverified e-mail":    {edit: claims(devissuer.Claims{Subject: "alice", Email: "alice@acme.test", Audience: "tidegate"}), code: access.CodeDenied},
		"another target":       {edit: func(_ *gatewaytest.Gate, k *gateway.Knock) { k.Target.Name = "hr" }, code: access.CodeDenied},
		"lease of another":     {opts: leaseOf(func(l *access.Lease) { l.Grant.ID = "inc-9" }), code: access.CodeConflict},
		"lease of older mint":  {opts: leaseOf(func(l *access.Lease) { l.Generation-- }), code: access.CodeConflict},
		"lease for a stranger": {opts: leaseOf(func(l *access.Lease) { l.Session = "x" }), code: access.CodeConflict},
		"server is going":      {edit: func(g *gatewaytest.Gate, _ *gateway.Knock) { _ = g.Server.Shutdown(context.Background()) }, code: access.CodeUnavailable},
		"grant not yet": {edit: func(g *gatewaytest.Gate, _ *gateway.Knock) {
			g.Change("inc-1", func(x *access.Grant) { x.NotBefore = time.Now().Add(time.Minute) })
		}, code: access.CodeDenied},
		"grant landed, unready": {edit: func(g *gatewaytest.Gate, _ *gateway.Knock) {
			g.Change("inc-1", func(x *access.Grant) { x.State = access.StateLanded })
		}, code: access.CodeDenied},
		"two persons match": {edit: func(g *gatewaytest.Gate, _ *gateway.Knock) {
			g.Change("inc-1", func(x *access.Grant) {
				twin := gatewaytest.Person("bob")
				twin.Identities = gatewaytest.Person("alice").Identities
				x.Plan.People = append(slices.Clone(x.Plan.People), twin)
			})
		}, code: access.CodeDenied},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := gatewaytest.New(t, c.opts)
				k := g.Knock("alice")
				if c.edit != nil {
					c.edit(g, &k)
				}
				if s, err := g.Server.Door().Open(t.Context(), k); s != nil || access.CodeOf(err) != c.code {
					t.Errorf("got %v, %v; want %s", s, err, c.code)
				}
				nothingLeft(t, g)
			})
		})
	}
}

func TestSecondSubjectOfAnAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gatewaytest.New(t, gatewaytest.Options{})
		g.Open("alice")
		k := g.Knock("alice")
		k.Token = access.NewSecret(g.Mint(devissuer.Claims{Subject: "hired-later", Email: "alice@acme.test", EmailVerified: true, Audience: "tidegate"}))
		if _, err := g.Server.Door().Open(t.Context(), k); access.CodeOf(err) != access.CodeDenied {
			t.Errorf("another subject with alice's address: %v, want denied", err)
		}
	})
}
