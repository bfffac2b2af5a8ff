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

// goodValue reports whether a variable may have a value. Old shells take what
// begins as a function does for one, and run what stands behind it.
func goodValue(v string) bool {
	return utf8.ValidString(v) && strings.IndexByte(v, 0) < 0 && !strings.HasPrefix(strings.TrimLeft(v, " \t"), "()")
}

// termName is what a kind of terminal is called. It becomes a variable, too,
// and programs look for a file of that name.
var termName = regexp.MustCompile(`\A(?:[A-Za-z0-9_][A-Za-z0-9+._-]{0,63})?\z`)

// prepareEnv keeps a variable that the role gives. Clients send some unasked,
// and go on when they are refused.
func (s *stay) prepareEnv(payload []byte) bool {
	var e envPayload
	if gossh.Unmarshal(payload, &e) != nil || !envName.MatchString(e.Name) || !goodValue(e.Value) || s.b.ready(s.ctx) != nil {
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
	return true
}

// What a host hands on to xauth, which takes a line end in it for its next
// order: old ones do not look.
var (
	x11Protocol = regexp.MustCompile(`\A[A-Za-z0-9-]{1,64}\z`)
	x11Cookie   = regexp.MustCompile(`\A[0-9a-fA-F]{2,512}\z`)
)

func (s *stay) prepareX11(payload []byte) bool {
	var p x11Payload
	if gossh.Unmarshal(payload, &p) != nil || !x11Protocol.MatchString(p.Protocol) || !x11Cookie.MatchString(p.Cookie) || s.b.ready(s.ctx) != nil || !s.b.plan.X11 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done != nil {
		return false
	}
	s.x11 = payload
	return true
}
