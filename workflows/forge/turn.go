package forge

import (
	"context"

	"github.com/tidegate/tidegate/access"
)

// turn is a lock that is held while GitHub is asked. Who waits for it waits no
// longer than for GitHub itself.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

func (t turn) take(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return &access.Error{Code: access.CodeUnavailable, Message: "GitHub did not answer another call in time; Tidegate tries again.", Cause: context.Cause(ctx)}
	}
}

func (t turn) give() { <-t }
