package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

// keysLook is how often a running part looks at its keys' files: a rotation
// takes no longer to be taken up.
const keysLook = 2 * time.Second

// liveKeys are the keys that a running part uses, as their files said last.
// Files that can't be read stop nothing that goes on: that is told once, and
// again when it is over. A next key signs from its time on in any case.
type liveKeys struct {
	dir  string
	now  clock
	log  *slog.Logger
	sets map[string]*liveKey // fixed after the opening
}

// liveKey is one of them. What is not atomic is the look's alone.
type liveKey struct {
	kind  keyKind
	set   atomic.Pointer[keySet]
	signs keyHalf // at the last look
	wrong string  // what was told last
}

// openLiveKeys reads the keys in dir, and makes those that are missing.
func openLiveKeys(dir string, now clock, log *slog.Logger, names ...string) (*liveKeys, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make key folder: %w", err)
	}
	l := &liveKeys{dir: dir, now: now, log: log, sets: map[string]*liveKey{}}
	for _, name := range names {
		k := &liveKey{kind: keyKindOf(name)}
		if err := k.kind.ensure(dir, now()); err != nil {
			return nil, err
		}
		if err := k.look(dir, now()); err != nil {
			return nil, err
		}
		k.signs = l.view(k).Signs
		l.sets[name] = k
	}
	return l, nil
}

func (l *liveKeys) view(k *liveKey) keyView { return k.set.Load().at(l.now()) }

// at is a key as it is now; the name is one of the opening's.
func (l *liveKeys) at(name string) keyView { return l.view(l.sets[name]) }

// run looks until ctx ends.
func (l *liveKeys) run(ctx context.Context) {
	tick := time.NewTicker(keysLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			l.look()
		}
	}
}

// look reads all files anew, and tells what changed.
func (l *liveKeys) look() {
	for name, k := range l.sets {
		wrong := ""
		if err := k.look(l.dir, l.now()); err != nil {
			wrong = err.Error()
		}
		switch {
		case wrong != "" && wrong != k.wrong:
			l.log.Error("the files of a key can't be used; what they said before holds on", "key", name, "error", wrong)
		case wrong == "" && k.wrong != "":
			l.log.Info("the files of a key can be used again", "key", name)
		}
		k.wrong = wrong
		if signs := l.view(k).Signs; !signs.is(k.signs) {
			l.log.Info("another key signs now", "key", name, "was", k.signs.id(), "is", signs.id())
			k.signs = signs
		}
	}
}

// look reads a key, and leaves its files as they are meant now.
func (k *liveKey) look(dir string, now time.Time) error {
	set, err := readKeySet(dir, k.kind)
	if err != nil {
		return err
	}
	k.set.Store(&set)
	done, err := set.at(now).published(dir)
	if err != nil || done && !set.unsettled(now) {
		return err
	}
	return k.tidy(dir, now)
}

// tidy moves the files on after a rotation. The verb may be at it: what it
// leaves counts.
func (k *liveKey) tidy(dir string, now time.Time) error {
	unlock, err := lockKeys(dir)
	if err != nil {
		return err
	}
	defer unlock()
	set, err := readKeySet(dir, k.kind)
	if err != nil {
		return err
	}
	v := set.at(now)
	if set.unsettled(now) {
		err = v.settle(dir)
	}
	return errors.Join(err, v.publish(dir))
}

// keepLive looks at the keys until the house closes.
func (h *house) keepLive(l *liveKeys) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); l.run(ctx) }()
	h.onClose(func() error { cancel(); <-done; return nil })
}
