//go:build unix

package record

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// lockFolder lets one process write to a folder. The kernel gives the lock back
// when the process ends, however it ends; a file that was left behind says
// nothing. There is no lock where nobody can write.
func lockFolder(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockName)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) // NFS locks no file that is open to be read
	if errors.Is(err, unix.EROFS) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		err = fmt.Errorf("another gateway writes to %s and holds its %s: stop that one, or name another folder here", dir, lockName)
	case err != nil:
		err = fmt.Errorf("lock %s: %w", path, err)
	default:
		return f, nil
	}
	return nil, errors.Join(err, f.Close())
}
