package record

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// notWhole is the fault of a file that stops inside a line.
const notWhole = "the last line is not whole"

// segment is a part of a recording: the lines from H to S, or what there is of
// one that is open, at the end of the file.
type segment struct {
	raw    []byte
	offset int64  // of raw in the file
	number uint64 // by its place
	broken *Fault // what follows raw can't be read

	head header // as begun read it
	key  ed25519.PublicKey

	// What parse found.
	events  int
	closed  *closing // nil while the segment is open
	content int      // bytes of raw before its closing line, or all of it
	signed  bool
	hash    string
	fault   *Fault
}

func (s *segment) faultAt(at int, what string) *Fault {
	return &Fault{Segment: s.number, Offset: s.offset + int64(at), What: what}
}

// splitter cuts a recording into segments, within bounds.
type splitter struct {
	r      *bufio.Reader
	offset int64
	number uint64
}

// readAhead is how much is read at once.
const readAhead = 64 << 10

func newSplitter(r io.Reader) *splitter { return &splitter{r: bufio.NewReaderSize(r, readAhead)} }

// next reads one segment into the memory of buf. At the end it is io.EOF.
func (s *splitter) next(buf []byte) (*segment, error) {
	seg := &segment{raw: buf[:0], offset: s.offset, number: s.number}
	for {
		begin := len(seg.raw)
		more, err := s.line(seg)
		switch {
		case err != nil:
			return nil, err
		case !more && len(seg.raw) == 0 && seg.broken == nil:
			return nil, io.EOF
		case !more:
			return seg, nil
		case seg.raw[begin] == 'S':
			s.number++
			return seg, nil
		}
	}
}

// line adds one line to the segment. There is none at the end, and where what
// follows can't be read.
func (s *splitter) line(seg *segment) (more bool, err error) {
	begin := len(seg.raw)
	for {
		part, err := s.r.ReadSlice('\n')
		s.offset += int64(len(part))
		seg.raw = append(seg.raw, part...)
		size, broken := len(seg.raw)-begin, ""
		if seg.offset == 0 && begin == 0 {
			broken = foreign(seg.raw)
		}
		switch {
		case broken != "":
		case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull):
			return false, fmt.Errorf("read recording: %w", err)
		case errors.Is(err, io.EOF) && size > 0:
			broken = notWhole
		case errors.Is(err, io.EOF):
			return false, nil
		case size > maxLine:
			broken = fmt.Sprintf("a line of more than %d bytes", maxLine)
		case len(seg.raw) > maxSegment+maxLine:
			broken = fmt.Sprintf("a segment of more than %d bytes", maxSegment)
		case err == nil:
			return true, nil
		}
		if broken != "" {
			seg.raw = seg.raw[:begin]
			seg.broken = seg.faultAt(begin, broken)
			return false, nil
		}
	}
}

// begun reads the header, on which everything else stands.
func (s *segment) begun() *Fault {
	if len(s.raw) == 0 {
		return s.broken
	}
	tag, body, _ := s.line(0)
	if tag == 0 {
		return s.faultAt(0, "a line that is none of H, E, C and S")
	}
	if tag != 'H' {
		return s.faultAt(0, "want the header of a segment here")
	}
	if err := strict(body, headerShape, &s.head); err != nil {
		return s.faultAt(0, "the header is not understood: "+err.Error())
	}
	switch h := s.head; {
	case h.Version < 1 || h.Version > Version:
		return s.faultAt(0, fmt.Sprintf("format version %d, this verifier knows 1 to %d", h.Version, Version))
	case h.Version < 2 && h.Certificate != "":
		return s.faultAt(0, "a certificate, which format version 1 does not have")
	case h.Segment != s.number:
		return s.faultAt(0, fmt.Sprintf("segment %d stands here, want %d: something was left out or moved", h.Segment, s.number))
	}
	return nil
}

// line is the one at a place: its letter, its body, and where the next begins.
// A letter of 0 is a line of another form.
func (s *segment) line(at int) (tag byte, body []byte, next int) {
	end := bytes.IndexByte(s.raw[at:], '\n')
	next = at + end + 1
	raw := s.raw[at:next]
	if len(raw) < 4 || raw[1] != ' ' || bytes.IndexByte([]byte("HECS"), raw[0]) < 0 {
		return 0, nil, next
	}
	return raw[0], raw[2 : len(raw)-1], next
}

// parse looks at every line behind the header, and at the signature.
func (s *segment) parse() { s.fault = s.parseLines() }

func (s *segment) parseLines() *Fault {
	_, _, at := s.line(0)
	s.content = len(s.raw)
	for at < len(s.raw) {
		tag, body, next := s.line(at)
		if s.closed != nil && tag != 'S' {
			return s.faultAt(at, "want the segment's signature here")
		}
		var err error
		switch tag {
		case 0:
			err = errors.New("a line that is none of H, E, C and S")
		case 'H':
			err = errors.New("a segment begins inside another")
		case 'E':
			s.events++
			if err = checkEvent(body); err != nil {
				err = fmt.Errorf("the event is not understood: %w", err)
			}
		case 'C':
			s.content = at
			err = s.close(body)
		case 'S':
			err = s.verify(body, at)
		}
		if err != nil {
			return s.faultAt(at, err.Error())
		}
		at = next
	}
	return s.broken
}

func (s *segment) close(body []byte) error {
	var c closing
	if err := strict(body, closingShape, &c); err != nil {
		return fmt.Errorf("the closing line is not understood: %w", err)
	}
	if c.Segment != s.number || c.Events != s.events {
		return fmt.Errorf("segment %d closes with %d events, want segment %d with %d", c.Segment, c.Events, s.number, s.events)
	}
	s.closed = &c
	return nil
}

// verify compares the content with its hash, and the hash with its signature.
func (s *segment) verify(body []byte, at int) error {
	if s.closed == nil {
		return errors.New("a signature without a closed segment")
	}
	sum := sha256.Sum256(s.raw[:at])
	s.hash = hex.EncodeToString(sum[:])
	if len(body) < hashHex+1 || string(body[:hashHex]) != s.hash || body[hashHex] != ' ' {
		return errors.New("the content is not what was hashed: it was changed")
	}
	coded := body[hashHex+1:]
	sig, err := base64.StdEncoding.Strict().DecodeString(string(coded))
	if err != nil || len(coded) != base64.StdEncoding.EncodedLen(ed25519.SignatureSize) { // line ends within are skipped
		return fmt.Errorf("the signature is not base64 of %d bytes", ed25519.SignatureSize)
	}
	if !ed25519.Verify(s.key, signed(s.head.Version, sum[:]), sig) {
		return fmt.Errorf("the signature is not of key %s", s.head.Key)
	}
	s.signed = true
	return nil
}

// strict decodes one JSON object of the fields that its shape has, each once and
// under its own name. encoding/json alone would take a field twice and in any
// case, null for an object, and leave out what is missing.
func strict(body []byte, of *shape, into any) error {
	c := checker{rest: body}
	if len(body) == 0 || body[0] != '{' {
		return errors.New("want an object")
	}
	if err := c.value(of, 0); err != nil {
		return err
	}
	if len(c.rest) > 0 {
		return errors.New("something follows the object")
	}
	return json.Unmarshal(body, into)
}
