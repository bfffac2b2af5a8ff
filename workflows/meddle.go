package workflows

import (
	"context"
	"fmt"

	"github.com/tidegate/tidegate/access"
)

// meddling answers edits of our own comment by somebody else. What people read
// there may have been false for a while, so whatever waits for an answer on
// the pull request is taken back, once for each edit; the client may ask
// again. The comment itself is drawn anew with the next report.
func (a *Activities) meddling(ctx context.Context, ref Ref, list []Meddling) ([]string, error) {
	var said []string
	for _, m := range list {
		by := orText(m.By.Login, "somebody whose account is gone")
		// Taken back first, remembered last: stopped half-way, all of it is done again.
		known, err := a.Ledger.Done(ctx, "comment.edited", m.Edit)
		if err != nil {
			return nil, fmt.Errorf("look up edit of comment %d: %w", m.Comment, err)
		}
		if known {
			continue
		}
		held, err := a.voidHolds(ctx, ref)
		if err != nil {
			return nil, err
		}
		a.log().ErrorContext(ctx, "a comment of ours was edited by somebody else; open holds are void", "pr", ref.String(), "by", by, "held", held)
		a.Signals.edited()
		detail := fmt.Sprintf("comment %d was edited at %s; %d held operations are void", m.Comment, m.At.Format("2006-01-02T15:04:05Z"), held)
		if err := a.audit(ctx, entry{by, "comment.edited", ref.String(), detail}); err != nil {
			return nil, fmt.Errorf("audit edit of comment %d: %w", m.Comment, err)
		}
		if _, err := a.Ledger.Once(ctx, "comment.edited", m.Edit); err != nil {
			return nil, fmt.Errorf("remember edit of comment %d: %w", m.Comment, err)
		}
		said = append(said, clip(fmt.Sprintf("@%s edited this comment, which nobody but Tidegate writes. It is drawn anew, and what waited for an answer here is void (%d).", by, held)))
	}
	return said, nil
}

// voidHolds takes back whatever waits for an answer on the pull request.
func (a *Activities) voidHolds(ctx context.Context, ref Ref) (int, error) {
	rows, err := a.Ledger.GrantsOf(ctx, ref)
	if err != nil {
		return 0, fmt.Errorf("read grants of %s: %w", ref, err)
	}
	ours := map[access.GrantKey]bool{}
	for _, g := range rows {
		ours[g.Key] = true
	}
	helds, err := a.Ledger.OpenHelds(ctx)
	if err != nil {
		return 0, fmt.Errorf("list held operations: %w", err)
	}
	n := 0
	for _, h := range helds {
		if !ours[h.Grant] {
			continue
		}
		err := a.Ledger.CancelHeld(ctx, h.ID, access.HeldCancelled)
		if err != nil && access.CodeOf(err) != access.CodeConflict {
			return n, fmt.Errorf("void %s: %w", h.Name(), err)
		}
		n++
		a.tell(ctx, Hint{Kind: HintHeld, Ref: ref, Held: h.ID})
	}
	return n, nil
}
