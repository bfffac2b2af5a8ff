package forge

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/go-github/v60/github"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/workflows"
)

const (
	maxPullPages   = 50
	maxReviewPages = 10

	maxPolicyCommits = 100
	maxPolicyPulls   = 20
)

var shaPattern = regexp.MustCompile(`\A(?:[0-9a-f]{40}|[0-9a-f]{64})\z`)

// OpenPulls lists the pull requests to the main branch that are open, and those
// that were closed since then.
func (f *Forge) OpenPulls(ctx context.Context, closedSince time.Time) ([]workflows.Ref, error) {
	repo, err := f.Repo(ctx)
	if err != nil {
		return nil, err
	}
	var refs []workflows.Ref
	list := func(opts github.PullRequestListOptions, take func(*github.PullRequest) (wanted, more bool)) error {
		opts.Base = f.cfg.MainBranch
		return everyPage(maxPullPages, func(page github.ListOptions) (*github.Response, error) {
			opts.ListOptions = page
			pulls, res, err := f.gh.PullRequests.List(ctx, f.cfg.Owner, f.cfg.Repo, &opts)
			if err != nil {
				return nil, failed("list pull requests", err)
			}
			for _, p := range pulls {
				wanted, more := take(p)
				if wanted {
					refs = append(refs, workflows.Ref{Repo: repo, Number: p.GetNumber()})
				}
				if !more {
					res.NextPage = 0
				}
			}
			return res, nil
		})
	}
	if err := list(github.PullRequestListOptions{State: "open"}, func(*github.PullRequest) (bool, bool) { return true, true }); err != nil {
		return nil, err
	}
	// Whatever closed since then was updated since then.
	err = list(github.PullRequestListOptions{State: "closed", Sort: "updated", Direction: "desc"}, func(p *github.PullRequest) (bool, bool) {
		return !p.GetClosedAt().Before(closedSince), !p.GetUpdatedAt().Before(closedSince)
	})
	if access.CodeOf(err) == access.CodeTooLarge {
		f.log.Warn("list closed pull requests: older ones are left out", "since", closedSince, "listed", len(refs))
		err = nil
	}
	return refs, err
}

// Pull reads one pull request, with its reviews and everybody who can't approve it.
func (f *Forge) Pull(ctx context.Context, ref workflows.Ref) (workflows.Pull, error) {
	if err := f.serve(ctx, ref.Repo); err != nil {
		return workflows.Pull{}, err
	}
	p, err := f.pull(ctx, ref.Number)
	if err != nil {
		return workflows.Pull{}, err
	}
	if id := p.GetBase().GetRepo().GetID(); id != ref.Repo {
		return workflows.Pull{}, access.Errorf(access.CodeConflict, "Pull request %d belongs to repository %d, want %d.", ref.Number, id, ref.Repo)
	}
	out := workflows.Pull{Ref: ref, URL: p.GetHTMLURL(), Author: user(p.User), Head: p.GetHead().GetSHA(), Branch: p.GetHead().GetRef(),
		Open: p.GetState() == "open", Draft: p.GetDraft(), Fork: p.GetHead().GetRepo().GetID() != ref.Repo}
	if p.MergedAt != nil {
		out.MergedAt, out.Merge = p.GetMergedAt().UTC(), p.GetMergeCommitSHA()
	}
	out.Reviews, err = f.reviews(ctx, ref.Number)
	if access.CodeOf(err) == access.CodeTooLarge { // anybody may write as many: it stays readable
		err = nil
		if !pastMerge(out) {
			out.Unread = fmt.Sprintf("more than %d reviews", len(out.Reviews))
		}
	}
	if err != nil {
		return workflows.Pull{}, err
	}
	if out.Retargeted, err = f.retargeted(ctx, p, out.Reviews); err != nil {
		return workflows.Pull{}, err
	}
	return out, f.addCommits(ctx, &out, p)
}

// pastMerge reports whether the reviews that were read, the oldest first, go on
// after the merge: then every one that came before it is among them.
func pastMerge(p workflows.Pull) bool {
	n := len(p.Reviews)
	return !p.MergedAt.IsZero() && n > 0 && p.Reviews[n-1].Submitted.After(p.MergedAt)
}

func (f *Forge) pull(ctx context.Context, number int) (*github.PullRequest, error) {
	p, _, err := f.gh.PullRequests.Get(ctx, f.cfg.Owner, f.cfg.Repo, number)
	if err != nil {
		return nil, failed("read pull request", err)
	}
	if base := p.GetBase().GetRef(); base != f.cfg.MainBranch {
		return nil, access.Errorf(access.CodeInvalid, "Pull request %d goes to %q; Tidegate looks at those to %q.", number, base, f.cfg.MainBranch)
	}
	if !shaPattern.MatchString(p.GetHead().GetSHA()) || !shaPattern.MatchString(p.GetBase().GetSHA()) {
		return nil, access.Errorf(access.CodeUnavailable, "GitHub did not say which commits pull request %d compares.", number)
	}
	return p, nil
}

// addCommits fills in the merge base, and who worked on the branch.
func (f *Forge) addCommits(ctx context.Context, out *workflows.Pull, p *github.PullRequest) error {
	c, err := f.compare(ctx, p.GetBase().GetSHA(), out.Head)
	if err != nil {
		return err
	}
	people := newRoll(f, out.Author)
	if c.total == 0 && !out.MergedAt.IsZero() { // the base has moved past the merge
		if c, err = f.compareMerged(ctx, out, people); err != nil {
			return err
		}
	}
	if !shaPattern.MatchString(c.base) {
		return access.Errorf(access.CodeUnavailable, "GitHub did not say where pull request %d branched off.", out.Ref.Number)
	}
	people.add(c.commits)
	for _, commit := range c.commits { // who pushed them is known from webhooks, by these ids
		out.Commits = append(out.Commits, commit.GetSHA())
	}
	if n := len(c.commits); n < c.total {
		people.unknown = append(people.unknown, fmt.Sprintf("the authors of %d more commits than Tidegate reads (%d)", c.total-n, n))
	}
	out.Base = c.base
	out.Excluded, out.Unknown, err = people.close(ctx)
	return err
}

// compareMerged compares with what main was just before the merge. Where the
// branch itself became main, that is not to be known: an earlier commit of the
// branch looks the same.
func (f *Forge) compareMerged(ctx context.Context, out *workflows.Pull, people *roll) (comparison, error) {
	if !shaPattern.MatchString(out.Merge) {
		return comparison{}, access.Errorf(access.CodeUnavailable, "GitHub does not say yet which commit pull request %d became.", out.Ref.Number)
	}
	c, _, err := f.gh.Git.GetCommit(ctx, f.cfg.Owner, f.cfg.Repo, out.Merge)
	if err != nil {
		return comparison{}, failed("read merge commit", err)
	}
	if len(c.Parents) == 0 || !shaPattern.MatchString(c.Parents[0].GetSHA()) {
		return comparison{}, access.Errorf(access.CodeInvalid, "Merge commit %s has no parent.", out.Merge)
	}
	if out.Merge == out.Head {
		people.unknown = append(people.unknown, "the authors of the commits before "+short(out.Head)+", which was pushed to main without a merge")
	}
	return f.compare(ctx, c.Parents[0].GetSHA(), out.Head)
}

// comparison is what one commit has that another has not.
type comparison struct {
	base    string // where they parted
	commits []*github.RepositoryCommit
	total   int
}

func (f *Forge) compare(ctx context.Context, from, to string) (comparison, error) {
	var out comparison
	err := everyPage(maxCommitPages+1, func(page github.ListOptions) (*github.Response, error) {
		c, res, err := f.gh.Repositories.CompareCommits(ctx, f.cfg.Owner, f.cfg.Repo, from, to, &page)
		if err != nil {
			return nil, failed("compare commits", err)
		}
		out.base, out.total = c.GetMergeBaseCommit().GetSHA(), c.GetTotalCommits()
		out.commits = append(out.commits, c.Commits...)
		if page.Page >= maxCommitPages || len(out.commits) >= out.total {
			res.NextPage = 0
		}
		return res, nil
	})
	return out, err
}

func (f *Forge) reviews(ctx context.Context, number int) ([]access.Review, error) {
	var out []access.Review
	err := everyPage(maxReviewPages, func(page github.ListOptions) (*github.Response, error) {
		list, res, err := f.gh.PullRequests.ListReviews(ctx, f.cfg.Owner, f.cfg.Repo, number, &page)
		if err != nil {
			return nil, failed("list reviews", err)
		}
		for _, r := range list {
			// A pending review is a draft that only its author sees; a review of
			// nobody (a deleted account) can't be anybody's agreement.
			if state := access.ReviewState(strings.ToLower(r.GetState())); state != "pending" && r.GetUser().GetID() > 0 {
				out = append(out, access.Review{ID: r.GetID(), User: user(r.User), State: state, Commit: r.GetCommitID(),
					Submitted: r.GetSubmittedAt().UTC()})
			}
		}
		return res, nil
	})
	return out, err
}

// Main is the main branch's commit.
func (f *Forge) Main(ctx context.Context) (string, error) {
	if _, err := f.Repo(ctx); err != nil {
		return "", err
	}
	ref, _, err := f.gh.Git.GetRef(ctx, f.cfg.Owner, f.cfg.Repo, "heads/"+f.cfg.MainBranch)
	if err != nil {
		return "", failed("read main branch", err)
	}
	if sha := ref.GetObject().GetSHA(); shaPattern.MatchString(sha) {
		return sha, nil
	}
	return "", access.Errorf(access.CodeUnavailable, "GitHub did not say where %s is.", f.cfg.MainBranch)
}

// PullOf finds the merged pull request that brought a commit to main; 0 is none.
func (f *Forge) PullOf(ctx context.Context, commit string) (int, error) {
	if err := validCommit(commit); err != nil {
		return 0, err
	}
	if _, err := f.Repo(ctx); err != nil {
		return 0, err
	}
	p, err := f.mergedPull(ctx, commit)
	return p.GetNumber(), err
}

// mergedPull is the merged pull request that brought a commit to main, or nil.
func (f *Forge) mergedPull(ctx context.Context, commit string) (*github.PullRequest, error) {
	var found *github.PullRequest
	err := everyPage(2, func(page github.ListOptions) (*github.Response, error) {
		pulls, res, err := f.gh.PullRequests.ListPullRequestsWithCommit(ctx, f.cfg.Owner, f.cfg.Repo, commit, &page)
		if err != nil {
			return nil, failed("find pull request of commit", err)
		}
		for _, p := range pulls {
			merged := p.MergedAt != nil && p.GetBase().GetRef() == f.cfg.MainBranch
			if merged && (found == nil || p.GetMergeCommitSHA() == commit) {
				found = p
			}
		}
		return res, nil
	})
	return found, err
}

func validCommit(commit string) error {
	if !shaPattern.MatchString(commit) {
		return access.Errorf(access.CodeInvalid, "Got commit %q, want a full commit id.", clip(visible(commit), 80))
	}
	return nil
}

// PolicyPulls lists the merged pull requests that changed policies/ on main,
// the newest first, up to a change that none of them brought: whatever lies
// behind that is history.
func (f *Forge) PolicyPulls(ctx context.Context) ([]int, error) {
	main, err := f.Main(ctx)
	if err != nil {
		return nil, err
	}
	opts := &github.CommitsListOptions{SHA: main, Path: "policies", ListOptions: github.ListOptions{PerPage: maxPolicyCommits}}
	commits, _, err := f.gh.Repositories.ListCommits(ctx, f.cfg.Owner, f.cfg.Repo, opts)
	if err != nil {
		return nil, failed("list changes of policies", err)
	}
	var pulls []*github.PullRequest
	for _, c := range commits {
		p, err := f.mergedPull(ctx, c.GetSHA())
		if err != nil {
			return nil, err
		}
		if p == nil || len(pulls) == maxPolicyPulls {
			break
		}
		if !slices.ContainsFunc(pulls, func(q *github.PullRequest) bool { return q.GetNumber() == p.GetNumber() }) {
			pulls = append(pulls, p)
		}
	}
	// The commits of two branches may lie mixed; what counts is which was merged last.
	slices.SortStableFunc(pulls, func(a, b *github.PullRequest) int { return b.GetMergedAt().Compare(a.GetMergedAt().Time) })
	out := make([]int, len(pulls))
	for i, p := range pulls {
		out[i] = p.GetNumber()
	}
	return out, nil
}
