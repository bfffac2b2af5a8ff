package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/tidegate/tidegate/access"
)

// asked is a grant that alice asks for and bob agrees to.
type asked struct{ id, role, lasts string }

// onSSH are the roles of the example that are of its SSH target.
var onSSH = []string{"shell", "files", "logs"}

func (a asked) file() string {
	text := grantFile(a.id, "alice", a.role, a.lasts)
	if slices.Contains(onSSH, a.role) {
		text = strings.Replace(text, "postgres."+demoTarget, "ssh.web-1", 1)
	}
	return text
}

// landed is what became of it.
type landed struct {
	number int       // the pull request
	merged time.Time // when bob asked for it
}

// lands plays one grant from the push to the merge.
func (d *demo) lands(ctx context.Context, a asked) (landed, error) {
	if err := d.push(ctx, "alice", a.id, "grants/alice/"+a.id+".hcl", a.file()); err != nil {
		return landed{}, err
	}
	return d.agreed(ctx, a.id)
}

// agreed opens a pull request for a pushed branch; bob approves and merges it.
func (d *demo) agreed(ctx context.Context, branch string) (l landed, err error) {
	if l.number, err = d.pullRequest(ctx, "alice", branch, "Access for "+branch); err != nil {
		return l, err
	}
	if err := d.bobApproves(ctx, l.number); err != nil {
		return l, err
	}
	l.merged = time.Now()
	return l, d.merge(ctx, "bob", l.number)
}

// opened plays one grant until it is active.
func (d *demo) opened(ctx context.Context, a asked) (landed, error) {
	l, err := d.lands(ctx, a)
	if err == nil {
		err = d.waitState(ctx, a.id, access.StateActive)
	}
	return l, err
}
