package archive

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestAShareThatHangsKeepsNobodyFromStopping: a pipe that nobody reads stands
// where the copy is to be written, and opening it does not return.
func TestAShareThatHangsKeepsNobodyFromStopping(t *testing.T) {
	w := &world{dir: t.TempDir(), bucket: t.TempDir()}
	w.record(t, "s1")
	part := filepath.Join(w.bucket, "s1.tgr.part")
	if err := unix.Mkfifo(part, 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := Open(t.Context(), Config{Dir: w.dir, URL: "file://" + w.bucket, HangAfter: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	a.Start()
	closed := make(chan error, 1)
	go func() { closed <- a.Close() }()
	select {
	case err := <-closed:
		if err == nil || !strings.Contains(err.Error(), "does not answer") {
			t.Errorf("got %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("it waits for the share")
	}
	reader, err := os.OpenFile(part, os.O_RDONLY|unix.O_NONBLOCK, 0) // the share answers again
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	<-a.done
}
