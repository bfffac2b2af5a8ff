package hub

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// person is an author or committer as git knows them.
type person struct {
	Name, Email string
	When        time.Time
}

// gitCommit is a parsed commit.
type gitCommit struct {
	SHA, Tree         string
	Parents           []string
	Author, Committer person
	Message           string
}

type newCommit struct {
	Tree, Message     string
	Parents           []string
	Author, Committer person
}

type treeEntry struct {
	Path, Mode, Type, SHA string
	Size                  int64
	Delete                bool
}

// fileChange is one entry of a comparison.
type fileChange struct {
	Status, Path, Previous, SHA, Patch string
	Additions, Deletions               int
}

const (
	maxLog      = 250 // commits of a pull request that GitHub lists
	maxFiles    = 3000
	maxPatch    = 1 << 20
	maxTreeRows = 100_000
)

const commitFormat = "--format=%H%n%T%n%P%n%an%n%ae%n%aI%n%cn%n%ce%n%cI%n%B"

func parseCommits(out []byte) ([]gitCommit, error) {
	var commits []gitCommit
	for record := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		f := strings.SplitN(strings.TrimPrefix(record, "\n"), "\n", 10)
		if len(f) < 10 {
			if record == "" {
				continue
			}
			return nil, fmt.Errorf("parse git log: got %d fields, want 10", len(f))
		}
		authored, err1 := time.Parse(time.RFC3339, f[5])
		committed, err2 := time.Parse(time.RFC3339, f[8])
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("parse git log: got times %q and %q", f[5], f[8])
		}
		commits = append(commits, gitCommit{SHA: f[0], Tree: f[1], Parents: strings.Fields(f[2]),
			Author:    person{f[3], f[4], authored.UTC()},
			Committer: person{f[6], f[7], committed.UTC()},
			Message:   strings.TrimRight(f[9], "\n")})
	}
	return commits, nil
}

func (g *repository) commit(ctx context.Context, sha string) (gitCommit, error) {
	out, err := g.run(ctx, gitCall{args: []string{"log", "-z", "--no-walk", commitFormat, sha}})
	if err != nil {
		return gitCommit{}, errNotFound
	}
	commits, err := parseCommits(out)
	if err != nil || len(commits) != 1 {
		return gitCommit{}, fmt.Errorf("read commit %s: got %d: %w", sha, len(commits), err)
	}
	return commits[0], nil
}

// log lists from..to, the oldest first, as GitHub does for pull requests.
func (g *repository) log(ctx context.Context, from, to string) ([]gitCommit, error) {
	out, err := g.run(ctx, gitCall{args: []string{"log", "-z", "--topo-order", "--max-count=" + strconv.Itoa(maxLog), commitFormat, from + ".." + to}})
	if err != nil {
		return nil, err
	}
	commits, err := parseCommits(out)
	slices.Reverse(commits)
	return commits, err
}

// history lists the newest commits of to, the newest first.
func (g *repository) history(ctx context.Context, to, path string) ([]gitCommit, error) {
	args := []string{"log", "-z", "--max-count=1000", commitFormat, to, "--"}
	if path != "" {
		args = append(args, ":(literal)"+path)
	}
	out, err := g.run(ctx, gitCall{args: args})
	if err != nil {
		return nil, err
	}
	return parseCommits(out)
}

func (g *repository) writeBlob(ctx context.Context, data []byte) (string, error) {
	out, err := g.run(ctx, gitCall{args: []string{"hash-object", "-w", "--stdin"}, stdin: data})
	return strings.TrimSpace(string(out)), err
}

// writeTree changes a tree (or the empty one) by entries of full paths.
func (g *repository) writeTree(ctx context.Context, base string, entries []treeEntry) (string, error) {
	index := fmt.Sprintf("%s/index-%d", g.dir, time.Now().UnixNano())
	env := []string{"GIT_INDEX_FILE=" + index}
	defer func() { _ = removeFile(index) }()
	read := []string{"read-tree", "--empty"}
	if base != "" {
		read = []string{"read-tree", base}
	}
	if _, err := g.run(ctx, gitCall{args: read, env: env}); err != nil {
		return "", err
	}
	var in bytes.Buffer
	for _, e := range entries {
		if e.Delete {
			fmt.Fprintf(&in, "0 %s\t%s\x00", zeroSHA, e.Path)
			continue
		}
		fmt.Fprintf(&in, "%s %s\t%s\x00", e.Mode, e.SHA, e.Path)
	}
	if _, err := g.run(ctx, gitCall{args: []string{"update-index", "-z", "--index-info"}, stdin: in.Bytes(), env: env}); err != nil {
		return "", err
	}
	out, err := g.run(ctx, gitCall{args: []string{"write-tree"}, env: env})
	return strings.TrimSpace(string(out)), err
}

func (g *repository) writeCommit(ctx context.Context, c newCommit) (string, error) {
	args := []string{"commit-tree", c.Tree}
	for _, p := range c.Parents {
		args = append(args, "-p", p)
	}
	out, err := g.run(ctx, gitCall{args: args, stdin: []byte(c.Message + "\n"), env: append(c.Author.env("AUTHOR"), c.Committer.env("COMMITTER")...)})
	return strings.TrimSpace(string(out)), err
}

func (p person) env(role string) []string {
	return []string{"GIT_" + role + "_NAME=" + p.Name, "GIT_" + role + "_EMAIL=" + p.Email,
		"GIT_" + role + "_DATE=" + p.When.UTC().Format(time.RFC3339)}
}

// kind is the type of an object: commit, tree, blob or tag.
func (g *repository) kind(ctx context.Context, sha string) (string, error) {
	if !shaPattern.MatchString(sha) {
		return "", errNotFound
	}
	kind, err := g.line(ctx, "cat-file", "-t", sha)
	if err != nil {
		return "", errNotFound
	}
	return kind, nil
}

func (g *repository) blob(ctx context.Context, sha string) ([]byte, error) {
	if kind, err := g.kind(ctx, sha); err != nil || kind != "blob" {
		return nil, errNotFound
	}
	return g.run(ctx, gitCall{args: []string{"cat-file", "blob", sha}})
}

// tree lists a tree; recursive lists what is in its folders, too.
func (g *repository) tree(ctx context.Context, sha string, recursive bool) ([]treeEntry, error) {
	args := []string{"ls-tree", "-z", "-l", sha}
	if recursive {
		args = []string{"ls-tree", "-z", "-l", "-r", "-t", sha}
	}
	out, err := g.run(ctx, gitCall{args: args})
	if err != nil {
		return nil, err
	}
	var entries []treeEntry
	for row := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		meta, path, ok := strings.Cut(row, "\t")
		f := strings.Fields(meta)
		if !ok || len(f) != 4 {
			continue
		}
		size, _ := strconv.ParseInt(f[3], 10, 64) // "-" for trees
		entries = append(entries, treeEntry{Path: path, Mode: f[0], Type: f[1], SHA: f[2], Size: size})
	}
	return entries, nil
}

// diff lists what changed from one commit to another.
func (g *repository) diff(ctx context.Context, from, to string) ([]fileChange, error) {
	files, err := g.rawDiff(ctx, from, to)
	if err != nil {
		return nil, err
	}
	stat, err := g.run(ctx, gitCall{args: []string{"diff", "--numstat", "-z", "-M", from, to}})
	if err != nil {
		return nil, err
	}
	addStats(files, stat)
	patch, err := g.run(ctx, gitCall{args: []string{"diff", "--patch", "-M", "--no-ext-diff", "--no-color", from, to}})
	if err != nil {
		return nil, err
	}
	addPatches(files, string(patch))
	return files, nil
}

var diffStatus = map[byte]string{'A': "added", 'D': "removed", 'M': "modified", 'R': "renamed", 'C': "copied", 'T': "changed"}

func parseRaw(raw []byte) ([]fileChange, error) {
	var files []fileChange
	fields := strings.Split(strings.TrimRight(string(raw), "\x00"), "\x00")
	for i := 0; i+1 < len(fields); i += 2 {
		f := strings.Fields(fields[i]) // :mode mode sha sha status
		if len(f) != 5 {
			return nil, fmt.Errorf("parse git diff: got %q", fields[i])
		}
		c := fileChange{Status: diffStatus[f[4][0]], Path: fields[i+1], SHA: f[3]}
		if c.Status == "removed" {
			c.SHA = f[2]
		}
		if c.Status == "renamed" || c.Status == "copied" {
			if i++; i+1 >= len(fields) {
				return nil, fmt.Errorf("parse git diff: got a rename without its new name")
			}
			c.Previous, c.Path = c.Path, fields[i+1]
		}
		files = append(files, c)
	}
	return files, nil
}

// addStats joins numstat to the list: git prints both in the same order.
func addStats(files []fileChange, stat []byte) {
	fields := strings.Split(strings.TrimRight(string(stat), "\x00"), "\x00")
	n := 0
	for i := 0; i < len(fields) && n < len(files); i++ {
		f := strings.SplitN(fields[i], "\t", 3)
		if len(f) != 3 {
			continue
		}
		files[n].Additions, _ = strconv.Atoi(f[0]) // "-" for binary files
		files[n].Deletions, _ = strconv.Atoi(f[1])
		if f[2] == "" {
			i += 2 // a rename: both names follow
		}
		n++
	}
}

func addPatches(files []fileChange, patch string) {
	parts := strings.Split("\n"+patch, "\ndiff --git ")
	if len(parts) != len(files)+1 || len(patch) > maxPatch {
		return // GitHub, too, leaves patches out where they are too large
	}
	for i := range files {
		if at := strings.Index(parts[i+1], "\n@@"); at >= 0 {
			files[i].Patch = strings.TrimRight(parts[i+1][at+1:], "\n")
		}
	}
}

// rawDiff is diff without counts and patches.
func (g *repository) rawDiff(ctx context.Context, from, to string) ([]fileChange, error) {
	raw, err := g.run(ctx, gitCall{args: []string{"diff", "--raw", "-z", "-M", "--no-abbrev", from, to}})
	if err != nil {
		return nil, err
	}
	return parseRaw(raw)
}
