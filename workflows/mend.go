package workflows

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidegate/tidegate/access"
)

// A migration of the target's owner can take from an active grant what it
// needs: a table that is dropped and made again has no rights on it, and its
// mask view is gone. That fails closed by itself; here it is made whole again.

const mendEvery = time.Minute

// mendAll looks at the active grants, and has made again (renewAll) what its
// target broke.
func (s *sweeper) mendAll(ctx context.Context) error {
	now := s.now()
	if now.Sub(s.lookedAt) < mendEvery {
		return nil
	}
	s.lookedAt = now
	rows, err := s.Ledger.Unclosed(ctx)
	if err != nil {
		return fmt.Errorf("list unclosed grants: %w", err)
	}
	var look []access.Grant
	was := s.mended
	s.mended = map[access.GrantKey]string{} // forgets what has ended
	for _, g := range rows {
		if g.State == access.StateActive && len(g.Backing) > 0 && now.Before(g.NotAfter) {
			look, s.mended[g.Key] = append(look, g), was[g.Key]
		}
	}
	mended := make(chan mending, len(look))
	err = byTarget(ctx, look, func(ctx context.Context, mine []access.Grant) error {
		var errs []error
		for _, g := range mine {
			broken, err := s.mend(ctx, g, was[g.Key])
			mended <- mending{g.Key, broken}
			errs = append(errs, err)
			if access.CodeOf(err) == access.CodeUnavailable {
				break // the others are asked the next time
			}
		}
		return errors.Join(errs...)
	})
	close(mended)
	for m := range mended {
		s.mended[m.key] = m.broken
	}
	return err
}

type mending struct {
	key    access.GrantKey
	broken string
}

// mend makes one grant again if it is broken otherwise than when it was last
// made again: what minting can't mend is not tried for ever, since each time
// ends the grant's sessions.
func (s *sweeper) mend(ctx context.Context, g access.Grant, before string) (string, error) {
	m, err := s.minter(g.Plan.Target.Kind)
	if err != nil {
		return before, err
	}
	mender, ok := m.(Mender)
	if !ok {
		return "", nil
	}
	broken, err := mender.Broken(ctx, g)
	if err != nil {
		return before, fmt.Errorf("look whether %s is whole: %w", g.Key, err)
	}
	if broken == "" || broken == before {
		return broken, nil
	}
	row, err := s.change(ctx, g.Key, func(row *access.Grant) (bool, error) {
		if row.State != access.StateActive || row.Sequence != g.Sequence {
			return false, access.Errorf(access.CodeConflict, "The grant %s changed meanwhile; the next reading looks again.", g.Key.ID)
		}
		row.Generation, row.Backing, row.Why = row.Generation+1, nil, clip("Tables changed at the target: "+broken+".")
		return true, nil
	})
	if err != nil {
		return before, err
	}
	if err := s.audit(ctx, entry{"tidegate", "grant.mended", g.Key.String(), clip(fmt.Sprintf("generation %d: %s", row.Generation, broken))}); err != nil {
		return before, fmt.Errorf("audit grant %s: %w", g.Key, err)
	}
	s.wake(ctx, g.Key)
	return broken, nil
}
