package forge

import (
	"cmp"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"maps"
	"slices"
	"strings"

	"github.com/google/go-github/v60/github"
	"golang.org/x/sync/errgroup"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/workflows"
)

const (
	maxFiles  = 2000
	maxFile   = 64 << 10
	maxTotal  = 4 << 20
	maxPath   = 512
	atOnce    = 8
	modeFile  = "100644"
	modeExec  = "100755"
	typeBlob  = "blob"
	typeTree  = "tree"
	grantsDir = "grants"
)

// folders are what Tidegate reads of a repository.
var folders = []string{grantsDir, "policies"}

// Tree reads grants/ and policies/ of a commit; an empty commit is the main branch.
func (f *Forge) Tree(ctx context.Context, commit string) (access.Tree, error) {
	if commit == "" {
		main, err := f.Main(ctx)
		if err != nil {
			return access.Tree{}, err
		}
		commit = main
	}
	entries, err := f.entries(ctx, commit)
	if err != nil {
		return access.Tree{}, err
	}
	files, err := f.contents(ctx, entries)
	return access.Tree{Commit: commit, Files: files}, err
}

// entries lists the files of the two folders. It reads the root alone first, so
// the size of the rest of the repository does not matter.
func (f *Forge) entries(ctx context.Context, commit string) ([]*github.TreeEntry, error) {
	if err := validCommit(commit); err != nil {
		return nil, err
	}
	if _, err := f.Repo(ctx); err != nil {
		return nil, err
	}
	if files, ok := f.trees.get(commit); ok {
		return files, nil
	}
	root, err := f.gitTree(ctx, commit, false)
	if err != nil {
		return nil, err
	}
	var out []*github.TreeEntry
	for _, e := range root {
		if !slices.Contains(folders, strings.ToLower(e.GetPath())) {
			continue
		}
		// A "Grants" folder next to "grants" is one folder on some people's disks.
		if e.GetType() != typeTree || !slices.Contains(folders, e.GetPath()) {
			return nil, workflows.Unreadable(access.CodeInvalid, "%q is not the folder that Tidegate reads: want folders named grants and policies, in lower case.", e.GetPath())
		}
		below, err := f.folder(ctx, e)
		if err != nil {
			return nil, err
		}
		out = append(out, below...)
	}
	if err := checkSizes(out); err != nil {
		return nil, err
	}
	f.trees.put(commit, out, len(out)+1)
	return out, nil
}

// Outside reports whether head differs from base anywhere but in the two
// folders. The roots tell: an entry's id covers all that lies below it.
func (f *Forge) Outside(ctx context.Context, base, head string) (bool, error) {
	before, err := f.outside(ctx, base)
	if err != nil {
		return false, err
	}
	after, err := f.outside(ctx, head)
	return err == nil && !maps.Equal(before, after), err
}

// outside are the entries of a commit's root but for the two folders.
func (f *Forge) outside(ctx context.Context, commit string) (map[string]string, error) {
	if err := validCommit(commit); err != nil {
		return nil, err
	}
	if _, err := f.Repo(ctx); err != nil {
		return nil, err
	}
	root, err := f.gitTree(ctx, commit, false)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, e := range root {
		if !slices.Contains(folders, e.GetPath()) {
			out[e.GetPath()] = e.GetMode() + " " + e.GetSHA()
		}
	}
	return out, nil
}

func (f *Forge) folder(ctx context.Context, dir *github.TreeEntry) ([]*github.TreeEntry, error) {
	below, err := f.gitTree(ctx, dir.GetSHA(), true)
	if err != nil {
		return nil, err
	}
	var files []*github.TreeEntry
	for _, e := range below {
		full := dir.GetPath() + "/" + e.GetPath()
		e.Path = &full
		switch {
		case e.GetType() == typeTree:
		case len(full) > maxPath:
			return nil, workflows.Unreadable(access.CodeTooLarge, "A path in %s has %d bytes, want at most %d.", dir.GetPath(), len(full), maxPath)
		case isPlain(e):
			files = append(files, e)
		default:
			return nil, workflows.Unreadable(access.CodeInvalid, "%s is a symbolic link or a submodule; grants/ and policies/ hold plain files only.", clip(visible(full), maxSaid))
		}
	}
	return files, nil
}

func (f *Forge) gitTree(ctx context.Context, sha string, recursive bool) ([]*github.TreeEntry, error) {
	t, _, err := f.gh.Git.GetTree(ctx, f.cfg.Owner, f.cfg.Repo, sha, recursive)
	if err != nil {
		return nil, failed("read tree", err)
	}
	if t.GetTruncated() {
		return nil, workflows.Unreadable(access.CodeTooLarge, "GitHub shows only a part of tree %s; Tidegate needs all of grants/ and policies/.", short(sha))
	}
	return t.Entries, nil
}

func checkSizes(files []*github.TreeEntry) error {
	if len(files) > maxFiles {
		return workflows.Unreadable(access.CodeTooLarge, "grants/ and policies/ hold %d files, want at most %d.", len(files), maxFiles)
	}
	total := 0
	for _, e := range files {
		total += e.GetSize()
		if e.GetSize() > maxFile {
			return workflows.Unreadable(access.CodeTooLarge, "%s has %d bytes, want at most %d.", clip(visible(e.GetPath()), maxSaid), e.GetSize(), maxFile)
		}
	}
	if total > maxTotal {
		return workflows.Unreadable(access.CodeTooLarge, "grants/ and policies/ hold %d bytes, want at most %d.", total, maxTotal)
	}
	return nil
}

func (f *Forge) contents(ctx context.Context, entries []*github.TreeEntry) ([]access.File, error) {
	files := make([]access.File, len(entries))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for i, e := range entries {
		group.Go(func() error {
			data, err := f.blob(ctx, e)
			files[i] = access.File{Path: e.GetPath(), Blob: e.GetSHA(), Content: data}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	slices.SortFunc(files, func(a, b access.File) int { return cmp.Compare(a.Path, b.Path) })
	return files, nil
}

// blob reads one file by its object id, and hashes it again: what is approved is
// these bytes, whoever carried them here.
func (f *Forge) blob(ctx context.Context, e *github.TreeEntry) ([]byte, error) {
	id := e.GetSHA()
	if data, ok := f.blobs.get(id); ok {
		return slices.Clone(data), nil
	}
	data, _, err := f.gh.Git.GetBlobRaw(ctx, f.cfg.Owner, f.cfg.Repo, id)
	if err != nil {
		return nil, failed("read "+e.GetPath(), err)
	}
	if len(data) > maxFile || blobID(data, len(id)) != id {
		return nil, access.Errorf(access.CodeUnavailable, "GitHub sent other bytes for %s than blob %s has.", clip(visible(e.GetPath()), maxSaid), id)
	}
	f.blobs.put(id, slices.Clone(data), len(data)+256)
	return data, nil
}

// blobID is git's object id of a file, in the hash that ids of that length have.
func blobID(data []byte, length int) string {
	var h hash.Hash = sha1.New()
	if length == 2*sha256.Size {
		h = sha256.New()
	}
	fmt.Fprintf(h, "blob %d\x00", len(data))
	h.Write(data)
	return hex.EncodeToString(h.Sum(nil))
}
