package hub

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// repository is the bare repository, driven by the git program.
type repository struct {
	dir    string
	branch string
	env    []string
	bin    string
}

const (
	gitTimeout = 30 * time.Second
	zeroSHA    = "0000000000000000000000000000000000000000"
)

var (
	errNotFound = errors.New("not found")
	errConflict = errors.New("merge conflict")

	shaPattern = regexp.MustCompile(`\A[0-9a-f]{40}\z`)
	refPattern = regexp.MustCompile(`\A[A-Za-z0-9_][A-Za-z0-9._/+#@=-]{0,199}\z`)
)

// validRef keeps names that git would read as options, ranges or expressions
// away from its command line.
func validRef(name string) bool {
	return refPattern.MatchString(name) && !strings.Contains(name, "..") && !strings.Contains(name, "//") &&
		!strings.HasSuffix(name, "/") && !strings.HasSuffix(name, ".lock") && !strings.HasSuffix(name, ".")
}

// updateHook refuses what protection forbids. git http-backend hands it our
// environment.
const updateHook = `#!/bin/sh
case "$1" in
"refs/heads/$TIDEGATE_HUB_PROTECTED")
	if [ "$TIDEGATE_HUB_ADMIN" != yes ]; then
		echo "GH006: Protected branch update failed for $1. Changes must be made through a pull request." >&2
		exit 1
	fi ;;
refs/heads/*|refs/tags/*) ;;
*)
	echo "deny updating a hidden ref: $1" >&2
	exit 1 ;;
esac
`

func openRepository(dir string, cfg Config) (*repository, error) {
	bin, err := exec.LookPath("git")
	if err != nil {
		return nil, fmt.Errorf("find git: %w (install git 2.38 or newer)", err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	g := &repository{dir: dir, branch: cfg.Branch, bin: bin, env: []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_CONFIG_GLOBAL=" + os.DevNull, "GIT_TERMINAL_PROMPT=0"}}
	if _, err := os.Stat(filepath.Join(dir, "HEAD")); err == nil {
		return g, nil
	}
	return g, g.create(cfg)
}

// create builds the repository beside its place and renames it in, so that a
// half-made one is never opened.
func (g *repository) create(cfg Config) error {
	final := g.dir
	g.dir = final + ".new"
	if err := os.RemoveAll(g.dir); err != nil {
		return fmt.Errorf("create repository: %w", err)
	}
	if err := os.MkdirAll(g.dir, 0o700); err != nil {
		return fmt.Errorf("create repository: %w", err)
	}
	ctx := context.Background()
	steps := [][]string{
		{"init", "--quiet", "--bare", "--initial-branch=" + g.branch, "."},
		{"config", "http.receivepack", "true"},
		{"config", "receive.fsckObjects", "true"},
		{"config", "uploadpack.allowAnySHA1InWant", "true"},
		{"config", "transfer.hideRefs", "refs/hub"},
		{"config", "gc.auto", "0"},
		{"config", "core.logAllRefUpdates", "true"},
	}
	for _, s := range steps {
		if _, err := g.run(ctx, gitCall{args: s}); err != nil {
			return fmt.Errorf("create repository: %w", err)
		}
	}
	if err := os.WriteFile(filepath.Join(g.dir, "hooks", "update"), []byte(updateHook), 0o700); err != nil {
		return fmt.Errorf("create repository: %w", err)
	}
	if err := g.seed(ctx, cfg); err != nil {
		return fmt.Errorf("seed repository: %w", err)
	}
	if err := os.Rename(g.dir, final); err != nil {
		return fmt.Errorf("create repository: %w", err)
	}
	g.dir = final
	return nil
}

func (g *repository) seed(ctx context.Context, cfg Config) error {
	var entries []treeEntry
	if cfg.Seed != nil {
		err := fs.WalkDir(cfg.Seed, ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := fs.ReadFile(cfg.Seed, path)
			if err != nil {
				return err
			}
			sha, err := g.writeBlob(ctx, data)
			entries = append(entries, treeEntry{Path: path, Mode: "100644", SHA: sha})
			return err
		})
		if err != nil {
			return err
		}
	}
	tree, err := g.writeTree(ctx, "", entries)
	if err != nil {
		return err
	}
	who := person{Name: "GitHub", Email: "noreply@github.com", When: cfg.Now().UTC()}
	sha, err := g.writeCommit(ctx, newCommit{Tree: tree, Message: "Initial commit", Author: who, Committer: who})
	if err != nil {
		return err
	}
	return g.setRef(ctx, "refs/heads/"+g.branch, sha, "")
}

// gitCall is one run of git.
type gitCall struct {
	args  []string
	stdin []byte
	env   []string
}

func (g *repository) run(ctx context.Context, c gitCall) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, gitTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, g.bin, c.args...)
	cmd.Dir, cmd.Env = g.dir, append(g.env[:len(g.env):len(g.env)], c.env...)
	cmd.Stdin = bytes.NewReader(c.stdin)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.Bytes(), fmt.Errorf("git %s: %w: %s", c.args[0], err, strings.TrimSpace(errOut.String()))
	}
	return out.Bytes(), nil
}

func (g *repository) line(ctx context.Context, args ...string) (string, error) {
	out, err := g.run(ctx, gitCall{args: args})
	return strings.TrimSpace(string(out)), err
}

// refs lists branches and tags.
func (g *repository) refs(ctx context.Context) (map[string]string, error) {
	out, err := g.line(ctx, "for-each-ref", "--format=%(refname) %(objectname)", "refs/heads", "refs/tags")
	if err != nil {
		return nil, err
	}
	refs := map[string]string{}
	for line := range strings.Lines(out) {
		if name, sha, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			refs[name] = sha
		}
	}
	return refs, nil
}

// setRef moves a ref; old is the value that it must have (zeroSHA: none, empty:
// any). An empty new value deletes it.
func (g *repository) setRef(ctx context.Context, ref, sha, old string) error {
	args := []string{"update-ref", ref, sha}
	if sha == "" {
		args = []string{"update-ref", "-d", ref}
	}
	if old != "" {
		args = append(args, old)
	}
	_, err := g.run(ctx, gitCall{args: args})
	return err
}

// resolve finds the commit behind a branch, a tag, a full ref or a SHA.
func (g *repository) resolve(ctx context.Context, name string) (string, error) {
	if shaPattern.MatchString(name) {
		return g.verify(ctx, name+"^{commit}")
	}
	if !validRef(name) {
		return "", errNotFound
	}
	for _, prefix := range []string{"refs/heads/", "refs/tags/", "refs/"} {
		if sha, err := g.verify(ctx, prefix+strings.TrimPrefix(name, "refs/")+"^{commit}"); err == nil {
			return sha, nil
		}
	}
	return "", errNotFound
}

func (g *repository) verify(ctx context.Context, expr string) (string, error) {
	sha, err := g.line(ctx, "rev-parse", "--verify", "--quiet", "--end-of-options", expr)
	if err != nil || sha == "" {
		return "", errNotFound
	}
	return sha, nil
}

func (g *repository) mergeBase(ctx context.Context, a, b string) (string, error) {
	sha, err := g.line(ctx, "merge-base", a, b)
	if err != nil {
		return "", errNotFound
	}
	return sha, nil
}

func (g *repository) isAncestor(ctx context.Context, a, b string) bool {
	_, err := g.run(ctx, gitCall{args: []string{"merge-base", "--is-ancestor", a, b}})
	return err == nil
}

func (g *repository) count(ctx context.Context, from, to string) (int, error) {
	s, err := g.line(ctx, "rev-list", "--count", from+".."+to)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(s)
}

// mergeTree is the tree of merging two commits, or errConflict.
func (g *repository) mergeTree(ctx context.Context, base, head string) (string, error) {
	out, err := g.run(ctx, gitCall{args: []string{"merge-tree", "--write-tree", "--name-only", base, head}})
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return "", errConflict
	}
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(out)), nil
}
