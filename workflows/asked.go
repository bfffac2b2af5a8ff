package workflows

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/tidegate/tidegate/access"
)

// Who is asked today. The forge may not show a team: then whether somebody is of
// it is not known, which is neither yes nor no.

// isAsked reports whether the person is one of the parties today. Where a team
// is not shown, that they are not is an [errUnseen].
func (a *Activities) isAsked(ctx context.Context, ask []access.Party, u access.User) (bool, error) {
	today, err := a.parties(ctx, principals(ask))
	if err != nil {
		return false, err
	}
	if access.Includes(same(ask, today), u.ID) {
		return true, nil
	}
	return false, unshown(principals(ask), today)
}

// askedToday looks the asked up again, as far as the forge shows them: who left
// a team can't answer, and a name that means another id by now is nobody.
func (a *Activities) askedToday(ctx context.Context, ask []access.Party) ([]access.Party, error) {
	today, err := a.parties(ctx, principals(ask))
	return same(ask, today), err
}

func principals(ps []access.Party) (out []access.Principal) {
	for _, p := range ps {
		out = append(out, p.Principal)
	}
	return out
}

// same are the parties of today that are those which were asked, by id.
func same(ask, today []access.Party) (out []access.Party) {
	for _, t := range today {
		if slices.ContainsFunc(ask, func(p access.Party) bool { return p.Principal == t.Principal && p.ID == t.ID }) {
			out = append(out, t)
		}
	}
	return out
}

// errUnseen is the cause of an error about teams that the forge has not, or does
// not show: whether somebody is of them is not known.
var errUnseen = errors.New("a team is not shown")

func isUnseen(err error) bool { return errors.Is(err, errUnseen) }

// unshown is nil if the forge showed all teams. It is no refusal: a permission
// may be missing for a minute, or a name be wrong.
func unshown(wanted []access.Principal, today []access.Party) error {
	var names []string
	for _, p := range wanted {
		shown := slices.ContainsFunc(today, func(t access.Party) bool { return t.Principal == p })
		if p.Kind == access.KindTeam && !shown && !slices.Contains(names, p.Name) {
			names = append(names, p.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	err := access.Errorf(access.CodeUnavailable, "GitHub shows Tidegate no team %s: it is gone, renamed or hidden from the App, so whether you are of it is not known. "+
		"An operator gives the App members: read, or corrects the name in the policies.", strings.Join(names, ", "))
	err.Cause = errUnseen
	return err
}
