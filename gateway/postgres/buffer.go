package postgres

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"sync"
)

// Sizes of buffers. An idle session keeps only the small ones: a thousand of
// them must cost little more than their stacks.
const (
	bufferSize = 64 << 10 // one read, and one write
	smallSize  = 512
	maxAhead   = 1 << 20 // of what a client sends while a person decides
)

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// intake reads a connection, as much as there is at once. It holds a large
// buffer only while it has bytes for one.
type intake struct {
	r      io.Reader
	brief  bool              // reads don't wait (see package poll), so no buffer is held while they would
	gather bool              // one read gives little: ask until there is nothing more
	small  []byte            // for reads that wait
	large  *[bufferSize]byte // borrowed
	buf    []byte            // small, large, or one made for a single large message
	from   int               // buf[from:to] is what was read and not yet used
	to     int
	more   bool   // the last read filled its buffer: there is probably more
	later  error  // of the next read
	ahead  []byte // was read while somebody waited; comes next
}

func newIntake(r io.Reader) *intake { return &intake{r: r} }

// bytes are those that were read and not yet used.
func (in *intake) bytes() []byte { return in.buf[in.from:in.to] }

func (in *intake) use(n int) { in.from += n }

// fill reads once. What bytes returned before is no longer valid.
func (in *intake) fill() error {
	in.makeRoom()
	if len(in.ahead) > 0 {
		n := copy(in.buf[in.to:], in.ahead)
		in.to, in.ahead = in.to+n, in.ahead[n:]
		in.more = in.to == len(in.buf)
		return nil
	}
	n, err := in.read()
	in.more = in.to == len(in.buf)
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	if in.brief && len(in.bytes()) == 0 {
		in.release()
	}
	return err
}

// read reads once, or as long as there is something.
func (in *intake) read() (n int, err error) {
	if err = in.later; err != nil {
		in.later = nil
		return 0, err
	}
	for in.to < len(in.buf) {
		got, err := in.r.Read(in.buf[in.to:])
		n, in.to = n+got, in.to+got
		if err != nil && n > 0 {
			in.later = err
			return n, nil
		}
		if err != nil || got == 0 || !in.gather {
			return n, err
		}
	}
	return n, nil
}

// readAhead reads until the deadline passes, and calls gone when there is
// nothing more to come. It may run beside nothing but the use of bytes that
// were read before.
func (in *intake) readAhead(gone func()) {
	var buf [smallSize]byte
	for len(in.ahead) < maxAhead {
		n, err := in.r.Read(buf[:])
		in.ahead = append(in.ahead, buf[:n]...)
		if err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				gone()
			}
			return
		}
	}
}

// makeRoom chooses the buffer for the next read. One that is full of a single
// message doubles, so that memory follows what arrived, not what was claimed.
func (in *intake) makeRoom() {
	rest := in.bytes()
	switch {
	case len(rest) == 0 && !in.more && !in.brief:
		in.release()
		if in.small == nil {
			in.small = make([]byte, smallSize)
		}
		in.buf = in.small
	case len(rest) < bufferSize:
		if in.large == nil {
			in.large = buffers.Get().(*[bufferSize]byte)
		}
		copy(in.large[:], rest)
		in.buf = in.large[:]
	case in.from == 0 && in.to == len(in.buf):
		grown := make([]byte, 2*len(in.buf))
		copy(grown, rest)
		in.buf = grown
	default:
		copy(in.buf, rest)
	}
	in.from, in.to = 0, len(rest)
}

// release gives the large buffer back.
func (in *intake) release() {
	if in.large != nil {
		buffers.Put(in.large)
	}
	in.large, in.buf = nil, nil
	in.from, in.to = 0, 0
}

// sink gathers what goes to a connection into few writes.
type sink struct {
	w     io.Writer
	large *[bufferSize]byte // borrowed while there is something in it
	n     int
}

func (s *sink) empty() bool { return s.n == 0 }

// Write adds p, and writes out what no longer fits.
func (s *sink) Write(p []byte) (int, error) {
	if len(p) > bufferSize-s.n {
		if err := s.flush(); err != nil {
			return 0, err
		}
		if len(p) >= bufferSize/2 {
			return s.w.Write(p)
		}
	}
	s.room()
	s.n += copy(s.large[s.n:], p)
	return len(p), nil
}

func (s *sink) room() {
	if s.large == nil {
		s.large = buffers.Get().(*[bufferSize]byte)
	}
}

// message adds a message whose body is the given pieces, one after another.
func (s *sink) message(kind byte, pieces ...string) error {
	size := 0
	for _, p := range pieces {
		size += len(p)
	}
	if err := s.head(kind, size); err != nil {
		return err
	}
	for _, p := range pieces {
		if err := s.text(p); err != nil {
			return err
		}
	}
	return nil
}

// bytes adds a message whose body is bytes.
func (s *sink) bytes(kind byte, body []byte) error {
	if err := s.head(kind, len(body)); err != nil {
		return err
	}
	_, err := s.Write(body)
	return err
}

func (s *sink) head(kind byte, body int) error {
	if bufferSize-s.n < headSize {
		if err := s.flush(); err != nil {
			return err
		}
	}
	s.room()
	s.large[s.n] = kind
	binary.BigEndian.PutUint32(s.large[s.n+1:], uint32(body+4))
	s.n += headSize
	return nil
}

// text adds a string without making bytes of it first.
func (s *sink) text(p string) error {
	for len(p) > 0 {
		if s.n == bufferSize {
			if err := s.flush(); err != nil {
				return err
			}
		}
		s.room()
		n := copy(s.large[s.n:], p)
		s.n, p = s.n+n, p[n:]
	}
	return nil
}

// flush writes everything out.
func (s *sink) flush() error {
	if s.large == nil {
		return nil
	}
	_, err := s.w.Write(s.large[:s.n])
	s.drop()
	return err
}

func (s *sink) drop() {
	if s.large != nil {
		buffers.Put(s.large)
	}
	s.large, s.n = nil, 0
}
