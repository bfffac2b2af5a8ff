package main

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// keysApart looks for the control side's secrets in the gateway: in its
// folders, and in all that its process remembers.
func (w *apartWorld) keysApart(t *testing.T) {
	state := filepath.Join(w.folder(), "control-state")
	control, err := signingKey(filepath.Join(state, keysDir, "control.pem"))
	if err != nil {
		t.Fatal(err)
	}
	mintKey, err := randomKey(filepath.Join(state, keysDir, "mint.pem"))
	if err != nil {
		t.Fatal(err)
	}
	known, err := openGateways(state, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := known.ca.key.(*ecdsa.PrivateKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	own, err := signingKey(filepath.Join(w.folder(), "gateway-1", enrolKey))
	if err != nil {
		t.Fatal(err)
	}
	admin := bytes.TrimSpace(contents(t, filepath.Join(w.folder(), "admin-password")))
	t.Run("on disk", func(t *testing.T) {
		held := files(t, filepath.Join(w.folder(), "gateway-state"))
		for _, name := range []string{"control.pem", "mint.pem", enrolmentCAKey} {
			if text := contents(t, filepath.Join(state, keysDir, name)); bytes.Contains(held, text) {
				t.Errorf("%s is in the gateway's state", name)
			}
		}
	})
	t.Run("in memory", func(t *testing.T) {
		found := inMemory(t, w.gateway.cmd.Process.Pid, map[string][]byte{
			"its own key": own.Seed(), "control's key": control.Seed(), "the mint key": mintKey, "the CA's key": ca, "the minter's password": admin,
		})
		if len(found) != 1 || found[0] != "its own key" {
			t.Errorf("the gateway remembers %q, want its own key alone", found)
		}
		found = inMemory(t, w.control.cmd.Process.Pid, map[string][]byte{"control's key": control.Seed(), "the mint key": mintKey})
		if len(found) != 2 {
			t.Errorf("found %q in control, want both of its keys: the search would prove nothing", found)
		}
	})
}

// inMemory says which of the needles stand in what a process can write to.
// Only root may look.
func inMemory(t *testing.T, pid int, needles map[string][]byte) (found []string) {
	t.Helper()
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if os.IsPermission(err) {
		t.Skip("only root may look into another process: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	seen := map[string]bool{}
	maps := bufio.NewScanner(bytes.NewReader(contents(t, fmt.Sprintf("/proc/%d/maps", pid))))
	for maps.Scan() {
		var from, to uint64
		var mode string
		if n, err := fmt.Sscanf(maps.Text(), "%x-%x %s", &from, &to, &mode); n != 3 || err != nil || !strings.HasPrefix(mode, "rw") {
			continue
		}
		searchRange(mem, from, to, needles, seen)
	}
	for name := range seen {
		found = append(found, name)
	}
	return found
}

// searchRange reads in steps that overlap by the longest needle. What is not
// mapped any more can't be read, and is left out.
func searchRange(mem *os.File, from, to uint64, needles map[string][]byte, seen map[string]bool) {
	const step, overlap = 1 << 20, 256
	buf := make([]byte, step+overlap)
	for at := from; at < to; at += step {
		n, _ := mem.ReadAt(buf[:min(uint64(len(buf)), to-at)], int64(at))
		for name, needle := range needles {
			if bytes.Contains(buf[:n], needle) {
				seen[name] = true
			}
		}
	}
}
