package record

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestDiagnose(t *testing.T) {
	dir := t.TempDir()
	find := func(c Config, want ...string) {
		t.Helper()
		var all strings.Builder
		for _, f := range Diagnose(c) {
			all.WriteString(string(f.Level) + " " + f.Say + "\n")
		}
		for _, w := range want {
			if !strings.Contains(all.String(), w) {
				t.Errorf("want %q in\n%s", w, all.String())
			}
		}
	}
	find(Config{Dir: dir, MinFree: 1}, "can be written to", "MiB are free")
	find(Config{Dir: dir, MinFree: 1 << 60}, "fail ", "the least is")
	find(Config{Dir: filepath.Join(dir, "none")}, "fail ")
	if err := os.Mkdir(filepath.Join(dir, openDir), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, age := range map[string]time.Duration{"new": 0, "old": 30 * time.Hour} {
		path := filepath.Join(dir, openDir, name+ext)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-age)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	find(Config{Dir: dir, MinFree: 1}, "warn the recording of session old is not sealed", "ok 1 recordings are being written")
}
