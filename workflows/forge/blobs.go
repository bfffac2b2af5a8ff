package forge

import (
	"context"
	"errors"
	"strings"

	"github.com/google/go-github/v60/github"

	"github.com/tidegate/tidegate/access"
)

// Blobs are git's ids of files that a commit has as plain files, by path; one
// that it has not is there as "". Tree reads all or nothing, because what is
// judged must be whole. An end must not wait for that: whoever puts a link or
// ten thousand files beside a grant would keep it open. So where the folders
// can't be listed whole, each file is looked for by itself. One that can't be
// looked for is absent, and the error says why.
func (f *Forge) Blobs(ctx context.Context, commit string, files []string) (map[string]string, error) {
	if err := validCommit(commit); err != nil {
		return nil, err
	}
	out := map[string]string{}
	if len(files) == 0 {
		return out, nil
	}
	if entries, err := f.entries(ctx, commit); err == nil {
		for _, file := range files {
			out[file] = ""
		}
		for _, e := range entries {
			if _, asked := out[e.GetPath()]; asked {
				out[e.GetPath()] = e.GetSHA()
			}
		}
		return out, nil
	}
	if _, err := f.Repo(ctx); err != nil {
		return nil, err
	}
	var errs []error
	s := search{f, map[string]listing{}}
	for _, file := range files {
		e, err := s.find(ctx, commit, file)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out[file] = ""
		if isPlain(e) {
			out[file] = e.GetSHA()
		}
	}
	return out, errors.Join(errs...)
}

func isPlain(e *github.TreeEntry) bool {
	return e.GetType() == typeBlob && (e.GetMode() == modeFile || e.GetMode() == modeExec)
}

// search looks for files folder by folder, each folder once.
type search struct {
	*Forge
	read map[string]listing // by the tree's id
}

// listing is one folder, or why it can't be read.
type listing struct {
	entries map[string]*github.TreeEntry
	part    bool // GitHub shows a part of it
	err     error
}

// find is the entry at a path below a tree, or nil.
func (s search) find(ctx context.Context, tree, path string) (*github.TreeEntry, error) {
	name, below, deeper := strings.Cut(path, "/")
	l := s.list(ctx, tree)
	e := l.entries[name]
	switch {
	case l.err != nil:
		return nil, l.err
	case e == nil && l.part:
		return nil, access.Errorf(access.CodeTooLarge, "GitHub shows only a part of tree %s, and %s is not in it.", short(tree), clip(visible(name), maxSaid))
	case e == nil || !deeper:
		return e, nil
	case e.GetType() != typeTree: // a link or a submodule: what lies behind it is no file of this repository
		return nil, nil
	}
	return s.find(ctx, e.GetSHA(), below)
}

func (s search) list(ctx context.Context, tree string) listing {
	l, known := s.read[tree]
	if known {
		return l
	}
	t, _, err := s.gh.Git.GetTree(ctx, s.cfg.Owner, s.cfg.Repo, tree, false)
	if err != nil {
		l.err = failed("read tree", err)
	} else {
		l.part, l.entries = t.GetTruncated(), map[string]*github.TreeEntry{}
		for _, e := range t.Entries {
			l.entries[e.GetPath()] = e
		}
	}
	s.read[tree] = l
	return l
}
