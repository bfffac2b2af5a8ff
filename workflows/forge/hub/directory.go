package hub

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

var namePattern = regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9._-]{0,99}\z`)
var loginPattern = regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9_-]{0,60}(?:\[bot\])?\z`)

func validName(s string) bool { return namePattern.MatchString(s) && !strings.Contains(s, "..") }

// directory knows people and teams.
type directory struct {
	users   []User
	teams   []Team
	byToken map[string]*User
}

func newDirectory(cfg Config) (directory, error) {
	d := directory{users: slices.Clone(cfg.Users), byToken: map[string]*User{}}
	var errs []error
	logins, ids := map[string]bool{}, map[int64]bool{}
	for i := range d.users {
		u := &d.users[i]
		setDefault(&u.Kind, "User")
		setDefault(&u.Role, RoleWrite)
		setDefault(&u.Email, fmt.Sprintf("%d+%s@users.noreply.github.com", u.ID, u.Login))
		if !loginPattern.MatchString(u.Login) || u.ID <= 0 || logins[strings.ToLower(u.Login)] || ids[u.ID] {
			errs = append(errs, fmt.Errorf("got user %q with id %d, want a login and a positive id, each once", u.Login, u.ID))
		}
		if u.Kind != "User" && u.Kind != "Bot" {
			errs = append(errs, fmt.Errorf("got kind %q of user %q, want User or Bot", u.Kind, u.Login))
		}
		logins[strings.ToLower(u.Login)], ids[u.ID] = true, true
		if u.Token != "" {
			d.byToken[tokenKey(u.Token)] = u
		}
	}
	for _, t := range cfg.Teams {
		setDefault(&t.Org, cfg.Owner)
		if !validName(t.Slug) || t.ID <= 0 || t.Org != cfg.Owner {
			errs = append(errs, fmt.Errorf("got team %q/%q with id %d, want a slug, a positive id and organization %q", t.Org, t.Slug, t.ID, cfg.Owner))
		}
		t.Members, t.Pending = slices.Clone(t.Members), slices.Clone(t.Pending)
		d.teams = append(d.teams, t)
	}
	return d, errors.Join(errs...)
}

// ghost stands where GitHub shows its account of that name: nobody is known.
func (d directory) ghost() User { return User{Login: "ghost", ID: 10137, Kind: "User", Role: RoleRead} }

func (d directory) byID(id int64) User {
	for _, u := range d.users {
		if u.ID == id {
			return u
		}
	}
	return d.ghost()
}

func (d directory) byLogin(login string) (User, bool) {
	i := slices.IndexFunc(d.users, func(u User) bool { return strings.EqualFold(u.Login, login) })
	if i < 0 {
		return User{}, false
	}
	return d.users[i], true
}

func (d directory) byEmail(email string) (User, bool) {
	i := slices.IndexFunc(d.users, func(u User) bool { return strings.EqualFold(u.Email, email) })
	if i < 0 {
		return User{}, false
	}
	return d.users[i], true
}

func (d directory) team(match func(Team) bool) (*Team, bool) {
	i := slices.IndexFunc(d.teams, match)
	if i < 0 {
		return nil, false
	}
	return &d.teams[i], true
}

func (u User) can(r Role) bool {
	rank := map[Role]int{RoleRead: 1, RoleWrite: 2, RoleAdmin: 3}
	return rank[u.Role] >= rank[r]
}

func hasLogin(logins []string, login string) bool {
	return slices.ContainsFunc(logins, func(l string) bool { return strings.EqualFold(l, login) })
}
