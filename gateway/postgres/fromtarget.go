package postgres

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/tidegate/tidegate/access"
)

const (
	maxInspected = 1 << 20 // a message that is read whole
	maxAnswer    = 1 << 30 // PostgreSQL's own bound
)

// answers says which messages may come for which one. Z ends Q and S.
var answers = map[byte]string{
	'Q': "TDCIEZGHdc", 'P': "1E", 'B': "2E", 'C': "3E", 'D': "tTnE", 'E': "DCIsHdcE", 'S': "EZ",
}

// readTarget walks what the target sends and passes it on.
func (b *bridge) readTarget() {
	r := bufio.NewReaderSize(b.up.conn, 64<<10)
	for b.ctx.Err() == nil {
		if err := b.passOne(r); err != nil {
			b.end(err)
			return
		}
	}
}

func (b *bridge) passOne(r *bufio.Reader) error {
	if r.Buffered() < 5 { // about to wait: the client gets what there is
		b.out.lock()
		err := b.out.flush()
		b.out.unlock()
		if err != nil {
			return errors.Join(errLeft, err)
		}
	}
	head, err := r.Peek(5)
	if err != nil {
		if b.present.Err() != nil {
			return errLeft
		}
		return &targetGone{cause: err}
	}
	kind, size := head[0], int64(binary.BigEndian.Uint32(head[1:]))+1
	if size < 5 || size > maxAnswer {
		return mismatch("message %q of %d bytes", kind, size)
	}
	if strings.IndexByte("CEISZ", kind) < 0 {
		return b.stream(r, kind, size)
	}
	return b.inspect(r, kind, size)
}

// mismatch ends the session: replies and questions no longer fit, and nobody
// can say any more what belongs to what.
func mismatch(format string, args ...any) error {
	return &fatal{code: stateViolation, message: "The target's answers do not fit what was asked, so the session ends. Connect again.",
		cause: fmt.Errorf("unexpected "+format, args...)}
}

// stream passes a message on without holding it.
func (b *bridge) stream(r *bufio.Reader, kind byte, size int64) error {
	if kind == 'N' || kind == 'A' {
		return b.copy(r, size)
	}
	h := b.replies.head()
	if h == nil || strings.IndexByte(answers[h.kind], kind) < 0 || h.instead != nil {
		return mismatch("message %q", kind)
	}
	switch kind {
	case 'D':
		h.rows++
		h.bytes += size
	case 'd':
		h.bytes += size
	}
	if h.rows >= 1024 || h.bytes >= 64<<10 {
		h.count()
	}
	if h.hidden {
		_, err := io.CopyN(io.Discard, r, size)
		b.settle(h, kind)
		return err
	}
	if err := b.copy(r, size); err != nil {
		return err
	}
	b.settle(h, kind)
	return nil
}

// settle pops a reply that one message ends.
func (b *bridge) settle(h *reply, kind byte) {
	switch {
	case strings.IndexByte("123", kind) >= 0, kind == 'n' && h.kind == 'D', kind == 'T' && h.kind == 'D':
		if h.done != nil {
			h.done()
		}
		b.replies.pop()
	case kind == 's':
		_ = h.finish(access.Outcome{Status: "ok"}, 0)
		b.replies.pop()
	}
}

func (b *bridge) copy(r *bufio.Reader, size int64) error {
	b.out.lock()
	defer b.out.unlock()
	if b.out.torn {
		return errLeft
	}
	if size <= int64(r.Buffered()) {
		p, _ := r.Peek(int(size))
		if err := b.out.write(p); err != nil {
			return errors.Join(errLeft, err)
		}
		_, err := r.Discard(int(size))
		return err
	}
	b.out.torn = true
	if _, err := io.CopyN(b.out.w, r, size); err != nil {
		return &targetGone{cause: fmt.Errorf("pass message: %w", err)}
	}
	b.out.torn = false
	return nil
}

// inspect passes on a message that says how something ended.
func (b *bridge) inspect(r *bufio.Reader, kind byte, size int64) error {
	if size > maxInspected {
		return mismatch("message %q of %d bytes", kind, size)
	}
	msg := make([]byte, size)
	if _, err := io.ReadFull(r, msg); err != nil {
		return &targetGone{cause: err}
	}
	show, err := b.settleWith(kind, msg)
	if err != nil || show == nil {
		return err
	}
	b.out.lock()
	defer b.out.unlock()
	if err := b.out.write(show); err != nil {
		return errors.Join(errLeft, err)
	}
	return nil
}

// settleWith answers with what the client is to see.
func (b *bridge) settleWith(kind byte, msg []byte) ([]byte, error) {
	if kind == 'S' {
		return msg, checkParameter(msg[5:])
	}
	if severity, _ := reportFields(msg[5:]); kind == 'E' && (severity == "FATAL" || severity == "PANIC") {
		return nil, &targetGone{words: msg}
	}
	h := b.replies.head()
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
		b.replies.pop()
		return msg, nil
	}
	err := h.finish(access.Outcome{Status: "ok"}, tagRows(msg[5:]))
	if h.kind == 'E' {
		b.replies.pop()
	}
	return msg, err
}

// failed ends what an error ends, and shows the room's own error where the
// room caused it.
func (b *bridge) failed(h *reply, msg []byte) []byte {
	_, code := reportFields(msg[5:])
	_ = h.finish(access.Outcome{Status: "error", Code: code}, 0)
	if h.instead != nil {
		msg = h.instead
	}
	if h.kind != 'Q' && h.kind != 'S' {
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
	tag, _, _ := cutString(body)
	n, err := strconv.ParseInt(tag[strings.LastIndexByte(tag, ' ')+1:], 10, 64)
	if err != nil {
		return 0
	}
	return n
}
