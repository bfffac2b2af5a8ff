package record_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/record"
)

// TestPowerCut copies the disk while a child that writes to it stands still:
// the copy has what the disk had, and nothing of what the kernel alone had. All
// that was written before a round began, and that round ended, is recorded, and
// the start after the cut may be cut short as well.
func TestPowerCut(t *testing.T) {
	if dir := os.Getenv("RECORD_POWER_DIR"); dir != "" {
		if os.Getenv("RECORD_POWER_AGAIN") != "" {
			startUntilTheCut(dir)
		}
		writeUntilTheCut(dir)
	}
	for range 3 {
		dir, image := loopImage(t)
		promised, after := cutPower(t, dir, image)
		left := mountImage(t, cutStart(t, after))
		store, err := record.Open(record.Config{Dir: left, Key: key, MinFree: 1})
		if err != nil {
			t.Fatal(err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
		for id, want := range promised {
			file := read(t, left, id)
			if r, err := record.Verify(bytes.NewReader(file), keys(), nil); err != nil || !r.Sealed {
				t.Errorf("%s: got %+v, %v; want it sealed", id, r, err)
			}
			if n := bytes.Count(file, []byte(`"type":"notice"`)); n < want {
				t.Errorf("%s: %d events were brought to the disk and %d stand in the recording", id, want, n)
			}
		}
		t.Logf("%d recordings", len(promised))
	}
}

// cutPower runs a child for a while. It answers what it had been told of each
// recording, and a copy of the disk.
func cutPower(t *testing.T, dir, image string) (promised map[string]int, after string) {
	t.Helper()
	child, lines := powered(t, "RECORD_POWER_DIR="+dir)
	promised = map[string]int{}
	promise(t, lines, promised)
	end := time.Now().Add(200*time.Millisecond + rand.N(400*time.Millisecond))
	for time.Now().Before(end) {
		promise(t, lines, promised)
	}
	return promised, cut(t, child, lines, image)
}

// cutStart cuts the power again while a child starts on what the first cut left.
func cutStart(t *testing.T, image string) (after string) {
	t.Helper()
	child, lines := powered(t, "RECORD_POWER_AGAIN=1", "RECORD_POWER_DIR="+mountImage(t, image))
	if _, err := lines.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	time.Sleep(rand.N(50 * time.Millisecond)) // anywhere in it
	return cut(t, child, lines, image)
}

func powered(t *testing.T, env ...string) (child *exec.Cmd, lines *bufio.Reader) {
	t.Helper()
	child = exec.Command(os.Args[0], "-test.run=TestPowerCut$")
	child.Env = append(os.Environ(), env...)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	return child, bufio.NewReader(out)
}

// cut answers a copy of the disk as it is at that moment.
func cut(t *testing.T, child *exec.Cmd, lines io.Reader, image string) (after string) {
	t.Helper()
	if err := child.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	after = image + ".after"
	if text, err := exec.Command("cp", image, after).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	_ = child.Process.Kill()
	_, _ = io.Copy(io.Discard, lines)
	_ = child.Wait() // killed, as wanted
	return after
}

func promise(t *testing.T, lines *bufio.Reader, promised map[string]int) {
	t.Helper()
	line, err := lines.ReadString('\n')
	if err != nil {
		t.Fatalf("the child ended: %v", err)
	}
	id, n := "", 0
	if _, err := fmt.Sscan(line, &id, &n); err != nil {
		t.Fatalf("the child says %q", line)
	}
	promised[id] = n
}

func startUntilTheCut(dir string) {
	fmt.Println("starts")
	if _, err := record.Open(record.Config{Dir: dir, Key: key, MinFree: 1}); err != nil {
		panic(err)
	}
	time.Sleep(time.Minute) // by then it was cut
	os.Exit(1)
}

// writeUntilTheCut has sessions come and go, and tells after each round how
// many events of each were written before it began.
func writeUntilTheCut(dir string) {
	store, err := record.Open(record.Config{Dir: dir, Key: key, MinFree: 1, SyncEvery: time.Hour})
	if err != nil {
		panic(err)
	}
	var mu sync.Mutex
	written := map[string]int{}
	for i := range 6 {
		go func() {
			for k := 0; ; k++ {
				id := fmt.Sprintf("s%d-%d", i, k)
				writeOne(store, id, func(n int) {
					mu.Lock()
					defer mu.Unlock()
					written[id] = n
				})
			}
		}()
	}
	told := map[string]int{}
	for {
		mu.Lock()
		now := maps.Clone(written)
		mu.Unlock()
		record.Round(store, 100_000)
		for id, n := range now {
			if told[id] != n {
				fmt.Println(id, n)
			}
		}
		told = now
	}
}

func writeOne(store *record.Store, id string, wrote func(n int)) {
	w, err := store.Record(info(id), func(access.Head) {})
	if err != nil {
		panic(err)
	}
	for n := range 1 + rand.N(60) {
		size := rand.N(4_000)
		if rand.N(50) == 0 {
			size = 70_000 // is synced alone
		}
		if err := w.Append(access.Event{Type: access.EventNotice, Time: noon, Text: strings.Repeat("x", 1+size)}, n == 0 || rand.N(20) == 0); err != nil {
			panic(err)
		}
		wrote(n + 1)
		time.Sleep(rand.N(2 * time.Millisecond)) // or the small disk is full at once
	}
	if rand.N(2) == 0 {
		if _, err := w.Seal("done"); err != nil {
			panic(err)
		}
	}
}
