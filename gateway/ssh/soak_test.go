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

	gossh "golang.org/x/crypto/ssh"
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
	h := newHouse(t, houseOptions{role: map[string]string{"exec": "true"}})
	t.Run("200 channels", func(t *testing.T) { h.channels(t, 200) })
	t.Run("download", func(t *testing.T) {
		cmd := h.client("alice", "ssh", "web-1@127.0.0.1", fmt.Sprintf("head -c %d /dev/zero", size))
		got := &counter{}
		cmd.Stdout = got
		if err := cmd.Run(); err != nil || got.n != size {
			t.Errorf("%d bytes of %d came, %v", got.n, size, err)
		}
	})
	t.Run("upload", func(t *testing.T) {
		cmd := h.client("alice", "ssh", "web-1@127.0.0.1", "wc -c")
		cmd.Stdin = io.LimitReader(zeros{}, size)
		if r := h.run(cmd); strings.TrimSpace(r.out) != fmt.Sprint(size) || r.code != 0 {
			t.Errorf("of %d bytes came %s, code %d: %s", size, strings.TrimSpace(r.out), r.code, r.err)
		}
	})
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
