package workflows

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tidegate/tidegate/access"
)

// Policies and settings name who may agree by logins and teams' slugs. Names
// move: who renames an account frees its login, and a member of an organization
// may make a team of a name that another had. So the ledger keeps which ids a
// name stood for when it came into force. One that means another id by now is
// nobody, until policies bring the name anew or a person runs `tidegate adopt`.

// settledNames drops names whose word counts, and that mean another id by now.
func (a *Activities) settledNames(ctx context.Context, dir access.Directory, users, teams []string) error {
	for _, m := range meanings(dir, users, teams) {
		same, err := a.stillMeans(ctx, m)
		switch {
		case err != nil:
			return err
		case !same && m.kind == access.KindUser:
			delete(dir.Users, m.name)
		case !same:
			delete(dir.Teams, m.name)
		}
	}
	return nil
}

// meaning is a name and the id that it stands for.
type meaning struct {
	kind access.PrincipalKind
	name string
	id   int64
}

// meanings are the names that the directory knows.
func meanings(dir access.Directory, users, teams []string) (out []meaning) {
	for _, name := range users {
		if u, ok := dir.User(name); ok {
			out = append(out, meaning{access.KindUser, strings.ToLower(name), u.ID})
		}
	}
	for _, name := range teams {
		if t, ok := dir.Team(name); ok {
			out = append(out, meaning{access.KindTeam, strings.ToLower(name), t.ID})
		}
	}
	return out
}

func (m meaning) key() string    { return string(m.kind) + " " + m.name }
func (m meaning) String() string { return fmt.Sprintf("%s is %d", m.key(), m.id) }

// Kinds of what the ledger remembers.
const (
	nameKnown   = "name"
	nameMeans   = "name.means"
	nameRefused = "name.refused"
	nameTaken   = "name.taken"
)

// meant reports whether the name meant the same before, and whether it meant
// anything.
func (a *Activities) meant(ctx context.Context, m meaning) (same, known bool, err error) {
	if same, err = a.Ledger.Done(ctx, nameMeans, m.String()); err == nil && !same {
		known, err = a.Ledger.Done(ctx, nameKnown, m.key())
	}
	if err != nil {
		return false, false, fmt.Errorf("look up what %s meant: %w", m.key(), err)
	}
	return same, same || known, nil
}

// stillMeans reports whether the name means what it meant before, or means
// something for the first time.
func (a *Activities) stillMeans(ctx context.Context, m meaning) (bool, error) {
	if a.names != nil {
		if _, ok := a.names.Load(m); ok {
			return true, nil
		}
	}
	same, known, err := a.meant(ctx, m)
	switch {
	case err != nil:
		return false, err
	case same || !known:
		return true, a.means(ctx, m)
	}
	first, err := a.Ledger.Once(ctx, nameRefused, m.String())
	if err != nil || !first {
		return false, err
	}
	a.log().ErrorContext(ctx, "a name means another account or team than when it came into force; it counts for nobody", "why", m.String())
	return false, a.audit(ctx, entry{"tidegate", nameRefused, m.key(), fmt.Sprintf("it means %d by now, and meant another when it came into force; `tidegate adopt` takes it as it is", m.id)})
}

// means remembers what a name means, from now on.
func (a *Activities) means(ctx context.Context, m meaning) error {
	for _, kept := range [][2]string{{nameMeans, m.String()}, {nameKnown, m.key()}} {
		if _, err := a.Ledger.Once(ctx, kept[0], kept[1]); err != nil {
			return fmt.Errorf("remember what %s means: %w", m.key(), err)
		}
	}
	if a.names != nil {
		a.names.Store(m, true)
	}
	return nil
}

// meanAnew takes those names that a tree has and another has not for what they
// mean today.
func (a *Activities) meanAnew(ctx context.Context, dir access.Directory, tree, old access.Tree) error {
	users, teams := a.Policies.Names(tree, tree, tree)
	oldUsers, oldTeams := a.Policies.Names(old, old, old)
	had := func(list []string) func(string) bool {
		return func(name string) bool { return slices.Contains(list, name) }
	}
	fresh := meanings(dir, slices.DeleteFunc(users, had(oldUsers)), slices.DeleteFunc(teams, had(oldTeams)))
	for _, m := range fresh {
		if err := a.means(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// takeNames takes every name in the policies in force and in the settings for
// what it means today, because a person says so, and tells which meant another
// account or team: that person may not know of it.
func (a *Activities) takeNames(ctx context.Context, adopted access.Tree, by string) (moved []string, err error) {
	users, teams := a.Policies.Names(adopted, adopted, adopted)
	for _, p := range slices.Concat(a.Rules.PolicyOwners, a.Rules.Operators) {
		if p.Kind == access.KindTeam {
			teams = append(teams, p.Name)
		} else {
			users = append(users, p.Name)
		}
	}
	dir, err := a.Forge.Directory(ctx, users, teams)
	if err != nil {
		return nil, fmt.Errorf("look up people: %w", err)
	}
	for _, m := range meanings(dir, users, teams) {
		same, known, err := a.meant(ctx, m)
		if known && !same {
			moved = append(moved, m.String())
			err = a.audit(ctx, entry{by, nameTaken, m.key(), fmt.Sprintf("it means %d from now on, and meant another before", m.id)})
		}
		if err = errors.Join(err, a.means(ctx, m)); err != nil {
			return moved, err
		}
	}
	return moved, nil
}
