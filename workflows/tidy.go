package workflows

import (
	"context"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/tidegate/tidegate/access"
)

// Tidy says how files of ended grants leave the main branch.
type Tidy string

// The ways to tidy. Nothing depends on it: access ends by the ledger.
const (
	TidyOff    Tidy = ""             // they stay
	TidyPull   Tidy = "pull-request" // one pull request for all of them, for people to merge
	TidyCommit Tidy = "commit"       // a commit to main; a pull request where protection wants one
)

const (
	tidyEvery = 10 * time.Minute
	tidyAfter = time.Hour // a grant's file stays that long after its end, so that many go together
	maxTidied = 200       // files at once
)

// tidy removes the files of grants that ended a while ago. What is deleted
// belongs to closed grants only, so the deletion revokes nothing; should
// somebody add more to the pull request, that is a deletion as any other.
func (s *sweeper) tidy(ctx context.Context, main access.Tree) error {
	if s.Rules.Tidy == TidyOff || s.now().Sub(s.tidied) < tidyEvery {
		return nil
	}
	s.tidied = s.now()
	files, err := s.endedFiles(ctx, main)
	if err != nil || len(files) == 0 {
		return err
	}
	commit, err := s.Forge.Tidy(ctx, files, s.Rules.Tidy)
	if err != nil {
		return fmt.Errorf("tidy %d files: %w", len(files), err)
	}
	first, err := s.Ledger.Once(ctx, "tidy", orText(commit, main.Commit))
	if err != nil || !first || commit == "" {
		return err
	}
	return s.audit(ctx, entry{"tidegate", "grants.tidied", commit, clip(strings.Join(files, " "))})
}

// endedFiles are the files on main whose grants are proved gone: just as they
// landed, or refused.
func (s *sweeper) endedFiles(ctx context.Context, main access.Tree) ([]string, error) {
	var out []string
	for _, f := range main.Files {
		id, ok := strings.CutSuffix(path.Base(f.Path), ".hcl")
		if !ok || !strings.HasPrefix(f.Path, "grants/") || len(out) == maxTidied {
			continue
		}
		g, err := s.Ledger.Grant(ctx, access.GrantKey{Repo: s.Repo, ID: id})
		if access.CodeOf(err) == access.CodeNotFound {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read grant %s: %w", id, err)
		}
		if g.Plan.Request.File == f.Path && g.State.Ended() && !g.Closed.IsZero() && s.now().Sub(g.Closed) >= tidyAfter {
			out = append(out, f.Path)
		}
	}
	return out, nil
}
