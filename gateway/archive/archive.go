// Package archive keeps copies of sealed recordings in a bucket.
//
// A recording is written to a folder, inline, because nothing may wait for a
// network. Once it is sealed it is copied: the object <session>.tgr is made if
// there is none, read back, and compared by its hash; then a file .sent beside
// the recording says so, and the recording may be deleted by whoever needs the
// room. A copy that was broken off is made again after the next start. Nothing
// in a bucket is ever overwritten: with a lock on its objects nobody else can
// do so either.
package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gocloud.dev/blob"
	_ "gocloud.dev/blob/fileblob" // file:///… for a mounted share
	_ "gocloud.dev/blob/s3blob"   // s3://… of AWS and of all that speak as it does
	"gocloud.dev/gcerrors"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/record"
)

// Config says what is copied where.
type Config struct {
	Dir   string        // of recordings, as record.Store fills it
	URL   string        // of the bucket; credentials are the environment's, as the cloud's own tools take them
	Every time.Duration // how often it looks for sealed recordings; 15 s
	Log   *slog.Logger
}

// Check says what is wrong with a bucket's URL.
func Check(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return errors.New("it is no URL")
	case u.Scheme != "s3" && u.Scheme != "file":
		return fmt.Errorf("got the scheme %q, want s3 or file", u.Scheme)
	case u.User != nil:
		return errors.New("it holds a login; credentials come from the environment or the SDK's own files")
	}
	return nil
}

const (
	sentSuffix  = ".sent"
	ext         = ".tgr"
	copyTimeout = 30 * time.Minute // of one recording
)

// Archive is an open bucket.
type Archive struct {
	cfg    Config
	bucket *blob.Bucket
	cancel context.CancelFunc
	done   chan struct{}
}

// Open opens a bucket to read copies from. It asks nothing yet.
func Open(ctx context.Context, cfg Config) (*Archive, error) {
	if err := Check(cfg.URL); err != nil {
		return nil, fmt.Errorf("open bucket: %w", err)
	}
	bucket, err := blob.OpenBucket(ctx, cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("open bucket: %w", err)
	}
	if cfg.Every == 0 {
		cfg.Every = 15 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Archive{cfg: cfg, bucket: bucket}, nil
}

// Start copies what is sealed, until Close.
func (a *Archive) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	a.cancel, a.done = cancel, make(chan struct{})
	go func() {
		defer close(a.done)
		tick := time.NewTicker(a.cfg.Every)
		defer tick.Stop()
		for {
			if _, err := a.Sweep(ctx); err != nil && ctx.Err() == nil {
				a.cfg.Log.Error("recordings not copied; it is tried again", "error", err)
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
}

// Close ends copying, in the midst of a recording too.
func (a *Archive) Close() error {
	if a.cancel != nil {
		a.cancel()
		<-a.done
	}
	return a.bucket.Close()
}

// Sweep copies every sealed recording that has not been, and says how many it
// did. One that can't be copied hinders no other.
func (a *Archive) Sweep(ctx context.Context) (copied int, err error) {
	days, err := filepath.Glob(filepath.Join(a.cfg.Dir, "[0-9]*", "*", "*"))
	if err != nil {
		return 0, fmt.Errorf("list recordings: %w", err)
	}
	var errs []error
	for _, day := range days {
		names, err := os.ReadDir(day)
		if err != nil {
			errs = append(errs, fmt.Errorf("list recordings: %w", err))
			continue
		}
		for _, n := range names {
			path := filepath.Join(day, n.Name())
			if !strings.HasSuffix(path, ext) || isThere(path+sentSuffix) {
				continue
			}
			if ctx.Err() != nil {
				return copied, ctx.Err()
			}
			if err := a.send(ctx, path); err != nil {
				errs = append(errs, fmt.Errorf("copy recording %s: %w", n.Name(), err))
				continue
			}
			copied++
		}
	}
	return copied, errors.Join(errs...)
}

func isThere(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// send copies one recording, and notes it once the copy was read back.
func (a *Archive) send(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, copyTimeout)
	defer cancel()
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	key, sum := filepath.Base(path), sha256.New()
	if err := a.put(ctx, key, io.TeeReader(f, sum)); err != nil {
		return err
	}
	if _, err := io.Copy(sum, f); err != nil { // the rest, where there was an object already
		return err
	}
	kept, err := a.hash(ctx, key)
	if err != nil {
		return err
	}
	if !bytes.Equal(kept, sum.Sum(nil)) {
		return fmt.Errorf("the bucket holds another file as %s: nothing was overwritten; look who wrote it", key)
	}
	return os.WriteFile(path+sentSuffix, []byte(hex.EncodeToString(kept)+"\n"), 0o600)
}

// put makes an object; one that is there already stays as it is.
func (a *Archive) put(ctx context.Context, key string, r io.Reader) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // before Close this drops what was written
	w, err := a.bucket.NewWriter(ctx, key, &blob.WriterOptions{ContentType: "application/octet-stream", IfNotExist: true})
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, r); err != nil {
		cancel()
		return errors.Join(err, w.Close())
	}
	err = w.Close()
	if code := gcerrors.Code(err); code == gcerrors.FailedPrecondition || code == gcerrors.AlreadyExists {
		return nil
	}
	return err
}

func (a *Archive) hash(ctx context.Context, key string) ([]byte, error) {
	r, err := a.bucket.NewReader(ctx, key, nil)
	if err != nil {
		return nil, fmt.Errorf("read the copy back: %w", err)
	}
	defer r.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, r); err != nil {
		return nil, fmt.Errorf("read the copy back: %w", err)
	}
	return sum.Sum(nil), nil
}

// Fetch brings a session's copy into a file that is gone when it is closed.
// Whether it is right, its signatures say.
func (a *Archive) Fetch(ctx context.Context, session string) (*os.File, error) {
	if !record.ValidID(session) {
		return nil, access.Errorf(access.CodeInvalid, "%q is not a session id.", session)
	}
	r, err := a.bucket.NewReader(ctx, session+ext, nil)
	if gcerrors.Code(err) == gcerrors.NotFound {
		return nil, access.Errorf(access.CodeNotFound, "There is no recording of session %s here, nor in the bucket.", session)
	}
	if err != nil {
		return nil, fmt.Errorf("fetch recording: %w", err)
	}
	defer r.Close()
	f, err := os.CreateTemp("", "tidegate-*"+ext)
	if err != nil {
		return nil, fmt.Errorf("fetch recording: %w", err)
	}
	_ = os.Remove(f.Name()) // where a system keeps open files, it stays in the folder for temporary ones
	if _, err = io.Copy(f, r); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("fetch recording: %w", err), f.Close())
	}
	return f, nil
}
