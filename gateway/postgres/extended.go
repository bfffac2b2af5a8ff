package postgres

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
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
	read, effects, err := b.understand(text, 'P')
	for i := range read.ops {
		if b.see(&read.ops[i]) {
			read.hidden = append(read.hidden, i)
		}
	}
	if err == nil && len(read.ops) > 1 {
		err = access.Errorf(access.CodeInvalid, "A prepared statement has %d commands; one is allowed.", len(read.ops))
	}
	if err == nil {
		err = b.admitDenied(read.ops)
	}
	if err != nil {
		return b.refuse('P', err)
	}
	v := &named{name: b.stmts.fresh(), ops: read.ops, types: string(types), copyIn: read.copies > 0}
	if len(read.stmts) == 1 {
		v.secret = read.stmts[0].secrets.params
		v.sql, v.copyOut, v.fetches, v.flow = read.asked(0), read.copyOut || read.stmts[0].copyOut, read.fetches, read.flowOf(0)
		if v.bound = read.stmts[0].bound != ""; v.bound {
			v.types = noTypes
		}
		if use := read.stmts[0].use; use != nil && use.verb == "fetch" {
			v.fetches = &use.name
		}
	}
	if len(effects) > 0 {
		v.does = effects[0]
	}
	r := shortReply('P')
	if err := b.stmts.set(name, v, r); err != nil {
		return b.refuse('P', err)
	}
	return b.send(r, 'P', v.name, "\x00", read.sent, "\x00", string(types))
}

// bind makes a portal of a statement and its parameters.
func (b *bridge) bind(body []byte) error {
	portal, rest, ok1 := cutString(body)
	name, values, ok2 := cutString(rest)
	if !ok1 || !ok2 {
		return violation("A Bind message does not end as it must.")
	}
	stmt, known := b.stmts.get(name)
	params, resultsAt, ok := parseBind(values, func(i int, v []byte, format uint16) string {
		if known {
			if _, secret := slices.BinarySearch(stmt.secret, i+1); secret {
				return b.session.Withhold(v)
			}
		}
		return showParam(v, format)
	})
	if !ok {
		return violation("A Bind message does not end as it must.")
	}
	if b.replies.isSkipping() {
		return nil
	}
	if !known {
		return b.refuseWith('P', report{"ERROR", stateNoStatement, fmt.Sprintf("prepared statement %q does not exist", name), ""}.bytes('E'))
	}
	sent := string(values)
	v := &named{ops: stmt.ops, does: stmt.does, fetches: stmt.fetches, sql: stmt.sql, types: stmt.types, copyOut: stmt.copyOut, copyIn: stmt.copyIn, flow: stmt.flow, params: params, binding: sha256.Sum256(values)}
	if b.asksFor(stmt.ops) {
		if v.values = sent[:resultsAt]; stmt.bound {
			v.values = noValues
		}
	}
	if portal != "" { // see names: the unnamed one needs no other name
		v.name = b.portals.fresh()
	}
	r := shortReply('B')
	if err := b.portals.set(portal, v, r); err != nil {
		return b.refuse('P', err)
	}
	return b.send(r, 'B', v.name, "\x00", stmt.name, "\x00", sent)
}

// parseBind reads a Bind message behind its names, and says where the formats
// of the result begin.
func parseBind(p []byte, show func(i int, value []byte, format uint16) string) (params []string, resultsAt int, ok bool) {
	whole := len(p)
	formats, p, ok := takeShorts(p)
	if !ok || len(p) < 2 {
		return nil, 0, false
	}
	n := int(binary.BigEndian.Uint16(p))
	p = p[2:]
	if formats.len() > 1 && formats.len() != n {
		return nil, 0, false
	}
	for i := range n {
		if len(p) < 4 {
			return nil, 0, false
		}
		size := int64(int32(binary.BigEndian.Uint32(p)))
		p = p[4:]
		if size == -1 {
			params = append(params, "NULL")
			continue
		}
		if size < 0 || size > int64(len(p)) {
			return nil, 0, false
		}
		params, p = append(params, show(i, p[:size], formatOf(formats, i))), p[size:]
	}
	resultsAt = whole - len(p)
	_, p, ok = takeShorts(p)
	return params, resultsAt, ok && len(p) == 0
}

// shorts are 16-bit numbers, as they stand in a message.
type shorts []byte

func (s shorts) len() int        { return len(s) / 2 }
func (s shorts) at(i int) uint16 { return binary.BigEndian.Uint16(s[2*i:]) }

// takeShorts reads a counted list of 16-bit numbers.
func takeShorts(p []byte) (shorts, []byte, bool) {
	if len(p) < 2 {
		return nil, nil, false
	}
	n := 2 * int(binary.BigEndian.Uint16(p))
	if p = p[2:]; len(p) < n {
		return nil, nil, false
	}
	return p[:n:n], p[n:], true
}

func formatOf(formats shorts, i int) uint16 {
	switch formats.len() {
	case 0:
		return 0
	case 1:
		return formats.at(0)
	}
	return formats.at(i)
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
	return b.send(shortReply('D'), 'D', letter(body[0]), v.name, "\x00")
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
		op.Params, op.Binding = v.params, v.binding[:]
		if v.fetches != nil {
			b.resolveFetch(&op, *v.fetches, nil)
		}
		sql := v.sql
		if b.see(&op) {
			sql = ""
		}
		open, err := b.admitRequest(request{op: op, sql: sql, types: v.types, values: v.values, inside: true})
		if err != nil && b.replies.isSkipping() { // a question failed, as the statement itself would have
			op.Class, op.Guard = nil, &access.Decision{Verdict: access.Deny, Rule: "not-understood", Say: "The target refused to plan this, so it did not run."}
			b.recordRefusal(op)
			return nil
		}
		if err != nil {
			return b.refuse('P', err)
		}
		r.opens = append(r.first[:0], open)
		b.made.add(v.flow, op.Facts, b.plan)
		b.remember(op)
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
	limits := limitsOf(r.opens)
	r.keep(limits)
	switch {
	case v.copyIn:
		return b.executeCopy(v, r, limits)
	case alone(limits):
		return b.executeAlone(v, r, limits, int64(binary.BigEndian.Uint32(limit)))
	}
	return b.send(r, 'E', v.name, "\x00", string(limit))
}

// executeAlone runs a portal, or more of it, under limits. The rows count from
// its beginning.
func (b *bridge) executeAlone(v *named, r *reply, l access.Limits, wish int64) error {
	if l.Rows > 0 && v.copyOut {
		r.drop(notSent)
		return b.refuse('P', &access.Error{Code: access.CodeDenied, Rule: l.Rule, Message: l.Say + " COPY can't be limited to some rows; use SELECT."})
	}
	shown, err := b.portion(r, wanted{portal: v.name, limits: l, shown: v.shown, wish: wish})
	v.shown += shown
	return err
}

// closeName closes a name; one that is not known is no error in PostgreSQL.
func (b *bridge) closeName(body []byte) error {
	n, name, err := b.target(body)
	if err != nil || b.replies.isSkipping() {
		return err
	}
	r := shortReply('C')
	v, ok := n.get(name)
	if !ok && b.isCursor(body[0], name) {
		b.cursors.close(name, true, r)
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
			if err := b.send(n.closing(name), 'C', letter(n.kind), name, "\x00"); err != nil {
				return err
			}
		}
	}
	return nil
}

// closing is the reply to a Close that the room sends.
func (n *names) closing(name string) *reply {
	return &reply{kind: 'C', hidden: true, undo: func() { n.discard(name) }}
}
