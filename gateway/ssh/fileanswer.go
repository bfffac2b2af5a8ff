package ssh

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/tidegate/tidegate/access"
)

// serveAnswers passes on what the host answers, until it ends.
func (c *courier) serveAnswers() error {
	buf := new([]byte)
	for {
		p, err := readPacket(c.fromTarget, buf)
		if err == nil {
			err = c.answer(p)
		}
		if err != nil {
			c.hostGone(err)
			return err
		}
	}
}

// hostGone releases whoever waits for an answer.
func (c *courier) hostGone(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // for whoever still asks
	}
	c.gone = err
	close(c.over)
	for _, q := range c.asked {
		if q.own != nil {
			close(q.own)
		}
	}
}

func (c *courier) answer(p packet) error {
	f := fields{rest: p.body}
	id := f.uint32()
	c.mu.Lock()
	q := c.asked[id]
	delete(c.asked, id)
	c.mu.Unlock()
	if f.bad || q == nil {
		return fmt.Errorf("the host answers what was not asked (packet %d)", p.kind)
	}
	<-c.slots
	if q.own != nil {
		q.own <- packet{p.kind, append([]byte(nil), p.body...)}
		return nil
	}
	if err := c.settle(q, p.kind, f); err != nil {
		return err
	}
	out := make([]byte, 0, 5+len(p.body))
	out = binary.BigEndian.AppendUint32(out, uint32(len(p.body)+1))
	out = append(append(out, p.kind), p.body...)
	binary.BigEndian.PutUint32(out[5:], q.id)
	return c.reply(out)
}

// settle does what an answer means to the operation behind it.
func (c *courier) settle(q *question, kind byte, f fields) error {
	switch {
	case q.open != nil:
		return q.open.Close(outcomeOf(kind, f))
	case q.handle != "":
		return c.closeHandle(q.handle, kind, f)
	case q.file != nil && kind == fxData:
		data := f.bytes()
		if f.bad {
			return errPacket
		}
		_, err := q.file.tap(access.ToClient, q.offset, data)
		return err
	}
	return nil
}

func outcomeOf(kind byte, f fields) access.Outcome {
	if kind != fxStatus {
		return access.Outcome{Status: "ok"}
	}
	if code := f.uint32(); code != fxOK && code != fxEOF {
		return access.Outcome{Status: "error", Code: fmt.Sprint(code)}
	}
	return access.Outcome{Status: "ok"}
}

func (c *courier) addHandle(handle string, f *file) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.handles) >= maxHandles || len(handle) > maxHandle {
		return fmt.Errorf("more than %d files are open", maxHandles)
	}
	c.handles[handle] = f
	return nil
}

func (c *courier) closeHandle(handle string, kind byte, answer fields) error {
	c.mu.Lock()
	f := c.handles[handle]
	delete(c.handles, handle)
	c.mu.Unlock()
	if f == nil {
		return nil
	}
	return f.close(outcomeOf(kind, answer).Status)
}
