package archive

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// folder is a share that is mounted. A file there has its name once all of it
// is on the share's disk, and not before.
type folder string

// folderPath is the path of file:///path; on Windows, of file:///C:/path.
func folderPath(path string) string {
	if runtime.GOOS == "windows" {
		path = strings.TrimPrefix(path, "/")
	}
	return filepath.FromSlash(path)
}

func (f folder) create(ctx context.Context, key string, r io.Reader) error {
	path := filepath.Join(string(f), key)
	if _, err := os.Lstat(path); err == nil {
		return errThere
	}
	part, err := os.OpenFile(path+".part", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600) // over what was broken off
	if err != nil {
		return err
	}
	_, err = io.Copy(part, patient{ctx, r})
	err = errors.Join(err, part.Sync(), part.Close())
	if err == nil {
		err = publish(part.Name(), path)
	}
	if gone := os.Remove(part.Name()); !errors.Is(gone, fs.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	return err
}

// publish gives a whole file its name, if nobody has it. Of shares that know
// no links the name may be taken between the look and the renaming.
func publish(part, path string) error {
	err := os.Link(part, path)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		if _, there := os.Lstat(path); there != nil {
			err = os.Rename(part, path)
		}
	}
	if errors.Is(err, fs.ErrExist) {
		return errThere
	}
	return err
}

func (f folder) open(_ context.Context, key string) (io.ReadCloser, error) {
	file, err := os.Open(filepath.Join(string(f), key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNone
	}
	if err != nil {
		return nil, err
	}
	return file, nil
}

func (f folder) Close() error { return nil }

// patient reads until its context ends.
type patient struct {
	ctx context.Context
	io.Reader
}

// Read implements io.Reader.
func (p patient) Read(b []byte) (int, error) {
	if err := p.ctx.Err(); err != nil {
		return 0, err
	}
	return p.Reader.Read(b)
}
