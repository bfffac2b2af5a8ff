package workflows

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidegate/tidegate/access"
)

// What is on main and came there by no pull request that we know. A file's name
// is the grant's id, so its id is consumed whatever the file says: nothing here
// waits for a file that is made to be slow, or is not understood.

// named is the request of a file by its name alone; false if no grant has such
// a name.
func named(f access.File) (access.Request, bool) {
	id, ok := access.GrantFileID(f.Path)
	return access.Request{ID: id, File: f.Path}, ok
}

// unknownOn are the requests on main whose ids the ledger does not know.
func (a *Activities) unknownOn(ctx context.Context, main access.Tree) (out []access.File, err error) {
	for _, f := range main.Files {
		r, ok := named(f)
		if !ok {
			continue
		}
		_, err := a.Ledger.Grant(ctx, access.GrantKey{Repo: a.Repo, ID: r.ID})
		if err == nil {
			continue
		}
		if access.CodeOf(err) != access.CodeNotFound {
			return nil, fmt.Errorf("read grant %s: %w", r.ID, err)
		}
		out = append(out, f)
	}
	return out, nil
}

// consume refuses what a file asks for, and with it its id for ever. What it
// asked for is kept where the file is understood.
func (a *Activities) consume(ctx context.Context, f access.File, why string) error {
	if err := ctx.Err(); err != nil {
		return err // each file may take a while
	}
	r, _ := named(f)
	if eval := a.Policies.Evaluate(Evaluate{Head: access.Tree{Files: []access.File{f}}}); len(eval.Changes) == 1 {
		r = eval.Changes[0].Request
	}
	return a.refuse(ctx, refusal{key: access.GrantKey{Repo: a.Repo, ID: r.ID}, request: r, why: why})
}

// refuseOnMain consumes the ids of what is on main and not in the ledger.
func (a *Activities) refuseOnMain(ctx context.Context, main access.Tree) (ids []string, err error) {
	unknown, err := a.unknownOn(ctx, main)
	if err != nil {
		return nil, err
	}
	for _, f := range unknown {
		if err := a.consume(ctx, f, whyLost); err != nil {
			return ids, err
		}
		r, _ := named(f)
		ids = append(ids, r.ID)
	}
	return ids, nil
}

// refuseUnclaimed consumes the ids of files that are on main without a pull
// request that brought them: a direct push, a revert. The pull requests that
// were merged lately land first, so that none of theirs is taken for one.
func (s *sweeper) refuseUnclaimed(ctx context.Context, main access.Tree, refs []Ref) error {
	_, err := s.Ledger.Adopted(ctx)
	if access.CodeOf(err) == access.CodeNotFound {
		return nil // nothing can land yet; the first adoption consumes what is on main
	}
	if err != nil {
		return fmt.Errorf("read adopted policies: %w", err)
	}
	unknown, err := s.unknownOn(ctx, main)
	if err != nil {
		return err
	}
	now, seen := s.now(), map[string]time.Time{}
	for _, f := range unknown {
		seen[f.Path] = now
		if first, ok := s.unclaimed[f.Path]; ok {
			seen[f.Path] = first
		}
	}
	s.unclaimed = seen
	if len(unknown) == 0 {
		return nil
	}
	direct, err := s.direct(ctx, main, refs)
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range unknown {
		if direct || now.Sub(seen[f.Path]) >= unclaimedForbid {
			errs = append(errs, s.consume(ctx, f, "It reached the main branch without an approved pull request."))
		}
	}
	return errors.Join(errs...)
}

// direct reports whether main's head was pushed without a pull request, after
// landing whatever was merged lately.
func (s *sweeper) direct(ctx context.Context, main access.Tree, refs []Ref) (bool, error) {
	number, err := s.Forge.PullOf(ctx, main.Commit)
	if err != nil {
		return false, fmt.Errorf("find the pull request of %s: %w", main.Commit, err)
	}
	if number != 0 {
		return false, nil
	}
	for _, ref := range refs {
		pull, err := s.Forge.Pull(ctx, ref)
		if err != nil {
			return false, fmt.Errorf("read pull request %s: %w", ref, err)
		}
		waits, err := s.Land(ctx, pull)
		if err != nil || waits {
			return false, err
		}
	}
	return true, nil
}
