package workflows

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/tidegate/tidegate/access"
)

// Sweeping needs no Temporal: it reads git, the ledger and the targets, and
// makes them equal. Revocations come first.

// sweeper is what the loops remember. All of it may be lost.
type sweeper struct {
	*Activities
	ended     map[access.GrantKey]time.Time // ended early and not closed, since when
	unclaimed map[string]time.Time          // files on main that nobody claimed, since when
	hinted    map[Ref]time.Time
	tidied    time.Time
	landed    map[access.GrantKey]string    // the blob of each open grant, as it was approved
	doubted   map[access.GrantKey]time.Time // open, and whether their file changed can't be read, since when
	watched   watched                       // where main was when their files were looked for last
	narrowed  map[access.GrantKey]string    // the policies that each active grant was held against
	mended    map[access.GrantKey]string    // what of each active grant was broken when it was last made again
	lookedAt  time.Time                     // when they were last looked at
	looked    bool                          // for orphans, at every target that the policies in force name
}

// waker is what the loop that hears of changes remembers. It may be lost, too.
type waker struct {
	*Control
	woken map[access.GrantKey]bool // told of their early end
}

func newSweeper(a *Activities) *sweeper {
	return &sweeper{
		Activities: a, ended: map[access.GrantKey]time.Time{}, unclaimed: map[string]time.Time{},
		hinted: map[Ref]time.Time{}, landed: map[access.GrantKey]string{}, narrowed: map[access.GrantKey]string{},
		mended: map[access.GrantKey]string{}, doubted: map[access.GrantKey]time.Time{},
	}
}

// sweep takes away what should be gone, and starts again what Temporal lost.
// With Temporal at work it finds nothing: it waits for the grace first.
func (a *sweeper) sweep(ctx context.Context) error {
	rows, err := a.Ledger.Unclosed(ctx)
	if err != nil {
		return fmt.Errorf("list unclosed grants: %w", err)
	}
	a.forget(rows)
	var open, due []access.Grant
	for _, g := range rows {
		if a.overdue(g) {
			due = append(due, g)
		} else {
			open = append(open, g)
		}
	}
	var mu sync.Mutex
	errs := []error{byTarget(ctx, due, func(ctx context.Context, mine []access.Grant) error {
		left, err := a.closeAll(ctx, mine)
		mu.Lock()
		defer mu.Unlock()
		open = append(open, left...)
		return err
	})}
	errs = append(errs, a.sweepOrphans(ctx, rows, open))
	if why, err := a.older(ctx); err != nil || why != "" {
		return errors.Join(append(errs, err)...) // nothing to start; reconcile says so
	}
	for _, g := range open {
		errs = append(errs, a.startIfOpen(ctx, g))
	}
	return errors.Join(errs...)
}

// closeAll closes overdue grants of one target, and answers with those that it
// could not. After a target that did not answer, the others are only said to
// be late: asking again for each would take the whole bound.
func (a *sweeper) closeAll(ctx context.Context, due []access.Grant) ([]access.Grant, error) {
	var left []access.Grant
	var errs []error
	silent := false
	for _, g := range due {
		err := errNotAsked
		if !silent {
			_, err = a.closeRow(ctx, CloseInput{Key: g.Key, Why: whyEnded(g)}, bySweep)
		}
		if err == nil {
			continue
		}
		if silent = silent || access.CodeOf(err) == access.CodeUnavailable; err != errNotAsked {
			errs = append(errs, err)
		}
		a.alertLate(context.WithoutCancel(ctx), g)
		left = append(left, g)
	}
	return left, errors.Join(errs...)
}

var errNotAsked = errors.New("the target was not asked")

func whyEnded(g access.Grant) string {
	if g.State.Ended() {
		return g.Why
	}
	return ""
}

// overdue: beyond its end by the grace. The row of a grant that was ended
// early carries no time of that, so the sweeper counts from when it saw it.
func (a *sweeper) overdue(g access.Grant) bool {
	now, grace := a.now(), a.Rules.withDefaults().Grace
	if !now.Before(g.Drained().Add(grace)) {
		return true
	}
	if !g.State.Ended() {
		return false
	}
	if _, ok := a.ended[g.Key]; !ok {
		a.ended[g.Key] = now
	}
	return !now.Before(a.ended[g.Key].Add(grace))
}

// forget keeps the memory as small as the list of unclosed grants.
func (a *sweeper) forget(rows []access.Grant) {
	keep := map[access.GrantKey]bool{}
	for _, g := range rows {
		keep[g.Key] = true
	}
	maps.DeleteFunc(a.ended, func(k access.GrantKey, _ time.Time) bool { return !keep[k] })
}

func (a *Activities) alertLate(ctx context.Context, g access.Grant) {
	late := a.now().Sub(g.Drained())
	if late < a.Rules.withDefaults().AlertAfter {
		return
	}
	if err := a.Alert(ctx, AlertInput{Key: g.Key, Late: late}); err != nil {
		a.log().ErrorContext(ctx, "alert failed", "grant", g.Key.String(), "error", err)
	}
}

func (a *sweeper) sweepOrphans(ctx context.Context, rows, open []access.Grant) error {
	where, err := a.whereOrphans(ctx, rows)
	errs := []error{err}
	for kind, m := range a.Minters {
		o, ok := m.(OrphanSweeper)
		if !ok {
			continue
		}
		seen := map[access.TargetRef]bool{}
		var targets []access.Target
		for _, t := range where {
			if t.Kind == kind && !seen[t.TargetRef] {
				seen[t.TargetRef] = true
				targets = append(targets, t)
			}
		}
		if len(targets) > 0 {
			errs = append(errs, o.SweepOrphans(ctx, targets, open))
		}
	}
	return errors.Join(errs...)
}

// whereOrphans are the targets of the grants that are not closed. At first,
// and as long as the ledger is older than it was seen, they are all that the
// policies in force name: grants that it lost may have left roles there.
func (a *sweeper) whereOrphans(ctx context.Context, rows []access.Grant) (where []access.Target, err error) {
	for _, g := range rows {
		where = append(where, g.Plan.Target)
	}
	older, err := a.older(ctx)
	if err != nil || a.looked && older == "" {
		return where, err
	}
	adopted, err := a.Ledger.Adopted(ctx)
	if access.CodeOf(err) == access.CodeNotFound {
		return where, nil // later, when some are in force
	}
	if err != nil {
		return where, fmt.Errorf("read adopted policies: %w", err)
	}
	all, err := a.Policies.Targets(adopted)
	a.looked = err == nil && older == ""
	return append(where, all...), err
}

// reconcile makes the ledger follow main: whatever reached it, however. What
// left it ends in a loop of its own, endDeleted, for which nothing of this is
// waited. A main that can't be read whole keeps back what is judged by it alone.
func (s *sweeper) reconcile(ctx context.Context) error {
	main, mainErr := s.mainTree(ctx)
	refs, refsErr := s.Forge.OpenPulls(ctx, s.now().Add(-recentlyMerged))
	if refsErr != nil {
		refsErr = fmt.Errorf("list pull requests: %w", refsErr)
	}
	older, err := s.older(ctx)
	errs := []error{mainErr, refsErr, err}
	if err == nil && older != "" { // only ends; the pull requests say why
		return errors.Join(append(errs, errors.New(older), s.followAll(ctx, refs))...)
	}
	if err != nil {
		return errors.Join(errs...)
	}
	if mainErr == nil {
		errs = append(errs, s.Adopt(ctx, main))
	} else {
		errs = append(errs, s.sayUnreadable(ctx, main.Commit, mainErr))
	}
	errs = append(errs, s.followAll(ctx, refs))
	if mainErr == nil && refsErr == nil {
		errs = append(errs, s.refuseUnclaimed(ctx, main, refs))
	}
	errs = append(errs, s.narrowAll(ctx), s.mendAll(ctx))
	if mainErr == nil {
		errs = append(errs, s.tidy(ctx, main))
	}
	return errors.Join(errs...)
}

// sayUnreadable keeps in the audit log, once for each commit, that main holds
// what Tidegate can't read.
func (s *sweeper) sayUnreadable(ctx context.Context, commit string, why error) error {
	if commit == "" || !unreadable(why) {
		return nil
	}
	first, err := s.Ledger.Once(ctx, "main.unreadable", commit)
	if err != nil || !first {
		return err
	}
	return s.audit(ctx, entry{"tidegate", "main.unreadable", commit, clip(access.Message(why))})
}

// followAll makes every open or recently closed pull request be read.
func (s *sweeper) followAll(ctx context.Context, refs []Ref) error {
	if s.starter == nil {
		return nil
	}
	var errs []error
	for _, ref := range refs {
		now := s.now()
		if now.Sub(s.hinted[ref]) < hintAgain {
			continue // its workflow polls by itself
		}
		done, err := s.settled(ctx, ref)
		if err == nil && !done {
			err = s.starter.hint(ctx, Hint{Kind: HintPull, Ref: ref})
		}
		if err == nil {
			s.hinted[ref] = now // one that Temporal did not take is given again
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// settled spares pull requests that are closed with everything of theirs.
func (s *sweeper) settled(ctx context.Context, ref Ref) (bool, error) {
	rows, err := s.Ledger.GrantsOf(ctx, ref)
	if err != nil {
		return false, fmt.Errorf("read grants of %s: %w", ref, err)
	}
	for _, g := range rows {
		if g.Closed.IsZero() {
			return false, nil
		}
	}
	return len(rows) > 0, nil
}

// changed follows a change of the ledger, whoever made it: a command line, a
// console, another control.
func (w *waker) changed(ctx context.Context) error {
	poke(w.remake)
	return errors.Join(w.wakeEnded(ctx), w.startHolds(ctx))
}

// wakeEnded wakes the workflows of grants that ended early, once each. A grant
// whose time is up has a timer of its own.
func (w *waker) wakeEnded(ctx context.Context) error {
	rows, err := w.acts.Ledger.Ending(ctx)
	if err != nil {
		return fmt.Errorf("list ended grants: %w", err)
	}
	ended := map[access.GrantKey]bool{}
	var errs []error
	for _, g := range rows {
		if !w.acts.now().Before(g.NotAfter) {
			continue
		}
		if !w.woken[g.Key] {
			if err := w.finishGrant(ctx, g.Key); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		ended[g.Key] = true
	}
	w.woken = ended
	return errors.Join(errs...)
}

// startHolds starts a workflow for each operation that waits.
func (c *Control) startHolds(ctx context.Context) error {
	helds, err := c.acts.Ledger.OpenHelds(ctx)
	if err != nil {
		return fmt.Errorf("list held operations: %w", err)
	}
	var errs []error
	for _, h := range helds {
		errs = append(errs, c.startHold(ctx, h.ID))
	}
	return errors.Join(errs...)
}

// measure looks at what is not closed, for the numbers. Each control does it,
// also one that leaves the sweeping to another.
func (c *Control) measure(ctx context.Context) error {
	rows, err := c.acts.Ledger.Unclosed(ctx)
	if err != nil {
		return fmt.Errorf("list unclosed grants: %w", err)
	}
	c.acts.Signals.measured(rows)
	older, err := c.acts.older(ctx)
	if err != nil {
		return err
	}
	c.acts.Signals.older(older != "")
	return nil
}
