package gateway

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidegate/tidegate/access"
)

// house is every port of a gateway in memory.
type house struct {
	mu      sync.Mutex
	key     ed25519.PrivateKey
	rows    []SignedGrant
	held    map[string]access.Held
	verdict func(access.Operation) access.Decision
	events  []access.Event
	broken  bool // the recorder
	onHeld  func(*access.Held)
	closed  []string
}

var target = access.TargetRef{Kind: "postgres", Name: "orders-prod"}

func newHouse(t *testing.T) (*house, *Server) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	h := &house{key: key, held: map[string]access.Held{}, verdict: func(access.Operation) access.Decision { return access.Decision{Verdict: access.Allow} }}
	s, err := New(Config{Ledger: h, Minter: h, Identifier: h, Compiler: h, Recorders: h, ControlKey: pub, MaxSessionsPerPerson: 2000})
	if err != nil {
		t.Fatal(err)
	}
	return h, s
}

func grant(id string, seq int64, lasts time.Duration) access.Grant {
	now := time.Now()
	return access.Grant{
		Key: access.GrantKey{Repo: 1, ID: id}, Sequence: seq, Generation: 1, State: access.StateActive,
		NotBefore: now.Add(-time.Minute), NotAfter: now.Add(lasts), Pull: access.Pull{URL: "https://forge.test/pull/1"},
		Plan: access.Plan{Target: access.Target{TargetRef: target}, Role: access.Role{Name: "role-" + id}, People: []access.Person{{
			User: access.User{ID: 1, Login: "alice"}, Identities: []access.IdentityRef{{Provider: "idp", Subject: "alice"}}}}},
	}
}

func (h *house) set(gs ...access.Grant) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.rows = nil
	for _, g := range gs {
		b, _ := json.Marshal(g)
		h.rows = append(h.rows, SignedGrant{b, ed25519.Sign(h.key, access.GrantSigningBytes(b))})
	}
}

func (h *house) Snapshot(context.Context) (Snapshot, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return Snapshot{Grants: h.rows}, nil
}
func (h *house) Changed(context.Context) (<-chan struct{}, error)      { return nil, nil }
func (h *house) Pin(context.Context, access.Identity) error            { return nil }
func (h *house) OpenSession(context.Context, access.SessionInfo) error { return nil }
func (h *house) Anchor(context.Context, access.Head) error             { return nil }
func (h *house) CloseSession(_ context.Context, id, reason string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = append(h.closed, reason)
	return nil
}
func (h *house) OpenHeld(_ context.Context, x access.Held) (access.Held, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	x.Number = len(h.held) + 1
	if h.onHeld != nil {
		h.onHeld(&x)
	}
	h.held[x.ID] = x
	return x, nil
}
func (h *house) Held(_ context.Context, id string) (access.Held, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.held[id], nil
}
func (h *house) ConsumeHeld(_ context.Context, id string) (access.Held, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	x := h.held[id]
	if x.State != access.HeldAnswered {
		return x, access.Errorf(access.CodeConflict, "got state %s, want answered", x.State)
	}
	x.State = access.HeldConsumed
	h.held[id] = x
	return x, nil
}
func (h *house) CancelHeld(_ context.Context, id string, st access.HeldState) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	x := h.held[id]
	x.State = st
	h.held[id] = x
	return nil
}
func (h *house) Lease(_ context.Context, k access.GrantKey, session string) (access.Lease, error) {
	return access.Lease{Grant: k, Generation: 1, Session: session}, nil
}
func (h *house) Identify(_ context.Context, token access.Secret) (access.Identity, error) {
	return access.Identity{Provider: "idp", Subject: token.Reveal()}, nil
}
func (h *house) Compile([]access.Rule, access.Grant, access.Identity) (access.Judge, error) {
	return access.JudgeFunc(func(op access.Operation) access.Decision { return h.verdict(op) }), nil
}
func (h *house) Record(access.SessionInfo, func(access.Head)) (Recorder, error) { return h, nil }
func (h *house) Append(e access.Event, _ bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.broken {
		return errors.New("disk full")
	}
	h.events = append(h.events, e)
	return nil
}
func (h *house) Seal(string) (access.Head, error) { return access.Head{Sealed: true}, nil }

func knock(choice string) Knock {
	return Knock{Token: access.NewSecret("alice"), Target: target, Choice: choice}
}

func mustOpen(t *testing.T, s *Server) Session {
	t.Helper()
	one, err := s.Door().Open(t.Context(), knock(""))
	if err != nil {
		t.Fatal(err)
	}
	return one
}

func refresh(t *testing.T, s *Server) {
	t.Helper()
	if err := s.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func wantCause(t *testing.T, one Session, code access.Code, words string) {
	t.Helper()
	err := context.Cause(one.Context())
	if err == nil || access.CodeOf(err) != code || !strings.Contains(access.Message(err), words) {
		t.Errorf("session's cause is %v, want %s with %q", err, code, words)
	}
}

func TestOpenWhoAndWhat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s := newHouse(t)
		if _, err := s.Door().Open(t.Context(), knock("")); access.CodeOf(err) != access.CodeUnavailable {
			t.Errorf("open before a snapshot: %v, want unavailable", err)
		}
		h.set(grant("inc-1", 1, time.Hour), grant("inc-2", 2, time.Hour))
		refresh(t, s)
		_, err := s.Door().Open(t.Context(), knock(""))
		if access.CodeOf(err) != access.CodeDenied || !strings.Contains(err.Error(), "orders-prod+inc-1 or orders-prod+inc-2") {
			t.Errorf("two grants and no choice: %v", err)
		}
		one, err := s.Door().Open(t.Context(), knock("role-inc-2"))
		if err != nil || one.Info().Grant.ID != "inc-2" {
			t.Fatalf("choice by role: %v", err)
		}
		if err := one.Close("done"); err != nil {
			t.Error(err)
		}
		mallory := knock("")
		mallory.Token = access.NewSecret("mallory")
		if _, err := s.Door().Open(t.Context(), mallory); access.CodeOf(err) != access.CodeDenied {
			t.Errorf("stranger: %v, want denied", err)
		}
		time.Sleep(2 * time.Minute)
		if _, err := s.Door().Open(t.Context(), knock("inc-1")); access.CodeOf(err) != access.CodeUnavailable {
			t.Errorf("stale snapshot: %v, want unavailable", err)
		}
	})
}

func TestRowsThatAreNotBelieved(t *testing.T) {
	h, s := newHouse(t)
	h.set(grant("inc-1", 5, time.Hour))
	refresh(t, s)
	h.set(grant("inc-1", 4, 2*time.Hour))
	if err := s.Refresh(t.Context()); err != nil && s.book.view.Load() == nil {
		t.Fatal(err)
	}
	if _, err := s.Door().Open(t.Context(), knock("")); access.CodeOf(err) != access.CodeDenied {
		t.Errorf("rolled back: %v, want denied", err)
	}
	h.set(grant("inc-1", 6, time.Hour))
	h.rows[0].Signature[0] ^= 1
	_ = s.Refresh(t.Context())
	if _, err := s.Door().Open(t.Context(), knock("")); access.CodeOf(err) != access.CodeDenied {
		t.Errorf("forged: %v, want denied", err)
	}
}

func TestThousandSessionsEndInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s := newHouse(t)
		g := grant("inc-1", 1, 30*time.Second)
		h.set(g)
		refresh(t, s)
		all := make([]Session, 1000)
		for i := range all {
			all[i] = mustOpen(t, s)
		}
		op, err := all[0].Admit(t.Context(), access.Operation{Kind: "query"})
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range all {
			<-one.Context().Done()
			wantCause(t, one, access.CodeEnded, "https://forge.test/pull/1")
		}
		if late := time.Since(g.NotAfter); late > 500*time.Millisecond {
			t.Errorf("the last session ended %s late", late)
		}
		if _, err := op.Tap(access.ToClient, []byte("row")); err == nil {
			t.Error("bytes passed after the end")
		}
		for _, one := range all {
			_ = one.Close("")
		}
	})
}

func TestRevokedSessionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s := newHouse(t)
		g := grant("inc-1", 1, time.Hour)
		h.set(g)
		refresh(t, s)
		one := mustOpen(t, s)
		g.Sequence, g.State, g.Why = 2, access.StateRevoked, "The incident is over."
		h.set(g)
		refresh(t, s)
		wantCause(t, one, access.CodeEnded, "The incident is over.")
		_ = one.Close("")
	})
}

func TestRecorderFailureCutsBeforeForwarding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s := newHouse(t)
		h.set(grant("inc-1", 1, time.Hour))
		refresh(t, s)
		one := mustOpen(t, s)
		h.mu.Lock()
		h.broken = true
		h.mu.Unlock()
		if op, err := one.Admit(t.Context(), access.Operation{}); err == nil || op != nil {
			t.Errorf("admitted unrecorded: %v", err)
		}
		wantCause(t, one, access.CodeUnavailable, "recorded")
		_ = one.Close("")
	})
}

func TestHold(t *testing.T) {
	carol, alice := access.User{ID: 3, Login: "carol"}, access.User{ID: 1, Login: "alice"}
	answer := func(h *house, by access.User, yes bool) func(*access.Held) {
		return func(x *access.Held) {
			a := access.Answer{Held: x.ID, Digest: x.Digest, Approve: yes, By: by, At: time.Now().UTC()}
			a.Signature = ed25519.Sign(h.key, a.SigningBytes())
			x.State, x.Answer = access.HeldAnswered, &a
		}
	}
	for name, c := range map[string]struct {
		answer func(h *house) func(*access.Held)
		cancel bool
		code   access.Code // "" is admitted
		state  access.HeldState
	}{
		"approved":                {func(h *house) func(*access.Held) { return answer(h, carol, true) }, false, "", access.HeldConsumed},
		"denied":                  {func(h *house) func(*access.Held) { return answer(h, carol, false) }, false, access.CodeDenied, access.HeldAnswered},
		"by a person in grant":    {func(h *house) func(*access.Held) { return answer(h, alice, true) }, false, access.CodeDenied, access.HeldCancelled},
		"by somebody not asked":   {func(h *house) func(*access.Held) { return answer(h, access.User{ID: 9}, true) }, false, access.CodeDenied, access.HeldCancelled},
		"nobody":                  {func(*house) func(*access.Held) { return nil }, false, access.CodeDenied, access.HeldTimedOut},
		"cancelled by the client": {func(*house) func(*access.Held) { return nil }, true, access.CodeCancelled, access.HeldCancelled},
		"edited digest": {func(h *house) func(*access.Held) {
			return func(x *access.Held) {
				was := x.Digest
				x.Digest = strings.Repeat("0", 64)
				answer(h, carol, true)(x)
				x.Digest = was
			}
		}, false, access.CodeDenied, access.HeldCancelled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, s := newHouse(t)
				h.verdict = func(access.Operation) access.Decision {
					return access.Decision{Verdict: access.Hold, Rule: "big", Say: "Big.", Ask: []access.Party{{Principal: access.Principal{Kind: access.KindTeam, Name: "acme/dba"}, Members: []access.User{alice, carol}}}}
				}
				h.onHeld = c.answer(h)
				h.set(grant("inc-1", 1, time.Hour))
				refresh(t, s)
				one := mustOpen(t, s)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if c.cancel {
					time.AfterFunc(time.Second, cancel)
				}
				op, err := one.Admit(ctx, access.Operation{Kind: "query", Text: "delete from orders"})
				if c.code == "" && (err != nil || op == nil) || c.code != "" && (err == nil || access.CodeOf(err) != c.code) {
					t.Errorf("got %v, want code %q", err, c.code)
				}
				for _, x := range h.held {
					if x.State != c.state {
						t.Errorf("hold is %s, want %s", x.State, c.state)
					}
				}
				if err := one.Close("done"); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
