package record

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
)

// TestRecoveryReplacesNothing: a backup that was put back may hold the beginning
// of a recording that is sealed.
func TestRecoveryReplacesNothing(t *testing.T) {
	dir := t.TempDir()
	j := openJournaled(t, dir)
	w := j.record("s1")
	begun, err := os.ReadFile(filepath.Join(dir, openDir, "s1"+ext))
	if err != nil {
		t.Fatal(err)
	}
	j.say(w, "what mallory did", true)
	if _, err := w.Seal("done"); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	back := filepath.Join(dir, openDir, "s1"+ext)
	if err := os.WriteFile(back, begun, 0o600); err != nil {
		t.Fatal(err)
	}
	after := openJournaled(t, dir)
	if err := after.Close(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(after.log.String(), "is there") {
		t.Errorf("nothing said of it: %s", &after.log)
	}
	if now, err := os.ReadFile(back); err != nil || !bytes.Equal(now, begun) {
		t.Errorf("what was put back was changed: %v", err)
	}
	if err := os.Remove(back); err != nil {
		t.Fatal(err)
	}
	if got := texts(t, dir, "s1"); len(got) != 2 || got[1] != "what mallory did" {
		t.Errorf("the sealed recording has %q", got)
	}
}

// TestTheJournalBringsBackAFile whose name the disk did not have yet: what was
// synced is the journal, and not every file system keeps other names with it.
func TestTheJournalBringsBackAFile(t *testing.T) {
	j := openJournaled(t, t.TempDir())
	j.commit()
	w, err := j.Record(access.SessionInfo{ID: "s1", Started: time.Now()}, func(access.Head) {})
	if err != nil {
		t.Fatal(err)
	}
	j.say(w, "begins", false)
	j.say(w, "what mallory did", false)
	j.commit()
	sealed := j.record("s2")
	j.say(sealed, "done", false)
	j.commit()
	if _, err := sealed.Seal("done"); err != nil {
		t.Fatal(err)
	}
	j.commit()
	dir := j.crash(nil)
	if err := os.Remove(filepath.Join(dir, openDir, "s1"+ext)); err != nil {
		t.Fatal(err)
	}
	after := openJournaled(t, dir)
	defer after.Close()
	if got := texts(t, dir, "s1"); len(got) != 2 || got[1] != "what mallory did" {
		t.Errorf("got %q", got)
	}
	if got := texts(t, dir, "s2"); len(got) != 2 {
		t.Errorf("the sealed one has %q", got)
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}
