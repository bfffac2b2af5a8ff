package example_test

import (
	"io/fs"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/policies"
	"github.com/tidegate/tidegate/policies/example"
)

func tree(t *testing.T) access.Tree {
	t.Helper()
	sub, err := fs.Sub(example.FS, example.Root)
	if err != nil {
		t.Fatal(err)
	}
	var out access.Tree
	err = fs.WalkDir(sub, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(sub, path)
		out.Files = append(out.Files, access.File{Path: path, Blob: path, Content: b})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestExampleLoads(t *testing.T) {
	for _, d := range policies.Load(tree(t)) {
		t.Error(d)
	}
}

func TestExampleChecksPass(t *testing.T) {
	results := policies.Check(tree(t), policies.OfflineDirectory(tree(t)))
	if len(results) != 4 {
		t.Errorf("got %d check results, want 4", len(results))
	}
	for _, r := range results {
		if !r.OK {
			t.Errorf("%s: want %s, got %s: %v", r.Name, r.Want, r.Got, r.Why)
		}
	}
}

func TestReplacedWordsAreThere(t *testing.T) {
	for word, want := range map[string]int{example.Address: 1, example.SSHAddress: 1, example.HostKey: 1, example.Account: 3} {
		n := 0
		for _, f := range tree(t).Files {
			n += strings.Count(string(f.Content), word)
		}
		if n != want {
			t.Errorf("%s is there %d times, want %d", word, n, want)
		}
	}
}
