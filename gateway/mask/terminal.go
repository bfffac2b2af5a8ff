package mask

import "bytes"

// plain is what a terminal's text reads like: without the sequences that
// colour it and move the cursor.
type plain struct {
	text []byte  // joined over sequences, and over the ends of full lines
	at   []int32 // where each byte stands in the raw text

	breaks  []int32 // places in text where it was joined over more than colours
	strings []Span  // raw: titles and links, which are shown elsewhere
	stop    int     // raw: where a sequence begins that is not there as a whole
	column  int     // of the cursor, from where the line begins

	apart   []byte // text with a zero byte at each break
	apartAt []int32
}

const esc = 0x1b

// maxSequence bounds what is taken for one sequence.
const maxSequence = 4 << 10

// read takes raw text apart. Lines as wide as the terminal go on in the next;
// a width of 0 is not known.
func (p *plain) read(raw []byte, width int) {
	p.text, p.at = p.text[:0], p.at[:0]
	p.breaks, p.strings, p.stop = p.breaks[:0], p.strings[:0], len(raw)
	p.column = 0
	for i := 0; i < len(raw); {
		c := raw[i]
		switch {
		case c >= ' ' && c != 0x7f:
			p.text, p.at = append(p.text, c), append(p.at, int32(i))
			if c < 0x80 || c >= 0xc0 {
				p.column++
			}
			i++
			continue
		case c == '\t':
			p.text, p.at = append(p.text, c), append(p.at, int32(i))
			p.column = p.column&^7 + 8
		case c == esc:
			n, coloured := p.sequence(raw, i)
			if n == 0 {
				p.stop = i
				return
			}
			if !coloured {
				p.brk()
			}
			i += n
			continue
		case c == '\n':
			if width > 0 && p.column > 0 && p.column%width == 0 {
				p.brk()
			} else {
				p.text, p.at = append(p.text, c), append(p.at, int32(i))
			}
			p.column = 0
		case c == '\r' && i+1 < len(raw) && raw[i+1] == '\n': // the line's end follows
		default:
			p.control(c)
		}
		i++
	}
}

func (p *plain) brk() { p.breaks = append(p.breaks, int32(len(p.text))) }

// control deals with what moves the cursor by one byte. A shell that wraps a
// line writes a space, which wraps, and goes back to the line's begin.
func (p *plain) control(c byte) {
	last := len(p.text) - 1
	if last >= 0 && (c == '\b' || c == '\r' && p.text[last] == ' ') {
		p.text, p.at = p.text[:last], p.at[:last]
	}
	p.brk()
}

// sequence measures an escape sequence; 0 is one that is not there as a whole.
func (p *plain) sequence(raw []byte, at int) (n int, coloured bool) {
	s := raw[at:min(len(raw), at+maxSequence)]
	whole := len(raw)-at < maxSequence // more may come
	if len(s) < 2 {
		return 0, false
	}
	n = 2
	switch s[1] {
	case '[':
		for n < len(s) && s[n] >= 0x20 && s[n] < 0x40 {
			n++
		}
		if n < len(s) {
			return n + 1, s[n] == 'm' || s[n] == 'K'
		}
	case ']', 'P', 'X', '^', '_':
		if after := bytes.IndexAny(s[1:], "\x07\x1b"); after >= 0 {
			end := after + 1
			p.strings = append(p.strings, Span{at + 2, at + end})
			if s[end] == 0x07 {
				return end + 1, true
			}
			if end+1 < len(s) {
				return end + 2, true
			}
			p.strings = p.strings[:len(p.strings)-1]
		}
	case ' ', '#', '%', '(', ')', '*', '+', '-', '.', '/':
		if n < len(s) {
			return n + 1, true
		}
	default:
		return n, s[1] != 'M' && s[1] != 'D' && s[1] != 'E'
	}
	if whole {
		return 0, false
	}
	return 1, false // too long for one: text
}

// split builds the text in which breaks separate.
func (p *plain) split() {
	p.apart, p.apartAt = p.apart[:0], p.apartAt[:0]
	from := int32(0)
	for _, b := range append(p.breaks, int32(len(p.text))) {
		b = min(b, int32(len(p.text))) // a later one may have taken bytes back
		if b < from {
			continue
		}
		p.apart, p.apartAt = append(p.apart, p.text[from:b]...), append(p.apartAt, p.at[from:b]...)
		p.apart, p.apartAt = append(p.apart, 0), append(p.apartAt, -1)
		from = b
	}
}

// maskRaw writes asterisks over what is shown between two places, and over no
// sequence.
func maskRaw(raw []byte, from, to int) {
	var p plain
	p.read(raw[from:to], 0)
	for i, c := range raw[from:to] {
		if c == '\b' && i > 0 { // what was taken back was shown, too
			stars(raw[from+i-1 : from+i])
		}
	}
	for _, at := range p.at {
		stars(raw[from+int(at) : from+int(at)+1])
	}
}
