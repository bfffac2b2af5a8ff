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
// than its ctx lasts, and then one of those who joined it works.
func TestSharedWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New[int, int]()
		work := func(context.Context) (int, error) { time.Sleep(time.Hour); return 1, nil }
		ask := func(ctx context.Context, want int, wantErr error) {
			if n, err := s.Do(ctx, 1, work); n != want || err != wantErr {
				t.Errorf("got %d, %v; want %d, %v", n, err, want, wantErr)
			}
		}
		tired := errors.New("tired")
		ctx, cancel := context.WithCancelCause(t.Context())
		go ask(t.Context(), 1, nil) // works
		synctest.Wait()
		go ask(ctx, 0, tired) // is to work next
		synctest.Wait()
		for range 3 {
			go ask(t.Context(), 1, nil) // joins it
		}
		synctest.Wait()
		cancel(tired)
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		if len(s.lanes) != 0 {
			t.Errorf("%d lanes are left", len(s.lanes))
		}
	})
}

// TestSharedWorkGivenUp: who joined work that ended with the worker's ctx has
// it done anew: one of them at once, and once for those who came after it began.
func TestSharedWorkGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New[int, int]()
		works := 0
		work := func(ctx context.Context) (int, error) {
			works++
			select {
			case <-time.After(time.Hour):
				return works, nil
			case <-ctx.Done():
				return 0, errors.New("the connection broke") // says nothing of the ctx
			}
		}
		go func() { _, _ = s.Do(t.Context(), 1, work) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Minute)
		defer cancel()
		go func() { // works from the end of the first hour on
			if _, err := s.Do(ctx, 1, work); err == nil {
				t.Error("work whose ctx ended gave an answer")
			}
		}()
		synctest.Wait()
		for range 3 {
			go func() {
				if n, err := s.Do(t.Context(), 1, work); n < 3 || err != nil {
					t.Errorf("who joined got %d, %v; want what the third work says, or the fourth", n, err)
				}
			}()
		}
		time.Sleep(4 * time.Hour)
		synctest.Wait()
		if works > 4 || len(s.lanes) != 0 {
			t.Errorf("%d works, want at most 4; %d lanes are left", works, len(s.lanes))
		}
	})
}
