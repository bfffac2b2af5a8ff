package record_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway"
	"github.com/tidegate/tidegate/gateway/gatewaytest"
	"github.com/tidegate/tidegate/gateway/record"
)

// smallDisk is a file system of 256 KiB that is really full when it is.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tidegate-test", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("mount a small disk (wants root, and a container that may mount): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// shelves gives each person a store.
type shelves map[string]*record.Store

func (s shelves) Record(info access.SessionInfo, anchor func(access.Head)) (gateway.Recorder, error) {
	w, err := s[info.Person.Login].Record(info, anchor)
	if err != nil {
		return nil, err
	}
	return w, nil
}

func shelf(t *testing.T, dir string) *record.Store {
	t.Helper()
	s, err := record.Open(record.Config{Dir: dir, Key: key, MinFree: 1, SegmentBytes: 8 << 10})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // of a full one: it says that it is full
	return s
}

// TestFullDiskEndsItsSessionsAlone fills the disk under a live session. The
// session ends before anything goes on unrecorded, what was recorded verifies,
// and a session whose recording lies elsewhere goes on.
func TestFullDiskEndsItsSessionsAlone(t *testing.T) {
	small := smallDisk(t)
	all := shelves{"alice": shelf(t, small), "bob": shelf(t, t.TempDir())}
	gate := gatewaytest.New(t, gatewaytest.Options{Recorders: all})
	other := gate.NewGrant("inc-2", time.Hour)
	other.Plan.People = []access.Person{gatewaytest.Person("bob")}
	gate.Put(other)
	alice, bob := gate.Open("alice"), gate.Open("bob")

	forwarded := 0
	text := strings.Repeat("x", 1000)
	for {
		op, err := alice.Admit(t.Context(), access.Operation{Kind: "query", Text: text})
		if err != nil {
			if access.CodeOf(err) != access.CodeUnavailable || !strings.Contains(access.Message(err), "recorded") {
				t.Errorf("refused with %v, want that it can't be recorded", err)
			}
			break
		}
		if forwarded++; forwarded > 1000 {
			t.Fatal("a megabyte went on a disk of 256 KiB")
		}
		_ = op.Close(access.Outcome{Status: "ok"}) // the disk may fill here as well
	}
	wantCut(t, alice)
	if _, err := alice.Admit(t.Context(), access.Operation{Kind: "query", Text: "small"}); err == nil {
		t.Error("an operation went on after the recording had failed")
	}
	if _, err := bob.Admit(t.Context(), access.Operation{Kind: "query", Text: text}); err != nil {
		t.Errorf("a session with another store: %v", err)
	}
	if _, err := gate.Server.Door().Open(t.Context(), gate.Knock("alice")); access.CodeOf(err) != access.CodeUnavailable {
		t.Errorf("a session opened on the full disk: %v", err)
	}
	wantRecorded(t, small, alice.Info().ID, forwarded)
}

// TestNearlyFullDisk: somebody else fills the disk while nothing is recorded.
// First nothing more opens, then what is open ends, sealed and anchored, with
// room left.
func TestNearlyFullDisk(t *testing.T) {
	small := smallDisk(t)
	said := &lines{}
	store, err := record.Open(record.Config{Dir: small, Key: key, MinFree: 160 << 10, Log: slog.New(slog.NewTextHandler(said, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	gate := gatewaytest.New(t, gatewaytest.Options{Recorders: shelves{"alice": store}})
	alice := gate.Open("alice")
	fill(t, small, 120<<10)
	soon(t, "it warns", func() bool { return strings.Contains(said.String(), "no session opens") })
	if _, err := gate.Server.Door().Open(t.Context(), gate.Knock("alice")); access.CodeOf(err) != access.CodeUnavailable {
		t.Errorf("a session opened: %v", err)
	}
	if _, err := alice.Admit(t.Context(), access.Operation{Kind: "query", Text: "goes on"}); err != nil {
		t.Errorf("the open session: %v", err)
	}
	fill(t, small, 100<<10)
	wantCut(t, alice)
	if free, err := store.Free(); err != nil || free == 0 {
		t.Errorf("%d bytes are left, %v", free, err)
	}
	var path string
	soon(t, "its recording is sealed", func() bool {
		path, err = record.Find(small, alice.Info().ID)
		return err == nil && !strings.Contains(path, "/open/")
	})
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r, err := record.Verify(bytes.NewReader(file), keys(), nil)
	if err != nil || !r.Sealed || !bytes.Contains(file, []byte("goes on")) {
		t.Errorf("got %+v, %v", r, err)
	}
	soon(t, "its seal is anchored", func() bool {
		heads := gate.Ledger.Heads()
		return len(heads) > 0 && heads[len(heads)-1].Sealed
	})
}

// fill writes a file of that many bytes.
func fill(t *testing.T, dir string, n int) {
	t.Helper()
	f, err := os.CreateTemp(dir, "others-")
	if err == nil {
		_, err = f.Write(make([]byte, n))
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// soon waits until something is so, which keep makes so.
func soon(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// lines is a log.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// TestHungDiskEndsItsSessions: the disk takes nothing more and says nothing. A
// session ends all the same, its end is told, and nothing that waited went on.
func TestHungDiskEndsItsSessions(t *testing.T) {
	store, err := record.Open(record.Config{Dir: t.TempDir(), Key: key, MinFree: 1, HangAfter: 200 * time.Millisecond, SyncEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	hangs := &hanging{store: store}
	gate := gatewaytest.New(t, gatewaytest.Options{Recorders: hangs})
	alice := gate.Open("alice")
	stuck := hangingDisk(t)
	record.MoveTo(hangs.writer, stuck)
	forwarded := make(chan int, 1)
	go func() {
		n := 0
		for ; n < 10_000; n++ {
			if _, err := alice.Admit(context.Background(), access.Operation{Kind: "query", Text: strings.Repeat("x", 1000)}); err != nil {
				break
			}
		}
		forwarded <- n
	}()
	wantCut(t, alice)
	for what, do := range map[string]func(){
		"an operation": func() {
			if _, err := alice.Admit(context.Background(), access.Operation{Kind: "query", Text: "x"}); access.CodeOf(err) != access.CodeUnavailable {
				t.Errorf("an operation on a hung disk: %v", err)
			}
		},
		"the session's end": func() { _ = alice.Close("over") },
		"the store's end":   func() { _ = store.Close() },
	} {
		done := make(chan struct{})
		go func() { defer close(done); do() }()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Fatalf("%s waits for the disk", what)
		}
	}
	select {
	case n := <-forwarded:
		t.Errorf("%d operations went on, on a disk that takes 64 KiB", n)
	default: // it waits in the kernel
	}
	drain(stuck)
	if n := <-forwarded; n > 100 {
		t.Errorf("%d operations went on, on a disk that takes 64 KiB", n)
	}
}

// hangingDisk is a file that takes 64 KiB and then nothing: a pipe that nobody
// reads.
func hangingDisk(t *testing.T) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// drain lets the disk come back, too late.
func drain(stuck *os.File) {
	go func() {
		b := make([]byte, 1<<20)
		for {
			if _, err := stuck.Read(b); err != nil {
				return
			}
		}
	}()
}

// hanging keeps the writer, to be moved to a disk that hangs.
type hanging struct {
	store  *record.Store
	writer *record.Writer
}

func (h *hanging) Record(info access.SessionInfo, anchor func(access.Head)) (gateway.Recorder, error) {
	w, err := h.store.Record(info, anchor)
	if err != nil {
		return nil, err
	}
	h.writer = w
	return w, nil
}

func wantCut(t *testing.T, s gateway.Session) {
	t.Helper()
	select {
	case <-s.Context().Done():
		if m := access.Message(context.Cause(s.Context())); !strings.Contains(m, "no longer be recorded") {
			t.Errorf("the session ended with %q", m)
		}
	case <-time.After(10 * time.Second):
		t.Error("the session goes on")
	}
}

// wantRecorded fails unless all that was let through stands in a recording
// that proves itself, up to the torn end that the full disk left.
func wantRecorded(t *testing.T, dir, session string, forwarded int) {
	t.Helper()
	file, err := os.ReadFile(filepath.Join(dir, "open", session+".tgr"))
	if err != nil {
		t.Fatal(err)
	}
	whole := file[:bytes.LastIndexByte(file, '\n')+1]
	if c := bytes.LastIndex(whole, []byte("\nC ")) + 1; bytes.Count(whole[c:], []byte("\n")) == 1 {
		whole = whole[:c] // the disk was full between the closing line and its signature
	}
	report, err := record.Verify(bytes.NewReader(whole), keys(), nil)
	if err != nil || report.Segments == 0 {
		t.Errorf("got %+v, %v; want what was recorded to verify", report, err)
	}
	if opened := bytes.Count(whole, []byte(`"type":"op.open"`)); opened < forwarded {
		t.Errorf("%d operations went on and %d stand in the recording", forwarded, opened)
	}
}
