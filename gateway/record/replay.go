package record

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/tidegate/tidegate/access"
)

// Replay says how a recording is shown.
type Replay struct {
	From   time.Duration // since the session began
	Speed  float64       // 1 is as it happened; 0 is at once, as text
	Idle   time.Duration // no pause is longer, before Speed; 0 leaves them as they were
	Op     uint64        // the operation to play; 0 is the first with a terminal
	Follow bool          // wait for what is not written yet, until the end of the session
	JSON   bool          // at once, as JSON lines
}

// screenful is how many bytes before the moment that is wanted are read to
// know what stood on the screen then.
const screenful = 512 << 10

// Show writes a recording to a person's terminal. Nothing in it can do more
// there than draw. size is how many bytes it has now.
func (p Replay) Show(ctx context.Context, w io.Writer, r io.ReaderAt, size int64) error {
	begin, at, err := seek(r, size, p.From)
	if err != nil {
		return err
	}
	var from io.Reader = io.NewSectionReader(r, begin, size-begin)
	if p.Follow {
		from = &follower{ctx: ctx, from: r, at: begin}
	}
	show := &shower{Replay: p, ctx: ctx, out: w, from: at, asked: p.Op}
	for e, err := range p.events(ctx, from) {
		if err == nil {
			err = show.event(e)
		}
		if err != nil {
			return errors.Join(err, show.close())
		}
	}
	return errors.Join(show.close(), show.missed())
}

// events are those of a recording; where it is followed, they end with it.
func (p Replay) events(ctx context.Context, r io.Reader) iter.Seq2[access.Event, error] {
	return func(yield func(access.Event, error) bool) {
		s := newScanner(r)
		s.toSeal = p.Follow
		for {
			e, err := s.event()
			if errors.Is(err, io.EOF) || ctx.Err() != nil {
				return
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// seek finds the segment from which to read, and the moment that is wanted. It
// needs no index: segments are in the order of time, a line's beginning is
// found from anywhere, and so some headers are enough.
func seek(r io.ReaderAt, size int64, from time.Duration) (int64, time.Time, error) {
	_, first, err := headerAfter(r, 0, size)
	if err != nil || from <= 0 {
		return 0, first.Opened, err
	}
	at := first.Opened.Add(from)
	low, high := int64(0), size // the segment at low began in time, none from high on did
	for high-low > readAhead {
		middle := low + (high-low)/2
		place, h, err := headerAfter(r, middle, high)
		switch {
		case err != nil:
			return 0, at, err
		case place < 0 || h.Opened.After(at):
			high = middle
		default:
			low = place
		}
	}
	if begin := low - screenful; begin > 0 {
		place, _, err := headerAfter(r, begin, low)
		if err != nil || place >= 0 {
			return max(place, 0), at, err
		}
		return low, at, nil // one segment is larger than that
	}
	return 0, at, nil
}

// headerAfter is the first header that begins at a place or behind it, and
// before the end; -1 is none.
func headerAfter(r io.ReaderAt, from, end int64) (int64, header, error) {
	var h header
	lead := min(from, 1) // of the line's end before it
	section := io.NewSectionReader(r, from-lead, maxSegment+maxLine)
	buf, off := make([]byte, 0, readAhead), int64(0)
	for from-lead+off < end {
		n, err := io.ReadAtLeast(section, buf[len(buf):cap(buf)], 1)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, h, fmt.Errorf("read recording: %w", err)
		}
		if buf = buf[:len(buf)+n]; n == 0 {
			break
		}
		at := bytes.Index(buf, []byte("\nH {"))
		if from == 0 && off == 0 && bytes.HasPrefix(buf, []byte("H {")) {
			return headerAt(r, 0)
		}
		if at >= 0 {
			place := from - lead + off + int64(at) + 1
			if place >= end {
				break
			}
			return headerAt(r, place)
		}
		keep := min(len(buf), 3)
		off += int64(len(buf) - keep)
		buf = append(buf[:0], buf[len(buf)-keep:]...)
	}
	return -1, h, nil
}

func headerAt(r io.ReaderAt, place int64) (int64, header, error) {
	var h header
	line := make([]byte, 2*maxCertificate)
	n, err := r.ReadAt(line, place)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, h, fmt.Errorf("read recording: %w", err)
	}
	body, _, whole := bytes.Cut(line[2:max(n, 2)], []byte("\n"))
	if !whole {
		return -1, h, nil // it is being written, or none of ours
	}
	if err := json.Unmarshal(body, &h); err != nil {
		return 0, h, &Fault{Offset: place, What: "the header is not understood: " + err.Error()}
	}
	return place, h, nil
}

// follower reads a file that grows.
type follower struct {
	ctx  context.Context
	from io.ReaderAt
	at   int64
}

// followEvery is how often a recording is looked at for more.
const followEvery = 200 * time.Millisecond

// Read implements io.Reader. It ends with its context.
func (f *follower) Read(b []byte) (int, error) {
	for {
		n, err := f.from.ReadAt(b, f.at)
		f.at += int64(n)
		if n > 0 || err != nil && !errors.Is(err, io.EOF) {
			return n, noEOF(err)
		}
		if pause(f.ctx, followEvery) != nil {
			return 0, io.EOF
		}
	}
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// shower writes events as they are wanted.
type shower struct {
	Replay
	ctx  context.Context
	out  io.Writer
	from time.Time // what was before is not shown, or only drawn
	last time.Time // of the event before; zero before the first that is shown

	asked  uint64  // the operation that somebody wants to see; 0 is any
	screen *screen // of the operation that is played
	shown  bool    // anything
}

// missed says why nothing was shown of what was asked for.
func (s *shower) missed() error {
	switch {
	case s.ctx.Err() != nil:
		return nil
	case !s.shown && s.From > 0:
		return access.Errorf(access.CodeNotFound, "Nothing was recorded from %s on.", s.From)
	case s.asked != 0 && s.screen == nil:
		return access.Errorf(access.CodeNotFound, "This recording shows nothing of an operation %d.", s.asked)
	}
	return nil
}

func (s *shower) event(e access.Event) error {
	early := e.Time.Before(s.from) && s.From > 0
	s.shown = s.shown || !early
	switch {
	case s.JSON && !early:
		return EncodeVisible(s.out, e)
	case s.JSON:
		return nil
	case s.Speed <= 0:
		return s.text(e, early)
	}
	if !early {
		if err := s.wait(e.Time); err != nil {
			return err
		}
	}
	if s.Op == 0 && e.Type == access.EventResize {
		s.Op = e.Op
	}
	switch {
	case s.Op == 0 || s.screen == nil && e.Op != s.Op:
		return s.text(e, early)
	case e.Op != s.Op || e.Type != access.EventData || e.Direction != access.ToClient:
		return nil
	}
	if s.screen == nil {
		s.screen = &screen{out: s.out}
	}
	_, err := s.screen.Write(e.Data)
	return err
}

func (s *shower) text(e access.Event, early bool) error {
	if early {
		return nil
	}
	var line bytes.Buffer
	writeEvent(&line, e)
	_, err := s.out.Write(line.Bytes())
	return err
}

// wait lets pass what passed between two events.
func (s *shower) wait(at time.Time) error {
	gap := at.Sub(s.last)
	if s.last.IsZero() {
		gap = 0
	}
	s.last = at
	if s.Idle > 0 {
		gap = min(gap, s.Idle)
	}
	if gap <= 0 {
		return nil
	}
	return pause(s.ctx, time.Duration(float64(gap)/s.Speed))
}

func (s *shower) close() error {
	if s.screen == nil {
		return nil
	}
	return s.screen.close()
}
