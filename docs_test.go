package tidegate_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/policies"
)

// design is the agreement: it speaks of what shall be, and its blocks and
// verbs are not held against the code.
const design = "docs/concepts/design.md"

// page is one markdown file, by lines.
type page struct {
	path  string
	lines []string
}

// pages are the README, what lies beside it and everything under docs.
func pages(t *testing.T) []page {
	t.Helper()
	paths := []string{"README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"}
	err := filepath.WalkDir("docs", func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".md") {
			paths = append(paths, filepath.ToSlash(path))
		}
		return err
	})
	if err != nil {
		t.Fatalf("list docs: %v", err)
	}
	var out []page
	for _, path := range paths {
		out = append(out, page{path, strings.Split(read(t, path), "\n")})
	}
	return out
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("read page: %v", err)
	}
	return string(text)
}

// line is one line of a page, and whether it stands in a fenced block.
type line struct {
	number int
	text   string
	fence  string // the block's language; "text" if it names none; "" outside
}

// walk yields every line but the fences themselves.
func (p page) walk(visit func(line)) {
	fence := ""
	for i, text := range p.lines {
		if lang, ok := strings.CutPrefix(text, "```"); ok {
			switch {
			case fence != "":
				fence = ""
			case lang == "":
				fence = "text"
			default:
				fence = lang
			}
			continue
		}
		visit(line{i + 1, text, fence})
	}
}

var codeSpan = regexp.MustCompile("`[^`]+`")

// code is what of a line is meant literally: all of it in a block, its code
// spans outside.
func (l line) code() []string {
	if l.fence != "" {
		return []string{l.text}
	}
	var out []string
	for _, span := range codeSpan.FindAllString(l.text, -1) {
		out = append(out, strings.Trim(span, "`"))
	}
	return out
}

func TestReadmeIsShort(t *testing.T) {
	text := read(t, "README.md")
	if n := strings.Count(text, "\n"); n > 200 {
		t.Errorf("README.md has %d lines, want at most 200", n)
	}
	words := strings.Fields(text)
	if first := strings.Join(words[:min(90, len(words))], " "); !strings.Contains(first, "make demo") {
		t.Errorf("want `make demo` within the first 90 words, got:\n%s", first)
	}
}

// TestReadmeTellsTheDemo keeps the README's story that of the demo.
func TestReadmeTellsTheDemo(t *testing.T) {
	steps := regexp.MustCompile(`(?m)^\t\t\{("(?:[^"\\]|\\.)+"), d\.\w+\},$`).FindAllStringSubmatch(read(t, "cmd/tidegate/demo.go"), -1)
	if len(steps) == 0 {
		t.Fatal("cmd/tidegate/demo.go: no steps found")
	}
	readme := read(t, "README.md")
	for i, s := range steps {
		tells, err := strconv.Unquote(s[1])
		if err != nil {
			t.Fatalf("unquote step %s: %v", s[1], err)
		}
		if want := strconv.Itoa(i+1) + ". " + tells + "\n"; !strings.Contains(readme, want) {
			t.Errorf("README.md lacks the demo's step %q", want)
		}
	}
}

var (
	blockPath  = regexp.MustCompile(`\A# ((?:grants/[^/ ]+|policies)/[^/ ]+\.hcl)\z`)
	targetLine = regexp.MustCompile(`(?m)^([a-z][a-z-]*):`)
	// A command line; "/tidegate approve" is a comment and "tidegate segment v1" a signature's label.
	verbUse = regexp.MustCompile(`(?:^|[^/\w.-]|\bbin/)tidegate ([a-z][a-z-]*)( v\d)?`)
	makeUse = regexp.MustCompile(`(?:^|[\s;&(])make ([a-z][a-z-]*)`)
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
)

// tree is the hcl blocks of a page as one access repository. Each block
// says in its first line which file it is.
func (p page) tree(t *testing.T) (tree access.Tree) {
	var files []access.File
	last := 0
	p.walk(func(l line) {
		if l.fence != "hcl" {
			return
		}
		if l.number != last+1 || last == 0 {
			m := blockPath.FindStringSubmatch(l.text)
			if m == nil {
				t.Errorf("%s:%d: want the block's file in its first line, such as `# policies/x.hcl`, got %q", p.path, l.number, l.text)
				m = []string{"", "policies/unnamed.hcl"}
			}
			files = append(files, access.File{Path: m[1], Blob: strconv.Itoa(l.number)})
		}
		last = l.number
		f := &files[len(files)-1]
		f.Content = append(f.Content, l.text+"\n"...)
	})
	return access.Tree{Files: files}
}

func under(t access.Tree, folder string) (out access.Tree) {
	for _, f := range t.Files {
		if strings.HasPrefix(f.Path, folder) {
			out.Files = append(out.Files, f)
		}
	}
	return out
}

// exampleTree is the demo's own policies, for pages that show a grant alone.
func exampleTree(t *testing.T) (tree access.Tree) {
	t.Helper()
	paths, err := filepath.Glob("policies/example/repo/policies/*.hcl")
	if err != nil || len(paths) == 0 {
		t.Fatalf("list example: %v, %d files", err, len(paths))
	}
	for _, p := range paths {
		tree.Files = append(tree.Files, access.File{Path: "policies/" + filepath.Base(p), Blob: p, Content: []byte(read(t, p))})
	}
	return tree
}

// TestDocsExamples loads every hcl block, plans its grants and runs its checks.
func TestDocsExamples(t *testing.T) {
	blocks := 0
	for _, p := range pages(t) {
		if p.path == design {
			continue
		}
		tree := p.tree(t)
		if blocks += len(tree.Files); len(tree.Files) == 0 {
			continue
		}
		if len(under(tree, "policies/").Files) == 0 {
			tree.Files = append(tree.Files, exampleTree(t).Files...)
		}
		tryTree(t, p.path, tree)
	}
	if blocks < 5 {
		t.Errorf("found %d hcl blocks, want at least 5: is the pattern still right?", blocks)
	}
}

func tryTree(t *testing.T, page string, tree access.Tree) {
	t.Helper()
	for _, d := range policies.Load(tree) {
		t.Errorf("%s: %s", page, d)
	}
	dir := policies.OfflineDirectory(tree)
	grants := under(tree, "grants/")
	e := policies.Evaluate(policies.Input{Adopted: tree, Head: grants, Directory: dir})
	for _, d := range e.Diagnostics {
		t.Errorf("%s: plan: %s", page, d)
	}
	if len(e.Plans) != len(grants.Files) {
		t.Errorf("%s: %d grants, %d plans", page, len(grants.Files), len(e.Plans))
	}
	for _, r := range policies.Check(tree, dir) {
		if !r.OK {
			t.Errorf("%s: check %q: want %s, got %s %v", page, r.Name, r.Want, r.Got, r.Why)
		}
	}
}

// verbs reads the list in cmd/tidegate/cli.go: building the command is slow.
func verbs(t *testing.T) map[string]bool {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "cmd/tidegate/cli.go", nil, 0)
	if err != nil {
		t.Fatalf("parse verbs: %v", err)
	}
	out := map[string]bool{"help": true}
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Name.Name == "verbs" {
			ast.Inspect(f, func(n ast.Node) bool { return addVerb(n, out) })
		}
	}
	if len(out) < 2 {
		t.Fatal("parse verbs: func verbs in cmd/tidegate/cli.go lists none")
	}
	return out
}

func addVerb(n ast.Node, out map[string]bool) bool {
	c, ok := n.(*ast.CompositeLit)
	if !ok || len(c.Elts) == 0 {
		return true
	}
	if name, ok := c.Elts[0].(*ast.BasicLit); ok && name.Kind == token.STRING {
		out[strings.Trim(name.Value, `"`)] = true
	}
	return true
}

// TestDocsVerbs refuses verbs that the command does not have, unless the line
// says "not yet".
func TestDocsVerbs(t *testing.T) {
	known := verbs(t)
	for _, p := range pages(t) {
		if p.path == design {
			continue
		}
		p.walk(func(l line) {
			for _, code := range l.code() {
				for _, m := range verbUse.FindAllStringSubmatch(code, -1) {
					if !known[m[1]] && m[2] == "" && !strings.Contains(l.text, "not yet") {
						t.Errorf("%s:%d: there is no `tidegate %s`; write it, or say \"not yet\" in the line", p.path, l.number, m[1])
					}
				}
			}
		})
	}
}

// TestDocsMake refuses targets that the Makefile does not have.
func TestDocsMake(t *testing.T) {
	known := map[string]bool{}
	for _, m := range targetLine.FindAllStringSubmatch(read(t, "Makefile"), -1) {
		known[m[1]] = true
	}
	for _, p := range pages(t) {
		p.walk(func(l line) {
			for _, code := range l.code() {
				for _, m := range makeUse.FindAllStringSubmatch(code, -1) {
					if !known[m[1]] {
						t.Errorf("%s:%d: the Makefile has no target %q", p.path, l.number, m[1])
					}
				}
			}
		})
	}
}

// TestDocsLinks follows relative links, to the heading where one is named.
func TestDocsLinks(t *testing.T) {
	for _, p := range pages(t) {
		p.walk(func(l line) {
			if l.fence != "" {
				return
			}
			for _, m := range link.FindAllStringSubmatch(codeSpan.ReplaceAllString(l.text, ""), -1) {
				if !strings.Contains(m[1], ":") {
					follow(t, p, l, m[1])
				}
			}
		})
	}
}

func follow(t *testing.T, p page, l line, to string) {
	t.Helper()
	file, heading, _ := strings.Cut(to, "#")
	path := p.path
	if file != "" {
		path = filepath.Join(filepath.Dir(p.path), filepath.FromSlash(file))
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("%s:%d: the link %s leads nowhere: %v", p.path, l.number, to, err)
		return
	}
	if heading != "" && !anchors(read(t, path))[heading] {
		t.Errorf("%s:%d: %s has no heading #%s", p.path, l.number, path, heading)
	}
}

var notInAnchor = regexp.MustCompile(`[^a-z0-9 _-]`)

// anchors are a page's headings as GitHub names them.
func anchors(text string) map[string]bool {
	out := map[string]bool{}
	page{lines: strings.Split(text, "\n")}.walk(func(l line) {
		if title := strings.TrimLeft(l.text, "#"); l.fence == "" && title != l.text {
			slug := notInAnchor.ReplaceAllString(strings.ToLower(strings.TrimSpace(title)), "")
			out[strings.ReplaceAll(slug, " ", "-")] = true
		}
	})
	return out
}
