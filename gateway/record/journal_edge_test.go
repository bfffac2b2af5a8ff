package record

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/tidegate/tidegate/access"
)

// unsyncable has a writer's disk fail from now on.
func unsyncable(t *testing.T, w *Writer) {
	t.Helper()
	r, pipe, err := os.Pipe() // which can't be synced
	if err != nil {
		t.Fatal(err)
	}
	before := w.file
	MoveTo(w, pipe)
	t.Cleanup(func() { _ = errors.Join(r.Close(), before.Close()) })
}

// TestARestartSyncsAllThatTheJournalHas: a recording may come into a batch after
// the round had visited it. The journal is not emptied before its disk answered.
func TestARestartSyncsAllThatTheJournalHas(t *testing.T) {
	j := openJournaled(t, t.TempDir())
	w, other := j.record("s1"), j.record("s2")
	j.commit()
	if err := j.journal.restart(); err != nil {
		t.Fatal(err)
	}
	synced := map[string]int64{"s1": j.size("s1")}
	j.say(w, "after the visit", false)
	if !j.journal.commit() {
		t.Fatal("no journal")
	}
	unsyncable(t, w)
	j.journal.at = journalMax // it is full
	j.say(other, "more", false)
	j.commit()
	if !j.journal.off {
		t.Error("the journal began anew, and nobody asked the disk for a recording that it had a part of")
	}
	dir := j.crash(synced)
	after := openJournaled(t, dir)
	defer after.Close()
	if got := texts(t, dir, "s1"); !slices.Contains(got, "after the visit") {
		t.Errorf("the recording has %q", got)
	}
	if err := j.Close(); err == nil {
		t.Error("closed without a word of the recording that is not on the disk")
	}
	if _, err := os.Stat(j.journal.path); err != nil {
		t.Errorf("the journal alone has the end of a recording, and went: %v", err)
	}
}

// TestASealedRecordingIsForgotten: a gateway of many short sessions keeps none
// of them in memory.
func TestASealedRecordingIsForgotten(t *testing.T) {
	j := openJournaled(t, t.TempDir())
	defer j.Close()
	for i := range 20 {
		w := j.record(fmt.Sprintf("s%d", i))
		j.say(w, "short", false)
		j.commit()
		if _, err := w.Seal("done"); err != nil {
			t.Fatal(err)
		}
	}
	j.say(j.record("long"), "goes on", false)
	j.commit()
	if n := len(j.journal.owed); n != 1 {
		t.Errorf("the journal holds %d recordings in memory, want the open one", n)
	}
}

// TestAnOldJournalBeginsAnew though it is neither full nor quiet.
func TestAnOldJournalBeginsAnew(t *testing.T) {
	j := openJournaled(t, t.TempDir())
	defer j.Close()
	w := j.record("s1")
	j.say(w, "the word", false)
	j.commit()
	j.journal.age = journalAges
	j.say(w, "more", false)
	j.commit()
	if data, err := os.ReadFile(j.journal.path); err != nil || bytes.Contains(data, []byte("the word")) {
		t.Errorf("the journal keeps its words as long as somebody writes: %v", err)
	}
}

// batches is a journal with one piece of each session in a batch of its own.
func batches(t *testing.T, dir string, sessions ...string) []byte {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, openDir), 0o700); err != nil {
		t.Fatal(err)
	}
	j := newJournal(dir, slog.New(slog.DiscardHandler))
	for _, s := range sessions {
		j.add(&Writer{session: s}, 0, []byte("mallory"))
		if !j.commit() {
			t.Fatal("no journal")
		}
	}
	data, err := os.ReadFile(j.path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestJournalFollowsNoLink: neither as the journal nor as a recording, at the
// start as little as later.
func TestJournalFollowsNoLink(t *testing.T) {
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("as it was"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"s1" + ext, journalName} {
		dir := t.TempDir()
		batches(t, dir, "s1")
		path := filepath.Join(dir, openDir, name)
		_ = os.Remove(path)
		if err := os.Symlink(victim, path); err != nil {
			t.Fatal(err)
		}
		if _, err := newJournal(dir, slog.New(slog.DiscardHandler)).replay(); err == nil || !strings.Contains(err.Error(), "no regular file") {
			t.Errorf("replay with a link as %s: %v", name, err)
		}
		if name != journalName && !exists(filepath.Join(dir, openDir, journalName)) {
			t.Error("the journal went, and was not read")
		}
	}
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, openDir), 0o700); err != nil {
		t.Fatal(err)
	}
	j := newJournal(dir, slog.New(slog.DiscardHandler))
	if err := os.Symlink(victim, j.path); err != nil {
		t.Fatal(err)
	}
	j.add(&Writer{session: "s1"}, 0, []byte("mallory"))
	if j.commit() {
		t.Error("a link was taken for a journal")
	}
	if got, _ := os.ReadFile(victim); string(got) != "as it was" {
		t.Errorf("the journal wrote %q elsewhere", got)
	}
}

// TestAnUnreadableJournalStays: what the disk does not give is not nothing.
func TestAnUnreadableJournalStays(t *testing.T) {
	data := batches(t, t.TempDir(), "s1", "s2")
	bad := errors.New("bad sector")
	_, err := replayInto(t.TempDir(), io.MultiReader(bytes.NewReader(data[:len(data)-5]), iotest.ErrReader(bad)))
	if !errors.Is(err, bad) {
		t.Errorf("got %v, want what the disk said", err)
	}
}

// TestAnOddNameHidesNothing: an empty file in the folder is sealed at the start,
// whatever its name, and stands in the journal.
func TestAnOddNameHidesNothing(t *testing.T) {
	var got []string
	for p := range pieces(bytes.NewReader(batches(t, t.TempDir(), "s1", "of a person (copy)", "s2"))) {
		got = append(got, p.session)
	}
	if strings.Join(got, " ") != "s1 s2" {
		t.Errorf("the journal gives parts of %q", got)
	}
}

// TestAReadJournalIsEmpty, so that a crash which brings its name back brings
// nothing over what was sealed since.
func TestAReadJournalIsEmpty(t *testing.T) {
	dir := t.TempDir()
	batches(t, dir, "s1")
	j := newJournal(dir, slog.New(slog.DiscardHandler))
	back := filepath.Join(dir, "back")
	if err := os.Link(j.path, back); err != nil {
		t.Fatal(err)
	}
	if _, err := j.replay(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(back); err != nil || info.Size() != 0 || exists(j.path) {
		t.Errorf("after it was read, the journal is %v, %v", info, err)
	}
}

// TestSealedAndNotMoved: the machine died before the disk had the new name of a
// sealed recording. It is moved; over another it is not.
func TestSealedAndNotMoved(t *testing.T) {
	dir := t.TempDir()
	j := openJournaled(t, dir)
	w := j.record("s1")
	if _, err := w.Seal("done"); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	sealed, err := Find(dir, "s1")
	if err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(dir, openDir, "s1"+ext)
	for _, inTheWay := range []bool{false, true} {
		if err := os.Rename(sealed, open); err != nil {
			t.Fatal(err)
		}
		if inTheWay {
			if err := os.WriteFile(sealed, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		after := openJournaled(t, dir)
		if err := after.Close(); err != nil {
			t.Error(err)
		}
		if stays := exists(open); stays != inTheWay || strings.Contains(after.log.String(), "damaged") != inTheWay {
			t.Errorf("with another in the way %v: it stays %v\n%s", inTheWay, stays, &after.log)
		}
		if !inTheWay {
			if got := texts(t, dir, "s1"); len(got) != 1 {
				t.Errorf("the recording has %q", got)
			}
		}
	}
}

// TestManySessionsOneJournal has sessions come, write in all ways and go while
// rounds follow each other without a pause and the journal begins anew.
func TestManySessionsOneJournal(t *testing.T) {
	dir := t.TempDir()
	store, err := Open(Config{Dir: dir, Key: replayKey, MinFree: 1, SyncEvery: time.Millisecond, SegmentBytes: 50_000})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			for k := range 4 {
				w, err := store.Record(access.SessionInfo{ID: fmt.Sprintf("s%d-%d", i, k), Started: time.Now()}, func(access.Head) {})
				if err != nil {
					t.Error(err)
					return
				}
				for n := range 30 {
					e := access.Event{Type: access.EventNotice, Time: time.Now(), Text: strings.Repeat("x", 1+n*1000)}
					if err := w.Append(e, n%10 == 0); err != nil {
						t.Error(err)
					}
				}
				if k%2 == 0 {
					if _, err := w.Seal("done"); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	all.Wait()
	if err := store.Close(); err != nil {
		t.Error(err)
	}
	for i := range 16 {
		for k := range 4 {
			if got := texts(t, dir, fmt.Sprintf("s%d-%d", i, k)); len(got) != 30 {
				t.Errorf("session %d-%d has %d notices, want 30", i, k, len(got))
			}
		}
	}
	if store.journal.off || exists(store.journal.path) {
		t.Errorf("the journal was given up %v, or stays", store.journal.off)
	}
}
