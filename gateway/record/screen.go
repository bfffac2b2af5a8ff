package record

import (
	"bytes"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// screen passes on what a program wrote to its terminal so that it can be shown
// on another. What a person typed is looked at later by somebody else, and the
// program may have been made to harm that one: so nothing passes but text and
// the sequences listed here. Titles, clipboards, links, questions that a
// terminal answers by typing, mouse and paste modes, and all that would outlive
// the replay is left out. close undoes the rest.
type screen struct {
	out io.Writer
	buf bytes.Buffer // what passes of one write

	state   screenState
	seq     []byte // a control sequence up to here
	long    int    // bytes of a string, or of a sequence that is left out
	partial []byte // a character whose rest is in the next write
	other   bool   // the alternate screen is shown
}

type screenState int

const (
	onText     screenState = iota
	onEscape               // behind ESC
	onCharset              // behind ESC and an intermediate
	onSequence             // behind CSI
	onString               // in OSC, DCS, APC, PM or SOS, which are left out
	onStringEscape
)

// Bounds. A string that does not end hides no more than this: a program could
// keep what follows from the viewer.
const (
	maxSequence = 64
	maxString   = 4 << 10
	maxRepeat   = 1000 // of a sequence's numbers
)

// Write takes what the program wrote.
func (s *screen) Write(data []byte) (int, error) {
	all := data
	if len(s.partial) > 0 {
		all = append(s.partial, data...)
		s.partial = nil
	}
	for len(all) > 0 {
		r, n := utf8.DecodeRune(all)
		if r == utf8.RuneError && n == 1 && !utf8.FullRune(all) {
			s.partial = append([]byte(nil), all...)
			break
		}
		s.rune(r)
		all = all[n:]
	}
	_, err := s.out.Write(s.buf.Bytes())
	s.buf.Reset()
	return len(data), err
}

func (s *screen) rune(r rune) {
	if r == 0x18 || r == 0x1a { // CAN and SUB end whatever was begun
		s.state = onText
		return
	}
	switch s.state {
	case onText:
		s.text(r)
	case onEscape:
		s.escape(r)
	case onCharset:
		s.charset(r)
	case onSequence:
		s.sequence(r)
	case onString, onStringEscape:
		s.inString(r)
	}
}

func (s *screen) text(r rune) {
	switch {
	case r == 0x1b:
		s.state, s.seq, s.long = onEscape, s.seq[:0], 0
	case r == '\n' || r == '\r' || r == '\t' || r == '\b':
		s.buf.WriteByte(byte(r))
	case unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r):
	default:
		s.buf.WriteRune(r)
	}
}

// wipe is what a terminal's full reset shows, without the reset.
const wipe = "\x1b[0m\x1b[2J\x1b[H"

func (s *screen) escape(r rune) {
	s.state = onText
	switch {
	case r == '[':
		s.state = onSequence
	case r == ']' || r == 'P' || r == '_' || r == '^' || r == 'X':
		s.state = onString
	case r >= 0x20 && r <= 0x2f:
		s.state, s.seq = onCharset, append(s.seq, byte(r))
	case r == 0x1b:
		s.state = onEscape
	case r == '7' || r == '8' || r == 'D' || r == 'E' || r == 'M':
		s.buf.WriteString("\x1b" + string(r))
	case r == 'c':
		s.buf.WriteString(wipe)
	}
}

// charset lets the two through that draw boxes.
func (s *screen) charset(r rune) {
	switch {
	case r >= 0x20 && r <= 0x2f && len(s.seq) < maxSequence:
		s.seq = append(s.seq, byte(r))
		return
	case r == 0x1b:
		s.state = onEscape
		return
	}
	s.state = onText
	if string(s.seq) == "(" && (r == '0' || r == 'B') {
		s.buf.WriteString("\x1b(" + string(r))
	}
}

func (s *screen) sequence(r rune) {
	switch {
	case r >= 0x20 && r <= 0x3f:
		if s.long++; s.long <= maxSequence {
			s.seq = append(s.seq, byte(r))
		}
		if s.long > maxString {
			s.state = onText
		}
		return
	case r == 0x1b:
		s.state, s.seq = onEscape, s.seq[:0]
		return
	case r < 0x20: // a terminal obeys these in the midst of a sequence
		s.text(r)
		return
	}
	s.state = onText
	if r >= 0x40 && r <= 0x7e && s.long <= maxSequence {
		s.control(string(s.seq), byte(r))
	}
}

// moves are the sequences that move, erase, insert, scroll and colour.
const moves = "@ABCDEFGHJKLMPSTXZ`abdefmrsu"

func (s *screen) control(params string, final byte) {
	if mode, private := strings.CutPrefix(params, "?"); private {
		s.mode(mode, final)
		return
	}
	if strings.IndexByte(moves, final) < 0 || strings.Trim(params, "0123456789;:") != "" {
		return
	}
	if final == 'J' && strings.Trim(params, "012") != "" { // 3, however it is written: what stands above is the viewer's
		return
	}
	s.buf.WriteString("\x1b[" + bounded(params) + string(final))
}

// bounded has no number over maxRepeat: one repeats a character so often.
func bounded(params string) string {
	var out strings.Builder
	for params != "" {
		digits := len(params) - len(strings.TrimLeft(params, "0123456789"))
		if n, err := strconv.Atoi(params[:digits]); digits > 0 && (err != nil || n > maxRepeat) {
			out.WriteString(strconv.Itoa(maxRepeat))
		} else {
			out.WriteString(params[:digits])
		}
		if params = params[digits:]; params != "" {
			out.WriteByte(params[0])
			params = params[1:]
		}
	}
	return out.String()
}

// mode lets through what close takes back: the cursor, wrapping, and the
// alternate screen.
func (s *screen) mode(params string, final byte) {
	if final != 'h' && final != 'l' {
		return
	}
	for m := range strings.SplitSeq(params, ";") {
		switch m {
		case "7", "25":
		case "47", "1047", "1049":
			s.other, m = final == 'h', "1049"
		default:
			continue
		}
		s.buf.WriteString("\x1b[?" + m + string(final))
	}
}

func (s *screen) inString(r rune) {
	escaped := s.state == onStringEscape
	s.state = onString
	switch s.long++; {
	case r == 0x07 || r == 0x9c || escaped && r == '\\' || s.long > maxString:
		s.state = onText
	case escaped: // the string is broken off by another sequence
		s.state, s.seq, s.long = onEscape, s.seq[:0], 0
		s.escape(r)
	case r == 0x1b:
		s.state = onStringEscape
	}
}

// close brings the viewer's terminal back to what it was.
func (s *screen) close() error {
	end := "\x1b[0m\x1b(B\x1b7\x1b[r\x1b8\x1b[?7h\x1b[?25h"
	if s.other {
		end += "\x1b[?1049l"
	}
	_, err := io.WriteString(s.out, end+"\r\n")
	return err
}
