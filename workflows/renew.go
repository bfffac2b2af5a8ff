package workflows

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidegate/tidegate/access"
)

// An active grant whose row has no backing has nothing at its target that
// opens: the policies became narrower, a migration broke its access, or its
// target made room for one. Whoever finds that out writes the row, by which
// gateways end the sessions of the old access; the new one is made here alone,
// so that nobody takes away what another just made. It needs no forge.

// renewAll makes the access that active grants lack, and has main read again:
// a grant that waited for a migration may not give by now what it gave.
func (c *Control) renewAll(ctx context.Context) error {
	looked, err := c.acts.renewAll(ctx)
	if looked > 0 {
		poke(c.nudge)
	}
	return err
}

// renewAll answers with for how many it tried.
func (a *Activities) renewAll(ctx context.Context) (int, error) {
	rows, err := a.Ledger.Unclosed(ctx)
	if err != nil {
		return 0, fmt.Errorf("list unclosed grants: %w", err)
	}
	var lacking []access.Grant
	for _, g := range rows {
		if a.lacks(g) {
			lacking = append(lacking, g)
		}
	}
	return len(lacking), byTarget(ctx, lacking, func(ctx context.Context, mine []access.Grant) error {
		var errs []error
		for _, g := range mine {
			errs = append(errs, a.renewOrEnd(ctx, g))
		}
		return errors.Join(errs...)
	})
}

// lacks reports whether a grant's access is to be made now. While its target
// makes room for a migration it is not.
func (a *Activities) lacks(g access.Grant) bool {
	now := a.now()
	return g.State == access.StateActive && len(g.Backing) == 0 && now.Before(g.NotAfter) && !now.Before(g.Yields)
}

// renewOrEnd ends a grant of which nothing is left that can be made.
func (a *Activities) renewOrEnd(ctx context.Context, g access.Grant) error {
	err := a.renew(ctx, g)
	if !isRefusal(err) {
		return err
	}
	why := "Its access could not be made again: " + access.Message(err)
	_, err = a.end(ctx, ending{key: g.Key, state: access.StateRevoked, by: "tidegate", why: clip(why)})
	a.wake(ctx, g.Key)
	return err
}

// renew makes the access of an active grant again: the old generation is taken
// away before the new one is there, so that both never are. A target that is
// down leaves the grant without access, and it is tried again.
func (a *Activities) renew(ctx context.Context, g access.Grant) error {
	g, err := a.signed(ctx, g)
	if err != nil {
		return err
	}
	m, err := a.minter(g.Plan.Target.Kind)
	if err != nil {
		return err
	}
	if err := m.Revoke(ctx, g); err != nil {
		return fmt.Errorf("take the old access of %s away: %w", g.Key, err)
	}
	minted, err := m.Mint(ctx, g)
	if err != nil {
		return fmt.Errorf("make the access of %s again: %w", g.Key, err)
	}
	row, err := a.change(ctx, g.Key, func(row *access.Grant) (bool, error) {
		if row.State != access.StateActive || row.Generation != g.Generation {
			return false, nil
		}
		row.Backing, row.Yields = made(minted), time.Time{}
		return true, nil
	})
	if err != nil {
		return err
	}
	if row.State.Ended() {
		return a.take(ctx, row)
	}
	a.tell(ctx, Hint{Kind: HintPull, Ref: refOf(row)})
	return nil
}
