package workflows

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/tidegate/tidegate/access"
)

// Who pushed, and whoever else never counts as an approver.

// learnPushers finds the commits of which no delivery said who pushed them,
// and asks the forge. An answer that does not account for all of them teaches
// nothing: whoever is missing from it could be the one who approves.
func (a *Activities) learnPushers(ctx context.Context, pull *Pull) error {
	missing, err := a.unpushed(ctx, *pull)
	if err != nil || len(missing) == 0 {
		return err
	}
	pull.Unpushed = missing
	who, whole, err := a.Forge.Pushers(ctx, *pull)
	if err != nil {
		return fmt.Errorf("ask who pushed to %s: %w", pull.Ref, err)
	}
	if !whole || len(who) == 0 {
		return nil
	}
	for _, u := range who {
		if err := a.Ledger.Pushed(ctx, pull.Ref.Repo, missing, u); err != nil {
			return fmt.Errorf("remember who pushed to %s: %w", pull.Ref, err)
		}
	}
	pull.Unpushed = nil
	return nil
}

func (a *Activities) unpushed(ctx context.Context, pull Pull) ([]string, error) {
	commits := branchCommits(pull)
	known, err := a.Ledger.Pushers(ctx, pull.Ref.Repo, commits)
	if err != nil {
		return nil, fmt.Errorf("read who pushed to %s: %w", pull.Ref, err)
	}
	return slices.DeleteFunc(commits, func(c string) bool { return len(known[c]) > 0 }), nil
}

func branchCommits(pull Pull) []string {
	commits := slices.Concat(pull.Commits, []string{pull.Head})
	slices.Sort(commits)
	return slices.Compact(commits)
}

// excluded says who never counts as an approver of the plan, and why.
func (a *Activities) excluded(ctx context.Context, pull Pull, plan access.Plan) (map[int64]string, error) {
	out := maps.Clone(pull.Excluded)
	if out == nil {
		out = map[int64]string{}
	}
	pushers, err := a.Ledger.Pushers(ctx, pull.Ref.Repo, branchCommits(pull))
	if err != nil {
		return nil, fmt.Errorf("read who pushed: %w", err)
	}
	for _, users := range pushers {
		for _, u := range users {
			out[u.ID] = "pushed to the branch"
		}
	}
	for _, p := range plan.People {
		out[p.ID] = "would receive the access"
	}
	out[pull.Author.ID] = "opened the pull request"
	for _, r := range pull.Reviews {
		if r.User.Bot {
			out[r.User.ID] = "is a bot"
		}
	}
	return out, nil
}
