package workflows

import (
	"context"
	"errors"
	"fmt"

	"github.com/tidegate/tidegate/access"
)

// older says why nothing may open under this ledger, or "".
func (a *Activities) older(ctx context.Context) (string, error) {
	why, err := a.Ledger.Watch(ctx)
	if err != nil {
		return "", fmt.Errorf("compare the ledger with what was seen of it: %w", err)
	}
	return why, nil
}

// beforeLedger says why a merge is none of this ledger's, or "". What it lost
// may have landed once and been ended.
func (a *Activities) beforeLedger(ctx context.Context, pull Pull) (string, error) {
	began, err := a.Ledger.Began(ctx)
	if err != nil {
		return "", err
	}
	if pull.MergedAt.Before(began) {
		return "It was merged before this ledger began: the one that might know it was lost. Ask for a new grant with a new id.", nil
	}
	return "", nil
}

// AdoptInput is who takes the ledger for the truth, and why.
type AdoptInput struct {
	By, Why  string
	Restored bool // although nothing shows that it is older
}

// Adoption is what AdoptLedger did.
type Adoption struct {
	Older    bool     `json:"older"`              // the ledger lacked what was seen of it
	Began    bool     `json:"began"`              // it is the truth from now on; false: there was nothing to do
	Revoked  []string `json:"revoked,omitempty"`  // ids of grants that were open in it
	Refused  []string `json:"refused,omitempty"`  // ids on main that it did not know: consumed
	Policies string   `json:"policies,omitempty"` // the commit whose policies came into force, if none were
	Names    []string `json:"names,omitempty"`    // of people and teams who agree, that meant others before
}

const (
	whyLost    = "It was on the main branch before this ledger began."
	whyUnknown = "The ledger was restored from a backup, and whether this grant was ended since is not known. Ask for a new one."
)

// AdoptLedger makes a ledger that is empty, restored or new the truth. What
// may have happened and is not in it must not open anything: what it has open
// is revoked, and what is on main and unknown to it is refused. Then, unless
// some are in force, the policies on main come into force. It is idempotent,
// so one that failed half way is started again.
func (a *Activities) AdoptLedger(ctx context.Context, in AdoptInput) (out Adoption, err error) {
	if in.By == "" || in.Why == "" {
		return out, access.Errorf(access.CodeInvalid, "To adopt a ledger wants who adopts it and why.")
	}
	older, err := a.older(ctx)
	if err != nil {
		return out, err
	}
	out.Older = older != ""
	adopted, err := a.Ledger.Adopted(ctx)
	first := access.CodeOf(err) == access.CodeNotFound
	if err != nil && !first {
		return out, fmt.Errorf("read adopted policies: %w", err)
	}
	restored := out.Older || in.Restored
	if restored {
		if out.Revoked, err = a.revokeOpen(ctx, in.By); err != nil {
			return out, err
		}
	}
	main, err := a.mainTree(ctx) // after the ends, which nothing on main may hinder
	if err != nil {
		return out, err
	}
	if restored || first {
		if out.Refused, err = a.refuseOnMain(ctx, main); err != nil {
			return out, err
		}
		if err := a.Ledger.Rebase(ctx, in.By, fmt.Sprintf("%s; %d open grants revoked, %d on main refused", in.Why, len(out.Revoked), len(out.Refused))); err != nil {
			return out, fmt.Errorf("adopt ledger: %w", err)
		}
		out.Began = true
	}
	if !first {
		out.Names, err = a.takeNames(ctx, adopted, in.By)
		return out, err
	}
	done, err := a.adopt(ctx, main, adoption{why: "adopted by " + in.By + ": " + in.Why})
	if err == nil && !done {
		err = access.Errorf(access.CodeInvalid, "The policies on the main branch do not load; correct them and adopt again. `tidegate doctor` shows the mistakes.")
	}
	if err != nil {
		return out, err
	}
	out.Policies = main.Commit
	return out, nil
}

// mainTree is what main holds. With an error it has the commit alone, if that
// is known.
func (a *Activities) mainTree(ctx context.Context) (access.Tree, error) {
	commit, err := a.Forge.Main(ctx)
	if err != nil {
		return access.Tree{}, fmt.Errorf("read main: %w", err)
	}
	main, err := a.Forge.Tree(ctx, commit)
	if err != nil {
		return access.Tree{Commit: commit}, fmt.Errorf("read main at %s: %w", commit, err)
	}
	return main, nil
}

// unreadable tells a tree that holds what is not read from a forge that does not
// answer. The code alone does not: GitHub's 422 has the same.
func unreadable(err error) bool { return errors.Is(err, ErrUnreadable) }

// revokeOpen revokes every grant that a restored ledger has for open.
func (a *Activities) revokeOpen(ctx context.Context, by string) (ids []string, err error) {
	rows, err := a.Ledger.Unclosed(ctx)
	if err != nil {
		return nil, fmt.Errorf("list unclosed grants: %w", err)
	}
	var errs []error
	for _, g := range rows {
		if g.State.Ended() {
			continue
		}
		_, err := a.end(ctx, ending{key: g.Key, state: access.StateRevoked, by: by, why: whyUnknown})
		ids, errs = append(ids, g.Key.ID), append(errs, err)
		a.wake(ctx, g.Key)
	}
	return ids, errors.Join(errs...)
}
