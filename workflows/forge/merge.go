package forge

import (
	"context"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"

	"github.com/google/go-github/v60/github"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/workflows"
)

const (
	maxTidy    = 500
	tidyTries  = 3
	tidyBranch = "tidegate/tidy"
	tidyTitle  = "Remove grants that have ended"
)

// Merge merges exactly the head that was approved. A head that moved, or
// protection that says no, is a CodeConflict with GitHub's sentence.
func (f *Forge) Merge(ctx context.Context, ref workflows.Ref, head string) error {
	if err := f.serve(ctx, ref.Repo); err != nil {
		return err
	}
	if err := validCommit(head); err != nil { // an empty sha would merge anything
		return err
	}
	r, _, err := f.gh.PullRequests.Merge(ctx, f.cfg.Owner, f.cfg.Repo, ref.Number, "", &github.PullRequestOptions{SHA: head})
	if statusOf(err) == http.StatusUnprocessableEntity {
		_, said := classify(err)
		return &access.Error{Code: access.CodeConflict, Message: said, Cause: fmt.Errorf("merge pull request: %w", err)}
	}
	if err != nil {
		return failed("merge pull request", err)
	}
	if !r.GetMerged() {
		return access.Errorf(access.CodeConflict, "GitHub did not merge pull request %d: %s", ref.Number, clip(visible(r.GetMessage()), maxSaid))
	}
	return nil
}

// Tidy removes files of ended grants from main by one commit. It waits in a pull
// request, always the same one; with TidyCommit only if protection wants that.
// The answer is the commit; none when no file is left to remove.
func (f *Forge) Tidy(ctx context.Context, files []string, how workflows.Tidy) (string, error) {
	files = slices.Compact(slices.Sorted(slices.Values(files)))
	if len(files) > maxTidy {
		return "", access.Errorf(access.CodeTooLarge, "Got %d files to remove, want at most %d at once.", len(files), maxTidy)
	}
	for _, file := range files {
		if path.Clean(file) != file || !strings.HasPrefix(file, grantsDir+"/") || file != visible(file) {
			return "", access.Errorf(access.CodeInvalid, "Got file %q to remove, want a file of grants/.", clip(visible(file), maxPath))
		}
	}
	done, err := f.alone(ctx, 0)
	if err != nil {
		return "", err
	}
	defer done()
	for try := 1; ; try++ {
		commit, err := f.tidy(ctx, files, how)
		if access.CodeOf(err) != access.CodeConflict || try == tidyTries {
			return commit, err
		}
		f.log.Info("tidy: main moved meanwhile", "try", try)
	}
}

func (f *Forge) tidy(ctx context.Context, files []string, how workflows.Tidy) (string, error) {
	main, err := f.Main(ctx)
	if err != nil {
		return "", err
	}
	gone, err := f.tidyEntries(ctx, main, files)
	if err != nil || len(gone) == 0 {
		return "", err
	}
	if how != workflows.TidyCommit {
		if waits, err := f.tidyWaits(ctx, files); err != nil || waits != "" {
			return waits, err
		}
	}
	commit, err := f.tidyCommit(ctx, main, gone)
	if err != nil {
		return "", err
	}
	if how != workflows.TidyCommit {
		return f.tidyPull(ctx, commit)
	}
	ref := &github.Reference{Ref: github.String("heads/" + f.cfg.MainBranch), Object: &github.GitObject{SHA: &commit}}
	_, _, err = f.gh.Git.UpdateRef(ctx, f.cfg.Owner, f.cfg.Repo, ref, false)
	switch statusOf(err) {
	case 0:
		if err != nil {
			return "", failed("move main branch", err)
		}
		return commit, nil
	case http.StatusUnprocessableEntity, http.StatusForbidden, http.StatusConflict:
	default:
		return "", failed("move main branch", err)
	}
	if now, err := f.Main(ctx); err != nil || now != main {
		return "", errorOr(err, access.Errorf(access.CodeConflict, "The main branch moved from %s to %s meanwhile.", short(main), short(now)))
	}
	return f.tidyPull(ctx, commit)
}

// tidyOpen is the pull request that waits, or nil.
func (f *Forge) tidyOpen(ctx context.Context) (*github.PullRequest, error) {
	open, _, err := f.gh.PullRequests.List(ctx, f.cfg.Owner, f.cfg.Repo,
		&github.PullRequestListOptions{State: "open", Head: f.cfg.Owner + ":" + tidyBranch, Base: f.cfg.MainBranch})
	if err != nil {
		return nil, failed("find tidy pull request", err)
	}
	if len(open) == 0 {
		return nil, nil
	}
	return open[0], nil
}

// tidyWaits is the commit of a pull request that waits and removes all of the
// files already: it is not pushed again, which would only ask people anew.
func (f *Forge) tidyWaits(ctx context.Context, files []string) (string, error) {
	open, err := f.tidyOpen(ctx)
	if err != nil || open == nil {
		return "", err
	}
	left, err := f.tidyEntries(ctx, open.GetHead().GetSHA(), files)
	if err != nil || len(left) > 0 {
		return "", err
	}
	return open.GetHead().GetSHA(), nil
}

func errorOr(err error, other error) error {
	if err != nil {
		return err
	}
	return other
}

// tidyEntries are those of the files that a commit has, as a tree that deletes
// them names them.
func (f *Forge) tidyEntries(ctx context.Context, commit string, files []string) ([]*github.TreeEntry, error) {
	entries, err := f.entries(ctx, commit)
	if err != nil {
		return nil, err
	}
	var gone []*github.TreeEntry
	for _, e := range entries {
		if _, ok := slices.BinarySearch(files, e.GetPath()); ok { // an entry without sha and content deletes
			gone = append(gone, &github.TreeEntry{Path: e.Path, Mode: e.Mode, Type: e.Type})
		}
	}
	return gone, nil
}

func (f *Forge) tidyCommit(ctx context.Context, main string, gone []*github.TreeEntry) (string, error) {
	parent, _, err := f.gh.Git.GetCommit(ctx, f.cfg.Owner, f.cfg.Repo, main)
	if err != nil {
		return "", failed("read main commit", err)
	}
	tree, _, err := f.gh.Git.CreateTree(ctx, f.cfg.Owner, f.cfg.Repo, parent.GetTree().GetSHA(), gone)
	if err != nil {
		return "", failed("write tidy tree", err)
	}
	// Without an author, GitHub signs the commit as the App's.
	message := fmt.Sprintf("%s\n\n%s", tidyTitle, strings.Join(names(gone), "\n"))
	c, _, err := f.gh.Git.CreateCommit(ctx, f.cfg.Owner, f.cfg.Repo,
		&github.Commit{Message: &message, Tree: tree, Parents: []*github.Commit{{SHA: &main}}}, nil)
	if err != nil {
		return "", failed("write tidy commit", err)
	}
	return c.GetSHA(), nil
}

func names(entries []*github.TreeEntry) []string {
	var out []string
	for _, e := range entries {
		out = append(out, "- "+e.GetPath())
	}
	return out
}

// tidyPull puts the commit on our branch and opens its pull request if none is open.
func (f *Forge) tidyPull(ctx context.Context, commit string) (string, error) {
	ref := &github.Reference{Ref: github.String("refs/heads/" + tidyBranch), Object: &github.GitObject{SHA: &commit}}
	_, _, err := f.gh.Git.CreateRef(ctx, f.cfg.Owner, f.cfg.Repo, ref)
	if statusOf(err) == http.StatusUnprocessableEntity { // it exists: it is ours, and only holds the last tidy commit
		_, _, err = f.gh.Git.UpdateRef(ctx, f.cfg.Owner, f.cfg.Repo, ref, true)
	}
	if err != nil {
		return "", failed("push tidy branch", err)
	}
	open, err := f.tidyOpen(ctx)
	if err != nil || open != nil {
		return commit, err
	}
	_, _, err = f.gh.PullRequests.Create(ctx, f.cfg.Owner, f.cfg.Repo, &github.NewPullRequest{Title: github.String(tidyTitle),
		Head: github.String(tidyBranch), Base: &f.cfg.MainBranch,
		Body: github.String("These grants have ended. Nothing depends on this: their access is closed already.")})
	if err != nil {
		return "", failed("open tidy pull request", err)
	}
	return commit, nil
}
