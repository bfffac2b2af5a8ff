package postgres

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"unicode/utf8"

	"github.com/tidegate/tidegate/access"
)

// maxShown bounds how much of one parameter is shown and recorded in full.
const maxShown = 4 << 10

// parse names a statement. What is denied is refused here; what is held is
// asked for when it runs.
func (b *bridge) parse(body []byte) error {
	name, rest, ok1 := cutString(body)
	text, types, ok2 := cutBytes(rest)
	if !ok1 || !ok2 || len(types) < 2 || len(types) != 2+4*int(binary.BigEndian.Uint16(types)) {
		return violation("A Parse message does not end as it must.")
	}
	if err := b.sweep(); err != nil {
		return err
	}
	if b.replies.isSkipping() {
		return nil // the target would skip it
	}
	read, effects, err := b.understand(text)
	if err == nil {
		err = b.checkPrepared(read)
	}
	if err != nil {
		return b.refuse('P', err)
	}
	v := &named{name: b.stmts.fresh(), ops: read.ops}
	if len(effects) > 0 {
		v.does = effects[0]
	}
	r := &reply{kind: 'P'}
	if err := b.stmts.set(name, v, r); err != nil {
		return b.refuse('P', err)
	}
	return b.send(r, 'P', v.name, "\x00", read.sent, "\x00", string(types))
}

func (b *bridge) checkPrepared(read reading) error {
	if len(read.ops) > 1 {
		return access.Errorf(access.CodeInvalid, "A prepared statement has %d commands; one is allowed.", len(read.ops))
	}
	for i, op := range read.ops {
		if read.stmts[i].copyIn && op.Guard == nil {
			read.ops[i].Class = nil
			read.ops[i].Guard = &access.Decision{Verdict: access.Deny, Rule: "copy-extended", Say: "COPY FROM STDIN is not allowed as a prepared statement; send it as a simple query."}
		}
	}
	return b.admitDenied(read.ops)
}

// bind makes a portal of a statement and its parameters.
func (b *bridge) bind(body []byte) error {
	portal, rest, ok1 := cutString(body)
	name, values, ok2 := cutString(rest)
	params, ok3 := parseBind(values)
	if !ok1 || !ok2 || !ok3 {
		return violation("A Bind message does not end as it must.")
	}
	if b.replies.isSkipping() {
		return nil
	}
	stmt, ok := b.stmts.get(name)
	if !ok {
		return b.refuseWith('P', report{"ERROR", stateNoStatement, fmt.Sprintf("prepared statement %q does not exist", name), ""}.bytes('E'))
	}
	sum := sha256.Sum256(values)
	v := &named{ops: stmt.ops, does: stmt.does, params: params, binding: sum[:]}
	if portal != "" { // see names: the unnamed one needs no other name
		v.name = b.portals.fresh()
	}
	r := &reply{kind: 'B'}
	if err := b.portals.set(portal, v, r); err != nil {
		return b.refuse('P', err)
	}
	return b.send(r, 'B', v.name, "\x00", stmt.name, "\x00", string(values))
}

// parseBind reads a Bind message behind its names.
func parseBind(p []byte) (params []string, ok bool) {
	formats, p, ok := takeShorts(p)
	if !ok || len(p) < 2 {
		return nil, false
	}
	n := int(binary.BigEndian.Uint16(p))
	p = p[2:]
	if len(formats) > 1 && len(formats) != n {
		return nil, false
	}
	for i := range n {
		if len(p) < 4 {
			return nil, false
		}
		size := int64(int32(binary.BigEndian.Uint32(p)))
		p = p[4:]
		if size == -1 {
			params = append(params, "NULL")
			continue
		}
		if size < 0 || size > int64(len(p)) {
			return nil, false
		}
		params, p = append(params, showParam(p[:size], formatOf(formats, i))), p[size:]
	}
	_, p, ok = takeShorts(p)
	return params, ok && len(p) == 0
}

// takeShorts reads a counted list of 16-bit numbers.
func takeShorts(p []byte) ([]uint16, []byte, bool) {
	if len(p) < 2 {
		return nil, nil, false
	}
	n := int(binary.BigEndian.Uint16(p))
	p = p[2:]
	if len(p) < 2*n {
		return nil, nil, false
	}
	out := make([]uint16, n)
	for i := range out {
		out[i] = binary.BigEndian.Uint16(p[2*i:])
	}
	return out, p[2*n:], true
}

func formatOf(formats []uint16, i int) uint16 {
	switch len(formats) {
	case 0:
		return 0
	case 1:
		return formats[0]
	}
	return formats[i]
}

// showParam is a value as people read it; a binary one in hexadecimal. A long
// one is cut, and its hash says which it is.
func showParam(v []byte, format uint16) string {
	shown, tail := v, ""
	if len(v) > maxShown {
		sum := sha256.Sum256(v)
		shown, tail = v[:maxShown], fmt.Sprintf("… (%d bytes, SHA-256 %x)", len(v), sum)
	}
	if format != 0 || !utf8.Valid(v) {
		return `\x` + hex.EncodeToString(shown) + tail
	}
	return string(shown) + tail
}

// target reads "S" or "P" and a name, and finds it.
func (b *bridge) target(body []byte) (n *names, name string, err error) {
	if len(body) == 0 {
		return nil, "", violation("A message about a statement or portal is empty.")
	}
	name, rest, ok := cutString(body[1:])
	if !ok || len(rest) > 0 {
		return nil, "", violation("A message about a statement or portal does not end as it must.")
	}
	switch body[0] {
	case 'S':
		return b.stmts, name, nil
	case 'P':
		return b.portals, name, nil
	}
	return nil, "", violation("%q is neither a statement (S) nor a portal (P).", body[0])
}

// letter is the S or P before a name.
func letter(kind byte) string {
	if kind == 'S' {
		return "S"
	}
	return "P"
}

func (b *bridge) describe(body []byte) error {
	n, name, err := b.target(body)
	if err != nil || b.replies.isSkipping() {
		return err
	}
	v, ok := n.get(name)
	if !ok && b.isCursor(body[0], name) {
		v, ok = &named{name: name}, true
	}
	if !ok {
		return b.unknown(body[0], name)
	}
	return b.send(&reply{kind: 'D'}, 'D', letter(body[0]), v.name, "\x00")
}

func (b *bridge) unknown(kind byte, name string) error {
	r := report{"ERROR", stateNoPortal, fmt.Sprintf("portal %q does not exist", name), ""}
	if kind == 'S' {
		r.code, r.message = stateNoStatement, fmt.Sprintf("prepared statement %q does not exist", name)
	}
	return b.refuseWith('P', r.bytes('E'))
}

// execute asks for the statement with its parameters, each time that it runs
// or goes on.
func (b *bridge) execute(body []byte) error {
	name, limit, ok := cutString(body)
	if !ok || len(limit) != 4 {
		return violation("An Execute message does not end as it must.")
	}
	if b.replies.isSkipping() {
		return nil
	}
	v, ok := b.portals.get(name)
	if !ok {
		return b.unknown('P', name)
	}
	r := &reply{kind: 'E'}
	for _, op := range v.ops {
		op.Params, op.Binding = v.params, v.binding
		open, err := b.admit(op)
		if err != nil {
			return b.refuse('P', err)
		}
		r.opens = append(r.first[:0], open)
	}
	if v.does != nil {
		if err := v.does(r); err != nil {
			r.drop(skipped)
			return b.refuse('P', err)
		}
	}
	if err := b.describeRows(v.name); err != nil {
		r.drop(skipped)
		return err
	}
	return b.send(r, 'E', v.name, "\x00", string(limit))
}

// closeName closes a name; one that is not known is no error in PostgreSQL.
func (b *bridge) closeName(body []byte) error {
	n, name, err := b.target(body)
	if err != nil || b.replies.isSkipping() {
		return err
	}
	r := &reply{kind: 'C'}
	v, ok := n.get(name)
	if !ok && b.isCursor(body[0], name) {
		delete(b.cursors, name)
		return b.send(r, 'C', "P", name, "\x00")
	}
	if !ok {
		return b.send(r, 'C', letter(body[0]), n.fresh(), "\x00")
	}
	if err := n.set(name, nil, r); err != nil {
		return err
	}
	return b.send(r, 'C', letter(body[0]), v.name, "\x00")
}

// sweep closes names at the target that nothing leads to any more.
func (b *bridge) sweep() error {
	for _, n := range [...]*names{b.stmts, b.portals} {
		for _, name := range n.sweep() {
			r := &reply{kind: 'C', hidden: true, undo: func() { n.discard(name) }}
			if err := b.send(r, 'C', letter(n.kind), name, "\x00"); err != nil {
				return err
			}
		}
	}
	return nil
}
