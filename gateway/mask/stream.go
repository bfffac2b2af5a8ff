package mask

import (
	"bytes"
	"slices"
)

// Bounds of a stream.
const (
	// MaxHeld is how many bytes a stream holds back at most: a value that is
	// longer is masked from where it was known for one.
	MaxHeld = 16 << 10

	overlap     = MaxHeld / 2 // of a run without spaces that is over the bound
	contextSize = 512         // of what was released, to know a name before its value
)

// Stream masks text that comes in pieces. It is for one goroutine at a time.
type Stream struct {
	set      *Set
	terminal bool
	width    int

	keys    keyReader
	context []byte // raw, as it came
	goesOn  bool   // a value over the bound
}

// Stream starts one. A terminal's has escape sequences, which are seen through.
func (s *Set) Stream(terminal bool) *Stream { return &Stream{set: s, terminal: terminal} }

// SetWidth says how many columns the terminal has; 0 is not known.
func (t *Stream) SetWidth(columns int) { t.width = columns }

// Advance masks in place what can be released of p, and says how many bytes
// that is. p begins with what was not released before. With now everything is
// released: the text has ended, or has paused for so long that it can be kept
// no longer.
func (t *Stream) Advance(p []byte, now bool) int {
	if len(p) == 0 {
		return 0
	}
	f := t.set.pool.Get().(*found)
	defer t.set.pool.Put(f)
	f.text = append(append(f.text[:0], t.context...), p...)
	w := piece{t: t, f: f, raw: f.text, base: len(t.context)}
	w.open()
	cut := len(w.raw)
	if !now {
		if cut = w.rawOf(w.hold()); cut <= w.base && len(p) <= MaxHeld {
			return 0
		}
	}
	cut = max(cut, w.base)
	spans := w.search()
	cut = w.place(cut, spans, now)
	if cut == w.base {
		return 0
	}
	spans = w.keys(spans, cut)
	t.remember(w.raw[:cut])
	w.apply(spans, cut, p)
	return cut - w.base
}

// remember keeps the end of what is released, from where a word begins.
func (t *Stream) remember(released []byte) {
	tail := released[max(0, len(released)-contextSize):]
	if len(tail) < len(released) {
		if i := bytes.IndexAny(tail, " \n\x1b"); i > 0 {
			tail = tail[i:]
		}
	}
	t.context = append(t.context[:0], tail...)
}

// piece is one Advance: what was released lately, and what may be now.
type piece struct {
	t    *Stream
	f    *found
	raw  []byte
	base int    // where what is new begins
	text []byte // raw, or a terminal's without sequences
}

func (w *piece) open() {
	w.text = w.raw
	if w.t.terminal {
		w.f.plain.read(w.raw, w.t.width)
		w.text = w.f.plain.text
	}
}

// rawOf is where a place of the text stands in raw.
func (w *piece) rawOf(i int) int {
	switch {
	case !w.t.terminal:
		return i
	case i < len(w.f.plain.at):
		return int(w.f.plain.at[i])
	}
	return w.f.plain.stop
}

// textOf is the first place of the text that stands at or behind a raw one.
func (w *piece) textOf(raw int) int {
	if !w.t.terminal {
		return raw
	}
	i, _ := slices.BinarySearch(w.f.plain.at, int32(raw))
	return i
}

// hold is where a value may have begun that still goes on.
func (w *piece) hold() int {
	s, text, least := w.t.set, w.text, w.textOf(w.base)
	i := len(text)
	if w.wraps() {
		i--
	}
	for i > least && s.holds[text[i-1]] {
		i--
	}
	if !s.grouped() {
		return i
	}
	for limit := max(least, i-maxGrouped); i-1 > limit && text[i-1] == ' '; {
		group := i - 1
		for group > limit && isAlnum(text[group-1]) {
			group--
		}
		if group == i-1 || i < len(text) && !isAlnum(text[i]) || !hasDigit(text[group:i-1]) {
			break
		}
		i = group
	}
	return i
}

// wraps reports whether the text ends with the space by which a shell wraps a
// line: the line's text goes on behind it.
func (w *piece) wraps() bool {
	p := &w.f.plain
	return w.t.terminal && w.t.width > 0 && p.column%w.t.width == 1 && len(p.text) > 0 && p.text[len(p.text)-1] == ' '
}

// maxGrouped is the longest value in groups, with a space between each two.
const maxGrouped = 48

func hasDigit(p []byte) bool { return slices.ContainsFunc(p, isDigit) }

// search finds values in the text, as places in raw. Where it was joined over
// a move of the cursor, it is also searched apart: a screen is drawn in any
// order.
func (w *piece) search() []Span {
	s, f := w.t.set, w.f
	s.find(w.text, f)
	if !w.t.terminal {
		return slices.Clone(f.take())
	}
	var out []Span
	for _, at := range f.take() {
		out = append(out, w.rawSpan(f.plain.at, at))
	}
	if len(f.plain.breaks) > 0 {
		f.plain.split()
		s.find(f.plain.apart, f)
		for _, at := range f.take() {
			out = append(out, w.rawSpan(f.plain.apartAt, at))
		}
	}
	for _, at := range f.plain.strings {
		for _, in := range s.Find(w.raw[at.From:at.To]) {
			out = append(out, Span{at.From + in.From, at.From + in.To})
		}
	}
	return out
}

func (w *piece) rawSpan(at []int32, s Span) Span {
	return Span{int(at[s.From]), int(at[s.To-1]) + 1}
}

// place moves the cut so that it goes through no value: before it, or, where
// so much can't be kept, behind everything.
func (w *piece) place(cut int, spans []Span, now bool) int {
	if w.t.goesOn {
		end := w.base
		for end < len(w.raw) && w.raw[end] > ' ' {
			end++
		}
		if end == len(w.raw) {
			return end
		}
		cut = max(cut, end)
	}
	if now {
		return cut
	}
	if len(w.raw)-cut > MaxHeld {
		cut = max(w.base, w.rawOf(w.textOf(len(w.raw)-overlap)))
	}
	for again := true; again; {
		again = false
		for _, s := range spans {
			if s.From < cut && cut < s.To {
				cut, again = s.From, true
			}
		}
	}
	if cut <= w.base {
		if len(w.raw)-w.base <= MaxHeld {
			return w.base
		}
		return len(w.raw)
	}
	return cut
}

// keys adds what is masked of private keys up to the cut.
func (w *piece) keys(spans []Span, cut int) []Span {
	if !w.t.set.pem {
		return spans
	}
	w.f.spans = w.f.spans[:0]
	w.t.keys.read(w.text, w.textOf(w.base), w.textOf(cut), w.f)
	for _, at := range w.f.take() {
		if w.t.terminal {
			at = w.rawSpan(w.f.plain.at, at)
		}
		spans = append(spans, at)
	}
	return spans
}

// apply masks p up to the cut.
func (w *piece) apply(spans []Span, cut int, p []byte) {
	mask := stars
	if w.t.terminal {
		mask = func(part []byte) { maskRaw(part, 0, len(part)) }
	}
	going := w.base
	if w.t.goesOn {
		for going < cut && w.raw[going] > ' ' {
			going++
		}
		stars(p[:going-w.base])
	}
	w.t.goesOn = w.t.goesOn && going == cut
	for _, s := range spans {
		from, to := max(s.From, w.base), min(s.To, cut)
		if from < to {
			mask(p[from-w.base : to-w.base])
		}
		if cut == len(w.raw) && s.To == cut && s.To-s.From > overlap {
			w.t.goesOn = true
		}
	}
}
