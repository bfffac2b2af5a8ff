package ssh

import (
	"regexp"
	"strings"
	"unicode/utf8"

	gossh "golang.org/x/crypto/ssh"
)

// envGiven reports whether a name is among those that the role gives.
func envGiven(given []string, name string) bool {
	for _, g := range given {
		if prefix, any := strings.CutSuffix(g, "*"); g == name || any && strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// What a client may set before it starts something: so many variables, of so
// many bytes together. An approver is shown them.
const (
	maxEnv      = 128
	maxEnvBytes = 32 << 10
)

// envName is what a variable is called: with anything else in it, the name
// could look like more than a name to who approves, and to the host.
var envName = regexp.MustCompile(`\A[A-Za-z_][A-Za-z0-9_]*\z`)

// prepareEnv keeps a variable that the role gives. Clients send some unasked,
// and go on when they are refused.
func (s *stay) prepareEnv(payload []byte) bool {
	var e envPayload
	if gossh.Unmarshal(payload, &e) != nil || !envName.MatchString(e.Name) || !utf8.ValidString(e.Value) || strings.IndexByte(e.Value, 0) >= 0 || s.b.ready(s.ctx) != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	size := s.envBytes + len(e.Name) + len(e.Value)
	if s.done != nil || len(s.env) >= maxEnv || size > maxEnvBytes || !envGiven(s.b.plan.Env, e.Name) {
		return false
	}
	s.env, s.envBytes = append(s.env, e), size
	return true
}

// prepareAgent remembers that the client lends its agent, if the role gives
// that. What is lent once something was asked for would not be what is judged.
func (s *stay) prepareAgent() bool {
	if s.b.ready(s.ctx) != nil || !s.b.plan.Agent {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done != nil {
		return false
	}
	s.agent = true
	s.b.lent.agent.Store(true)
	return true
}

func (s *stay) prepareX11(payload []byte) bool {
	if s.b.ready(s.ctx) != nil || !s.b.plan.X11 || len(payload) > 1024 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done != nil {
		return false
	}
	s.x11 = payload
	s.b.lent.x11.Store(true)
	return true
}
