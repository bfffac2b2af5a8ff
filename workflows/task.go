package workflows

import (
	"context"
	"log/slog"
	"time"
)

// task is one of Control's loops. The loops are apart because one that hangs
// on the forge must not delay the revocations.
type task struct {
	name  string
	every time.Duration
	rest  time.Duration // after each run, however often it is woken
	wake  <-chan struct{}
	bound time.Duration
	do    func(context.Context) error
}

func (t task) run(ctx context.Context, log *slog.Logger, signals *Signals) {
	ticker := time.NewTicker(t.every)
	defer ticker.Stop()
	for {
		bounded, cancel := context.WithTimeout(ctx, t.bound)
		err := t.do(bounded)
		cancel()
		if ctx.Err() != nil {
			return
		}
		signals.ran(t.name, err)
		if err != nil {
			log.ErrorContext(ctx, t.name+" failed", "error", err)
		}
		if t.rest > 0 {
			select {
			case <-ctx.Done():
				return
			case <-time.After(t.rest):
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case _, open := <-t.wake:
			if !open {
				t.wake = nil // the watch ended; the ticker goes on
			}
		}
	}
}
