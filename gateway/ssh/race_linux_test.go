package ssh

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestExchanger is mallory's program on the host: it exchanges two names again
// and again, as fast as it can, until its input ends. TestRacingExchange runs
// it.
func TestExchanger(t *testing.T) {
	a, b := os.Getenv("EXCHANGE_A"), os.Getenv("EXCHANGE_B")
	if a == "" {
		t.Skip("TestRacingExchange runs this")
	}
	ended := make(chan struct{})
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); close(ended) }()
	fmt.Println("exchanging")
	for n := 0; ; n++ {
		select {
		case <-ended:
			if n%2 == 1 {
				_ = unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
			}
			return
		default:
		}
		if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
			t.Fatal(err)
		}
	}
}

// exchanging runs the program; end leaves both names as they were.
func exchanging(t *testing.T, a, b string) (end func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestExchanger$")
	cmd.Env = append(os.Environ(), "EXCHANGE_A="+a, "EXCHANGE_B="+b)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "exchanging\n" {
		t.Fatalf("the program says %q, %v", line, err)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }() // ends with the program
	return func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}

// TestRacingExchange: mallory's program exchanges a folder for a link to the
// secret one while an accomplice asks for files there, thousands of times. No
// byte of the secret comes out, and none of it changes. What works by a path
// alone may hit the other folder; the guide says so, and the test logs it.
func TestRacingExchange(t *testing.T) {
	f := newFolders(t)
	sub, link := f.write+"/sub", f.write+"/link"
	if err := errors.Join(os.Mkdir(sub, 0o700), os.Symlink(f.secret, link)); err != nil {
		t.Fatal(err)
	}
	f.put(t, "write/sub/key", "harmless, and longer\n")
	f.put(t, "secret/only-here", "x")
	long := time.Now().Add(-24 * time.Hour)
	if err := os.Chtimes(f.secret+"/key", long, long); err != nil {
		t.Fatal(err)
	}
	h := newHouse(t, houseOptions{read: []string{f.write}, write: []string{f.write}})
	r := h.rawSFTP(t)
	end := exchanging(t, sub, link)
	won := map[string]int{}
	tries := 0
	for stop := time.Now().Add(3 * time.Second); time.Now().Before(stop); tries++ {
		for _, attack := range []func(*rawSFTP, string) (string, error){readsFile, writesFile, changesMode, listsNames, createsFile} {
			what, err := attack(r, sub)
			if err != nil {
				t.Fatal(err)
			}
			if what != "" {
				won[what]++
			}
		}
	}
	end()
	for name := range won {
		if strings.HasPrefix(name, "the secret") {
			t.Errorf("%s came out %d times", name, won[name])
		}
	}
	f.unharmed(t)
	if info, err := os.Stat(f.secret + "/key"); err != nil || info.Mode().Perm() != 0o600 || !info.ModTime().Equal(long.Truncate(time.Nanosecond)) && info.ModTime().Unix() != long.Unix() {
		t.Errorf("the secret's attributes are %v, %v, %v", info.Mode(), info.ModTime(), err)
	}
	made, _ := filepath.Glob(f.secret + "/new-*")
	for _, path := range made {
		if text, err := os.ReadFile(path); err != nil || len(text) > 0 {
			t.Errorf("%s has %q, %v", path, text, err)
		}
	}
	t.Logf("%d tries each; %d empty files were made in the other folder; seen: %v", tries, len(made), won)
}

// with opens a file, does something to it and closes it. A refused open is no
// error.
func (r *rawSFTP) with(m message, do func(handle string) error) error {
	p, err := r.answer(m)
	if err != nil {
		return err
	}
	handle, ok := handleOf(p)
	if !ok {
		return nil
	}
	if err := do(handle); err != nil {
		return err
	}
	_, err = r.answer(r.message(fxClose).text(handle))
	return err
}

func readsFile(r *rawSFTP, sub string) (what string, err error) {
	err = r.with(r.message(fxOpen).text(sub+"/key").uint32(openRead).uint32(0), func(handle string) error {
		p, err := r.answer(r.message(fxRead).text(handle).uint32(0).uint32(0).uint32(100))
		if bytes.Contains(p.body, []byte("secret")) {
			what = "the secret's text"
		}
		return err
	})
	return what, err
}

func writesFile(r *rawSFTP, sub string) (string, error) {
	return "", r.with(r.message(fxOpen).text(sub+"/key").uint32(openChange|openTruncate).uint32(0), func(handle string) error {
		_, err := r.answer(r.message(fxWrite).text(handle).uint32(0).uint32(0).text("overwritten by mallory\n"))
		return err
	})
}

func changesMode(r *rawSFTP, sub string) (string, error) {
	_, err := r.answer(r.message(fxSetstat).text(sub + "/key").uint32(attrSize).uint32(0).uint32(3))
	return "", err
}

func listsNames(r *rawSFTP, sub string) (what string, err error) {
	err = r.with(r.message(fxOpendir).text(sub), func(handle string) error {
		p, err := r.answer(r.message(fxReaddir).text(handle))
		if bytes.Contains(p.body, []byte("only-here")) {
			what = "a name of the other folder"
		}
		return err
	})
	return what, err
}

func createsFile(r *rawSFTP, sub string) (string, error) {
	name := fmt.Sprintf("%s/new-%d", sub, r.id)
	return "", r.with(r.message(fxOpen).text(name).uint32(openChange|0x08).uint32(0), func(handle string) error {
		_, err := r.answer(r.message(fxWrite).text(handle).uint32(0).uint32(0).text("planted\n"))
		return err
	})
}
