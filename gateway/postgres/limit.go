package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway"
)

// A statement whose rows or time are limited runs alone: what the client sends
// behind it waits for its end. The target itself stops it. For rows, the
// portal is asked for one more than the limit; when that comes, it is withheld
// and an error in the protocol's own way aborts what the statement was part
// of. For time, the target is told to cancel.

// limitsOf joins the limits of what one message runs.
func limitsOf(opens []gateway.Open) access.Limits {
	var l access.Limits
	for _, o := range opens {
		l = l.Narrower(o.Decision().Limits)
	}
	return l
}

// alone reports whether the message has to run by itself.
func alone(l access.Limits) bool { return l.Rows > 0 || l.Time > 0 }

// returning reports whether a statement may return rows.
func returning(n *pg.Node) bool {
	for _, list := range [][]*pg.Node{n.GetInsertStmt().GetReturningList(), n.GetUpdateStmt().GetReturningList(), n.GetDeleteStmt().GetReturningList(), n.GetMergeStmt().GetReturningList()} {
		if len(list) > 0 {
			return true
		}
	}
	return n.GetSelectStmt() != nil || n.GetExplainStmt() != nil || n.GetExecuteStmt() != nil || n.GetFetchStmt() != nil || n.GetVariableShowStmt() != nil
}

func tooManyRows(l access.Limits) error {
	return &access.Error{Code: access.CodeTooLarge, Rule: l.Rule, Message: fmt.Sprintf("%s A statement may show %d rows here, and this one has more.", l.Say, l.Rows)}
}

func tooLong(l access.Limits) []byte {
	return refusal(&access.Error{Code: access.CodeCancelled, Rule: l.Rule, Message: fmt.Sprintf("%s A statement may run for %s here.", l.Say, l.Time)})
}

// limitable says why the rows of a simple query can't be limited, or nothing.
func (r reading) limitable(l access.Limits) error {
	if l.Rows == 0 {
		return nil
	}
	for i := range r.stmts {
		if r.copyOut || r.stmts[i].copyOut {
			return &access.Error{Code: access.CodeDenied, Rule: l.Rule, Message: l.Say + " COPY can't be limited to some rows; use SELECT."}
		}
		if r.stmts[i].returns && len(r.stmts) > 1 {
			return &access.Error{Code: access.CodeDenied, Rule: l.Rule, Message: l.Say + " Several statements in one message can't be limited to some rows; send them one by one."}
		}
	}
	return nil
}

// queryAlone runs a simple query under limits. One that may return rows goes
// to the target as a portal, which can be asked for some of them; what the
// client sees of it is the same.
func (b *bridge) queryAlone(read reading, r *reply, l access.Limits) error {
	if l.Rows == 0 || !read.stmts[0].returns {
		if read.copies > 0 { // the client feeds it: nobody can wait here
			return b.feedInTime(read, r, l)
		}
		r.over = make(chan struct{})
		over := r.over
		if err := b.send(r, 'Q', read.sent, "\x00"); err != nil {
			return err
		}
		return b.inTime(r, over, l)
	}
	parse := &reply{kind: 'P', hidden: true, loud: true, opens: r.opens}
	r.kind, r.opens = 'E', nil
	parse.done = func() { r.opens = parse.opens; parse.opens = nil } // whichever fails is the statement's failure
	describe := &reply{kind: 'D', each: func(kind byte, _ []byte) bool { return kind == 'T' }}
	if err := b.send(parse, 'P', "\x00", read.sent, "\x00", noTypes); err != nil {
		return err
	}
	if err := b.send(&reply{kind: 'B', hidden: true, loud: true}, 'B', "\x00\x00", noValues, "\x00\x00"); err != nil {
		return err
	}
	if err := b.send(describe, 'D', "P\x00"); err != nil {
		return err
	}
	if _, err := b.portion(r, wanted{limits: l}); err != nil {
		return err
	}
	b.discard = false // what was refused ends with this message
	return b.send(&reply{kind: 'S'}, 'S')
}

// wanted is what is wanted of a portal.
type wanted struct {
	portal string
	limits access.Limits
	shown  int64 // rows of it, before
	wish   int64 // how many the client wants now; 0 is all
}

// portion runs a portal for as many rows as its limits and the client allow.
// It says how many were shown.
func (b *bridge) portion(r *reply, p wanted) (shown int64, err error) {
	left := max(0, p.limits.Rows-p.shown) // the limit may be lower than it was for what was shown
	limited := p.limits.Rows > 0 && (p.wish == 0 || p.wish > left)
	if limited {
		p.wish = left + 1
	}
	var more bool
	before := r.each
	r.each = func(kind byte, msg []byte) bool {
		switch {
		case kind == 'D' && limited && shown == left:
			more = true
			return false
		case kind == 'D':
			shown++
		case kind == 's' && more:
			_ = r.finish(access.Outcome{Status: "cut", Code: stateTooLarge}, 0)
			return false
		}
		return before == nil || before(kind, msg)
	}
	r.over = make(chan struct{})
	over := r.over
	if err := b.send(r, 'E', p.portal, "\x00", string(binary.BigEndian.AppendUint32(nil, uint32(p.wish)))); err != nil {
		return 0, err
	}
	if err := b.forward(frame{kind: 'H'}); err != nil {
		return 0, err
	}
	if err := b.inTime(r, over, p.limits); err != nil {
		return 0, err
	}
	if more {
		return shown, b.refuse('P', tooManyRows(p.limits))
	}
	return shown, nil
}

// inTime waits for the reply's end, while it is watched whether the client
// leaves.
func (b *bridge) inTime(r *reply, over <-chan struct{}, l access.Limits) error {
	if err := b.flush(); err != nil {
		return err
	}
	b.line.Yield()
	defer b.watch(func() { b.end(errLeft) })()
	if l.Time == 0 {
		select {
		case <-over:
		case <-b.ctx.Done():
		}
		return context.Cause(b.ctx)
	}
	if b.over(over, l.Time.Duration()) {
		return context.Cause(b.ctx)
	}
	words := tooLong(l)
	r.late.Store(&words)
	return b.await(over, 0)
}

// results records the rows of an operation as the user sees them: a line for
// each, values in the form in which COPY writes them.
type results struct {
	of  *reply
	buf []byte
	err error
	big bigRow // one that comes in pieces
}

// keep has a reply's rows recorded, if that is asked for.
func (r *reply) keep(l access.Limits) {
	if !l.Results {
		return
	}
	r.kept = &results{of: r}
	r.each = func(kind byte, msg []byte) bool {
		r.kept.add(kind, msg)
		return true
	}
}

// maxKeptLines bounds what is gathered before it is recorded.
const maxKeptLines = 64 << 10

func (k *results) add(kind byte, msg []byte) {
	if len(k.of.opens) == 0 || !k.of.opens[0].Decision().Limits.Results {
		return
	}
	switch {
	case kind == 'd' && msg != nil:
		k.buf = append(k.buf, msg[headSize:]...)
	case kind == 'D' && msg != nil:
		row, _ := parseRow(msg)
		k.row(row)
	default:
		return
	}
	if len(k.buf) >= maxKeptLines {
		k.record()
	}
}

var escapes = strings.NewReplacer(`\`, `\\`, "\t", `\t`, "\n", `\n`, "\r", `\r`)

func (k *results) row(values [][]byte) {
	for i, v := range values {
		if i > 0 {
			k.buf = append(k.buf, '\t')
		}
		switch {
		case v == nil:
			k.buf = append(k.buf, `\N`...)
		case readable(v):
			k.buf = append(k.buf, escapes.Replace(string(v))...)
		default:
			k.buf = fmt.Appendf(k.buf, `\\x%x`, v)
		}
	}
	k.buf = append(k.buf, '\n')
}

// record hands over what was gathered, before the client gets it.
func (k *results) record() {
	if len(k.buf) == 0 || len(k.of.opens) == 0 {
		return
	}
	if _, err := k.of.opens[0].Tap(access.ToClient, k.buf); err != nil && k.err == nil {
		k.err = err
	}
	k.buf = k.buf[:0]
}

// failure is why the rows could not be recorded. Then they are not shown.
func (k *results) failure() error {
	if k == nil {
		return nil
	}
	return k.err
}

// readable reports whether a value is text that people can read.
func readable(v []byte) bool {
	return utf8.Valid(v) && !bytes.ContainsFunc(v, func(r rune) bool { return unicode.IsControl(r) && r != '\t' && r != '\n' && r != '\r' })
}
