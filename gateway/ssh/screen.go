package ssh

import "bytes"

// screen watches whether a program has taken the whole terminal: then a
// sentence of ours would spoil what it has drawn.
type screen struct {
	full  bool
	later string // a sentence that waits until the program gives it back
	tail  []byte // the end of what was seen, where a sequence may have begun
}

var (
	enters = [][]byte{[]byte("\x1b[?1049h"), []byte("\x1b[?1047h"), []byte("\x1b[?47h")}
	leaves = [][]byte{[]byte("\x1b[?1049l"), []byte("\x1b[?1047l"), []byte("\x1b[?47l")}
)

const longestSequence = len("\x1b[?1049h")

// see looks at output. It costs a search for one byte where there is none of
// its sequences.
func (c *screen) see(p []byte) {
	if len(c.tail) == 0 && bytes.IndexByte(p, 0x1b) < 0 {
		return
	}
	text := append(c.tail, p...)
	in, out := lastOf(text, enters), lastOf(text, leaves)
	if in != out {
		c.full = in > out
	}
	c.tail = nil
	if i := bytes.LastIndexByte(text, 0x1b); i >= 0 && len(text)-i < longestSequence {
		c.tail = bytes.Clone(text[i:])
	}
}

func lastOf(text []byte, sequences [][]byte) int {
	last := -1
	for _, s := range sequences {
		last = max(last, bytes.LastIndex(text, s))
	}
	return last
}

// leave is what gives the terminal back to whom it belongs.
func (c *screen) leave() []byte {
	if !c.full {
		return nil
	}
	return leaves[0]
}

// watch looks at what a program shows: whether it has the whole screen, and a
// sentence that has waited for its end.
func (s *stay) watch(p []byte) {
	if s.pty == nil {
		return
	}
	s.mu.Lock()
	s.screen.see(p)
	text := ""
	if !s.screen.full {
		text, s.screen.later = s.screen.later, ""
	}
	s.mu.Unlock()
	if text != "" {
		s.notice(text)
	}
}
