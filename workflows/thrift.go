package workflows

import "context"

// listening marks the reading of comments as urgent where something can end by
// them: a grant that is not over, and with it what it has on hold. Many pull
// requests that are merely open must not use up the calls by which those are
// read. A ledger that can't say counts as yes.
func (a *Activities) listening(ctx context.Context, ref Ref) context.Context {
	rows, err := a.Ledger.GrantsOf(ctx, ref)
	if err != nil {
		return Urgent(ctx)
	}
	for _, g := range rows {
		if g.Closed.IsZero() {
			return Urgent(ctx)
		}
	}
	return ctx
}
