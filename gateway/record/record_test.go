package record_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/record"
)

var key = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))

func keys() record.Keys { return record.NewKeys(key.Public().(ed25519.PublicKey)) }

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func info(id string) access.SessionInfo {
	return access.SessionInfo{
		ID: id, Started: noon, Person: access.User{ID: 1, Login: "alice"},
		Target: access.TargetRef{Kind: "postgres", Name: "orders-prod"},
	}
}

func query(op uint64, text string) access.Event {
	return access.Event{
		Type: access.EventOpen, Time: noon, Op: op,
		Operation: &access.Operation{Kind: "query", Text: text}, Decision: &access.Decision{Verdict: access.Allow},
	}
}

type anchors struct{ heads []access.Head }

func (a *anchors) add(h access.Head) { a.heads = append(a.heads, h) }

// session records n queries and returns the sealed file and its last head.
func session(t *testing.T, n, segment int) (file []byte, head access.Head) {
	t.Helper()
	dir := t.TempDir()
	store, err := record.Open(record.Config{Dir: dir, Key: key, MinFree: 1, SegmentBytes: segment, SyncEvery: time.Hour, Now: func() time.Time { return noon }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}()
	var a anchors
	w, err := store.Record(info("s1"), a.add)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := w.Append(query(uint64(i+1), "SELECT 1"), i%2 == 0); err != nil {
			t.Fatal(err)
		}
	}
	if head, err = w.Seal("done"); err != nil {
		t.Fatal(err)
	}
	return read(t, dir, "s1"), head
}

func read(t *testing.T, dir, id string) []byte {
	t.Helper()
	path, err := record.Find(dir, id)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func TestWholeRecordingProvesItself(t *testing.T) {
	file, head := session(t, 10, 600)
	got, err := record.Verify(bytes.NewReader(file), keys(), []access.Head{head})
	if err != nil {
		t.Fatal(err)
	}
	if !got.Sealed || got.Events != 11 || got.Segments < 3 || got.Open != 0 {
		t.Errorf("report %+v: want sealed, 11 events in several segments", got)
	}
}

func TestTamperingIsNamed(t *testing.T) {
	file, head := session(t, 10, 600)
	other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, ed25519.SeedSize))
	parts := bytes.SplitAfter(file, []byte("\nS "))
	second := bytes.Index(file, []byte(`"segment":1,"prev"`))
	begin := bytes.LastIndexByte(file[:second], '\n') + 1
	third := bytes.LastIndexByte(file[:bytes.Index(file, []byte(`"segment":2,"prev"`))], '\n') + 1
	if len(parts) < 4 {
		t.Fatalf("want at least 3 segments, got %d", len(parts)-1)
	}
	cases := map[string]struct {
		file []byte
		keys record.Keys
		want string
	}{
		"dropped":       {append(bytes.Clone(file[:begin]), file[third:]...), keys(), "segment 1, byte"},
		"cut":           {file[:third], keys(), "the tail was cut"},
		"cut in a line": {file[:third-5], keys(), "not whole"},
		"appended":      {append(bytes.Clone(file), file[:begin]...), keys(), "follows the last segment"},
		"other key":     {file, record.NewKeys(other.Public().(ed25519.PublicKey)), "not among the trusted"},
		"empty":         {nil, keys(), "anchored"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := record.Verify(bytes.NewReader(c.file), c.keys, []access.Head{head})
			var fault *record.Fault
			if !errors.As(err, &fault) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want a fault with %q", err, c.want)
			}
		})
	}
}

// TestReplacedRecording is a whole, well-signed recording that is another one
// than the anchored.
func TestReplacedRecording(t *testing.T) {
	file, _ := session(t, 3, 1<<20)
	_, head := session(t, 4, 1<<20)
	if _, err := record.Verify(bytes.NewReader(file), keys(), []access.Head{head}); err == nil || !strings.Contains(err.Error(), "replaced") {
		t.Errorf("got %v, want that it was replaced", err)
	}
}

// TestKilledWriter lets a child record until it is killed, then recovers.
func TestKilledWriter(t *testing.T) {
	if dir := os.Getenv("RECORD_KILLED_DIR"); dir != "" {
		recordForEver(dir)
	}
	dir := t.TempDir()
	child := exec.Command(os.Args[0], "-test.run=TestKilledWriter")
	child.Env = append(os.Environ(), "RECORD_KILLED_DIR="+dir)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil { // it has recorded a hundred
		t.Fatal(err)
	}
	if _, err := record.Open(record.Config{Dir: dir, Key: key, MinFree: 1}); err == nil || !strings.Contains(err.Error(), "another gateway writes to "+dir) {
		t.Errorf("got %v while another process records there, want that it is refused", err)
	}
	if r, err := record.Verify(bytes.NewReader(read(t, dir, "s1")), keys(), nil); r.Segments == 0 || r.Sealed {
		t.Errorf("got %+v, %v; want the open recording to be read beside the process that writes it", r, err)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // killed, as wanted
	appendTo(t, filepath.Join(dir, "open", "s1.tgr"), "E {\"type\":\"op.op")

	store, err := record.Open(record.Config{Dir: dir, Key: key, MinFree: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := record.Verify(bytes.NewReader(read(t, dir, "s1")), keys(), nil)
	if err != nil || !got.Sealed || got.Events < 100 {
		t.Errorf("got %+v, %v; want a sealed recording of at least 100 events", got, err)
	}
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func recordForEver(dir string) {
	store, err := record.Open(record.Config{Dir: dir, Key: key, MinFree: 1, SegmentBytes: 2000})
	if err != nil {
		panic(err)
	}
	w, err := store.Record(info("s1"), func(access.Head) {})
	if err != nil {
		panic(err)
	}
	for i := uint64(1); ; i++ {
		if err := w.Append(query(i, "SELECT 1"), false); err != nil {
			panic(err)
		}
		if i == 100 {
			os.Stdout.WriteString("x")
		}
	}
}

func TestNoRoomOpensNothing(t *testing.T) {
	store, err := record.Open(record.Config{Dir: t.TempDir(), Key: key, MinFree: 1 << 62})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	_, err = store.Record(info("s1"), func(access.Head) {})
	if access.CodeOf(err) != access.CodeUnavailable {
		t.Errorf("got %v, want unavailable", err)
	}
}

func TestReplayIsHarmless(t *testing.T) {
	if got, want := record.Visible("a\x1b]0;x\x07\u202eb\u00e9\n"), `a\x1b]0;x\x07\u202ebé\x0a`; got != want {
		t.Errorf("Visible = %q, want %q", got, want)
	}
}

func FuzzVerify(f *testing.F) {
	f.Add([]byte("H {}\n"))
	f.Add([]byte("H {\"v\":1,\"session\":\"s\",\"segment\":0,\"prev\":\"\",\"key\":\"k\",\"opened\":\"2026-03-01T12:00:00Z\"}\nE {}\nC {}\nS x y\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		if r, err := record.Verify(bytes.NewReader(file), keys(), nil); err == nil && r.Segments > 0 {
			t.Errorf("a forged recording verified: %+v", r)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	dir := b.TempDir()
	store, err := record.Open(record.Config{Dir: dir, Key: key, MinFree: 1})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	w, err := store.Record(info("s1"), func(access.Head) {})
	if err != nil {
		b.Fatal(err)
	}
	for i := range uint64(200_000) {
		if err := w.Append(query(i, strings.Repeat("SELECT 1;", 40)), false); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := w.Seal("done"); err != nil {
		b.Fatal(err)
	}
	path, _ := record.Find(dir, "s1")
	file, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(file)))
	for b.Loop() {
		if _, err := record.Verify(bytes.NewReader(file), keys(), nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	store, err := record.Open(record.Config{Dir: b.TempDir(), Key: key, MinFree: 1})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	w, err := store.Record(info("s1"), func(access.Head) {})
	if err != nil {
		b.Fatal(err)
	}
	e := query(1, "SELECT abalance FROM pgbench_accounts WHERE aid = 4711")
	for b.Loop() {
		if err := w.Append(e, false); err != nil {
			b.Fatal(err)
		}
	}
}
