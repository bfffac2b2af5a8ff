package ssh

import "strings"

// envGiven reports whether a name is among those that the role gives.
func envGiven(given []string, name string) bool {
	for _, g := range given {
		if prefix, any := strings.CutSuffix(g, "*"); g == name || any && strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// prepareAgent remembers that the client lends its agent, if the role gives that.
func (s *stay) prepareAgent() bool {
	if s.b.ready(s.ctx) != nil || !s.b.plan.Agent {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.agent = true
	return true
}

func (s *stay) prepareX11(payload []byte) bool {
	if s.b.ready(s.ctx) != nil || !s.b.plan.X11 || len(payload) > 1024 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.x11 = payload
	return true
}
