package record

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

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

	// Installation and Gateway are of whom the recorder's certificate is; empty
	// where a trusted key signed without one.
	Installation string `json:"installation,omitempty"`
	Gateway      string `json:"gateway,omitempty"`
}

// Fault is why a recording does not prove itself, and where.
type Fault struct {
	Segment uint64 `json:"segment"` // in which it shows
	Offset  int64  `json:"offset"`  // the byte of the recording at which that line begins
	What    string `json:"what"`
}

// Error names the place.
func (f *Fault) Error() string {
	return fmt.Sprintf("segment %d, byte %d: %s", f.Segment, f.Offset, f.What)
}

// Cut reports whether the file stops inside a line: it was cut, or is being
// written.
func (f *Fault) Cut() bool { return f.What == notWhole }

// Foreign reports whether the file is no recording at all.
func (f *Fault) Foreign() bool { return strings.HasPrefix(f.What, noRecording) }

const noRecording = "this is no recording: "

// foreign says what is wrong with how a file begins; nothing, if it may be a
// recording.
func foreign(begin []byte) string {
	if len(begin) == 0 || strings.IndexByte("HECS", begin[0]) >= 0 && (len(begin) == 1 || begin[1] == ' ') {
		return "" // where it is another line than a header, that is said
	}
	return fmt.Sprintf(`%sit begins with %.16q, want the header of a segment, "H {"`, noRecording, begin)
}

// Verify reads a whole recording and proves it with public keys alone, and
// with the heads that were anchored elsewhere, if there are any: then a cut
// tail or a replaced file shows as well. An error is a *Fault, or a read error.
func Verify(r io.Reader, keys Keys, heads []access.Head) (Report, error) {
	v := newVerifier(keys, heads)
	if err := v.read(r); err != nil {
		return v.report, err
	}
	return v.report, v.finish()
}

// verifier walks the chain. Headers are read in order, for each says by which
// key its segment is judged; then segments are judged side by side, and chained
// in order again.
type verifier struct {
	keys     Keys
	heads    map[uint64]string
	highest  uint64 // so many segments are anchored
	wantSeal bool

	own     bool // a gateway's look at its own files: its keys count, certificates do not
	session string
	vouched Keys // by certificates of this recording
	report  Report
	tail    *segment // is open, at the end
	end     int64    // where the last segment ends
}

func newVerifier(keys Keys, heads []access.Head) *verifier {
	v := &verifier{keys: keys, heads: map[uint64]string{}, vouched: Keys{}}
	for _, h := range heads {
		v.heads[h.Segment] = h.Hash
		v.highest = max(v.highest, h.Segment+1)
		v.wantSeal = v.wantSeal || h.Sealed
	}
	return v
}

// Segments are judged in batches of this many bytes or pieces.
const (
	batchBytes  = 4 << 20
	batchPieces = 256
	keptSegment = 512 << 10 // memory of larger ones is not used again
)

// read judges everything up to the end of the file, or to the first fault.
func (v *verifier) read(r io.Reader) error {
	s := newSplitter(r)
	var batch []*segment
	var spare [][]byte
	for {
		var err error
		batch, spare, err = v.fill(batch[:0], reuse(spare, batch), s)
		if len(batch) > 0 {
			if f := v.judge(batch); f != nil {
				return f
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// reuse keeps the memory of segments that were judged. Large ones are few, and
// their memory, kept in all places of a batch, would be a gigabyte.
func reuse(spare [][]byte, judged []*segment) [][]byte {
	for _, seg := range judged {
		if cap(seg.raw) <= keptSegment {
			spare = append(spare, seg.raw)
		}
	}
	return spare
}

// fill reads the next batch. A fault of a header is that of its segment, so
// that one which stands before it is told first.
func (v *verifier) fill(batch []*segment, spare [][]byte, s *splitter) ([]*segment, [][]byte, error) {
	for size := 0; size < batchBytes && len(batch) < batchPieces; {
		var buf []byte
		if n := len(spare); n > 0 {
			buf, spare = spare[n-1], spare[:n-1]
		}
		seg, err := s.next(buf)
		if err != nil {
			return batch, spare, err
		}
		batch, size = append(batch, seg), size+len(seg.raw)
		if seg.fault = v.begin(seg); seg.fault != nil {
			return batch, spare, io.EOF // nothing behind it is of interest
		}
	}
	return batch, spare, nil
}

// begin finds the key by which a segment is judged.
func (v *verifier) begin(s *segment) *Fault {
	if f := s.begun(); f != nil {
		return f
	}
	if s.number > 0 && s.head.Session != v.session {
		return s.faultAt(0, "a segment of another session")
	}
	v.session = s.head.Session
	if s.head.Certificate != "" && !v.own {
		if err := v.vouch(s.head); err != nil {
			return s.faultAt(0, err.Error())
		}
	}
	known := false
	if s.key, known = v.vouched[s.head.Key]; !known {
		s.key, known = v.keys[s.head.Key]
	}
	if !known {
		return s.faultAt(0, fmt.Sprintf("signed with key %.32q, which is not among the trusted ones and has no certificate of theirs", s.head.Key))
	}
	return nil
}

// vouch takes a certificate for the key of a segment that begins.
func (v *verifier) vouch(h header) error {
	c, err := v.keys.Certified(h.Certificate)
	if err != nil {
		return err
	}
	key := ed25519.PublicKey(c.Key)
	if KeyID(key) != h.Key {
		return errors.New("the certificate is of another key")
	}
	if !c.Covers(h.Opened) {
		return fmt.Errorf("the certificate is good from %s until %s, and the segment began outside of that", c.From.UTC(), c.Until.UTC())
	}
	v.vouched[h.Key] = key
	v.report.Installation, v.report.Gateway = c.Installation, c.Gateway
	return nil
}

// judge parses a batch side by side and chains it.
func (v *verifier) judge(batch []*segment) *Fault {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(batch)) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(batch) {
					return
				}
				if batch[i].fault == nil {
					batch[i].parse()
				}
			}
		})
	}
	wg.Wait()
	for _, s := range batch {
		if f := v.follow(s); f != nil {
			return f
		}
	}
	return nil
}

// follow chains one segment to those before it.
func (v *verifier) follow(s *segment) *Fault {
	if v.report.Sealed {
		return s.faultAt(0, "something follows the last segment")
	}
	if s.key != nil { // its header is right so far
		if s.head.Prev != v.report.Head {
			return s.faultAt(0, "the chain is broken: the segment before is not the one that this one followed")
		}
		v.report.Session, v.report.Open = s.head.Session, s.events
		if !s.signed {
			v.tail = s
		}
	}
	if s.fault != nil {
		return s.fault
	}
	if !s.signed {
		return nil
	}
	if want, anchored := v.heads[s.number]; anchored && want != s.hash {
		return s.faultAt(0, "another segment was anchored under this number: the recording was replaced")
	}
	v.report.Segments++
	v.report.Events += s.events
	v.report.Open, v.report.Head, v.report.Sealed = 0, s.hash, s.closed.Last
	v.end = s.offset + int64(len(s.raw))
	return nil
}

// finish judges the end of the file.
func (v *verifier) finish() error {
	at := &Fault{Segment: v.report.Segments, Offset: v.end}
	if v.tail != nil {
		at.Offset += int64(len(v.tail.raw))
	}
	switch {
	case v.tail != nil && v.tail.closed != nil:
		at.What = "the file ends before the segment's signature"
	case v.report.Segments < v.highest:
		at.What = fmt.Sprintf("%d segments were anchored and %d are here: the tail was cut", v.highest, v.report.Segments)
	case v.wantSeal && !v.report.Sealed:
		at.What = "the sealed end was anchored and is not here: the tail was cut"
	case v.report.Session == "":
		at.What = "the file is empty"
	default:
		return nil
	}
	return at
}
