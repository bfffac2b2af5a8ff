// Package shared lets those who ask for the same at the same time share an
// answer that is as fresh as one of their own.
package shared

import (
	"context"
	"errors"
	"sync"
)

// errUnanswered is what those get who joined work that panicked.
var errUnanswered = errors.New("the shared work did not end")

// Answers are shared by key. The work for an answer began after each of those
// who share it asked: one that is being worked on is not shared with who asks
// meanwhile; all those share the next. What is shared is only read.
type Answers[K comparable, V any] struct {
	mu    sync.Mutex
	lanes map[K]*lane[V]
}

// lane is the answer that is being worked on and the one after it.
type lane[V any] struct{ running, next *answer[V] }

type answer[V any] struct {
	done   chan struct{}
	value  V
	err    error
	gaveUp bool // the ctx of who was to work ended: it is an answer to nobody else
}

// New makes Answers. Nil ones share nothing.
func New[K comparable, V any]() *Answers[K, V] {
	return &Answers[K, V]{lanes: map[K]*lane[V]{}}
}

// Do answers with what work says. The first who needs an answer works for all
// who join; if its ctx ends, another of them works.
func (s *Answers[K, V]) Do(ctx context.Context, key K, work func(context.Context) (V, error)) (V, error) {
	if s == nil {
		return work(ctx)
	}
	for {
		mine, before, first := s.join(key)
		if first {
			s.answer(ctx, key, mine, before, work)
			return mine.value, mine.err
		}
		if err := mine.wait(ctx); err != nil {
			var none V
			return none, err
		}
		if !mine.gaveUp {
			return mine.value, mine.err
		}
	}
}

// answer works, once the one that is being worked on is there.
func (s *Answers[K, V]) answer(ctx context.Context, key K, mine, before *answer[V], work func(context.Context) (V, error)) {
	if mine.err = before.wait(ctx); mine.err != nil {
		s.leave(key, mine)
		return
	}
	s.begin(key)
	mine.err = errUnanswered
	defer s.finish(key, mine) // also when work panics: nobody may wait for ever, or take nothing for an answer
	mine.value, mine.err = work(ctx)
	mine.gaveUp = mine.err != nil && ctx.Err() != nil
}

// wait returns when there is an answer, or the ctx has ended.
func (a *answer[V]) wait(ctx context.Context) error {
	if a == nil {
		return nil
	}
	select {
	case <-a.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// leave gives up what nobody has begun.
func (s *Answers[K, V]) leave(key K, mine *answer[V]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lanes[key]
	if l.next = nil; l.running == nil {
		delete(s.lanes, key)
	}
	mine.gaveUp = true
	close(mine.done)
}

// join finds the answer that begins after now, and says whether the caller is
// the first to want it.
func (s *Answers[K, V]) join(key K) (mine, before *answer[V], first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lanes[key]
	if l == nil {
		l = &lane[V]{}
		s.lanes[key] = l
	}
	if l.next == nil {
		l.next, first = &answer[V]{done: make(chan struct{})}, true
	}
	return l.next, l.running, first
}

func (s *Answers[K, V]) begin(key K) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lanes[key]
	l.running, l.next = l.next, nil
}

func (s *Answers[K, V]) finish(key K, mine *answer[V]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lanes[key]
	if l.running = nil; l.next == nil {
		delete(s.lanes, key)
	}
	close(mine.done)
}
