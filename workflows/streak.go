package workflows

import (
	"sync"

	"github.com/tidegate/tidegate/access"
)

// streaks are what fails over and over: it is said once that it fails, once for
// each other way in which it does, and once that it works again. It may be lost.
// Nil remembers nothing, and every failure is news.
type streaks struct {
	mu      sync.Mutex
	failing map[string]access.Code
}

func newStreaks() *streaks { return &streaks{failing: map[string]access.Code{}} }

// note notes how it went, and reports whether that is news.
func (s *streaks) note(what string, err error) (news bool) {
	if s == nil {
		return err != nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	was, failed := s.failing[what]
	if err == nil {
		delete(s.failing, what)
		return failed
	}
	if len(s.failing) >= maxMarks {
		clear(s.failing)
	}
	s.failing[what] = access.CodeOf(err)
	return !failed || was != access.CodeOf(err)
}
