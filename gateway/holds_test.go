package gateway_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway"
	"github.com/tidegate/tidegate/gateway/gatewaytest"
)

// TestHoldsOfOnePerson: each hold is shown to others and asked for in the
// ledger several times a second, so one person has few of them, over all
// sessions.
func TestHoldsOfOnePerson(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gatewaytest.New(t, gatewaytest.Options{})
		g.Rules(holdBig("carol"))
		ctx, cancel := context.WithCancel(t.Context())
		sessions := []gateway.Session{g.Open("alice"), g.Open("alice")}
		const most = 32
		for i := range most {
			admit(ctx, sessions[i%2], deletion)
			g.NextHeld()
		}
		synctest.Wait()
		for _, s := range sessions {
			if op, err := s.Admit(t.Context(), deletion); op != nil || access.CodeOf(err) != access.CodeTooLarge {
				t.Errorf("one more: %v, %v", op, err)
			}
		}
		if n := len(g.Ledger.AllHeld()); n != most {
			t.Errorf("%d are shown, want %d", n, most)
		}
		cancel()
		synctest.Wait()
		waiting := admit(t.Context(), sessions[0], deletion)
		g.Answer(g.NextHeld(), gatewaytest.Reply{By: gatewaytest.User("carol"), Approve: true})
		if got := <-waiting; got.err != nil {
			t.Errorf("when there is room again: %v", got.err)
		}
	})
}
