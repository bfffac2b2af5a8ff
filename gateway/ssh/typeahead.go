package ssh

import (
	"bytes"
	"context"
	"io"
	"sync"
)

// maxTypeahead bounds what is kept of what a person types while another
// decides; the rest waits at the client.
const maxTypeahead = 16 << 10

const ctrlC = 0x03

// typeahead reads a raw terminal's keys while what was asked for is held: on a
// raw terminal Ctrl-C is a key like any other, and only its meaning ends the
// wait. Afterwards it hands on what came.
type typeahead struct {
	mu     sync.Mutex
	more   *sync.Cond
	keys   []byte
	err    error
	cancel func() // nil: nothing is held any more
}

// newTypeahead reads src until the channel's ctx ends.
func newTypeahead(ctx context.Context, src io.Reader, cancel func()) *typeahead {
	t := &typeahead{cancel: cancel}
	t.more = sync.NewCond(&t.mu)
	context.AfterFunc(ctx, t.stop)
	go t.fill(src) // ends with the client's channel
	return t
}

func (t *typeahead) fill(src io.Reader) {
	buf := make([]byte, smallBuffer)
	for {
		n, err := src.Read(buf)
		t.mu.Lock()
		if t.cancel != nil && bytes.IndexByte(buf[:n], ctrlC) >= 0 {
			t.cancel()
		}
		for len(t.keys) > maxTypeahead && t.err == nil {
			t.more.Wait()
		}
		stopped := t.err != nil
		if !stopped {
			t.keys, t.err = append(t.keys, buf[:n]...), err
			t.more.Broadcast()
		}
		t.mu.Unlock()
		if err != nil || stopped {
			return
		}
	}
}

// stop releases whoever waits here: the channel is over.
func (t *typeahead) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		t.err = io.EOF
	}
	t.more.Broadcast()
}

// release says that the wait is over.
func (t *typeahead) release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cancel = nil
}

// Read implements io.Reader.
func (t *typeahead) Read(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.keys) == 0 && t.err == nil {
		t.more.Wait()
	}
	if len(t.keys) == 0 {
		return 0, t.err
	}
	n := copy(p, t.keys)
	t.keys = append(t.keys[:0], t.keys[n:]...)
	t.more.Broadcast()
	return n, nil
}
