package forge

import (
	"context"
	"slices"
	"time"

	"github.com/google/go-github/v60/github"

	"github.com/tidegate/tidegate/access"
)

// baseQuery asks when what a pull request is compared with was changed last: to
// another branch, by a person or by GitHub when the old one was deleted, or by a
// push that rewrote it.
const baseQuery = `query TidegateBase($owner: String!, $name: String!, $number: Int!) {
  repository(owner: $owner, name: $name) {
    databaseId
    pullRequest(number: $number) {
      timelineItems(last: 1, itemTypes: [BASE_REF_CHANGED_EVENT, AUTOMATIC_BASE_CHANGE_SUCCEEDED_EVENT, BASE_REF_FORCE_PUSHED_EVENT]) {
        nodes {
          __typename
          ... on BaseRefChangedEvent { createdAt }
          ... on AutomaticBaseChangeSucceededEvent { createdAt }
          ... on BaseRefForcePushedEvent { createdAt }
        }
      }
    }
  }
}`

// baseChange is when a pull request's base was changed last, zero if never, as
// far as is known of the pull request as it was updated then.
type baseChange struct{ updated, at time.Time }

// retargeted says when the base of a pull request was changed last. What is
// compared with another base looks like another change, and a review has a
// commit but no base: who approved it may never have seen what it asks for now.
// It is asked only where somebody approved, once for each update.
func (f *Forge) retargeted(ctx context.Context, p *github.PullRequest, reviews []access.Review) (time.Time, error) {
	if !slices.ContainsFunc(reviews, func(r access.Review) bool { return r.State == access.ReviewApproved }) {
		return time.Time{}, nil
	}
	number, updated := p.GetNumber(), p.GetUpdatedAt().Time
	f.mu.Lock()
	known, ok := f.based[number]
	f.mu.Unlock()
	if ok && known.updated.Equal(updated) && !updated.IsZero() {
		return known.at, nil
	}
	at, err := f.askRetargeted(ctx, p.GetBase().GetRepo().GetID(), number)
	if err != nil {
		return time.Time{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.based == nil || len(f.based) >= maxLooked {
		f.based = map[int]baseChange{}
	}
	f.based[number] = baseChange{updated, at}
	return at, nil
}

func (f *Forge) askRetargeted(ctx context.Context, repo int64, number int) (at time.Time, err error) {
	var out struct {
		Repository *struct {
			ID   int64 `json:"databaseId"`
			Pull *struct {
				Items nodes[*struct {
					At time.Time `json:"createdAt"`
				}] `json:"timelineItems"`
			} `json:"pullRequest"`
		} `json:"repository"`
	}
	vars := map[string]any{"owner": f.cfg.Owner, "name": f.cfg.Repo, "number": number}
	if err := f.graph(ctx, baseQuery, vars, &out); err != nil {
		return at, err
	}
	if out.Repository == nil || out.Repository.Pull == nil || out.Repository.ID != repo {
		return at, access.Errorf(access.CodeUnavailable, "GitHub did not say whether pull request %d ever went to another branch.", number)
	}
	for _, e := range out.Repository.Pull.Items.Nodes {
		if e == nil || e.At.IsZero() {
			return at, access.Errorf(access.CodeUnavailable, "GitHub did not say when the base of pull request %d was changed.", number)
		}
		at = e.At.UTC()
	}
	return at, nil
}
