package postgres

import (
	"encoding/binary"
	"fmt"
	"unicode"
	"unicode/utf8"
)

// A row or a line of COPY that is too large to be kept whole is recorded as it
// comes, piece by piece. Whether a value is text is then not known before its
// end, so what people can't read in it is written byte by byte, as \xhh, which
// COPY understands as well.

// bigRow is where in such a message the next piece begins.
type bigRow struct {
	head    []byte // the beginning of a number of the protocol
	tail    []byte // that of a character
	kind    byte   // of the message; 0: its head has not come
	columns int    // to come
	left    int64  // bytes of the value
	begun   bool   // a value came before
}

// more takes the next piece of a message; of nil, nothing is kept.
func (k *results) more(p []byte, last bool) {
	if k == nil || len(k.of.opens) == 0 || !k.of.opens[0].Decision().Limits.Results {
		return
	}
	for len(p) > 0 {
		p = k.big.take(p, &k.buf)
		if len(k.buf) >= maxKeptLines {
			k.record()
		}
	}
	if !last {
		return
	}
	if k.big.kind == 'D' {
		k.buf = append(k.buf, '\n')
	}
	k.big = bigRow{}
}

// take writes some of the piece out, and answers with the rest of it.
func (r *bigRow) take(p []byte, out *[]byte) []byte {
	switch {
	case r.kind == 0:
		if p = r.gather(p, headSize); len(r.head) == headSize {
			r.kind, r.head = r.head[0], r.head[:0]
			r.columns = -1
		}
	case r.kind != 'd' && r.kind != 'D': // a notice in between
		return nil
	case r.kind == 'd':
		*out, p = append(*out, p...), nil
	case r.columns < 0:
		if p = r.gather(p, 2); len(r.head) == 2 {
			r.columns, r.head = int(binary.BigEndian.Uint16(r.head)), r.head[:0]
		}
	case r.left > 0:
		n := min(r.left, int64(len(p)), maxKeptLines)
		r.left -= n
		*out, p = r.text(*out, p[:n]), p[n:]
	case r.columns == 0:
		return nil // more than it should be: it says nothing
	default:
		if p = r.gather(p, 4); len(r.head) == 4 {
			*out = r.value(*out)
		}
	}
	return p
}

// gather completes a field of the protocol.
func (r *bigRow) gather(p []byte, size int) []byte {
	n := min(size-len(r.head), len(p))
	r.head = append(r.head, p[:n]...)
	return p[n:]
}

// value begins the next one, whose length is in head.
func (r *bigRow) value(out []byte) []byte {
	if r.begun {
		out = append(out, '\t')
	}
	r.begun, r.columns = true, r.columns-1
	size := int32(binary.BigEndian.Uint32(r.head))
	if r.left, r.head = int64(max(size, 0)), r.head[:0]; size < 0 {
		out = append(out, `\N`...)
	}
	return out
}

// text writes a piece of a value. A character may be split between two.
func (r *bigRow) text(out, p []byte) []byte {
	p = append(r.tail, p...)
	r.tail = nil
	for len(p) > 0 {
		if !utf8.FullRune(p) && r.left > 0 {
			r.tail = append(r.tail, p...)
			break
		}
		c, size := utf8.DecodeRune(p)
		out, p = appendShown(out, c, p[:size]), p[size:]
	}
	return out
}

func appendShown(out []byte, c rune, as []byte) []byte {
	switch {
	case c == '\\' || c == '\t' || c == '\n' || c == '\r':
		return append(out, escapes.Replace(string(as))...)
	case c == utf8.RuneError && len(as) == 1 || unicode.IsControl(c):
		for _, b := range as {
			out = fmt.Appendf(out, `\x%02x`, b)
		}
		return out
	}
	return append(out, as...)
}
