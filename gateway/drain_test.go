package gateway_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway"
	"github.com/tidegate/tidegate/gateway/gatewaytest"
)

func draining(t *testing.T) (*gatewaytest.Gate, gateway.Session) {
	g := gatewaytest.New(t, gatewaytest.Options{Lasts: 10 * time.Minute, Role: access.Role{Name: "read", Longest: 3600, Settings: map[string]string{"drain": "5m"}}})
	return g, g.Open("alice")
}

var (
	insertion = access.Operation{Kind: "query", Text: "insert"}
	commit    = access.Operation{Kind: "query", Text: "commit", Ends: true}
)

func TestDrainLetsOnlyEndsStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := draining(t)
		over := s.Draining()
		running, err := s.Admit(t.Context(), insertion)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10*time.Minute + time.Second)
		synctest.Wait()
		select {
		case <-over:
		default:
			t.Error("the room is not told that the grant is over")
		}
		if _, err := running.Tap(access.ToClient, []byte("row")); err != nil {
			t.Errorf("what runs does not go on: %v", err)
		}
		if _, err := s.Admit(t.Context(), insertion); access.CodeOf(err) != access.CodeEnded {
			t.Errorf("something new: got %v, want ended", err)
		}
		if _, err := s.Admit(t.Context(), commit); err != nil {
			t.Errorf("commit: %v", err)
		}
		told := ""
		for len(s.Warnings()) > 0 {
			told = <-s.Warnings()
		}
		if !strings.Contains(told, "COMMIT until") {
			t.Errorf("the person is told %q", told)
		}
		s.Drained()
		if access.CodeOf(cause(s)) != access.CodeEnded {
			t.Errorf("after the room said that it is done: %v", cause(s))
		}
	})
}

// slowDisk takes a moment for each event.
type slowDisk struct{ silent }

func (d slowDisk) Record(access.SessionInfo, func(access.Head)) (gateway.Recorder, error) {
	return d, nil
}

func (slowDisk) Append(access.Event, bool) error { time.Sleep(2 * time.Second); return nil }

// TestSlowDiskStartsNothingLate: what was asked for in time and is recorded
// when the grant is over does not start, though the session drains.
func TestSlowDiskStartsNothingLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gatewaytest.New(t, gatewaytest.Options{Lasts: 10 * time.Minute, Recorders: slowDisk{},
			Role: access.Role{Name: "read", Longest: 3600, Settings: map[string]string{"drain": "5m"}}})
		s := g.Open("alice")
		s.Draining()
		time.Sleep(time.Until(s.Info().NotAfter) - time.Second)
		if _, err := s.Admit(t.Context(), insertion); access.CodeOf(err) != access.CodeEnded {
			t.Errorf("it starts a second after the end: got %v, want ended", err)
		}
	})
}

func cause(s gateway.Session) error { return context.Cause(s.Context()) }

func TestDrainHasAnEndAndRevokeCutsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := draining(t)
		s.Draining()
		time.Sleep(14*time.Minute + 59*time.Second)
		if s.Context().Err() != nil {
			t.Error("cut before the drain was over")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if s.Context().Err() == nil {
			t.Error("not cut when the drain was over")
		}
		if _, err := s.Admit(t.Context(), commit); access.CodeOf(err) != access.CodeEnded {
			t.Errorf("after the drain a commit: got %v", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		g, s := draining(t)
		s.Draining()
		time.Sleep(11 * time.Minute)
		g.Revoke("inc-1", "Over.")
		synctest.Wait()
		if s.Context().Err() == nil {
			t.Error("a revocation did not cut a session that drains")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		_, s := draining(t) // a room that does not know of it
		time.Sleep(10*time.Minute + time.Second)
		synctest.Wait()
		if s.Context().Err() == nil {
			t.Error("a session went on that nobody drains")
		}
	})
}
