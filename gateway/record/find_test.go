package record_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/tidegate/tidegate/gateway/record"
)

// TestRecordingThatMoves: one that is sealed while somebody looks for it is
// found all the same, at each moment.
func TestRecordingThatMoves(t *testing.T) {
	dir := t.TempDir()
	open, day := filepath.Join(dir, "open"), filepath.Join(dir, noon.Format("2006/01/02"))
	for _, folder := range []string{open, day} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 500 {
		id := fmt.Sprintf("s%d", n)
		if err := os.WriteFile(filepath.Join(open, id+".tgr"), []byte("H {}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		moved := make(chan error, 1)
		go func() { moved <- os.Rename(filepath.Join(open, id+".tgr"), filepath.Join(day, id+".tgr")) }()
		for sealed := false; !sealed; {
			select {
			case err := <-moved:
				if sealed = true; err != nil {
					t.Fatal(err)
				}
			default:
			}
			if record.Locate(dir, info(id)) == "" {
				t.Fatalf("%s: Locate does not find it", id)
			}
			f, err := record.OpenSession(dir, id)
			if err != nil {
				t.Fatalf("%s: %v", id, err)
			}
			f.Close()
		}
	}
}
