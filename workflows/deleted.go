package workflows

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/tidegate/tidegate/access"
)

// Who deletes the file of an open grant on main revokes it. Nothing that
// somebody else puts on main, or into a pull request, may delay that: so it is
// a loop of its own, and asks of main where those files are and nothing else.

// endDeleted revokes grants whose file left main or changed there, also where
// somebody brought it back since.
func (s *sweeper) endDeleted(ctx context.Context) error {
	// Before main is read: what lands meanwhile is not missing from it.
	open, err := s.openGrants(ctx)
	if err != nil || len(open) == 0 {
		s.watched = watched{}
		return err
	}
	ctx = Urgent(ctx)
	commit, err := s.Forge.Main(ctx)
	if err != nil {
		return fmt.Errorf("read main: %w", err)
	}
	return errors.Join(s.endAt(ctx, open, commit), s.endBetween(ctx, open, commit))
}

// endAt ends what main does not hold as it was approved.
func (s *sweeper) endAt(ctx context.Context, open []access.Grant, commit string) error {
	main, err := s.Forge.Blobs(ctx, commit, filesOf(open))
	errs := []error{err}
	for _, g := range open {
		is, known := main[g.Plan.Request.File]
		if !known { // the error says why
			errs = append(errs, s.doubt(ctx, g))
			continue
		}
		why, err := s.gone(ctx, g, is)
		if err != nil {
			errs = append(errs, err, s.doubt(ctx, g))
			continue
		}
		delete(s.doubted, g.Key)
		errs = append(errs, s.endGone(ctx, g, why))
	}
	return errors.Join(errs...)
}

func filesOf(grants []access.Grant) (files []string) {
	for _, g := range grants {
		files = append(files, g.Plan.Request.File)
	}
	return files
}

// endGone ends a grant of whose file something is said.
func (s *sweeper) endGone(ctx context.Context, g access.Grant, why string) error {
	if why == "" {
		return nil
	}
	_, err := s.end(ctx, ending{key: g.Key, state: access.StateRevoked, by: "tidegate", why: why})
	s.wake(ctx, g.Key)
	return err
}

// watched is up to where main was followed, and which grants were open then.
type watched struct {
	mark   int64 // of the forge's log of main; 0: it was not read yet
	open   map[access.GrantKey]bool
	unsure time.Time // since when the way from there can't be read whole
}

const (
	maxPassed   = 100             // commits that main was at in between
	passedAgain = 5 * time.Minute // the forge's log may lag
)

// endBetween ends what main did not hold for a while between two readings:
// whoever deletes a file revokes its grant, however soon somebody else brings
// the file back. Grants that were not open at the reading before are left out,
// because main was without them then.
func (s *sweeper) endBetween(ctx context.Context, open []access.Grant, commit string) error {
	was, now := s.watched, watched{open: map[access.GrantKey]bool{}}
	var before []access.Grant
	for _, g := range open {
		if now.open[g.Key] = true; was.open[g.Key] {
			before = append(before, g)
		}
	}
	passed, err := s.Forge.MainWas(ctx, was.mark, commit)
	errs := []error{err}
	if len(before) > 0 {
		for _, c := range passed.Commits[:min(len(passed.Commits), maxPassed)] {
			errs = append(errs, s.endPassed(ctx, before, c))
		}
	}
	now.mark, err = passed.Mark, errors.Join(errs...)
	if err == nil && passed.Whole && len(passed.Commits) <= maxPassed {
		s.watched = now
		return nil
	}
	s.unsure(ctx, now)
	return err
}

// unsure goes on from today's main when the way to it could not be read for long.
func (s *sweeper) unsure(ctx context.Context, now watched) {
	if s.watched.unsure.IsZero() {
		s.watched.unsure = s.now()
	}
	if s.now().Sub(s.watched.unsure) < passedAgain {
		return
	}
	now.unsure, s.watched = s.now(), now
	s.log().ErrorContext(ctx, "whether files of open grants were deleted on main and brought back can't be read")
}

// endPassed ends what main did not hold at a commit of before.
func (s *sweeper) endPassed(ctx context.Context, before []access.Grant, commit string) error {
	main, err := s.Forge.Blobs(ctx, commit, filesOf(before))
	errs := []error{err}
	for _, g := range before {
		is, known := main[g.Plan.Request.File]
		if !known {
			continue
		}
		why, err := s.gone(ctx, g, is)
		if why != "" {
			why += " That it came back since opens nothing."
		}
		errs = append(errs, err, s.endGone(ctx, g, why))
	}
	return errors.Join(errs...)
}

func (s *sweeper) openGrants(ctx context.Context) (open []access.Grant, err error) {
	rows, err := s.Ledger.Unclosed(ctx)
	if err != nil {
		return nil, fmt.Errorf("list unclosed grants: %w", err)
	}
	keep := map[access.GrantKey]bool{}
	for _, g := range rows {
		if !g.State.Ended() {
			open, keep[g.Key] = append(open, g), true
		}
	}
	maps.DeleteFunc(s.landed, func(k access.GrantKey, _ string) bool { return !keep[k] })
	maps.DeleteFunc(s.doubted, func(k access.GrantKey, _ time.Time) bool { return !keep[k] })
	return open, nil
}

// doubt alerts when it can't be told for long whether an open grant is to end:
// what stands in the way may be somebody's doing. The audit log has it once.
func (s *sweeper) doubt(ctx context.Context, g access.Grant) error {
	since, ok := s.doubted[g.Key]
	if !ok {
		since = s.now()
		s.doubted[g.Key] = since
	}
	late := s.now().Sub(since)
	if late < s.Rules.withDefaults().AlertAfter {
		return nil
	}
	s.log().ErrorContext(ctx, "whether the file of an open grant was changed can't be read", "grant", g.Key.String(), "late", late)
	s.Signals.alert()
	first, err := s.Ledger.Once(ctx, "grant.doubted", g.Key.String())
	if err != nil || !first {
		return err
	}
	return s.audit(ctx, entry{"tidegate", "grant.alert", g.Key.String(), "whether its file was deleted or changed on the main branch can't be read; `/tidegate revoke` ends it"})
}

// gone says what happened to the file of an open grant, which is this blob on
// main now, or "". The bytes are those of the head that was approved: what
// landed was compared with it, and a head stays readable whatever is done to
// main.
func (s *sweeper) gone(ctx context.Context, g access.Grant, is string) (string, error) {
	if is == "" {
		return "Its file was deleted on the main branch.", nil
	}
	file := g.Plan.Request.File
	was, ok := s.landed[g.Key]
	if !ok {
		head, err := s.Forge.Blobs(ctx, g.Pull.Head, []string{file})
		if err != nil {
			return "", fmt.Errorf("read %s of %s as it was approved: %w", file, g.Key, err)
		}
		was = head[file]
		s.landed[g.Key] = was
	}
	if is != was {
		return "Its file was changed on the main branch.", nil
	}
	return "", nil
}
