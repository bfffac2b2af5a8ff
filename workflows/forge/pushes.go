package forge

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/go-github/v60/github"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/workflows"
)

const maxActivityPages = 10 // of 100: the moves of one branch

// activity is one line of GitHub's log of a repository's refs, which go-github
// v60 does not know.
type activity struct {
	ID     int64        `json:"id"`
	Before string       `json:"before"`
	After  string       `json:"after"`
	Ref    string       `json:"ref"`
	Kind   string       `json:"activity_type"`
	Actor  *github.User `json:"actor"`
}

// Pushers lists everybody who ever moved the pull request's branch, by
// GitHub's own log. whole says that the log leads from the head back to the
// branch's creation without a gap and names everybody on the way: then one of
// them brought each commit. What this token can't read, and what an older
// GitHub does not have, is not whole.
func (f *Forge) Pushers(ctx context.Context, pull workflows.Pull) (who []access.User, whole bool, err error) {
	if err := f.serve(ctx, pull.Ref.Repo); err != nil {
		return nil, false, err
	}
	ref := "refs/heads/" + pull.Branch
	if pull.Branch == "" || pull.Branch == f.cfg.MainBranch {
		return nil, false, nil
	}
	moves, err := f.activity(ctx, ref, func(activity) bool { return false })
	if err == nil {
		who, named := actors(moves)
		return who, named && unbroken(moves, pull.Head), nil
	}
	switch access.CodeOf(err) {
	case access.CodeNotFound, access.CodeDenied, access.CodeTooLarge, access.CodeInvalid:
		f.log.Warn("ask who pushed: GitHub does not say", "pr", pull.Ref.String(), "error", err)
		return nil, false, nil
	}
	return nil, false, err
}

// MainWas lists what main was before it became the commit, back to a mark, by
// GitHub's log of its moves. Parents of commits would not tell: whoever brings
// a file back chooses them. What this token can't read is not whole.
func (f *Forge) MainWas(ctx context.Context, mark int64, commit string) (out workflows.Passed, err error) {
	if err := validCommit(commit); err != nil {
		return out, err
	}
	if _, err := f.Repo(ctx); err != nil {
		return out, err
	}
	moves, err := f.activity(ctx, "refs/heads/"+f.cfg.MainBranch, func(m activity) bool {
		return m.ID == mark || mark == 0 && m.After == commit
	})
	switch access.CodeOf(err) {
	case access.CodeNotFound, access.CodeDenied, access.CodeTooLarge, access.CodeInvalid:
		return out, nil
	}
	return passed(moves, mark, commit), err
}

// passed follows the moves, the newest first, from the commit back to the mark.
// What happened after it became the commit is for the next reading.
func passed(moves []activity, mark int64, commit string) (out workflows.Passed) {
	want := commit
	for _, m := range moves {
		switch {
		case out.Mark == 0 && m.After != commit:
			continue
		case m.After != want: // a gap
			return out
		case out.Mark == 0:
			out.Mark = m.ID
		case m.ID != mark && shaPattern.MatchString(want) && !isZeroSHA(want):
			out.Commits = append(out.Commits, want)
		}
		if out.Whole = m.ID == mark || mark == 0; out.Whole {
			return out
		}
		want = m.Before
	}
	return out
}

// activity reads the moves of a ref, the newest first, as far as one that is
// enough.
func (f *Forge) activity(ctx context.Context, ref string, enough func(activity) bool) ([]activity, error) {
	var out []activity
	query := url.Values{"ref": {ref}, "per_page": {fmt.Sprint(perPage)}}
	for range maxActivityPages {
		req, err := f.gh.NewRequest(http.MethodGet, fmt.Sprintf("repos/%s/%s/activity?%s", f.cfg.Owner, f.cfg.Repo, query.Encode()), nil)
		if err != nil {
			return nil, fmt.Errorf("ask who pushed: %w", err)
		}
		var page []activity
		res, err := f.gh.Do(ctx, req, &page)
		if err != nil {
			return nil, failed("list activity", err)
		}
		for _, m := range page {
			if m.Ref == ref { // asked for, and yet never believed
				out = append(out, m)
			}
			if m.Ref == ref && enough(m) {
				return out, nil
			}
		}
		if res.After == "" {
			return out, nil
		}
		query.Set("after", res.After)
	}
	return nil, access.Errorf(access.CodeTooLarge, "The branch was moved more than %d times.", maxActivityPages*perPage)
}

// actors are those who moved the branch, each once; named is false if GitHub
// does not say who one of them was. Deleting a branch brings no commit.
func actors(moves []activity) (who []access.User, named bool) {
	seen := map[int64]bool{}
	for _, m := range moves {
		if m.Kind == "branch_deletion" {
			continue
		}
		u := user(m.Actor)
		if u.ID == 0 {
			return nil, false
		}
		if !seen[u.ID] {
			seen[u.ID] = true
			who = append(who, u)
		}
	}
	return who, len(who) > 0
}

// unbroken follows the moves, the newest first, from the head to the creation
// of the branch. What happened to the branch after the head was the head (it
// was deleted after the merge) does not matter.
func unbroken(moves []activity, head string) bool {
	want, found := head, false
	for _, m := range moves {
		switch {
		case m.After == want:
			found = true
		case found:
			return false
		default:
			continue
		}
		if want = m.Before; isZeroSHA(want) {
			return true
		}
	}
	return false
}

func isZeroSHA(sha string) bool { return shaPattern.MatchString(sha) && strings.Trim(sha, "0") == "" }
