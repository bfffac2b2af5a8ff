package workflows

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
)

// outage is a forge that can't read a pull request before it is mended.
type outage struct {
	fakeForge
	began  time.Time
	mended time.Duration // since it began

	mu    sync.Mutex
	turns []time.Duration // in which it was asked, since it began
}

func (o *outage) Pull(ctx context.Context, ref Ref) (Pull, error) {
	since := o.clock().Sub(o.began)
	o.mu.Lock()
	if n := len(o.turns); n == 0 || since-o.turns[n-1] > 5*time.Second { // a turn tries four times
		o.turns = append(o.turns, since)
	}
	o.mu.Unlock()
	if since < o.mended {
		return Pull{}, access.Errorf(access.CodeUnavailable, "GitHub answered 502.")
	}
	return o.fakeForge.Pull(ctx, ref)
}

// between counts the turns.
func (o *outage) between(from, to time.Duration) (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, at := range o.turns {
		if from <= at && at < to {
			n++
		}
	}
	return n
}

// TestFailingReadingIsTriedLessOften, until it succeeds, and that is said once
// each. What a hint says may have changed does not wait.
func TestFailingReadingIsTriedLessOften(t *testing.T) {
	sinceChange(t, changePatience, func(t *testing.T, s stage) {
		o := &outage{fakeForge: fakeForge{s.world}, began: s.e.Now(), mended: 25 * time.Minute}
		var log strings.Builder
		s.a.Forge, s.a.failing, s.a.Log = o, newStreaks(), slog.New(slog.NewTextHandler(&log, nil))
		s.e.RegisterDelayedCallback(func() { s.e.SignalWorkflow(signalHint, Hint{Kind: HintPull, Ref: pr7}) }, 10*time.Minute)
		s.e.RegisterDelayedCallback(s.e.CancelWorkflow, 40*time.Minute)
		s.run(t, 30*time.Second)
		if n := o.between(0, 25*time.Minute); s.now != (n <= 10) || n < 6 {
			t.Errorf("tried in %d turns of 25 minutes", n)
		}
		if n := o.between(10*time.Minute, 10*time.Minute+5*time.Second); n == 0 {
			t.Error("the hint had to wait")
		}
		if n := o.between(25*time.Minute, 30*time.Minute+30*time.Second); n == 0 {
			t.Error("it was not tried again")
		}
		if n := o.between(31*time.Minute, 36*time.Minute); n < 9 {
			t.Errorf("read in %d turns of 5 minutes, want as often as ever", n)
		}
		if said := log.String(); strings.Count(said, "follow failed") != 1 || strings.Count(said, "follow works again") != 1 {
			t.Errorf("said was\n%s", said)
		}
	})
}

// TestCommandsAreHeardWhileReadingsWait: the clock alone brings bob's.
func TestCommandsAreHeardWhileReadingsWait(t *testing.T) {
	sinceChange(t, changePatience, func(t *testing.T, s stage) {
		s.a.Forge = &outage{fakeForge: fakeForge{s.world}, began: s.e.Now(), mended: time.Hour}
		s.e.RegisterDelayedCallback(func() { s.comment(bob, "revoke") }, 15*time.Minute)
		s.e.RegisterDelayedCallback(func() {
			if is := s.grant(t, key1).State; is != access.StateRevoked {
				t.Errorf("state is %s", is)
			}
			s.e.CancelWorkflow()
		}, 15*time.Minute+35*time.Second)
		s.run(t, 30*time.Second)
	})
}

func TestStreaks(t *testing.T) {
	s, down, no := newStreaks(), access.Errorf(access.CodeUnavailable, "502"), access.Errorf(access.CodeDenied, "403")
	for i, c := range []struct {
		err  error
		news bool
	}{{nil, false}, {down, true}, {down, false}, {no, true}, {no, false}, {nil, true}, {nil, false}, {down, true}} {
		if got := s.note("follow 7", c.err); got != c.news {
			t.Errorf("%d: %v is news: %t", i, c.err, got)
		}
	}
	if !s.note("follow 8", down) {
		t.Error("another's failure is no news")
	}
}
