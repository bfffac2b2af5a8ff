package record_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
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

// loopDisk is an ext4 of its own, which can do what the machine's may not.
func loopDisk(t *testing.T) string {
	t.Helper()
	dir, _ := loopImage(t)
	return dir
}

func loopImage(t *testing.T) (dir, image string) {
	t.Helper()
	image = filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 32<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", image).CombinedOutput(); err != nil && os.Getenv("TIDEGATE_REQUIRE_PARTS") == "1" {
		t.Fatalf("make a disk: %v: %s", err, out)
	} else if err != nil {
		t.Skipf("make a disk (wants e2fsprogs): %v: %s", err, out)
	}
	return mountImage(t, image), image
}

func mountImage(t *testing.T, image string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if out, err := exec.Command("mount", "-o", "loop", image, dir).CombinedOutput(); err != nil {
		t.Skipf("mount a disk (wants root, and a container that may mount): %v: %s", err, out)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// slowly has each write to a disk take up to 300 ms: the kernel holds all of
// them back as long as the file system is frozen. A program of its own does it,
// and thaws it for good when this one dies.
func slowly(t *testing.T, dir string) (stop func()) {
	t.Helper()
	const loop = `while kill -0 "$1" 2>/dev/null && [ ! -e "$3" ]; do fsfreeze -f "$2" && sleep 0.3; fsfreeze -u "$2"; sleep 0.002; done`
	end := filepath.Join(t.TempDir(), "end")
	c := exec.Command("sh", "-c", loop, "slow", fmt.Sprint(os.Getpid()), dir, end)
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		if err := os.WriteFile(end, nil, 0o600); err != nil {
			t.Error(err)
		}
		if err := c.Wait(); err != nil || out.Len() > 0 {
			t.Errorf("slow the disk down: %v\n%s", err, out.String())
		}
	})
	t.Cleanup(stop)
	return stop
}

// TestSlowDiskLosesNothing: a disk that is slow and not hung makes sessions
// slow. None ends, a new one waits and opens, and all that went on is recorded.
func TestSlowDiskLosesNothing(t *testing.T) {
	dir := loopDisk(t)
	store, err := record.Open(record.Config{Dir: dir, Key: key, MinFree: 1, SegmentBytes: 2 << 10})
	if err != nil {
		t.Fatal(err)
	}
	gate := gatewaytest.New(t, gatewaytest.Options{Recorders: shelves{"alice": store}})
	sessions := []gateway.Session{gate.Open("alice"), gate.Open("alice")}
	stop := slowly(t, dir)
	var all sync.WaitGroup
	forwarded := make([]int, len(sessions)+1)
	for i, s := range sessions {
		all.Go(func() { forwarded[i] = workUntilSlow(t, s) })
	}
	sessions = append(sessions, gate.Open("alice")) // it fails the test if it is refused
	all.Wait()
	for _, s := range sessions {
		if err := s.Context().Err(); err != nil {
			t.Errorf("session %s was cut: %v", s.Info().ID, err)
		}
		if err := s.Close("over"); err != nil {
			t.Error(err)
		}
	}
	stop()
	if err := store.Close(); err != nil {
		t.Error(err)
	}
	for i, s := range sessions {
		wantSealed(t, dir, s.Info().ID, forwarded[i])
	}
}

// workUntilSlow runs operations until five of them had to wait, and says how
// many went on.
func workUntilSlow(t *testing.T, s gateway.Session) (forwarded int) {
	for slow := 0; slow < 5; {
		began := time.Now()
		op, err := s.Admit(t.Context(), access.Operation{Kind: "query", Text: "SELECT 1"})
		if err != nil {
			t.Errorf("an operation on a slow disk: %v", err)
			return forwarded
		}
		if forwarded++; forwarded > 20_000 {
			t.Error("the disk is not slow")
			return forwarded
		}
		if time.Since(began) > 200*time.Millisecond {
			slow++
		}
		_ = op.Close(access.Outcome{Status: "ok"})
	}
	return forwarded
}

func wantSealed(t *testing.T, dir, session string, forwarded int) {
	t.Helper()
	path, err := record.Find(dir, session)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := record.Verify(bytes.NewReader(file), keys(), nil); err != nil || !r.Sealed {
		t.Errorf("%s: got %+v, %v; want it sealed", session, r, err)
	}
	if n := bytes.Count(file, []byte(`"type":"op.open"`)); n != forwarded {
		t.Errorf("%s: %d operations went on and %d stand in the recording", session, forwarded, n)
	}
}

// TestReadOnlyDiskEndsItsSessions: the file system found an error and took
// itself read-only, under a session that writes.
func TestReadOnlyDiskEndsItsSessions(t *testing.T) {
	dir := loopDisk(t)
	gate := gatewaytest.New(t, gatewaytest.Options{Recorders: shelves{"alice": shelf(t, dir)}})
	alice := gate.Open("alice")
	forwarded, text := 0, strings.Repeat("x", 1000)
	admit := func() error {
		op, err := alice.Admit(t.Context(), access.Operation{Kind: "query", Text: text})
		if err == nil {
			forwarded++
			_ = op.Close(access.Outcome{Status: "ok"}) // the disk may go here as well
		}
		return err
	}
	for range 20 {
		if err := admit(); err != nil {
			t.Fatal(err)
		}
	}
	_ = exec.Command("mount", "-o", "remount,abort", dir).Run() // as an error does, under open files
	for n := 0; ; n++ {
		err := admit()
		if err != nil {
			if access.CodeOf(err) != access.CodeUnavailable {
				t.Errorf("refused with %v, want that it can't be recorded", err)
			}
			break
		}
		if n == 100 {
			t.Fatal("operations go on, on a disk that is read-only")
		}
	}
	wantCut(t, alice)
	if _, err := gate.Server.Door().Open(t.Context(), gate.Knock("alice")); access.CodeOf(err) != access.CodeUnavailable {
		t.Errorf("a session opened on the read-only disk: %v", err)
	}
	wantRecorded(t, dir, alice.Info().ID, forwarded)
}
