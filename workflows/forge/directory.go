package forge

import (
	"context"
	"regexp"
	"strings"
	"sync"

	"github.com/google/go-github/v60/github"
	"golang.org/x/sync/errgroup"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/workflows"
)

const maxMemberPages = 50

var (
	loginPattern = regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9_-]{0,60}(?:\[bot\])?\z`)
	teamPattern  = regexp.MustCompile(`\A([A-Za-z0-9][A-Za-z0-9-]{0,38})/([A-Za-z0-9._-]{1,100})\z`)
)

// Directory looks logins and team names up. Names that GitHub does not know are
// absent; a team that can't be read whole is an error.
func (f *Forge) Directory(ctx context.Context, users, teams []string) (access.Directory, error) {
	if n := len(users) + len(teams); n > workflows.MaxNames {
		return access.Directory{}, access.Errorf(access.CodeTooLarge, "Got %d names to look up, want at most %d.", n, workflows.MaxNames)
	}
	if _, err := f.Repo(ctx); err != nil {
		return access.Directory{}, err
	}
	dir := access.Directory{Users: map[string]access.User{}, Teams: map[string]access.Team{}}
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for _, login := range users {
		group.Go(func() error {
			u, err := f.userNamed(ctx, login)
			if err == nil && u.ID != 0 {
				mu.Lock()
				defer mu.Unlock()
				dir.Users[strings.ToLower(login)] = u
			}
			return err
		})
	}
	for _, name := range teams {
		group.Go(func() error {
			t, err := f.teamNamed(ctx, name)
			if err == nil && t.ID != 0 {
				mu.Lock()
				defer mu.Unlock()
				dir.Teams[strings.ToLower(name)] = t
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return access.Directory{}, err
	}
	return dir, nil
}

// userNamed is the account that has the login now, or nobody. Organizations are
// not users.
func (f *Forge) userNamed(ctx context.Context, login string) (access.User, error) {
	if !loginPattern.MatchString(login) {
		return access.User{}, nil
	}
	u, _, err := f.gh.Users.Get(ctx, login)
	if isMissing(err) {
		return access.User{}, nil
	}
	if err != nil {
		return access.User{}, failed("look up user", err)
	}
	if t := u.GetType(); t != "User" && t != "Bot" || !strings.EqualFold(u.GetLogin(), login) {
		return access.User{}, nil
	}
	return user(u), nil
}

func (f *Forge) teamNamed(ctx context.Context, name string) (access.Team, error) {
	m := teamPattern.FindStringSubmatch(name)
	if m == nil || m[2] == "." || m[2] == ".." {
		return access.Team{}, nil
	}
	t, _, err := f.gh.Teams.GetTeamBySlug(ctx, m[1], m[2])
	if isMissing(err) {
		return access.Team{}, nil
	}
	if err != nil {
		return access.Team{}, failed("look up team", err)
	}
	if t.GetID() <= 0 || t.GetOrganization().GetID() <= 0 || !strings.EqualFold(t.GetSlug(), m[2]) {
		return access.Team{}, nil
	}
	members, err := f.members(ctx, t)
	return access.Team{ID: t.GetID(), Name: strings.ToLower(name), Members: members}, err
}

// members asks by ids: between the two calls the slug may come to mean another team.
func (f *Forge) members(ctx context.Context, t *github.Team) ([]access.User, error) {
	var out []access.User
	err := everyPage(maxMemberPages, func(page github.ListOptions) (*github.Response, error) {
		list, res, err := f.gh.Teams.ListTeamMembersByID(ctx, t.GetOrganization().GetID(), t.GetID(),
			&github.TeamListTeamMembersOptions{ListOptions: page})
		if err != nil {
			return nil, failed("list team members", err)
		}
		for _, u := range list {
			if u.GetID() > 0 {
				out = append(out, user(u))
			}
		}
		return res, nil
	})
	return out, err
}
