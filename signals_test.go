package tidegate_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/access/tracing"
)

const signalsPage = "docs/reference/signals.md"

// logFirst says at which argument the keys of a log call begin.
var logFirst = map[string]int{
	"Debug": 1, "Info": 1, "Warn": 1, "Error": 1,
	"DebugContext": 2, "InfoContext": 2, "WarnContext": 2, "ErrorContext": 2, "With": 0,
}

// TestLogKeys: one thing has one key in every line, and the page names it. So
// whoever searches a log for a grant finds all of it.
func TestLogKeys(t *testing.T) {
	documented := map[string]bool{}
	for _, row := range rowsOf(t, "Log keys") {
		documented[row] = false
	}
	for _, path := range sources(t) {
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, path, nil, 0)
		if err != nil {
			t.Fatalf("parse %s: %v", path, err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			for _, key := range logKeys(n) {
				if _, ok := documented[key]; ok {
					documented[key] = true
				} else {
					t.Errorf("%s: the log key %q stands in no row of %s", files.Position(n.Pos()), key, signalsPage)
				}
			}
			return true
		})
	}
	for _, key := range slices.Sorted(maps.Keys(documented)) {
		if !documented[key] {
			t.Errorf("%s: no line has the log key %q", signalsPage, key)
		}
	}
}

// logKeys are the keys of a log call. What takes a format, an error or nothing
// but a key besides is no log call.
func logKeys(n ast.Node) (keys []string) {
	call, ok := n.(*ast.CallExpr)
	if !ok {
		return nil
	}
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return nil
	}
	first, ok := logFirst[method.Sel.Name]
	if !ok || !logs(method.X) {
		return nil
	}
	for i := first; i < len(call.Args); i += 2 {
		if lit, ok := call.Args[i].(*ast.BasicLit); ok && lit.Kind == token.STRING {
			key, err := strconv.Unquote(lit.Value)
			if err != nil {
				panic(err) // the parser took it
			}
			keys = append(keys, key)
		}
	}
	return keys
}

// logs reports whether an expression is a logger, by its last name.
func logs(x ast.Expr) bool {
	switch x := x.(type) {
	case *ast.Ident:
		return x.Name == "log" || x.Name == "logger"
	case *ast.SelectorExpr:
		return x.Sel.Name == "log" || x.Sel.Name == "Log"
	case *ast.CallExpr: // a.log(), workflow.GetLogger(ctx)
		method, ok := x.Fun.(*ast.SelectorExpr)
		return ok && (method.Sel.Name == "log" || method.Sel.Name == "GetLogger")
	}
	return false
}

// sources are our Go files, without tests and the pocket GitHub.
func sources(t *testing.T) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() && path == "workflows/forge/hub" {
			return filepath.SkipDir
		}
		if err == nil && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil || len(paths) < 100 {
		t.Fatalf("list sources: %v, %d found", err, len(paths))
	}
	return paths
}

// TestSpansAreDocumented: the page lists the spans and their attributes that
// there are, and no others.
func TestSpansAreDocumented(t *testing.T) {
	var names, keys []string
	for _, n := range tracing.Names() {
		names = append(names, string(n))
	}
	for _, k := range tracing.Keys() {
		keys = append(keys, string(k))
	}
	for section, want := range map[string][]string{"Spans": names, "Attributes": keys} {
		if diff := cmp.Diff(want, rowsOf(t, section)); diff != "" {
			t.Errorf("%s, %s (-code +page):\n%s", signalsPage, section, diff)
		}
	}
}

// TestNamesAreListed: a span or attribute that no list holds is in no page.
func TestNamesAreListed(t *testing.T) {
	text := read(t, "access/tracing/names.go")
	if n := len(regexp.MustCompile(`(?m)^\t\w+ +Name = `).FindAllString(text, -1)); n != len(tracing.Names()) {
		t.Errorf("%d names of spans, %d in Names", n, len(tracing.Names()))
	}
	if n := len(regexp.MustCompile(`(?m)^\t\w+ +Key = `).FindAllString(text, -1)); n != len(tracing.Keys()) {
		t.Errorf("%d keys of attributes, %d in Keys", n, len(tracing.Keys()))
	}
}

// rowsOf are the names in the first column of a section's tables.
func rowsOf(t *testing.T, section string) (names []string) {
	t.Helper()
	_, rest, ok := strings.Cut(read(t, signalsPage), "\n## "+section+"\n")
	if !ok {
		t.Fatalf("%s has no section %q", signalsPage, section)
	}
	text, _, _ := strings.Cut(rest, "\n## ")
	for _, line := range strings.Split(text, "\n") {
		first, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " |")
		if strings.HasPrefix(line, "| `") {
			for _, name := range codeSpan.FindAllString(first, -1) {
				names = append(names, strings.Trim(name, "`"))
			}
		}
	}
	return names
}
