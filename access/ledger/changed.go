package ledger

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	relistenFirst = 100 * time.Millisecond
	relistenLast  = 5 * time.Second
)

// listener hears of changes that other processes make.
type listener interface {
	wait(ctx context.Context) error // nil: something changed, or may have
	close()
}

// hub tells this process's subscribers of its own changes, and owns the
// goroutines that listen for those of others.
type hub struct {
	life context.Context // of the open ledger
	end  context.CancelFunc

	mu        *sync.Mutex
	listeners *sync.WaitGroup
	subs      map[chan struct{}]struct{}
}

func newHub() hub {
	h := hub{mu: new(sync.Mutex), listeners: new(sync.WaitGroup), subs: map[chan struct{}]struct{}{}}
	h.life, h.end = context.WithCancel(context.Background())
	return h
}

// add subscribes; false after close.
func (h hub) add(c chan struct{}) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.life.Err() != nil {
		return false
	}
	h.subs[c] = struct{}{}
	h.listeners.Add(1)
	return true
}

func (h hub) remove(c chan struct{}) {
	h.mu.Lock()
	delete(h.subs, c)
	h.mu.Unlock()
	close(c)
	h.listeners.Done()
}

func (h hub) notify() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.subs {
		poke(c)
	}
}

func (h hub) close() {
	h.mu.Lock()
	h.end()
	h.mu.Unlock()
	h.listeners.Wait()
}

// poke leaves one value; a reader who has one waiting needs no second.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Changed delivers a value soon after grants, rules, sessions or held
// operations changed, in this process or another; it may deliver one too
// many. What changes after it returned is not missed, so subscribe first and
// read then. The channel closes with ctx or with the ledger.
func (l *Ledger) Changed(ctx context.Context) (<-chan struct{}, error) {
	ctx, cancel := context.WithCancel(ctx)
	unlink := context.AfterFunc(l.hub.life, cancel)
	stop := func() { unlink(); cancel() }
	from, err := l.dialect.listen(ctx)
	if err != nil {
		stop()
		return nil, unavailable("listen for changes", err)
	}
	c := make(chan struct{}, 1)
	if !l.hub.add(c) {
		from.close()
		stop()
		return nil, unavailable("listen for changes", errors.New("the ledger is closed"))
	}
	go func() {
		defer l.hub.remove(c)
		defer stop()
		l.follow(ctx, from, c)
	}()
	return c, nil
}

// follow passes on what from hears, and replaces it when it breaks.
func (l *Ledger) follow(ctx context.Context, from listener, c chan struct{}) {
	for {
		err := from.wait(ctx)
		if ctx.Err() != nil {
			from.close()
			return
		}
		if err != nil {
			l.config.Log.Warn("listening for ledger changes broke", "error", err)
			from.close()
			if from = l.relisten(ctx); from == nil {
				return
			}
		}
		poke(c) // also after a break: nobody knows what was missed
	}
}

// relisten tries until it works; nil is the end of ctx.
func (l *Ledger) relisten(ctx context.Context) listener {
	for delay := relistenFirst; ; delay = min(2*delay, relistenLast) {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(delay):
		}
		from, err := l.dialect.listen(ctx)
		if err == nil {
			return from
		}
		l.config.Log.Warn("can't listen for ledger changes yet", "error", err)
	}
}
