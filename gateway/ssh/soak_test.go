package ssh

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/gateway/record"
)

// TestSoak is a part of `make soak`: 200 channels of one connection at once,
// and transfers of TIDEGATE_SOAK_MIB (10,240) each way, which takes new keys
// several times.
func TestSoak(t *testing.T) {
	if os.Getenv("TIDEGATE_SOAK") == "" {
		t.Skip("make soak runs this")
	}
	size := int64(10 << 30)
	if text := os.Getenv("TIDEGATE_SOAK_MIB"); text != "" {
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil || n < 1 {
			t.Fatalf("TIDEGATE_SOAK_MIB is %q, want a number of MiB", text)
		}
		size = n << 20
	}
	k := newTrack(t)
	h := k.house
	t.Run("200 channels", func(t *testing.T) { h.channels(t, 200) })
	t.Run("download", func(t *testing.T) {
		defer k.figures(t, size)()
		cmd := h.client("alice", "ssh", "web-1@127.0.0.1", fmt.Sprintf("head -c %d /dev/zero", size))
		got := &counter{}
		cmd.Stdout = got
		if err := cmd.Run(); err != nil || got.n != size {
			t.Errorf("%d bytes of %d came, %v", got.n, size, err)
		}
	})
	t.Run("upload", func(t *testing.T) {
		defer k.figures(t, size)()
		cmd := h.client("alice", "ssh", "web-1@127.0.0.1", "wc -c")
		cmd.Stdin = io.LimitReader(zeros{}, size)
		if r := h.run(cmd); strings.TrimSpace(r.out) != fmt.Sprint(size) || r.code != 0 {
			t.Errorf("of %d bytes came %s, code %d: %s", size, strings.TrimSpace(r.out), r.code, r.err)
		}
	})
	t.Run("sftp get", func(t *testing.T) {
		sparse := h.write("sparse", "")
		if err := os.Truncate(sparse, size); err != nil {
			t.Fatal(err)
		}
		defer k.figures(t, size)()
		if r := h.sftp("get " + sparse + " /dev/null"); r.code != 0 {
			t.Errorf("code %d: %s", r.code, r.err)
		}
	})
}

// figures logs what a transfer took of time, of this process's memory, which is
// the gateway's, and of the disk.
func (k *track) figures(t *testing.T, size int64) func() {
	began, before := time.Now(), k.recordedBytes(t)
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) // Linux: the peak begins anew
	return func() {
		peak := "unknown"
		status, _ := os.ReadFile("/proc/self/status")
		for line := range strings.Lines(string(status)) {
			if text, ok := strings.CutPrefix(line, "VmHWM:"); ok {
				peak = strings.TrimSpace(text)
			}
		}
		took := time.Since(began)
		t.Logf("%d MiB in %s, %.0f MB/s, peak of resident memory %s, %d bytes recorded",
			size>>20, took.Round(time.Second), float64(size)/1e6/took.Seconds(), peak, k.recordedBytes(t)-before)
	}
}

// recordedBytes is how much the recordings take on the disk.
func (k *track) recordedBytes(t *testing.T) (n int64) {
	t.Helper()
	paths, err := record.List(k.spool)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		if info, err := os.Stat(p); err == nil { // it may be sealed meanwhile
			n += info.Size()
		}
	}
	return n
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) { c.n += int64(len(p)); return len(p), nil }

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// channels runs many commands on one connection at once, all of them open
// until the last one is.
func (h *house) channels(t *testing.T, many int) {
	c := h.mustDial()
	var open, all sync.WaitGroup
	open.Add(many)
	for i := range many {
		all.Go(func() {
			if err := oneOfMany(c, &open, i); err != nil {
				t.Errorf("channel %d: %v", i, err)
			}
		})
	}
	all.Wait()
}

func oneOfMany(c *gossh.Client, open *sync.WaitGroup, i int) error {
	s, err := c.NewSession()
	if err != nil {
		open.Done()
		return err
	}
	defer s.Close()
	in, _ := s.StdinPipe()
	out, _ := s.StdoutPipe()
	err = s.Start(fmt.Sprintf("cat; exit %d", i%100))
	open.Done()
	if err != nil {
		return err
	}
	open.Wait()
	text := strings.Repeat(fmt.Sprintln(i), 1000)
	go func() { // ends with the channel
		_, _ = io.WriteString(in, text)
		_ = in.Close()
	}()
	if got, err := io.ReadAll(out); err != nil || string(got) != text {
		return fmt.Errorf("%d bytes back of %d, %v", len(got), len(text), err)
	}
	err = s.Wait()
	if exit := (*gossh.ExitError)(nil); i%100 > 0 && (!errors.As(err, &exit) || exit.ExitStatus() != i%100) || i%100 == 0 && err != nil {
		return fmt.Errorf("ended with %v, want %d", err, i%100)
	}
	return nil
}
