package record

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/tidegate/tidegate/access"
)

// Read delivers a recording's events in order. It does not verify.
func Read(r io.Reader) iter.Seq2[access.Event, error] {
	return func(yield func(access.Event, error) bool) {
		s := newScanner(r)
		for {
			e, err := s.event()
			if errors.Is(err, io.EOF) {
				return
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// SessionOf is the session that a recording says it is of, in its first header;
// empty where none is understood. It does not verify.
func SessionOf(r io.Reader) (string, error) {
	tag, body, err := newScanner(r).next()
	fault := (*Fault)(nil)
	if errors.Is(err, io.EOF) || errors.As(err, &fault) {
		return "", nil
	}
	var h header
	if err != nil || tag != 'H' || strict(body, headerShape, &h) != nil {
		return "", err
	}
	return h.Session, nil
}

// scanner splits a recording into its lines, within bounds.
type scanner struct {
	r       *bufio.Reader
	line    []byte
	offset  int64 // where the current line begins
	after   int64
	segment uint64
	toSeal  bool // the sealed end is the end, though nothing says that the file is
	sealed  bool
}

func newScanner(r io.Reader) *scanner {
	return &scanner{r: bufio.NewReaderSize(r, readAhead)}
}

func (s *scanner) fault(what string) *Fault {
	return &Fault{Segment: s.segment, Offset: s.offset, What: what}
}

// event is the next one; at the end it is io.EOF.
func (s *scanner) event() (e access.Event, err error) {
	for {
		tag, body, err := s.next()
		if err != nil {
			return e, err
		}
		switch tag {
		case 'E':
			if err := json.Unmarshal(body, &e); err != nil {
				return e, s.fault("the event is not JSON: " + err.Error())
			}
			return e, nil
		case 'C':
			var c closing
			s.sealed = json.Unmarshal(body, &c) == nil && c.Last
		case 'S':
			if s.segment++; s.toSeal && s.sealed {
				return e, io.EOF
			}
		}
	}
}

// next reads one line: its letter and its body without the end.
func (s *scanner) next() (tag byte, body []byte, err error) {
	s.offset, s.line = s.after, s.line[:0]
	for {
		part, err := s.r.ReadSlice('\n')
		s.after += int64(len(part))
		s.line = append(s.line, part...)
		if what := foreign(s.line); s.offset == 0 && what != "" {
			return 0, nil, s.fault(what)
		}
		switch {
		case errors.Is(err, io.EOF) && len(s.line) == 0:
			return 0, nil, io.EOF
		case errors.Is(err, io.EOF):
			return 0, nil, s.fault(notWhole)
		case len(s.line) > maxLine:
			return 0, nil, s.fault(fmt.Sprintf("a line of more than %d bytes", maxLine))
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return 0, nil, fmt.Errorf("read recording: %w", err)
		}
		if err == nil {
			break
		}
	}
	raw := s.line
	if len(raw) < 4 || raw[1] != ' ' || strings.IndexByte("HECS", raw[0]) < 0 {
		return 0, nil, s.fault("a line that is none of H, E, C and S")
	}
	return raw[0], raw[2 : len(raw)-1], nil
}
