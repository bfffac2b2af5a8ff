package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/policies"
)

// Bounds of what plan reads from git.
const (
	planTimeout  = time.Minute
	planMaxBytes = 64 << 20
)

// planned is what plan prints.
type planned struct {
	Base        string                 `json:"base"` // the commit that the working tree is compared with
	Diagnostics access.Diagnostics     `json:"diagnostics"`
	Mixed       bool                   `json:"mixed,omitempty"` // policies and grants together
	Policies    []access.Requirement   `json:"policies,omitempty"`
	Changes     []access.Change        `json:"changes"`
	Plans       map[string]access.Plan `json:"plans"`

	policyOnly bool
}

// runPlan says what a pull request of the working tree would do.
func runPlan(ctx context.Context, args []string, io stdio) error {
	flags := flag.NewFlagSet("plan", flag.ContinueOnError)
	dir, asJSON := flags.String("dir", ".", "a clone of the access `repository`"), flags.Bool("json", false, "print the plans as JSON")
	base := flags.String("base", "", "`ref` that the pull request would go to (default: origin/main, else main)")
	if err := parse(flags, args, io); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, planTimeout)
	defer cancel()
	p, err := plan(ctx, *dir, *base)
	if err != nil {
		return err
	}
	if *asJSON {
		err = json.NewEncoder(io.out).Encode(p)
	} else {
		p.tell(io.out)
	}
	if err == nil && (p.Diagnostics.HasErrors() || p.Mixed) {
		return fmt.Errorf("the pull request would not be accepted: %d diagnostics", len(p.Diagnostics))
	}
	return err
}

// plan evaluates the working tree as a server would its head, with the names
// that policies write in the place of the forge's directory.
func plan(ctx context.Context, dir, ref string) (planned, error) {
	g := clone{dir}
	top, err := g.run(ctx, nil, "rev-parse", "--show-toplevel")
	if err != nil {
		return planned{}, fmt.Errorf("find the access repository: %w; run this in a clone of it, or name one with --dir", err)
	}
	g.dir = strings.TrimSuffix(string(top), "\n")
	tip, err := g.tip(ctx, ref)
	if err != nil {
		return planned{}, err
	}
	adopted, err := g.tree(ctx, tip)
	if err != nil {
		return planned{}, err
	}
	fork, err := g.fork(ctx, tip, adopted)
	if err != nil {
		return planned{}, err
	}
	head, err := readTree(g.dir)
	if err != nil {
		return planned{}, err
	}
	for i, f := range head.Files {
		head.Files[i].Blob = blobID(f.Content)
	}
	return evaluate(adopted, fork, head), nil
}

func evaluate(adopted, base, head access.Tree) planned {
	if !hasPolicies(adopted) {
		adopted = head // the first policies of a repository
	}
	dir := directory(adopted, base, head)
	e := policies.Evaluate(policies.Input{Adopted: adopted, Base: base, Head: head, Directory: dir})
	p := planned{
		Base: base.Commit, Diagnostics: e.Diagnostics, Mixed: e.Mixed, Changes: e.Changes, Plans: e.Plans, policyOnly: e.PolicyOnly,
	}
	if e.PolicyOnly {
		need, more := policies.AdoptionRequirements(adopted, nil, dir)
		p.Policies, p.Diagnostics = need, append(p.Diagnostics, more...)
	}
	return p
}

func hasPolicies(t access.Tree) bool {
	return slices.ContainsFunc(t.Files, func(f access.File) bool { return strings.HasPrefix(f.Path, "policies/") })
}

// directory is the offline one, with the teams that only grants name: here
// too, a team has everybody.
func directory(adopted, base, head access.Tree) access.Directory {
	dir := policies.OfflineDirectory(adopted)
	var everybody []access.User
	for _, login := range slices.Sorted(maps.Keys(dir.Users)) {
		everybody = append(everybody, dir.Users[login])
	}
	_, teams := policies.Names(adopted, base, head)
	for i, name := range teams {
		if _, ok := dir.Teams[strings.ToLower(name)]; !ok {
			dir.Teams[strings.ToLower(name)] = access.Team{ID: int64(2 * (i + 1)), Name: name, Members: everybody} // ids of names are odd
		}
	}
	return dir
}

// clone asks git about a working folder.
type clone struct{ dir string }

func (g clone) run(ctx context.Context, in io.Reader, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-C", g.dir}, args...)...)
	var out, said bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, &bounded{&out, planMaxBytes}, &bounded{&said, 4096}
	cmd.Env = append(os.Environ(), "GIT_OPTIONAL_LOCKS=0", "GIT_TERMINAL_PROMPT=0")
	if err := cmd.Run(); err != nil {
		if said := bytes.TrimSpace(said.Bytes()); len(said) > 0 {
			err = fmt.Errorf("%w: %s", err, said)
		}
		return nil, fmt.Errorf("git %s: %w", args[0], err)
	}
	return out.Bytes(), nil
}

// bounded is a buffer that refuses to grow beyond its bound.
type bounded struct {
	*bytes.Buffer
	max int
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > b.max {
		return 0, fmt.Errorf("want at most %d bytes", b.max)
	}
	return b.Buffer.Write(p)
}

// tip is the commit of the first ref that there is.
func (g clone) tip(ctx context.Context, ref string) (string, error) {
	refs := []string{"origin/main", "main"}
	if ref != "" {
		refs = []string{ref}
	}
	var err error
	for _, r := range refs {
		var id []byte
		id, err = g.run(ctx, nil, "rev-parse", "--verify", "--quiet", "--end-of-options", r+"^{commit}")
		if err == nil {
			return string(bytes.TrimSpace(id)), nil
		}
	}
	return "", fmt.Errorf("find the base: no commit %s (%w); --base names another", strings.Join(refs, " or "), err)
}

// fork is the tree where the work left the base: what landed on the base since
// is not taken for removed.
func (g clone) fork(ctx context.Context, tip string, atTip access.Tree) (access.Tree, error) {
	id, err := g.run(ctx, nil, "merge-base", tip, "HEAD")
	if err != nil {
		return atTip, nil // a history of its own: compare with the base itself
	}
	if at := string(bytes.TrimSpace(id)); at != tip {
		return g.tree(ctx, at)
	}
	return atTip, nil
}

// tree reads what Tidegate reads of a commit.
func (g clone) tree(ctx context.Context, commit string) (access.Tree, error) {
	t := access.Tree{Commit: commit}
	list, err := g.run(ctx, nil, "ls-tree", "-r", "-z", "--full-tree", commit, "--", "grants", "policies")
	if err != nil {
		return t, err
	}
	var ids strings.Builder
	for line := range strings.SplitSeq(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		about, path, _ := strings.Cut(line, "\t")
		if words := strings.Fields(about); len(words) == 3 && words[1] == "blob" && strings.HasSuffix(path, ".hcl") {
			t.Files = append(t.Files, access.File{Path: path, Blob: words[2]})
			ids.WriteString(words[2] + "\n")
		}
	}
	if len(t.Files) > policies.MaxFiles {
		return t, fmt.Errorf("read %s: %d files, want at most %d", commit, len(t.Files), policies.MaxFiles)
	}
	all, err := g.run(ctx, strings.NewReader(ids.String()), "cat-file", "--batch")
	if err != nil {
		return t, err
	}
	return t, fill(t.Files, all)
}

// fill reads the answers of git cat-file --batch: a head line with the size,
// the bytes, a line feed.
func fill(files []access.File, all []byte) error {
	r := bufio.NewReader(bytes.NewReader(all))
	for i, f := range files {
		head, err := r.ReadString('\n')
		if err != nil {
			return fmt.Errorf("read %s: %w", f.Path, err)
		}
		var id, kind string
		var size int
		if _, err := fmt.Sscanf(head, "%s %s %d", &id, &kind, &size); err != nil || id != f.Blob || size < 0 || size > len(all) {
			return fmt.Errorf("read %s: git answered %q", f.Path, head)
		}
		content := make([]byte, size+1)
		if _, err := io.ReadFull(r, content); err != nil {
			return fmt.Errorf("read %s: %w", f.Path, err)
		}
		files[i].Content = content[:size]
	}
	return nil
}

// blobID is git's name for a file's content.
func blobID(content []byte) string {
	sum := sha1.New() //nolint:gosec // git's own, to compare with git
	fmt.Fprintf(sum, "blob %d\x00", len(content))
	sum.Write(content)
	return hex.EncodeToString(sum.Sum(nil))
}

// tell prints for people.
func (p planned) tell(w io.Writer) {
	for _, d := range p.Diagnostics {
		fmt.Fprintln(w, d)
	}
	if p.Mixed {
		fmt.Fprintln(w, "policies and grants change together: make two pull requests of it")
	}
	if p.policyOnly {
		fmt.Fprintln(w, "policies change; there must agree:")
		tellNeeds(w, p.Policies)
	}
	for _, c := range p.Changes {
		fmt.Fprintf(w, "%s %s\n", c.Kind, c.Request.ID)
		if plan, ok := p.Plans[c.Request.ID]; ok {
			tellPlan(w, plan)
		}
	}
	if len(p.Changes) == 0 && !p.policyOnly && len(p.Diagnostics) == 0 {
		fmt.Fprintf(w, "nothing changes against %.12s\n", p.Base)
	}
}

func tellPlan(w io.Writer, p access.Plan) {
	var who []string
	for _, person := range p.People {
		who = append(who, person.Login)
	}
	fmt.Fprintf(w, "  who    %s\n  what   %s on %s\n  long   %s\n", strings.Join(who, ", "), p.Role.Name, p.Target.TargetRef, length(p.Request))
	for _, line := range []struct {
		what     string
		patterns []string
	}{{"read", p.Role.Read}, {"write", p.Role.Write}} {
		if len(line.patterns) > 0 {
			fmt.Fprintf(w, "  %-6s %s\n", line.what, strings.Join(line.patterns, ", "))
		}
	}
	for _, r := range p.Role.Rows {
		fmt.Fprintf(w, "  rows   %s where %s\n", cmp.Or(r.Tables, "of each table"), r.Where)
	}
	for _, m := range p.Masks {
		if len(m.Columns) > 0 {
			fmt.Fprintf(w, "  mask   %s: %s as %s\n", m.Name, strings.Join(m.Columns, ", "), m.With.Kind)
		}
		if len(m.Detect) > 0 {
			fmt.Fprintf(w, "  mask   %s: %s wherever found in text\n", m.Name, strings.Join(m.Detect, ", "))
		}
	}
	for _, r := range p.Rules {
		fmt.Fprintf(w, "  rule   %s: %s\n", r.Name, strings.Join(ruleWords(r), "; "))
	}
	tellNeeds(w, p.Requirements)
}

// ruleWords are all that a rule does, each with its condition.
func ruleWords(r access.Rule) (all []string) {
	if r.Deny != "" {
		all = append(all, "deny if "+r.Deny)
	}
	if r.Hold != "" {
		all = append(all, "hold if "+r.Hold)
	}
	when := ""
	if r.When != "" {
		when = " if " + r.When
	}
	if r.LimitRows > 0 {
		all = append(all, fmt.Sprintf("at most %d rows%s", r.LimitRows, when))
	}
	if r.LimitTime > 0 {
		all = append(all, fmt.Sprintf("at most %s%s", r.LimitTime, when))
	}
	if r.Record != "" {
		all = append(all, "record "+r.Record+when)
	}
	return all
}

func length(r access.Request) string {
	if r.Lasts > 0 {
		return r.Lasts.String() + " from the merge"
	}
	return r.From.UTC().Format(time.RFC3339) + " to " + r.Until.UTC().Format(time.RFC3339)
}

func tellNeeds(w io.Writer, needs []access.Requirement) {
	for _, n := range needs {
		var from []string
		for _, party := range n.From {
			from = append(from, party.String())
		}
		fmt.Fprintf(w, "  needs  %d of %s (%s: %s)\n", n.Need, cmp.Or(strings.Join(from, ", "), "the server's policy owners"), n.Name, n.Say)
	}
}
