package forge

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/google/go-github/v60/github"

	"github.com/tidegate/tidegate/access"
)

const (
	maxCommitPages = 10
	maxTrailers    = 50 // e-mail addresses of co-authors that are looked up
	webFlow        = "web-flow"
)

var (
	coAuthor = regexp.MustCompile(`(?im)^[ \t]*co-authored-by:[^<\n]*<([^<>\s]{3,254})>`)
	noReply  = regexp.MustCompile(`\A(?:([0-9]{1,18})\+)?([a-z0-9][a-z0-9-]{0,38}(?:\[bot\])?)@users\.noreply\.[a-z0-9.-]+\z`)
)

// roll collects who worked on a branch: none of them may approve it. Names in
// commits are claims that can be forged, so being on the roll only takes away.
type roll struct {
	forge    *Forge
	excluded map[int64]string
	unknown  []string
	byEmail  map[string]int64
	trailers map[string]string // e-mail -> the commit that names it
}

func newRoll(f *Forge, author access.User) *roll {
	r := &roll{forge: f, excluded: map[int64]string{}, byEmail: map[string]int64{}, trailers: map[string]string{}}
	if author.ID != 0 {
		r.excluded[author.ID] = "opened this request"
	} else {
		r.unknown = append(r.unknown, "the author of the pull request, whose account is gone")
	}
	return r
}

func (r *roll) exclude(id int64, why string) {
	if _, ok := r.excluded[id]; !ok {
		r.excluded[id] = why
	}
}

func (r *roll) add(commits []*github.RepositoryCommit) {
	for _, c := range commits {
		sha := short(c.GetSHA())
		r.addPerson(c.Author, c.GetCommit().GetAuthor().GetEmail(), "author of commit "+sha)
		// GitHub itself commits what people do on its pages; who did is the author.
		if c.GetCommitter().GetLogin() != webFlow {
			r.addPerson(c.Committer, c.GetCommit().GetCommitter().GetEmail(), "committer of "+sha)
		}
		for _, m := range coAuthor.FindAllStringSubmatch(c.GetCommit().GetMessage(), -1) {
			r.trailers[strings.ToLower(m[1])] = sha
		}
	}
}

func (r *roll) addPerson(u *github.User, email, role string) {
	if u.GetID() > 0 {
		r.byEmail[strings.ToLower(email)] = u.GetID()
		r.exclude(u.GetID(), "committed to it")
		return
	}
	if say := fmt.Sprintf("the %s (%s)", role, clip(visible(email), 254)); !slices.Contains(r.unknown, say) {
		r.unknown = append(r.unknown, say)
	}
}

// close looks up the co-authors and hands over the result.
func (r *roll) close(ctx context.Context) (map[int64]string, []string, error) {
	for n, email := range slices.Sorted(maps.Keys(r.trailers)) {
		say := fmt.Sprintf("the co-author of commit %s (%s)", r.trailers[email], clip(visible(email), 254))
		if n >= maxTrailers {
			r.unknown = append(r.unknown, say)
			continue
		}
		id, err := r.find(ctx, email)
		if err != nil {
			return nil, nil, err
		}
		if id == 0 {
			r.unknown = append(r.unknown, say)
			continue
		}
		r.exclude(id, "is named as co-author")
	}
	return r.excluded, r.unknown, nil
}

// find maps an e-mail address to a user id, 0 if GitHub can't say.
func (r *roll) find(ctx context.Context, email string) (int64, error) {
	if id, ok := r.byEmail[email]; ok {
		return id, nil
	}
	if m := noReply.FindStringSubmatch(email); m != nil {
		if id, err := strconv.ParseInt(m[1], 10, 64); err == nil && id > 0 {
			return id, nil
		}
		u, err := r.forge.userNamed(ctx, m[2])
		return u.ID, err
	}
	return r.findByCommit(ctx, email)
}

// findByCommit asks GitHub, which does not search by e-mail, for a commit of that
// address: it comes with the account.
func (r *roll) findByCommit(ctx context.Context, email string) (int64, error) {
	opts := &github.CommitsListOptions{Author: email, ListOptions: github.ListOptions{PerPage: perPage}}
	commits, _, err := r.forge.gh.Repositories.ListCommits(ctx, r.forge.cfg.Owner, r.forge.cfg.Repo, opts)
	if err != nil {
		return 0, failed("find co-author", err)
	}
	for _, c := range commits {
		if strings.EqualFold(c.GetCommit().GetAuthor().GetEmail(), email) && c.GetAuthor().GetID() > 0 {
			return c.GetAuthor().GetID(), nil
		}
	}
	return 0, nil
}

func short(sha string) string { return sha[:min(7, len(sha))] }
