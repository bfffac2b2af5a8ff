package record

import (
	"bytes"
	"crypto/ed25519"
	"errors"
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
	if path, err := Find(dir, "s1"); err == nil || !strings.Contains(err.Error(), "There are 2 recordings") {
		t.Errorf("got %s, %v; want that there are two", path, err)
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

// TestWhatRecoverySealsIsAnchored: nobody else would tell the ledger of the end
// of a session whose gateway died, and whoever cut it off would go unseen.
func TestWhatRecoverySealsIsAnchored(t *testing.T) {
	j := openJournaled(t, t.TempDir())
	defer j.Close()
	j.record("s1")
	sealed := j.record("s2")
	if _, err := sealed.Seal("done"); err != nil {
		t.Fatal(err)
	}
	dir := j.crash(nil)
	path, err := Find(dir, "s2")
	if err == nil {
		err = os.Rename(path, filepath.Join(dir, openDir, "s2"+ext)) // the machine died before it was moved
	}
	if err != nil {
		t.Fatal(err)
	}
	heads := map[string]access.Head{}
	after, err := Open(Config{Dir: dir, Key: replayKey, MinFree: 1, Anchor: func(h access.Head) { heads[h.Session] = h }})
	if err != nil {
		t.Fatal(err)
	}
	defer after.Close()
	for _, id := range []string{"s1", "s2"} {
		path, err := Find(dir, id)
		if err != nil {
			t.Fatal(err)
		}
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		keys, anchored := NewKeys(replayKey.Public().(ed25519.PublicKey)), []access.Head{heads[id]}
		if _, err := Verify(bytes.NewReader(file), keys, anchored); err != nil {
			t.Errorf("%s: %v, under the head that was anchored: %+v", id, err, heads[id])
		}
		if _, err := Verify(bytes.NewReader(nil), keys, anchored); err == nil || !strings.Contains(err.Error(), "the tail was cut") {
			t.Errorf("%s, cut: %v", id, err)
		}
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

// TestNothingGoesOnInAFolderThatIsGone: what is written to it nobody finds.
func TestNothingGoesOnInAFolderThatIsGone(t *testing.T) {
	for name, change := range map[string]func(dir string) error{
		"removed":  os.RemoveAll,
		"moved":    func(dir string) error { return os.Rename(dir, dir+"-old") },
		"replaced": func(dir string) error { return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)) },
	} {
		dir := filepath.Join(t.TempDir(), "recordings")
		j := openJournaled(t, dir)
		w := j.record("s1")
		failed := make(chan error, 1)
		w.OnFailure(func(err error) { failed <- err })
		if err := change(dir); err != nil {
			t.Fatal(err)
		}
		j.looked = j.clock() - 2*int64(spaceEvery)
		j.space()
		select {
		case err := <-failed:
			if access.CodeOf(err) != access.CodeUnavailable {
				t.Errorf("%s: %v", name, err)
			}
		default:
			t.Errorf("%s: the session goes on", name)
		}
		if _, err := j.Record(access.SessionInfo{ID: "s2", Started: time.Now()}, func(access.Head) {}); access.CodeOf(err) != access.CodeUnavailable {
			t.Errorf("%s: a session opens: %v", name, err)
		}
		if !strings.Contains(j.log.String(), "was removed, moved or replaced") {
			t.Errorf("%s: the log says %s", name, &j.log)
		}
		_ = j.Close() // the journal is gone as well
	}
}
