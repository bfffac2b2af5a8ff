package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"time"

	"github.com/tidegate/tidegate/access"
)

// askTime bounds one question of the room's own. A target that needs longer
// is told to stop.
const askTime = 10 * time.Second

// savepoint lets a question fail without aborting the user's transaction.
const savepoint = "tidegate_asks"

// question is what the room itself asks the target, on the session's own
// connection, so that it sees what the session sees.
type question struct {
	sql    string
	types  string // of the parameters, as Parse has them, with their count
	values string // as Bind has them, without the formats of the result

	// inside says that the client's messages before it are not ended by a Sync
	// yet: then it is asked in their midst, and its failure is theirs, as the
	// statement's own would be. Otherwise it fails without a trace.
	inside bool
}

// noParameters is a list of none, as Parse and Bind have it.
const (
	noTypes  = "\x00\x00"
	noValues = "\x00\x00\x00\x00"
)

var errNoAnswer = errors.New("the target did not answer")

// ask waits for the answer's rows, whose values are text. The error says that
// there is none, for whatever reason; it is no reason to end the session.
func (b *bridge) ask(q question) (rows [][]string, err error) {
	if !q.inside {
		b.flushQuietly()
		b.line.Yield()
		b.replies.settle()
		switch b.status.Load() {
		case 'E':
			return nil, errNoAnswer
		case 'T':
			if err := b.command("savepoint " + savepoint); err != nil {
				return nil, err
			}
			defer func() {
				err = errors.Join(err, b.command("rollback to savepoint "+savepoint+"; release savepoint "+savepoint))
			}()
		}
	}
	a := answer{over: make(chan struct{})}
	portal := b.portals.fresh()
	for _, m := range []struct {
		reply  *reply
		kind   byte
		pieces []string
	}{
		{&reply{}, 'P', []string{"\x00", q.sql, "\x00", q.types}},
		{&reply{}, 'B', []string{portal, "\x00\x00", q.values, "\x00\x00"}},
		{&reply{each: a.take, done: a.done}, 'E', []string{portal, "\x00\x00\x00\x00\x00"}},
		{&reply{}, 'C', []string{"P", portal, "\x00"}},
		{&reply{}, 'S', nil},
	} {
		if m.kind == 'S' && q.inside {
			break
		}
		m.reply.kind, m.reply.hidden, m.reply.loud = m.kind, true, q.inside
		if m.kind == 'S' || m.kind == 'C' && q.inside {
			m.reply.over = a.over
		}
		if err := b.send(m.reply, m.kind, m.pieces...); err != nil {
			return nil, err
		}
	}
	if q.inside {
		if err := b.forward(frame{kind: 'H'}); err != nil {
			return nil, err
		}
	}
	if err := b.await(a.over, askTime); err != nil || !a.whole {
		return nil, errors.Join(errNoAnswer, err)
	}
	return a.rows, nil
}

func (b *bridge) flushQuietly() { _ = b.flush() } // the next message says what is wrong

// command runs a hidden command between two messages of the client.
func (b *bridge) command(sql string) error {
	r := &reply{kind: 'Q', hidden: true, over: make(chan struct{})}
	over, ok := r.over, false
	r.done = func() { ok = true }
	if err := b.send(r, 'Q', sql, "\x00"); err != nil {
		return err
	}
	if err := b.await(over, askTime); err != nil {
		return err
	}
	if !ok {
		return errNoAnswer
	}
	return nil
}

// await sends what there is and waits for a reply's end. What takes longer is
// cancelled at the target; a target that does not heed that ends the session.
func (b *bridge) await(over <-chan struct{}, most time.Duration) error {
	if err := b.flush(); err != nil {
		return err
	}
	b.line.Yield()
	if b.over(over, most) {
		return context.Cause(b.ctx)
	}
	if err := b.up.cancel(b.ctx); err != nil {
		b.log.Warn("statement not cancelled", "error", err)
	}
	if !b.over(over, askTime) {
		b.end(&fatal{code: stateUnavailable, message: "The target did not stop a statement when it was told to, so the session ends. Connect again."})
	}
	return context.Cause(b.ctx)
}

// over reports whether the reply, or the session, ended in time.
func (b *bridge) over(over <-chan struct{}, most time.Duration) bool {
	late := time.NewTimer(most)
	defer late.Stop()
	select {
	case <-over:
	case <-b.ctx.Done():
	case <-late.C:
		return false
	}
	return true
}

// maxAnswered bounds an answer's rows.
const maxAnswered = 1000

// answer gathers the rows. It is written by who walks the target's messages,
// and read when over is closed.
type answer struct {
	rows  [][]string
	bad   bool
	whole bool
	over  chan struct{}
}

func (a *answer) take(kind byte, msg []byte) bool {
	if kind != 'D' {
		return false
	}
	row, ok := parseRow(msg)
	if a.bad = a.bad || !ok || len(a.rows) >= maxAnswered; !a.bad {
		a.rows = append(a.rows, texts(row))
	}
	return false
}

func (a *answer) done() { a.whole = !a.bad }

// parseRow reads a DataRow's values, which share its bytes; nil is NULL.
func parseRow(msg []byte) (values [][]byte, ok bool) {
	if len(msg) < headSize+2 {
		return nil, false
	}
	n, p := int(binary.BigEndian.Uint16(msg[headSize:])), msg[headSize+2:]
	for range n {
		if len(p) < 4 {
			return nil, false
		}
		size := int64(int32(binary.BigEndian.Uint32(p)))
		p = p[4:]
		if size == -1 {
			values = append(values, nil)
			continue
		}
		if size < 0 || size > int64(len(p)) {
			return nil, false
		}
		values, p = append(values, p[:size:size]), p[size:]
	}
	return values, len(p) == 0
}

func texts(row [][]byte) []string {
	out := make([]string, len(row))
	for i, v := range row {
		out[i] = string(v)
	}
	return out
}

// settled notes where the target's transaction stands.
func (b *bridge) settled(status []byte) {
	if len(status) != 1 {
		return
	}
	b.status.Store(uint32(status[0]))
	if status[0] == 'I' {
		b.mu.Lock()
		b.ran.forget()
		b.mu.Unlock()
	}
}

// Bounds of what is kept of a transaction.
const (
	maxRan     = 20
	maxRanText = 500
)

// history is what ran in a transaction: its last statements.
type history struct {
	texts []string
	more  int // before them
}

func (h *history) add(text string) {
	if len(text) > maxRanText {
		text = strings.ToValidUTF8(text[:maxRanText], "") + "… (cut)"
	}
	if h.texts = append(h.texts, text); len(h.texts) > maxRan {
		h.texts, h.more = h.texts[1:], h.more+1
	}
}

// forget keeps the place of one text: mostly each statement is a transaction.
func (h *history) forget() {
	clear(h.texts)
	if h.texts, h.more = h.texts[:0], 0; cap(h.texts) > 1 {
		h.texts = nil
	}
}

// remember keeps what runs now for whoever is asked about what follows it in
// the same transaction.
func (b *bridge) remember(op access.Operation) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ran.add(op.Text)
}
