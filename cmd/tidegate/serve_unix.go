//go:build unix

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// openQuick opens a file without waiting for anybody, such as the writer of a
// pipe that stands where a file should.
func openQuick(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
}

func owner(info fs.FileInfo) (uid int, ok bool) {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(s.Uid), true
}

// noCores keeps keys and tokens out of core files, and other processes of the
// same user out of our memory.
func noCores() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core files: %w", err)
	}
	return undumpable()
}

// lockFolder lets one process use a state folder. The kernel gives the lock
// back when the process ends, however it ends.
func lockFolder(dir string) (*os.File, error) {
	f, err := lockFile(filepath.Join(dir, "serve.lock"))
	if errors.Is(err, errLocked) {
		return nil, fmt.Errorf("another `tidegate serve` uses the state_dir %s: stop that one, or name another folder in this configuration", dir)
	}
	return f, err
}

var errLocked = errors.New("somebody else holds it")

func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = errLocked
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}
