package archive

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/record"
)

var key = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))

type world struct {
	dir, bucket string
	archive     *Archive
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{dir: t.TempDir(), bucket: t.TempDir()}
	w.reopen(t)
	return w
}

func (w *world) reopen(t *testing.T) {
	t.Helper()
	var err error
	if w.archive, err = Open(t.Context(), Config{Dir: w.dir, URL: "file://" + filepath.ToSlash(w.bucket), Every: 10 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
}

// record makes a sealed recording and answers with its path and content.
func (w *world) record(t *testing.T, id string) (string, []byte) {
	t.Helper()
	store, err := record.Open(record.Config{Dir: w.dir, Key: key, MinFree: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	rec, err := store.Record(access.SessionInfo{ID: id, Started: time.Now()}, func(access.Head) {})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rec.Seal("done"); err != nil {
		t.Fatal(err)
	}
	path, err := record.Find(w.dir, id)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, file
}

func (w *world) sweep(t *testing.T, want int, fault string) {
	t.Helper()
	n, err := w.archive.Sweep(t.Context())
	if n != want || (err != nil) != (fault != "") || err != nil && !strings.Contains(err.Error(), fault) {
		t.Errorf("%d were copied, %v; want %d and %q", n, err, want, fault)
	}
}

// TestCopiesAreMadeOnce: what is sealed is copied, compared and noted; without
// the local file the copy is what is read.
func TestCopiesAreMadeOnce(t *testing.T) {
	w := newWorld(t)
	path, file := w.record(t, "s1")
	w.record(t, "s2")
	w.sweep(t, 2, "")
	w.sweep(t, 0, "")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	f, err := w.archive.Fetch(t.Context(), "s1")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := io.ReadAll(f)
	if err != nil || !bytes.Equal(got, file) {
		t.Errorf("the copy has %d bytes, %v; want %d", len(got), err, len(file))
	}
	if r, err := record.Verify(bytes.NewReader(got), record.NewKeys(key.Public().(ed25519.PublicKey)), nil); err != nil || !r.Sealed {
		t.Errorf("the copy: %+v, %v", r, err)
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), filepath.Base(f.Name()))); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
	for id, code := range map[string]access.Code{"none": access.CodeNotFound, "../s2": access.CodeInvalid} {
		if _, err := w.archive.Fetch(t.Context(), id); access.CodeOf(err) != code {
			t.Errorf("fetch %s: %v, want %s", id, err, code)
		}
	}
}

// TestACopyThatWasBrokenOff: killed before the note, after the object, or with
// the bucket away.
func TestACopyThatWasBrokenOff(t *testing.T) {
	w := newWorld(t)
	path, file := w.record(t, "s1")
	if err := os.WriteFile(filepath.Join(w.bucket, "s1.tgr"), file, 0o600); err != nil {
		t.Fatal(err)
	}
	w.sweep(t, 1, "") // the object is there and right: it is only noted
	path2, _ := w.record(t, "s2")
	if err := os.Rename(w.bucket, w.bucket+".away"); err != nil {
		t.Fatal(err)
	}
	w.sweep(t, 0, "s2.tgr")
	if err := errors.Join(w.archive.Close(), os.Rename(w.bucket+".away", w.bucket)); err != nil {
		t.Fatal(err)
	}
	w.reopen(t)
	w.archive.Start()
	for end := time.Now().Add(20 * time.Second); !isThere(path2 + sentSuffix); {
		if time.Now().After(end) {
			t.Fatal("s2 was not copied after a new start")
		}
		time.Sleep(5 * time.Millisecond) // nothing tells of a file
	}
	if err := w.archive.Close(); err != nil {
		t.Error(err)
	}
	if !isThere(path + sentSuffix) {
		t.Error("the first has no note")
	}
}

// TestNothingIsOverwritten: mallory was first.
func TestNothingIsOverwritten(t *testing.T) {
	w := newWorld(t)
	path, _ := w.record(t, "s1")
	other := filepath.Join(w.bucket, "s1.tgr")
	if err := os.WriteFile(other, []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.record(t, "s2")
	w.sweep(t, 1, "the bucket holds another file as s1.tgr")
	w.sweep(t, 0, "") // it was said
	w.archive.cfg.Now = func() time.Time { return time.Now().Add(differsWait) }
	w.sweep(t, 0, "another file")
	if text, err := os.ReadFile(other); err != nil || string(text) != "another" || isThere(path+sentSuffix) {
		t.Errorf("the object is %q, %v; and the copy was noted", text, err)
	}
}

// TestNotesGoWithTheirRecordings: somebody made room.
func TestNotesGoWithTheirRecordings(t *testing.T) {
	w := newWorld(t)
	path, file := w.record(t, "s1")
	stays, _ := w.record(t, "s2")
	w.sweep(t, 2, "")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	w.sweep(t, 0, "")
	if isThere(path+sentSuffix) || !isThere(stays+sentSuffix) || !isThere(stays) {
		t.Errorf("the note of s1 is there: %v; of s2: %v", isThere(path+sentSuffix), isThere(stays+sentSuffix))
	}
	if copied, err := os.ReadFile(filepath.Join(w.bucket, "s1.tgr")); err != nil || !bytes.Equal(copied, file) {
		t.Errorf("the copy of s1: %v", err)
	}
}

// TestAwayBucket: it is said of the first, asked seldom, and once it is there
// again nothing waits.
func TestAwayBucket(t *testing.T) {
	w := newWorld(t)
	bad := &failing{err: errors.New("away")}
	real := w.archive.bucket
	w.archive.bucket = bad
	now := time.Now()
	w.archive.cfg.Now = func() time.Time { return now }
	for _, id := range []string{"s1", "s2", "s3", "s4", "s5", "s6"} {
		w.record(t, id)
	}
	w.sweep(t, 0, "s3.tgr: away")
	if bad.asked != enough {
		t.Errorf("it was asked %d times, want %d", bad.asked, enough)
	}
	hour := 0
	for range 240 { // each 15 s
		now = now.Add(15 * time.Second)
		w.sweep(t, 0, "")
		hour++
	}
	if bad.asked > 240+enough {
		t.Errorf("it was asked %d times in an hour", bad.asked)
	}
	w.archive.bucket = real
	now = now.Add(longestWait)
	w.sweep(t, 6, "")
}

// failing is a bucket that answers nothing else.
type failing struct {
	err   error
	asked int
}

func (f *failing) create(context.Context, string, io.Reader) error     { f.asked++; return f.err }
func (f *failing) open(context.Context, string) (io.ReadCloser, error) { return nil, f.err }
func (f *failing) Close() error                                        { return nil }

// isThere reports whether a file is.
func isThere(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestCheck(t *testing.T) {
	for url, good := range map[string]bool{
		"s3://recordings?region=eu-central-1": true, "file:///srv/recordings": true, "gs://recordings": true, "gs://recordings?prefix=a/": true,
		"azblob://recordings?storage_account=acme": true, "s3://x?endpoint=https://minio.internal": true, "s3://x?endpoint=http://127.0.0.1:1": true,
		"mem://": false, "s3://me:secret@x": false, "recordings": false, "%": false, "s3://": false, "s3:///x": false, "s3://x/y": false,
		"file://host/x": false, "file:///x?metadata=skip": false, "gs://x?access_id=-": false,
		"s3://x?endpoint=http://minio.internal": false, "s3://x?disable_https=true": false, "azblob://x?protocol=http": false,
		"azblob://x?protocol=http&domain=evil.test": false, "s3://x?endpoint=%25": false,
	} {
		if err := Check(url); (err == nil) != good || err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", url, err)
		}
	}
}
