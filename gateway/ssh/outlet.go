package ssh

import (
	"errors"
	"io"
	"sync"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway"
)

// outlet writes a program's text to the client, masked. What is withheld of it
// goes out when the program has been quiet for a moment.
type outlet struct {
	dst     io.Writer
	out     gateway.Output
	columns func() int
	pause   time.Duration
	seen    func([]byte) // what goes to the client, just before it does

	mu    sync.Mutex
	due   time.Time // when what is withheld goes out
	timer *time.Timer
	err   error // why the client can't be written to
}

// carryText moves a program's text to the client until its end. Nothing is
// withheld where the grant's masks detect nothing.
func (s *stay) carryText(dst io.Writer, src io.Reader, open gateway.Open, seen func([]byte)) error {
	if s.b.session.Masker() == nil {
		return move(dst, src, func(p []byte) ([]byte, error) {
			p, err := open.Tap(access.ToClient, p)
			seen(p)
			return p, err
		})
	}
	o := &outlet{dst: dst, out: open.Output(), columns: s.columns, pause: s.b.room.cfg.Quiet, seen: seen}
	err := move(o, src, func(p []byte) ([]byte, error) { return p, nil })
	return errors.Join(err, o.finish())
}

func (s *stay) columns() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pty == nil {
		return 0
	}
	return int(s.pty.Columns)
}

// Write implements io.Writer.
func (o *outlet) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return 0, o.err
	}
	o.out.SetWidth(o.columns())
	send, err := o.out.Tap(p)
	if o.err = errors.Join(err, o.send(send, err)); o.err != nil {
		return 0, o.err
	}
	if o.out.Withholds() {
		o.wait()
	}
	return len(p), nil
}

// send writes what was released, unless that went wrong.
func (o *outlet) send(p []byte, failed error) error {
	if failed != nil || len(p) == 0 {
		return nil
	}
	o.seen(p)
	_, err := o.dst.Write(p)
	return err
}

// wait has the rest sent if nothing more comes for a while.
func (o *outlet) wait() {
	o.due = time.Now().Add(o.pause)
	if o.timer == nil {
		o.timer = time.AfterFunc(o.pause, o.quiet)
	}
}

// quiet runs when the timer does: something may have come since it was set.
func (o *outlet) quiet() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if left := time.Until(o.due); left > 0 && o.out.Withholds() {
		o.timer.Reset(left)
		return
	}
	o.timer = nil
	o.flush()
}

func (o *outlet) flush() {
	if o.err == nil && o.out.Withholds() {
		send, err := o.out.Flush()
		o.err = errors.Join(err, o.send(send, err))
	}
}

// finish sends what is withheld at the end of the text.
func (o *outlet) finish() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.timer != nil {
		o.timer.Stop()
	}
	o.flush()
	return o.err
}
