package postgres

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/tidegate/tidegate/gateway"
)

// masking masks what the grant's masks detect in what the target sends. It
// keeps every length, so messages stay as they are framed, and works in the
// reader's buffer, before anything is passed on.
type masking struct {
	masker gateway.Masker
	opaque []bool // of the rows that come: columns that hold no text

	// Of a message that is too large to be kept whole.
	part   part
	column int
	left   int // bytes of the part
	data   int // bytes of COPY data, which is one value; -1 in a row
	masked gateway.MaskStream
}

// part is where in a large message the next byte stands.
type part uint8

const (
	partHead   part = iota // type, length, and a row's number of columns
	partLength             // a column's
	partValue
)

// opaqueTypes hold no text: numbers, times, addresses, bytes, and arrays of
// them. Values of every other type are read as text.
var opaqueTypes = []uint32{
	16, 17, 20, 21, 23, 26, 27, 28, 29, 600, 601, 602, 603, 604, 628, 650, 700, 701, 718, 774, 790, 829, 869,
	1000, 1001, 1005, 1007, 1016, 1021, 1022, 1028, 1082, 1083, 1114, 1115, 1182, 1183, 1184, 1185, 1186, 1187, 1231, 1266, 1270, 1560, 1562, 1700,
	2950, 2951, 3220, 3221, 5069,
}

// maskedAtOnce is how many bytes are looked through without letting other
// sessions of the same turn go on elsewhere.
const maskedAtOnce = 4 << 10

// maskedKinds are messages that are read whole where values are masked.
const maskedKinds = "ANT"

// whole masks in one message.
func (m *masking) whole(kind byte, msg []byte) error {
	body := msg[headSize:]
	ok := true
	switch kind {
	case 'T':
		m.opaque, ok = opaqueColumns(m.opaque[:0], body)
	case 'D':
		ok = m.row(body)
	case 'd':
		m.masker.Mask(body)
	case 'E', 'N':
		m.report(body)
	case 'A':
		m.masker.Mask(body[min(4, len(body)):]) // behind the process's number
	case 'S':
		if end := bytes.IndexByte(body, 0); end >= 0 {
			m.masker.Mask(body[end:])
		}
	}
	if !ok {
		return mismatch("message %q that does not end as it must", kind)
	}
	return nil
}

// opaqueColumns reads a RowDescription.
func opaqueColumns(out []bool, body []byte) ([]bool, bool) {
	const behindName = 4 + 2 + 4 + 2 + 4 + 2 // table, column, type, size, modifier, format
	if len(body) < 2 {
		return nil, false
	}
	n := int(binary.BigEndian.Uint16(body))
	body = body[2:]
	for range n {
		end := bytes.IndexByte(body, 0)
		if end < 0 || len(body) < end+1+behindName {
			return nil, false
		}
		oid := binary.BigEndian.Uint32(body[end+1+6:])
		out = append(out, slices.Contains(opaqueTypes, oid))
		body = body[end+1+behindName:]
	}
	return out, len(body) == 0
}

func (m *masking) isOpaque(column int) bool {
	return column >= 0 && column < len(m.opaque) && m.opaque[column]
}

// row masks in each column that may hold text, each by itself.
func (m *masking) row(body []byte) bool {
	if len(body) < 2 {
		return false
	}
	n := int(binary.BigEndian.Uint16(body))
	body = body[2:]
	for i := range n {
		if len(body) < 4 {
			return false
		}
		size := int(int32(binary.BigEndian.Uint32(body)))
		body = body[4:]
		if size < 0 {
			continue
		}
		if size > len(body) {
			return false
		}
		if !m.isOpaque(i) {
			m.masker.Mask(body[:size])
		}
		body = body[size:]
	}
	return len(body) == 0
}

// report masks in the sentences of an error or a notice, not in its codes and
// names.
func (m *masking) report(body []byte) {
	for len(body) > 1 {
		end := bytes.IndexByte(body, 0)
		if end < 0 {
			return
		}
		if end > 0 && bytes.IndexByte([]byte("MDHWq"), body[0]) >= 0 {
			m.masker.Mask(body[1:end])
		}
		body = body[end+1:]
	}
}

// begin begins a message that comes in parts: a row, or COPY data.
func (m *masking) begin(kind byte, size int64) {
	m.part, m.left, m.column, m.data = partHead, headSize, -1, int(size)-headSize
	if kind == 'D' {
		m.left, m.data = headSize+2, -1
	}
}

// more masks in the next bytes of such a message, and says how many of them
// can be passed on.
func (m *masking) more(p []byte) (used int) {
	for used < len(p) {
		n := 0
		switch m.part {
		case partHead:
			n = min(m.left, len(p)-used)
			if m.left -= n; m.left == 0 {
				m.next(m.data)
			}
		case partLength:
			if len(p)-used < 4 {
				return used
			}
			n = 4
			m.column++
			m.next(int(int32(binary.BigEndian.Uint32(p[used:]))))
		case partValue:
			if n = m.value(p[used:]); n == 0 {
				return used
			}
		}
		used += n
	}
	return used
}

// next is at a value of so many bytes, or, without one, at the next length.
func (m *masking) next(size int) {
	m.part, m.left = partLength, size
	if size > 0 {
		m.part, m.masked = partValue, m.masker.Stream()
	}
}

// value masks in a part of a value.
func (m *masking) value(p []byte) int {
	p = p[:min(m.left, len(p))]
	n := len(p)
	if !m.isOpaque(m.column) {
		n = m.masked.Advance(p, n == m.left)
	}
	if m.left -= n; m.left == 0 {
		m.part = partLength
	}
	return n
}

// describeRows asks the target what a portal's columns are, before its rows
// come: a client need not ask, and the masking must know.
func (b *bridge) describeRows(portal string) error {
	if b.masking == nil {
		return nil
	}
	return b.send(&reply{kind: 'D', hidden: true, loud: true}, 'D', "P", portal, "\x00")
}
