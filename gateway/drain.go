package gateway

import (
	"fmt"

	"github.com/tidegate/tidegate/access"
)

// Draining implements Session.
func (s *session) Draining() <-chan struct{} {
	s.mu.Lock()
	asked := s.drain > 0
	s.drain = s.grant.Plan.Role.Drain()
	end, again := s.grant.NotAfter, s.drain > 0 && !asked
	s.mu.Unlock()
	if again {
		s.setEnd(end)
	}
	return s.draining
}

// beginDrain tells the person, and the room.
func (s *session) beginDrain() {
	s.drainOnce.Do(func() {
		g := s.grantNow()
		s.notice(0, fmt.Sprintf("Your grant %s ended at %s. What runs may finish and its transaction COMMIT until %s; nothing new starts.",
			g.Key.ID, clock(g.NotAfter), g.Drained().UTC().Format("15:04:05 UTC")))
		close(s.draining)
	})
}

// Drained implements Session.
func (s *session) Drained() {
	select {
	case <-s.draining:
		s.end(s.overError())
	default:
	}
}

// starts says why an operation may not start: the session is over, or drains.
func (s *session) starts(op access.Operation) error {
	draining, err := s.drains()
	if draining && !op.Ends {
		return s.overError()
	}
	return err
}
