package tidegate_test

import (
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/tidegate/tidegate/"

// mayImport says, for the longest matching prefix, which of our own packages
// a package may import besides those below itself. cmd joins siblings and is
// not listed. Tests may import more: only real imports count.
var mayImport = map[string][]string{
	"access":           {},
	"access/ledger":    {"access"},
	"access/shared":    {},
	"access/tracing":   {"access"},
	"policies":         {"access"},
	"workflows":        {"access", "access/shared", "access/tracing"},
	"workflows/forge":  {"access", "workflows"},
	"gateway":          {"access", "access/tracing"},
	"gateway/postgres": {"access", "access/shared", "gateway"},
	"gateway/ssh":      {"access", "gateway"},
}

// TestImportDirection keeps the layers apart: a wrong import is a wrong joint.
func TestImportDirection(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...").CombinedOutput()
	if err != nil {
		t.Fatalf("list packages: %v\n%s", err, out)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		pkg, imports, _ := strings.Cut(line, " ")
		pkg = strings.TrimPrefix(pkg, module)
		if strings.HasPrefix(pkg, "cmd/") {
			continue
		}
		room, allowed := rulesFor(pkg)
		for imp := range strings.FieldsSeq(imports) {
			imp, ours := strings.CutPrefix(imp, module)
			if ours && !within(imp, room) && !within(room, imp) && !permitted(imp, allowed) {
				t.Errorf("%s imports %s; it may import %v and what is below %s", pkg, imp, allowed, room)
			}
		}
	}
}

func rulesFor(pkg string) (prefix string, allowed []string) {
	for p, a := range mayImport {
		if within(pkg, p) && len(p) > len(prefix) {
			prefix, allowed = p, a
		}
	}
	return prefix, allowed
}

func within(pkg, folder string) bool {
	return pkg == folder || strings.HasPrefix(pkg, folder+"/")
}

func permitted(imp string, allowed []string) bool {
	for _, a := range allowed {
		if imp == a {
			return true
		}
	}
	return false
}
