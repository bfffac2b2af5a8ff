package postgres

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/postgres/poll"
)

const (
	maxInspected = 1 << 20 // a message that is read whole
	maxAnswer    = 1 << 30 // PostgreSQL's own bound
)

// answers says which messages may come for which one. Z ends Q and S.
var answers = map[byte]string{
	'Q': "TDCIEZGHdc", 'P': "1E", 'B': "2E", 'C': "3E", 'D': "tTnE", 'E': "DCIsGHdcE", 'S': "EZ",
}

// readTarget walks what the target sends and passes it on: one write for one
// read, straight from the buffer unless something in between is withheld. It
// is a turn: see package poll.
func (b *bridge) readTarget() (over bool) {
	in := b.back
	for b.ctx.Err() == nil {
		err := in.fill()
		if err == poll.ErrAgain {
			return false
		}
		if err != nil {
			err = b.farSide(err)
		} else {
			var used int
			used, err = b.pass(in.bytes())
			in.use(used)
		}
		if err != nil {
			b.end(err)
			break
		}
	}
	in.release()
	return true
}

// farSide says what it means that the target's side ended.
func (b *bridge) farSide(err error) error {
	if b.leaving.Load() {
		return errLeft
	}
	return &targetGone{cause: err}
}

// passage goes through the bytes of one read.
type passage struct {
	b   *bridge
	p   []byte
	at  int // what is before has been dealt with
	run int // p[run:at] goes to the client as it is
}

// pass passes on all messages that are whole, and the beginning of one that
// is too large to be kept. It says how many bytes it used.
func (b *bridge) pass(p []byte) (int, error) {
	if b.masking != nil && len(p) > maskedAtOnce {
		b.line.Yield() // others are not to wait for it
	}
	w := passage{b: b, p: p}
	err := w.messages()
	if h := b.current; h != nil {
		h.count()
		err = errors.Join(err, h.kept.failure())
	}
	b.lockOut()
	defer b.out.unlock()
	if sent := b.out.send(p[w.run:w.at]); sent != nil && err == nil {
		err = errors.Join(errLeft, sent)
	}
	if err == nil {
		b.out.torn = b.large > 0
		b.endIfDrained()
	}
	return w.at, err
}

func (w *passage) messages() error {
	if err := w.goOn(); err != nil || w.b.large > 0 {
		return err
	}
	for {
		if h := w.b.current; h != nil && h.streams && w.b.masking == nil {
			w.rows(h)
		}
		rest := w.p[w.at:]
		if len(rest) < headSize {
			return nil
		}
		kind, size := rest[0], int64(binary.BigEndian.Uint32(rest[1:]))+1
		if size < headSize || size > maxAnswer {
			return mismatch("message %q of %d bytes", kind, size)
		}
		inspected := strings.IndexByte("CEISZ", kind) >= 0 || w.b.masking != nil && strings.IndexByte(maskedKinds, kind) >= 0
		switch {
		case inspected && size > maxInspected:
			return mismatch("message %q of %d bytes", kind, size)
		case size <= int64(len(rest)):
			if err := w.whole(kind, rest[:size]); err != nil {
				return err
			}
		case inspected || size <= bufferSize || size <= maxInspected && w.b.looksAtEach():
			return nil // until the rest is there
		default:
			return w.begin(kind, size)
		}
	}
}

// rows passes on rows and COPY data, the bulk of everything: five bytes of
// each are looked at.
func (w *passage) rows(h *reply) {
	p := w.p
	for len(p)-w.at >= headSize && (p[w.at] == 'D' || p[w.at] == 'd') {
		size := int(binary.BigEndian.Uint32(p[w.at+1:])) + 1
		if size < headSize || size > len(p)-w.at {
			return
		}
		if p[w.at] == 'D' {
			h.rows++
		}
		h.bytes += int64(size)
		w.at += size
	}
}

// whole deals with one message.
func (w *passage) whole(kind byte, msg []byte) error {
	if m := w.b.masking; m != nil {
		if err := m.whole(kind, msg); err != nil {
			return err
		}
	}
	show := true
	var instead []byte
	if strings.IndexByte("CEISZ", kind) >= 0 {
		out, err := w.b.settleWith(kind, msg)
		if err != nil {
			return err
		}
		if show = out != nil && &out[0] == &msg[0]; !show {
			instead = out
		}
	} else {
		var err error
		if show, err = w.b.expected(kind, int64(len(msg)), msg); err != nil {
			return err
		}
	}
	if show {
		w.at += len(msg)
		return nil
	}
	if err := w.gather(instead); err != nil {
		return err
	}
	w.at += len(msg)
	w.run = w.at
	return nil
}

// gather keeps what goes to the client before something that does not.
func (w *passage) gather(instead []byte) error {
	w.b.lockOut()
	defer w.b.out.unlock()
	for _, p := range [][]byte{w.p[w.run:w.at], instead} {
		if _, err := w.b.out.buf.Write(p); err != nil {
			return errors.Join(errLeft, w.b.out.tear(err))
		}
	}
	w.run = w.at
	return nil
}

// begin passes on the beginning of a message that is not kept whole.
func (w *passage) begin(kind byte, size int64) error {
	show, err := w.b.expected(kind, size, nil)
	if err != nil {
		return err
	}
	w.b.large, w.b.hiding = size, !show
	if m := w.b.masking; m != nil {
		m.begin(kind, size)
	}
	return w.goOn()
}

// goOn passes on more of such a message.
func (w *passage) goOn() error {
	if w.b.large == 0 {
		return nil
	}
	n := min(w.b.large, int64(len(w.p)-w.at))
	if m := w.b.masking; m != nil {
		n = int64(m.more(w.p[w.at : w.at+int(n)]))
	}
	w.b.large -= n
	if h := w.b.current; h != nil && !w.b.hiding {
		h.kept.more(w.p[w.at:w.at+int(n)], w.b.large == 0)
	}
	if !w.b.hiding {
		w.at += int(n)
		return nil
	}
	if err := w.gather(nil); err != nil {
		return err
	}
	w.at += int(n)
	w.run = w.at
	return nil
}

// mismatch ends the session: replies and questions no longer fit, and nobody
// can say any more what belongs to what.
func mismatch(format string, args ...any) error {
	return &fatal{code: stateViolation, message: "The target's answers do not fit what was asked, so the session ends. Connect again.",
		cause: fmt.Errorf("unexpected "+format, args...)}
}

// head is the reply that the target owes next. Only this side takes replies
// off the list, so it stays the first until it is popped.
func (b *bridge) head() *reply {
	if b.current == nil {
		b.current = b.replies.head()
	}
	return b.current
}

func (b *bridge) pop() {
	b.current = b.replies.pop()
}

// expected looks at a message that passes as it is, and says whether the
// client is to see it.
func (b *bridge) expected(kind byte, size int64, msg []byte) (show bool, err error) {
	if kind == 'N' || kind == 'A' {
		return kind == 'A' || !forTheLog(msg, b.plan.Backing), nil
	}
	h := b.head()
	if h == nil || strings.IndexByte(answers[h.kind], kind) < 0 || h.instead != nil {
		return false, mismatch("message %q", kind)
	}
	h.streams = (h.kind == 'Q' || h.kind == 'E') && h.each == nil
	show = !h.hidden
	if h.each != nil {
		show = h.each(kind, msg) && show
	}
	switch {
	case kind == 'D' && show:
		h.rows++
		h.bytes += size
	case kind == 'd':
		h.bytes += size
	}
	b.settle(h, kind)
	return show, nil
}

// looksAtEach reports whether the reply wants to see each message whole.
func (b *bridge) looksAtEach() bool {
	h := b.head()
	return h != nil && h.each != nil
}

// settle pops a reply that one message ends.
func (b *bridge) settle(h *reply, kind byte) {
	switch {
	case strings.IndexByte("123", kind) >= 0, kind == 'n' && h.kind == 'D', kind == 'T' && h.kind == 'D':
		h.carried()
		b.pop()
	case kind == 's':
		_ = h.finish(access.Outcome{Status: "ok"}, 0)
		b.pop()
	}
}

// settleWith answers with what the client is to see.
func (b *bridge) settleWith(kind byte, msg []byte) ([]byte, error) {
	if kind == 'S' {
		return msg, checkParameter(msg[headSize:])
	}
	if kind == 'E' {
		if severity, _ := reportFields(msg[headSize:]); severity == "FATAL" || severity == "PANIC" {
			return nil, &targetGone{words: append([]byte(nil), msg...)}
		}
	}
	h := b.head()
	if h == nil || strings.IndexByte(answers[h.kind], kind) < 0 || h.instead != nil && kind != 'E' && kind != 'Z' {
		return nil, mismatch("message %q", kind)
	}
	switch kind {
	case 'E':
		return b.failed(h, msg), nil
	case 'Z':
		for len(h.opens) > 0 {
			_ = h.finish(skipped, 0)
		}
		b.settled(msg[headSize:])
		shown := h.shown(msg)
		b.pop()
		return shown, nil
	}
	err := h.finish(access.Outcome{Status: "ok"}, tagRows(msg[headSize:]))
	h.carried()
	if h.kind == 'E' {
		b.pop()
	}
	return h.shown(msg), err
}

// shown is what the client sees of the end of a reply: nothing of one that
// the room asked for.
func (r *reply) shown(msg []byte) []byte {
	if r.hidden {
		return nil
	}
	return msg
}

// failed ends what an error ends, and shows the room's own error where the
// room caused it.
func (b *bridge) failed(h *reply, msg []byte) []byte {
	_, code := reportFields(msg[headSize:])
	_ = h.finish(access.Outcome{Status: "error", Code: code}, 0)
	msg = withoutValues(msg, b.plan.Backing)
	switch late := h.late.Load(); {
	case h.instead != nil:
		msg = h.instead
	case late != nil && code == stateCancelled:
		msg = *late
	case h.hidden && !h.loud:
		msg = nil
	}
	if h.kind == 'Q' && h.undo != nil {
		h.undo()
		h.undo = nil
	}
	if h.kind != 'Q' && h.kind != 'S' {
		b.current = nil
		b.replies.fail()
	}
	return msg
}

// checkParameter ends the session when the target reads text in another way
// than the parser here.
func checkParameter(body []byte) error {
	name, rest, _ := cutString(body)
	value, _, _ := cutString(rest)
	if name == "client_encoding" && value != "UTF8" || name == "standard_conforming_strings" && value != "on" {
		return &fatal{code: stateViolation, message: fmt.Sprintf("The setting %q changed to %q, with which statements can't be inspected; the session ends.", name, value)}
	}
	return nil
}

// tagRows reads the rows out of a command tag: "INSERT 0 5", "UPDATE 3".
func tagRows(body []byte) int64 {
	tag := body[:max(0, len(body)-1)]
	n, err := strconv.ParseInt(string(tag[strings.LastIndexByte(string(tag), ' ')+1:]), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
