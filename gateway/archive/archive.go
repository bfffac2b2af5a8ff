// Package archive keeps copies of sealed recordings in a bucket.
//
// A recording is written to a folder, inline, because nothing may wait for a
// network. Once it is sealed it is copied: the object <session>.tgr is made if
// there is none, read back, and compared by its hash; then a file .sent beside
// the recording says so, and the recording may be deleted by whoever needs the
// room. The file .sent goes after it. A copy that was broken off is made again,
// whole, after the next start: stores show an object when all of it is there,
// and not before. Nothing in a bucket is ever overwritten: with a lock on its
// objects nobody else can do so either.
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
	"os"
	"path/filepath"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/record"
)

// Config says what is copied where.
type Config struct {
	Dir   string        // of recordings, as record.Store fills it
	URL   string        // of the bucket; credentials are the environment's, as the cloud's own tools take them
	Every time.Duration // how often it looks for sealed recordings; 15 s
	Log   *slog.Logger
	Now   func() time.Time

	HangAfter time.Duration // how long Close waits for a bucket that does not answer; 10 s
}

const (
	sentSuffix = ".sent"
	ext        = ".tgr"
)

// Archive is an open bucket.
type Archive struct {
	cfg    Config
	bucket bucket
	prefix string // of objects' names
	delays delays
	cancel context.CancelFunc
	done   chan struct{}
}

// Open opens a bucket to read copies from. It asks nothing yet.
func Open(ctx context.Context, cfg Config) (*Archive, error) {
	if cfg.Every == 0 {
		cfg.Every = 15 * time.Second
	}
	if cfg.HangAfter == 0 {
		cfg.HangAfter = 10 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	b, prefix, err := openBucket(ctx, cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("open bucket: %w", err)
	}
	return &Archive{cfg: cfg, bucket: b, prefix: prefix, delays: delays{first: cfg.Every, of: map[string]delay{}}}, nil
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

// Close ends copying, in the midst of a recording too. A share that hangs hears
// of no context, and keeps nobody from stopping.
func (a *Archive) Close() error {
	if a.cancel != nil {
		a.cancel()
		select {
		case <-a.done:
		case <-time.After(a.cfg.HangAfter):
			return errors.New("close bucket: it does not answer; what was not copied is copied after the next start")
		}
	}
	return a.bucket.Close()
}

// Sweep copies every sealed recording that has not been, and says how many it
// did. One that can't be copied hinders no other, and waits longer each time;
// the error is what was not said before. One goroutine at a time may sweep.
func (a *Archive) Sweep(ctx context.Context) (copied int, err error) {
	paths, err := a.pending()
	errs := []error{err}
	a.delays.keep(paths)
	for _, path := range paths {
		if !a.delays.due(path, a.cfg.Now()) {
			continue
		}
		err := a.send(ctx, path)
		if ctx.Err() != nil {
			return copied, ctx.Err()
		}
		if err == nil {
			copied++
			if a.delays.succeeded(path) {
				a.cfg.Log.Info("recordings are copied again")
			}
			continue
		}
		say, stop := a.delays.failed(path, err, a.cfg.Now())
		if say {
			errs = append(errs, fmt.Errorf("copy recording %s: %w", filepath.Base(path), err))
		}
		if stop {
			break
		}
	}
	return copied, errors.Join(errs...)
}

// copyTime bounds how long one recording may take: at least 256 KiB a second.
func copyTime(size int64) time.Duration {
	return 10*time.Minute + time.Duration(size>>18)*time.Second
}

// send copies one recording, and notes it once the copy was read back.
func (a *Archive) send(ctx context.Context, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, copyTime(info.Size()))
	defer cancel()
	key, sum := a.prefix+filepath.Base(path), sha256.New()
	if err := a.bucket.create(ctx, key, io.TeeReader(f, sum)); err != nil && !errors.Is(err, errThere) {
		return err
	}
	if _, err := io.Copy(sum, f); err != nil { // the rest, where there was an object already
		return err
	}
	kept, err := a.hash(ctx, key)
	if err != nil {
		return fmt.Errorf("read the copy back: %w", err)
	}
	if !bytes.Equal(kept, sum.Sum(nil)) {
		return fmt.Errorf("%w as %s, of SHA-256 %x, want %x: nothing was overwritten; `tidegate verify` says which is whole, and the store's own log who wrote it", errDiffers, key, kept, sum.Sum(nil))
	}
	return os.WriteFile(path+sentSuffix, []byte(hex.EncodeToString(kept)+"\n"), 0o600)
}

func (a *Archive) hash(ctx context.Context, key string) ([]byte, error) {
	r, err := a.bucket.open(ctx, key)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, r); err != nil {
		return nil, err
	}
	return sum.Sum(nil), nil
}

// Fetch brings a session's copy into a file that is gone when it is closed.
// Whether it is right, its signatures say.
func (a *Archive) Fetch(ctx context.Context, session string) (*os.File, error) {
	if !record.ValidID(session) {
		return nil, access.Errorf(access.CodeInvalid, "%q is not a session id.", session)
	}
	r, err := a.bucket.open(ctx, a.prefix+session+ext)
	if errors.Is(err, errNone) {
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
