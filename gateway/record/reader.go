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
	"hash"
	"io"
	"iter"
	"strings"

	"github.com/tidegate/tidegate/access"
)

// Report is what a verification found in a recording that is right so far.
type Report struct {
	Session  string `json:"session"`
	Segments uint64 `json:"segments"` // closed and verified
	Events   int    `json:"events"`   // in those
	Sealed   bool   `json:"sealed"`   // the last segment says that it is the last
	Open     int    `json:"open"`     // events after the last closed segment: written, not yet signed
	Head     string `json:"head"`     // hash of the last closed segment
}

// Fault is why a recording does not prove itself, and where.
type Fault struct {
	Segment uint64 `json:"segment"` // in which it shows
	Offset  int64  `json:"offset"`  // the byte of the file at which that line begins
	What    string `json:"what"`
}

// Error names the place.
func (f *Fault) Error() string {
	return fmt.Sprintf("segment %d, byte %d: %s", f.Segment, f.Offset, f.What)
}

// Verify reads a whole recording and proves it with public keys alone, and
// with the heads that were anchored elsewhere, if there are any: then a cut
// tail or a replaced file shows as well. An error is a *Fault, or a read error.
func Verify(r io.Reader, keys Keys, heads []access.Head) (Report, error) {
	v := &verifier{scanner: newScanner(r), keys: keys, heads: map[uint64]string{}}
	for _, h := range heads {
		v.heads[h.Segment] = h.Hash
		v.highest = max(v.highest, h.Segment+1)
		v.wantSeal = v.wantSeal || h.Sealed
	}
	for {
		tag, body, err := v.next()
		if errors.Is(err, io.EOF) {
			return v.report, v.finish()
		}
		if err != nil {
			return v.report, err
		}
		if err := v.line(tag, body); err != nil {
			return v.report, err
		}
	}
}

// Read delivers a recording's events in order. It does not verify.
func Read(r io.Reader) iter.Seq2[access.Event, error] {
	return func(yield func(access.Event, error) bool) {
		s := newScanner(r)
		for {
			tag, body, err := s.next()
			if errors.Is(err, io.EOF) {
				return
			}
			var e access.Event
			if err == nil && tag == 'E' {
				if err = json.Unmarshal(body, &e); err != nil {
					err = s.fault("the event is not JSON: " + err.Error())
				}
			}
			if err != nil {
				yield(access.Event{}, err)
				return
			}
			if tag == 'E' && !yield(e, nil) {
				return
			}
		}
	}
}

// notWhole is the fault of a file that stops inside a line.
const notWhole = "the last line is not whole"

// scanner splits a recording into its lines, within bounds.
type scanner struct {
	r       *bufio.Reader
	raw     []byte // the current line, with its end
	offset  int64  // where it begins
	after   int64
	segment uint64
}

func newScanner(r io.Reader) *scanner {
	return &scanner{r: bufio.NewReaderSize(r, maxLine)}
}

func (s *scanner) fault(what string) *Fault {
	return &Fault{Segment: s.segment, Offset: s.offset, What: what}
}

// next reads one line: its letter and its body without the end.
func (s *scanner) next() (tag byte, body []byte, err error) {
	s.offset = s.after
	s.raw, err = s.r.ReadSlice('\n')
	s.after += int64(len(s.raw))
	switch {
	case errors.Is(err, io.EOF) && len(s.raw) == 0:
		return 0, nil, io.EOF
	case errors.Is(err, io.EOF):
		return 0, nil, s.fault(notWhole)
	case errors.Is(err, bufio.ErrBufferFull):
		return 0, nil, s.fault(fmt.Sprintf("a line of more than %d bytes", maxLine))
	case err != nil:
		return 0, nil, fmt.Errorf("read recording: %w", err)
	}
	if len(s.raw) < 4 || s.raw[1] != ' ' || strings.IndexByte("HECS", s.raw[0]) < 0 {
		return 0, nil, s.fault("a line that is none of H, E, C and S")
	}
	return s.raw[0], s.raw[2 : len(s.raw)-1], nil
}

// verifier walks the chain.
type verifier struct {
	*scanner
	keys     Keys
	heads    map[uint64]string
	highest  uint64 // so many segments are anchored
	wantSeal bool

	report Report
	hash   hash.Hash // of the open segment; nil between segments
	size   int
	head   header
	closed *closing // the segment waits for its S line
}

func (v *verifier) line(tag byte, body []byte) error {
	if v.report.Sealed {
		return v.fault("something follows the last segment")
	}
	if v.closed != nil && tag != 'S' {
		return v.fault("want the segment's signature here")
	}
	switch tag {
	case 'H':
		return v.begin(body)
	case 'E':
		return v.event()
	case 'C':
		return v.close(body)
	default:
		return v.sign(body)
	}
}

func (v *verifier) begin(body []byte) error {
	if v.hash != nil {
		return v.fault("a segment begins inside another")
	}
	v.segment = v.report.Segments
	var h header
	if err := strict(body, &h); err != nil {
		return v.fault("the header is not understood: " + err.Error())
	}
	switch {
	case h.Version != Version:
		return v.fault(fmt.Sprintf("format version %d, this verifier knows %d", h.Version, Version))
	case h.Segment != v.segment:
		return v.fault(fmt.Sprintf("segment %d stands here, want %d: something was left out or moved", h.Segment, v.segment))
	case h.Prev != v.report.Head:
		return v.fault("the chain is broken: the segment before is not the one that this one followed")
	case v.segment > 0 && h.Session != v.report.Session:
		return v.fault("a segment of another session")
	}
	v.report.Session = h.Session
	v.head, v.hash, v.size, v.report.Open = h, sha256.New(), 0, 0
	v.add()
	return nil
}

func (v *verifier) add() {
	v.hash.Write(v.raw)
	v.size += len(v.raw)
}

func (v *verifier) event() error {
	if v.hash == nil {
		return v.fault("an event outside a segment")
	}
	if v.size > maxSegment {
		return v.fault(fmt.Sprintf("a segment of more than %d bytes", maxSegment))
	}
	v.report.Open++
	v.add()
	return nil
}

func (v *verifier) close(body []byte) error {
	if v.hash == nil {
		return v.fault("a segment ends that did not begin")
	}
	var c closing
	if err := strict(body, &c); err != nil {
		return v.fault("the closing line is not understood: " + err.Error())
	}
	if c.Segment != v.segment || c.Events != v.report.Open {
		return v.fault(fmt.Sprintf("segment %d closes with %d events, want segment %d with %d", c.Segment, c.Events, v.segment, v.report.Open))
	}
	v.add()
	v.closed = &c
	return nil
}

func (v *verifier) sign(body []byte) error {
	if v.closed == nil {
		return v.fault("a signature without a closed segment")
	}
	sum := v.hash.Sum(nil)
	hexSum := hex.EncodeToString(sum)
	if len(body) < hashHex+1 || string(body[:hashHex]) != hexSum || body[hashHex] != ' ' {
		return v.fault("the content is not what was hashed: it was changed")
	}
	sig, err := base64.StdEncoding.Strict().DecodeString(string(body[hashHex+1:]))
	if err != nil {
		return v.fault("the signature is not base64")
	}
	pub, known := v.keys[v.head.Key]
	if !known {
		return v.fault("signed with key " + fmt.Sprintf("%.32q", v.head.Key) + ", which is not among the trusted ones")
	}
	if !ed25519.Verify(pub, signed(sum), sig) {
		return v.fault("the signature is not of key " + v.head.Key)
	}
	if want, anchored := v.heads[v.segment]; anchored && want != hexSum {
		return v.fault("another segment was anchored under this number: the recording was replaced")
	}
	v.report.Segments++
	v.report.Events += v.report.Open
	v.report.Open, v.report.Head, v.report.Sealed = 0, hexSum, v.closed.Last
	v.hash, v.closed = nil, nil
	return nil
}

// finish judges the end of the file.
func (v *verifier) finish() error {
	v.segment = v.report.Segments
	switch {
	case v.closed != nil:
		return v.fault("the file ends before the segment's signature")
	case v.report.Segments < v.highest:
		return v.fault(fmt.Sprintf("%d segments were anchored and %d are here: the tail was cut", v.highest, v.report.Segments))
	case v.wantSeal && !v.report.Sealed:
		return v.fault("the sealed end was anchored and is not here: the tail was cut")
	case v.report.Session == "":
		return v.fault("the file is empty")
	}
	return nil
}

// strict decodes exactly one JSON value of exactly the known fields.
func strict(body []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the value")
	}
	return nil
}
