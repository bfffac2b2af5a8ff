package shared

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestSharedAnswerBeginsAfterTheQuestion: nobody gets an answer whose work had
// begun before it asked, and who waits together is answered together.
func TestSharedAnswerBeginsAfterTheQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New[int, time.Time]()
		var mu sync.Mutex
		works := 0
		ask := func() {
			asked := time.Now()
			began, err := s.Do(t.Context(), 1, func(context.Context) (time.Time, error) {
				mu.Lock()
				works++
				mu.Unlock()
				at := time.Now()
				time.Sleep(time.Second)
				return at, nil
			})
			if err != nil || began.Before(asked) {
				t.Errorf("asked at %s, answered with a reading of %s, error %v", asked, began, err)
			}
		}
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() {
				time.Sleep(time.Duration(i) * 30 * time.Millisecond) // 1.5 s in all
				ask()
			})
		}
		all.Wait()
		if works != 3 || len(s.lanes) != 0 {
			t.Errorf("%d readings for 50 questions, want 3; %d lanes are left", works, len(s.lanes))
		}
	})
}

func TestSharedErrorAndImpatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New[int, int]()
		broken := errors.New("broken")
		go func() {
			if _, err := s.Do(t.Context(), 1, func(context.Context) (int, error) { time.Sleep(time.Second); return 0, broken }); err != broken {
				t.Errorf("the worker got %v", err)
			}
		}()
		synctest.Wait()
		go func() {
			if n, err := s.Do(t.Context(), 1, func(context.Context) (int, error) { time.Sleep(time.Second); return 7, nil }); n != 7 || err != nil {
				t.Errorf("another's error was shared: %d, %v", n, err)
			}
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := s.Do(ctx, 1, func(context.Context) (int, error) { t.Error("worked itself"); return 0, nil }); err != context.DeadlineExceeded {
			t.Errorf("got %v, want its own deadline", err)
		}
		time.Sleep(3 * time.Second)
		if n, err := s.Do(t.Context(), 1, func(context.Context) (int, error) { return 8, nil }); n != 8 || err != nil {
			t.Errorf("after an error: %d, %v", n, err)
		}
	})
}

// TestSharedPanic: who joined work that panicked gets an error, no empty
// answer, and the next question is answered.
func TestSharedPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New[int, int]()
		slow := func(context.Context) (int, error) { time.Sleep(time.Second); return 1, nil }
		go func() { _, _ = s.Do(t.Context(), 1, slow) }()
		synctest.Wait()
		go func() { // waits for the one that runs, then works
			defer func() {
				if recover() == nil {
					t.Error("the panic was swallowed")
				}
			}()
			_, _ = s.Do(t.Context(), 1, func(context.Context) (int, error) { panic("broken") })
		}()
		synctest.Wait()
		if n, err := s.Do(t.Context(), 1, slow); err != errUnanswered {
			t.Errorf("joined work that panicked: %d, %v", n, err)
		}
		if n, err := s.Do(t.Context(), 1, slow); n != 1 || err != nil {
			t.Errorf("after a panic: %d, %v", n, err)
		}
	})
}

// TestSharedWaitEnds: who is to work next waits for who works now no longer
// than its ctx lasts, and those who joined it are told.
func TestSharedWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New[int, int]()
		work := func(context.Context) (int, error) { time.Sleep(time.Hour); return 1, nil }
		go func() {
			if n, err := s.Do(t.Context(), 1, work); n != 1 || err != nil {
				t.Errorf("who works got %d, %v", n, err)
			}
		}()
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		var next sync.WaitGroup
		for _, ctx := range []context.Context{ctx, t.Context()} {
			next.Go(func() {
				if _, err := s.Do(ctx, 1, work); !errors.Is(err, context.Canceled) {
					t.Errorf("who waits got %v, want that it was cancelled", err)
				}
			})
			synctest.Wait()
		}
		cancel()
		next.Wait()
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if len(s.lanes) != 0 {
			t.Errorf("%d lanes are left", len(s.lanes))
		}
	})
}
