package ssh

import (
	"sync"
	"sync/atomic"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway"
)

// standing is an operation that goes on for a while: a shell, a file, a tunnel.
// Rules may come meanwhile that deny it. So where they changed, it is judged
// again before more of it is passed on, and its denial is recorded. Who was
// asked once is not asked again.
type standing struct {
	gateway.Open
	session gateway.Session
	op      func() access.Operation // as it would be asked for now

	judged atomic.Uint64 // the generation of the rules that it is known to keep
	mu     sync.Mutex
	denied error
}

// stands is an operation that the rules of a generation let go on.
func (b *bridge) stands(open gateway.Open, generation uint64, op func() access.Operation) *standing {
	s := &standing{Open: open, session: b.session, op: op}
	s.judged.Store(generation)
	return s
}

// keeps is nil while the operation may go on.
func (s *standing) keeps() error {
	now := s.session.Generation()
	if s.judged.Load() == now {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.denied != nil {
		return s.denied
	}
	op := s.op()
	if s.session.Judge(op).Verdict == access.Deny {
		again, err := s.session.Admit(s.session.Context(), op)
		if err != nil {
			s.denied = err
			return err
		}
		_ = again.Close(access.Outcome{Status: "cancelled"}) // the rules changed back; a failed recorder ends the session by itself
	}
	s.judged.Store(now)
	return nil
}

// Tap implements gateway.Open.
func (s *standing) Tap(dir access.Direction, b []byte) ([]byte, error) {
	if err := s.keeps(); err != nil {
		return nil, err
	}
	return s.Open.Tap(dir, b)
}

// Output implements gateway.Open.
func (s *standing) Output() gateway.Output { return standingOutput{s.Open.Output(), s} }

type standingOutput struct {
	gateway.Output
	of *standing
}

// Tap implements gateway.Output.
func (o standingOutput) Tap(b []byte) ([]byte, error) {
	if err := o.of.keeps(); err != nil {
		return nil, err
	}
	return o.Output.Tap(b)
}

// failed ends the channel when bytes can't be passed on, and says why where
// rules came that deny what runs.
func (s *stay) failed(err error) {
	if err == nil {
		return
	}
	denied := access.CodeOf(err) == access.CodeDenied
	if denied {
		s.denied.Store(true)
	}
	s.leave(err)
	if denied {
		s.cut(err)
	}
}
