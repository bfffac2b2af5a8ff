package workflows

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/tidegate/tidegate/access"
)

// commandPause is `hold` and `resume`. A grant on hold opens nothing and its
// sessions are ended; its time runs on, and what was minted stays at the
// target, where only the gateway could use it. Who could have refused the
// grant can stop it, and only such a person lets it go on.
func (a *Activities) commandPause(ctx context.Context, ref Ref, c Command) (string, error) {
	rows, rest, err := a.choose(ctx, ref, c.Args)
	if err != nil {
		return "", err
	}
	asking, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	for _, g := range rows {
		if err := a.mayPause(asking, ref, g, c.By); err != nil {
			return "", err
		}
	}
	hold, said := c.Verb == VerbHold, []string{}
	for _, g := range rows {
		changed, err := a.pause(ctx, g.Key, pausing{by: c.By.Login, why: strings.Join(rest, " "), hold: hold})
		if err != nil {
			return "", err
		}
		said = append(said, pauseWords(changed, hold))
	}
	return strings.Join(said, " "), nil
}

func pauseWords(g access.Grant, hold bool) string {
	switch {
	case g.State.Ended():
		return g.Key.ID + " has ended."
	case hold:
		return g.Key.ID + " is on hold: nothing opens and its sessions end. `/tidegate resume` lets it go on, `/tidegate revoke` ends it."
	}
	return g.Key.ID + " goes on."
}

// pausing is who stops a grant or lets it go on, and why.
type pausing struct {
	by, why string
	hold    bool
}

func (a *Activities) pause(ctx context.Context, key access.GrantKey, p pausing) (access.Grant, error) {
	done := false
	g, err := a.change(ctx, key, func(row *access.Grant) (bool, error) {
		if done = !row.State.Ended() && p.hold == (row.Paused == ""); !done {
			return false, nil
		}
		row.Paused, row.Why = "", "It goes on, says "+p.by+"."
		if p.hold {
			row.Paused = strings.TrimSpace(clip(p.by + ": " + orText(p.why, "no reason was given")))
			row.Why = "It is on hold, says " + row.Paused
		}
		return true, nil
	})
	if err != nil || !done {
		return g, err
	}
	action := "grant.resumed"
	if p.hold {
		action = "grant.paused"
	}
	if err := a.audit(ctx, entry{p.by, action, key.String(), orText(p.why, "no reason was given")}); err != nil {
		return g, fmt.Errorf("audit grant %s: %w", key, err)
	}
	return g, nil
}

// mayPause: who could approve the grant today.
func (a *Activities) mayPause(ctx context.Context, ref Ref, g access.Grant, u access.User) error {
	why, err := a.barred(ctx, ref, g, u)
	if err != nil {
		return err
	}
	if why != "" {
		return refuse(access.CodeDenied, "You can't stop %s or let it go on: somebody who %s is no approver of it. `/tidegate revoke` ends it.", g.Key.ID, why)
	}
	if may, err := a.approvesToday(ctx, g, u); err != nil || may {
		return err
	}
	return refuse(access.CodeDenied, "Only who may approve %s can stop it or let it go on.", g.Key.ID)
}

// barred says why the person never counts as an approver of the grant, or "".
func (a *Activities) barred(ctx context.Context, ref Ref, g access.Grant, u access.User) (string, error) {
	pull, err := a.Forge.Pull(ctx, ref)
	if err != nil {
		return "", fmt.Errorf("read pull request %s: %w", ref, err)
	}
	out, err := a.excluded(ctx, pull, g.Plan)
	if err != nil {
		return "", err
	}
	why, no := out[u.ID]
	if no || u.Bot || u.ID == 0 {
		return orText(why, "is a bot"), nil
	}
	return "", nil
}

// approvesToday reports whether the grant's requirements ask the person, by
// today's teams. Where one of them is not shown, that they don't is an [errUnseen].
func (a *Activities) approvesToday(ctx context.Context, g access.Grant, u access.User) (bool, error) {
	var from []access.Party
	for _, r := range g.Plan.Requirements {
		from = slices.Concat(from, r.From)
	}
	return a.isAsked(ctx, from, u)
}
