package policies

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/tidegate/tidegate/access"
)

// Each archive holds adopted/, base/ and head/ trees, and the answer in
// "want". Run with -update to write the answers anew, then read the diff.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("find archives: %v, %d found", err, len(files))
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) { golden(t, name) })
	}
}

func golden(t *testing.T, name string) {
	a, err := txtar.ParseFile(name)
	if err != nil {
		t.Fatal(err)
	}
	in := Input{Adopted: treeOf(a, "adopted/"), Base: treeOf(a, "base/"), Head: treeOf(a, "head/"), Directory: directory()}
	got := answer(t, in)
	for range 5 {
		if diff := cmp.Diff(got, answer(t, in)); diff != "" {
			t.Fatalf("the second answer differs (-first +second):\n%s", diff)
		}
	}
	last := len(a.Files) - 1
	if *update {
		if last >= 0 && a.Files[last].Name == "want" {
			a.Files = a.Files[:last]
		}
		a.Files = append(a.Files, txtar.File{Name: "want", Data: []byte(got)})
		if err := os.WriteFile(name, txtar.Format(a), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if last < 0 || a.Files[last].Name != "want" {
		t.Fatal(`no "want" at the end; run with -update`)
	}
	if diff := cmp.Diff(string(a.Files[last].Data), got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func answer(t *testing.T, in Input) string {
	t.Helper()
	e := Evaluate(in)
	out := struct {
		Diagnostics       []string `json:",omitempty"`
		Mixed, PolicyOnly bool
		Changes           []access.Change
		Plans             map[string]access.Plan
		Reasons           map[string]access.Reason
	}{nil, e.Mixed, e.PolicyOnly, e.Changes, e.Plans, map[string]access.Reason{}}
	for _, d := range e.Diagnostics {
		out.Diagnostics = append(out.Diagnostics, d.String())
	}
	for id, p := range e.Plans {
		out.Reasons[id] = Count(p, access.Ballot{})
	}
	b, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b) + "\n"
}
