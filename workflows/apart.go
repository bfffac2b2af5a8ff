package workflows

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.temporal.io/sdk/temporal"
	"golang.org/x/sync/errgroup"

	"github.com/tidegate/tidegate/access"
)

// Targets are kept apart: one that is dead or hangs delays what is its own,
// and nothing at the others.
const (
	maxPerTarget  = 64                     // activities under way at one target, of maxAtOnce
	whenFull      = 250 * time.Millisecond // until the next try at a target that has its most
	targetsAtOnce = 32                     // in one sweep
	targetBound   = 30 * time.Second       // of what one sweep does at one target
)

// gate counts what is under way at each target. The nil gate lets all in.
type gate struct {
	mu     sync.Mutex
	inside map[access.TargetRef]int
}

func newGate() *gate { return &gate{inside: map[access.TargetRef]int{}} }

// through runs do unless the target has its most under way; then the error is
// one that is tried again soon.
func (g *gate) through(ref access.TargetRef, do func() error) error {
	if g == nil {
		return do()
	}
	if !g.enter(ref) {
		return temporal.NewApplicationErrorWithOptions("The target "+ref.String()+" has its most under way.",
			string(access.CodeUnavailable), temporal.ApplicationErrorOptions{NextRetryDelay: whenFull})
	}
	defer g.leave(ref)
	return do()
}

// isBusy knows the gate's error, which is told to Temporal as it is.
func isBusy(err error) bool {
	app := (*temporal.ApplicationError)(nil)
	return errors.As(err, &app)
}

func (g *gate) enter(ref access.TargetRef) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside[ref] >= maxPerTarget {
		return false
	}
	g.inside[ref]++
	return true
}

func (g *gate) leave(ref access.TargetRef) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside[ref]--; g.inside[ref] == 0 {
		delete(g.inside, ref)
	}
}

// byTarget runs do for the grants of each target, the targets side by side and
// each with a bound of its own.
func byTarget(ctx context.Context, grants []access.Grant, do func(context.Context, []access.Grant) error) error {
	apart := map[access.TargetRef][]access.Grant{}
	for _, g := range grants {
		ref := g.Plan.Target.TargetRef
		apart[ref] = append(apart[ref], g)
	}
	var group errgroup.Group
	group.SetLimit(targetsAtOnce)
	var mu sync.Mutex
	var errs []error
	for _, mine := range apart {
		group.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, targetBound)
			defer cancel()
			err := do(ctx, mine)
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
			return nil
		})
	}
	_ = group.Wait()
	return errors.Join(errs...)
}
