package record

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
)

// journaled is a store whose rounds the test runs itself.
type journaled struct {
	*Store
	t   *testing.T
	log bytes.Buffer
}

func openJournaled(t *testing.T, dir string) *journaled {
	t.Helper()
	j := &journaled{t: t}
	store, err := Open(Config{Dir: dir, Key: replayKey, MinFree: 1, SyncEvery: time.Hour, Log: slog.New(slog.NewTextHandler(&j.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	j.Store = store
	return j
}

// record begins a recording as the gateway does, with an event that the disk
// has itself.
func (j *journaled) record(id string) *Writer {
	j.t.Helper()
	w, err := j.Record(access.SessionInfo{ID: id, Started: time.Now()}, func(access.Head) {})
	if err != nil {
		j.t.Fatal(err)
	}
	j.say(w, "begins", true)
	return w
}

func (j *journaled) say(w *Writer, text string, sync bool) {
	j.t.Helper()
	if err := w.Append(access.Event{Type: access.EventNotice, Time: time.Now(), Text: text}, sync); err != nil {
		j.t.Fatal(err)
	}
}

// size is where the recording of a session ends.
func (j *journaled) size(id string) int64 {
	j.t.Helper()
	info, err := os.Stat(filepath.Join(j.cfg.Dir, openDir, id+ext))
	if err != nil {
		j.t.Fatal(err)
	}
	return info.Size()
}

// crash is what a machine that died leaves of the folder: the recordings as
// long as they were when they were synced themselves, and the journal.
func (j *journaled) crash(synced map[string]int64) string {
	j.t.Helper()
	dir := j.t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(j.cfg.Dir)); err != nil {
		j.t.Fatal(err)
	}
	for id, size := range synced {
		if err := os.Truncate(filepath.Join(dir, openDir, id+ext), size); err != nil {
			j.t.Fatal(err)
		}
	}
	return dir
}

// texts are the notices of a sealed recording that proves itself.
func texts(t *testing.T, dir, id string) (all []string) {
	t.Helper()
	path, err := Find(dir, id)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	report, err := Verify(bytes.NewReader(file), NewKeys(replayKey.Public().(ed25519.PublicKey)), nil)
	if err != nil || !report.Sealed {
		t.Fatalf("recording of %s: %+v, %v; want it sealed", id, report, err)
	}
	for e, err := range Read(bytes.NewReader(file)) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Type == access.EventNotice {
			all = append(all, e.Text)
		}
	}
	return all
}

// TestTheJournalOutlivesTheMachine: after a round everything is on the disk,
// though only the journal was synced.
func TestTheJournalOutlivesTheMachine(t *testing.T) {
	j := openJournaled(t, t.TempDir())
	synced := map[string]int64{}
	writers := map[string]*Writer{}
	for _, id := range []string{"s1", "s2", "s3"} {
		writers[id] = j.record(id)
		synced[id] = j.size(id)
	}
	for round := range 3 {
		for id, w := range writers {
			j.say(w, fmt.Sprintf("%s in round %d", id, round), false)
		}
		j.commit()
	}
	j.say(writers["s3"], "after the last round", false)

	dir := j.crash(synced)
	after := openJournaled(t, dir)
	defer after.Close()
	for id := range writers {
		want := []string{"begins", id + " in round 0", id + " in round 1", id + " in round 2"}
		if got := texts(t, dir, id); strings.Join(got, "|") != strings.Join(want, "|") {
			t.Errorf("recording of %s has %q, want %q", id, got, want)
		}
	}
	if !strings.Contains(after.log.String(), "recordings=3") {
		t.Errorf("the log says nothing of the three that were mended:\n%s", &after.log)
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
	if got := texts(t, j.cfg.Dir, "s3"); got[len(got)-1] != "after the last round" {
		t.Errorf("the store that lived on wrote %q", got)
	}
	if _, err := os.Stat(j.journal.path); !os.IsNotExist(err) {
		t.Errorf("the journal stays after the store was closed: %v", err)
	}
}

// TestTornJournal cuts the journal at every byte: what is left of it is a
// prefix of what happened, never anything else.
func TestTornJournal(t *testing.T) {
	j := openJournaled(t, t.TempDir())
	defer j.Close()
	w := j.record("s1")
	synced := map[string]int64{"s1": j.size("s1")}
	for _, text := range []string{"one", "two", "three"} {
		j.say(w, text, false)
		j.commit()
	}
	whole, err := os.ReadFile(j.journal.path)
	if err != nil {
		t.Fatal(err)
	}
	image := j.crash(synced)
	seen := map[int]bool{}
	for cut := 0; cut <= len(whole); cut += 7 {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(image)); err != nil {
			t.Fatal(err)
		}
		torn := append(bytes.Clone(whole[:cut]), make([]byte, len(whole)-cut)...)
		if err := os.WriteFile(filepath.Join(dir, openDir, journalName), torn, 0o600); err != nil {
			t.Fatal(err)
		}
		after := openJournaled(t, dir)
		got := texts(t, dir, "s1")
		if err := after.Close(); err != nil {
			t.Error(err)
		}
		want := []string{"begins", "one", "two", "three"}[:len(got)]
		if strings.Join(got, "|") != strings.Join(want, "|") {
			t.Fatalf("cut at %d: the recording has %q", cut, got)
		}
		seen[len(got)] = true
	}
	if !seen[1] || !seen[3] {
		t.Errorf("recordings of %v notices; the cuts fall between none", seen)
	}
}

// TestMuchIsSyncedAlone: what one session writes in bulk costs no second copy.
func TestMuchIsSyncedAlone(t *testing.T) {
	j := openJournaled(t, t.TempDir())
	defer j.Close()
	w := j.record("s1")
	for range 100 {
		j.say(w, strings.Repeat("x", 10_000), false)
	}
	size := j.size("s1")
	j.commit()
	info, err := os.Stat(j.journal.path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > journalShare+20_000 {
		t.Errorf("the journal has %d bytes of a recording of %d", info.Size(), size)
	}
	j.say(w, "a little", false)
	dir := j.crash(map[string]int64{"s1": size})
	after := openJournaled(t, dir)
	defer after.Close()
	if got := texts(t, dir, "s1"); len(got) != 101 {
		t.Errorf("the recording has %d notices, want 101: the first 101 were synced", len(got))
	}
}

// TestAFullJournalBeginsAnew: by then every recording is on the disk itself.
func TestAFullJournalBeginsAnew(t *testing.T) {
	j := openJournaled(t, t.TempDir())
	defer j.Close()
	var all []*Writer
	for i := range 60 {
		all = append(all, j.record(fmt.Sprintf("s%d", i)))
	}
	epoch, rounds := uint64(0), 0
	for i := range 3 { // these are closed when the journal begins anew
		w := j.record(fmt.Sprintf("short%d", i))
		j.commit()
		if _, err := w.Seal("done"); err != nil {
			t.Fatal(err)
		}
	}
	for ; rounds < 20; rounds++ {
		for _, w := range all {
			j.say(w, strings.Repeat("x", 60_000), false)
		}
		j.commit()
		if epoch != 0 && j.journal.epoch != epoch {
			break
		}
		epoch = j.journal.epoch
	}
	if rounds == 20 || j.journal.at > journalMax {
		t.Fatalf("%d rounds, and the journal ends at %d", rounds, j.journal.at)
	}
	if j.journal.off {
		t.Fatalf("the journal was given up:\n%s", &j.log)
	}
	synced := map[string]int64{} // all but the last round
	for i := range all {
		id := fmt.Sprintf("s%d", i)
		synced[id] = j.size(id) - 60_000
	}
	dir := j.crash(synced)
	after := openJournaled(t, dir)
	defer after.Close()
	for i := range all {
		if got := texts(t, dir, fmt.Sprintf("s%d", i)); len(got) != rounds+2 {
			t.Errorf("recording %d has %d notices, want %d", i, len(got), rounds+2)
		}
	}
}

// TestAQuietJournalForgets: words of recordings that are perhaps deleted by
// then do not stay in it.
func TestAQuietJournalForgets(t *testing.T) {
	j := openJournaled(t, t.TempDir())
	defer j.Close()
	j.say(j.record("s1"), "the word", false)
	j.commit()
	has := func() bool {
		data, err := os.ReadFile(j.journal.path)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Contains(data, []byte("the word"))
	}
	if !has() {
		t.Fatal("the journal does not have what was committed")
	}
	for range journalRests {
		j.commit()
	}
	if has() {
		t.Error("the journal keeps its words while nobody writes")
	}
}

// TestWithoutAJournal: where it can't be written, each recording is synced by
// itself, and the log says so once.
func TestWithoutAJournal(t *testing.T) {
	j := openJournaled(t, t.TempDir())
	w := j.record("s1")
	if err := os.MkdirAll(filepath.Join(j.journal.path, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"one", "two"} {
		j.say(w, text, false)
		j.commit()
		if w.dirty || len(j.journal.owed) > 0 {
			t.Errorf("after %q the recording is dirty %v, and owed %v", text, w.dirty, j.journal.owed)
		}
	}
	if n := strings.Count(j.log.String(), "synced by itself"); n != 1 {
		t.Errorf("the log says it %d times, want once:\n%s", n, &j.log)
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
	if got := texts(t, j.cfg.Dir, "s1"); len(got) != 3 {
		t.Errorf("the recording has %q", got)
	}
}

// TestAJournalWritesNowhereElse: names in it are those of sessions, and what is
// sealed is not written again.
func TestAJournalWritesNowhereElse(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, openDir), 0o700); err != nil {
		t.Fatal(err)
	}
	victim := filepath.Join(dir, "victim"+ext)
	if err := os.WriteFile(victim, []byte("as it was"), 0o600); err != nil {
		t.Fatal(err)
	}
	day := filepath.Join(dir, "2026", "11", "28")
	if err := errors.Join(os.MkdirAll(day, 0o700), os.WriteFile(filepath.Join(day, "sealed"+ext), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"../victim", "sealed"} {
		maker := newJournal(dir, slog.New(slog.DiscardHandler))
		maker.add(&Writer{session: name}, 0, []byte("mallory"))
		if !maker.commit() {
			t.Fatal("no journal")
		}
		if _, err := newJournal(dir, slog.New(slog.DiscardHandler)).replay(); err != nil {
			t.Errorf("replay of %q: %v", name, err)
		}
	}
	if got, _ := os.ReadFile(victim); string(got) != "as it was" {
		t.Errorf("the journal wrote %q elsewhere", got)
	}
	if _, err := os.Stat(filepath.Join(dir, openDir, "sealed"+ext)); !os.IsNotExist(err) {
		t.Errorf("the journal began a recording again that is sealed: %v", err)
	}
}

func FuzzJournal(f *testing.F) {
	dir := f.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, openDir), 0o700); err != nil {
		f.Fatal(err)
	}
	j := newJournal(dir, slog.New(slog.DiscardHandler))
	for i := range 3 {
		j.add(&Writer{session: "s1"}, int64(i*5), []byte("hello"))
		if !j.commit() {
			f.Fatal("no journal")
		}
	}
	seed, err := os.ReadFile(j.path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		total := 0
		for p := range pieces(bytes.NewReader(data)) {
			if !sessionID.MatchString(p.session) || p.offset < 0 {
				t.Fatalf("a piece of %q at %d", p.session, p.offset)
			}
			total += len(p.data)
		}
		if total > len(data) {
			t.Fatalf("%d bytes out of %d", total, len(data))
		}
	})
}
