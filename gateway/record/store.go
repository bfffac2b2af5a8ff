package record

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidegate/tidegate/access"
)

// Config says where recordings lie. Dir is needed, and Key or Signers.
type Config struct {
	Dir string             // made 0700
	Key ed25519.PrivateKey // signs without a certificate: verifiers must know it

	// Signers are asked when a session begins. The first signs it, the others
	// end what they began before a crash.
	Signers func() ([]Signer, error)

	MinFree      uint64        // below this many free bytes no session opens, and below a quarter the open ones end; 256 MiB
	SegmentBytes int           // a segment closes at this size; 256 KiB
	SegmentAge   time.Duration // or at this age; 1 s
	HangAfter    time.Duration // how long the disk may take for one thing; 10 s
	SyncEvery    time.Duration // how far the disk may be behind the kernel; 50 ms
	Log          *slog.Logger
	Now          func() time.Time

	// Anchor is told the heads of what Open seals, as Record's callers are told
	// of theirs. nil: nobody is.
	Anchor func(access.Head)
}

// Store is a folder of recordings, open for writing.
type Store struct {
	cfg Config

	born    time.Time // with its monotonic clock
	written atomic.Uint64
	journal *journal

	mu      sync.Mutex
	writers map[*Writer]struct{}
	stop    chan struct{}
	done    chan struct{} // keep ended
	watched chan struct{} // watch ended
	round   atomic.Int64  // when keep began the round that it is in; 0 is none

	lock   *os.File // on the folder; nil where nobody can write to it
	folder *os.File // cfg.Dir as it was opened
	looked int64    // when keep last looked at the room on the disk
	short  bool     // there was too little then
}

// A recording is <Dir>/open/<session>.tgr while it is written, and
// <Dir>/<year>/<month>/<day>/<session>.tgr once it is sealed.
const (
	ext      = ".tgr"
	openDir  = "open"
	lockName = "gateway.lock" // held by who writes here
)

// sealedPath is where a sealed recording lies.
func (s *Store) sealedPath(session string, started time.Time) string {
	return sealedPath(s.cfg.Dir, session, started)
}

func sealedPath(dir, session string, started time.Time) string {
	return filepath.Join(dir, started.UTC().Format("2006/01/02"), session+ext)
}

var sessionID = regexp.MustCompile(`\A[A-Za-z0-9_-]{1,64}\z`)

// Open opens the folder, seals what a crash left open, and starts to keep the
// disk up to date. The caller closes the store. While another process has it
// open it is refused: what is open there is no crash's.
func Open(cfg Config) (*Store, error) {
	if cfg.Signers == nil && len(cfg.Key) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("open recordings: the key has %d bytes, want %d", len(cfg.Key), ed25519.PrivateKeySize)
	}
	cfg.defaults()
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open recordings: %w", err)
	}
	lock, err := lockFolder(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open recordings: %w", err)
	}
	s := &Store{
		lock: lock, cfg: cfg, born: time.Now(), writers: map[*Writer]struct{}{}, stop: make(chan struct{}), done: make(chan struct{}), watched: make(chan struct{}),
	}
	s.journal = newJournal(cfg.Dir, cfg.Log)
	if s.folder, err = os.Open(cfg.Dir); err == nil {
		err = s.recover()
	}
	if err != nil {
		return nil, errors.Join(err, s.letGo())
	}
	go s.keep()
	go s.watch()
	return s, nil
}

// signers are the present one, and all that recordings here may have.
func (s *Store) signers() (now Signer, all []Signer, err error) {
	if s.cfg.Signers == nil {
		now = Signer{Key: s.cfg.Key}
		return now, []Signer{now}, nil
	}
	all, err = s.cfg.Signers()
	if err != nil || len(all) == 0 {
		return now, nil, fmt.Errorf("no key to sign with: %w", err)
	}
	return all[0], all, nil
}

func keysOf(all []Signer) Keys {
	keys := Keys{}
	for _, s := range all {
		keys[s.id()] = s.Key.Public().(ed25519.PublicKey)
	}
	return keys
}

func (c *Config) defaults() {
	if c.MinFree == 0 {
		c.MinFree = 256 << 20
	}
	if c.SegmentBytes == 0 {
		c.SegmentBytes = 256 << 10
	}
	if c.SegmentAge == 0 {
		c.SegmentAge = time.Second
	}
	if c.HangAfter == 0 {
		c.HangAfter = 10 * time.Second
	}
	if c.SyncEvery == 0 {
		c.SyncEvery = 50 * time.Millisecond
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Anchor == nil {
		c.Anchor = func(access.Head) {}
	}
}

// letGo of the folder and of the lock on it, where there are any.
func (s *Store) letGo() error {
	var errs []error
	for _, f := range []*os.File{s.folder, s.lock} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// Close seals what is still open and ends the store. A disk that hangs keeps
// nobody from stopping: the next start seals what it finds.
func (s *Store) Close() error {
	ended := make(chan error, 1)
	go func() {
		close(s.stop)
		<-s.done
		var errs []error
		for _, w := range s.open() {
			_, err := w.Seal("the gateway stopped")
			errs = append(errs, err)
		}
		err := errors.Join(errs...)
		ended <- errors.Join(err, s.journal.close(err == nil), s.letGo())
	}()
	defer func() { <-s.watched }()
	select {
	case err := <-ended:
		return err
	case <-time.After(2 * s.cfg.HangAfter):
		return fmt.Errorf("close recordings: %w", errHung())
	}
}

// watch looks for a disk that does not answer, which nobody who waits for it
// can do. It asks nothing of the disk and takes no lock of a writer.
func (s *Store) watch() {
	defer close(s.watched)
	tick := time.NewTicker(max(s.cfg.HangAfter/10, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.stop:
			return
		}
		all := s.late(s.round.Load())
		for _, w := range s.open() {
			if all || s.late(w.busy.Load()) {
				w.hang()
			}
		}
	}
}

// late reports whether the disk was asked too long ago.
func (s *Store) late(since int64) bool {
	return since != 0 && s.clock()-since > int64(s.cfg.HangAfter)
}

// clock is what the disk is measured by. A wall clock that is set must end no
// session, and Config.Now is what stands in recordings.
func (s *Store) clock() int64 { return int64(time.Since(s.born)) + 1 }

// Written is how many bytes the store wrote since it was opened.
func (s *Store) Written() uint64 { return s.written.Load() }

// Free is how many bytes the disk has left for it.
func (s *Store) Free() (uint64, error) { return freeBytes(s.cfg.Dir) }

// Need is how many bytes must be free for a session to open.
func (s *Store) Need() uint64 { return s.cfg.MinFree }

// Record starts a session's recording; the caller appends its first event.
// anchor is told the chain's head after a segment closed, never on the path of
// an operation; the last head is what Seal returns.
func (s *Store) Record(info access.SessionInfo, anchor func(access.Head)) (*Writer, error) {
	if !sessionID.MatchString(info.ID) {
		return nil, access.Errorf(access.CodeInvalid, "The session id %q can't name a file.", info.ID)
	}
	if s.late(s.round.Load()) {
		return nil, errHung()
	}
	made := make(chan *Writer, 1)
	failed := make(chan error, 1)
	go func() {
		if w, err := s.begin(info, anchor); err != nil {
			failed <- err
		} else {
			made <- w
		}
	}()
	select {
	case w := <-made:
		return w, nil
	case err := <-failed:
		return nil, err
	case <-time.After(s.cfg.HangAfter):
		return nil, errHung() // what it made by then is sealed when the store closes
	}
}

func (s *Store) begin(info access.SessionInfo, anchor func(access.Head)) (*Writer, error) {
	if free, err := freeBytes(s.cfg.Dir); err != nil || free < s.cfg.MinFree {
		return nil, &access.Error{
			Code:    access.CodeUnavailable,
			Message: "The gateway is out of room for recordings, and opens nothing that it can't record. Its operator must make room.",
			Cause:   errors.Join(err, fmt.Errorf("%d bytes free, want %d", free, s.cfg.MinFree)),
		}
	}
	w, err := (*Writer)(nil), s.displaced()
	if err == nil {
		w, err = s.create(info, anchor)
	}
	if err != nil {
		return nil, &access.Error{Code: access.CodeUnavailable, Message: "The gateway can't start a recording, and opens nothing that it can't record.", Cause: err}
	}
	return w, nil
}

func (s *Store) create(info access.SessionInfo, anchor func(access.Head)) (*Writer, error) {
	if err := os.MkdirAll(filepath.Join(s.cfg.Dir, openDir), 0o700); err != nil {
		return nil, err
	}
	signer, _, err := s.signers()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(s.cfg.Dir, openDir, info.ID+ext)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	w := &Writer{store: s, file: f, session: info.ID, started: info.Started, anchor: anchor, signer: signer}
	s.mu.Lock()
	s.writers[w] = struct{}{}
	s.mu.Unlock()
	return w, nil
}

func (s *Store) open() []*Writer {
	s.mu.Lock()
	defer s.mu.Unlock()
	ws := make([]*Writer, 0, len(s.writers))
	for w := range s.writers {
		ws = append(ws, w)
	}
	return ws
}

func (s *Store) forget(w *Writer) {
	s.mu.Lock()
	delete(s.writers, w)
	s.mu.Unlock()
}

// keep brings written events to the disk, closes aged segments and anchors
// heads, for all sessions: one goroutine, one group commit. It holds no lock
// while it waits: a slow disk or ledger must not hold up operations that are
// already in the kernel's hands.
func (s *Store) keep() {
	defer close(s.done)
	tick := time.NewTicker(s.cfg.SyncEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.stop:
			return
		}
		s.round.Store(s.clock())
		s.commit()
		s.space()
		s.round.Store(0)
	}
}

// commit is one round of keep.
func (s *Store) commit() {
	var all []due
	for _, w := range s.open() {
		if d := w.settle(); d.dirty || d.head != nil {
			all = append(all, d)
		}
	}
	journaled := s.journal.commit()
	for _, d := range all {
		if d.dirty && (d.alone || !journaled) && d.w.sync() != nil {
			continue
		}
		if d.head != nil {
			d.w.anchor(*d.head)
		}
	}
}

// ValidID reports whether a session's id can name a file.
func ValidID(id string) bool { return sessionID.MatchString(id) }

// Find is the path of a session's recording in a folder.
func Find(dir, id string) (string, error) {
	if !sessionID.MatchString(id) {
		return "", access.Errorf(access.CodeInvalid, "%q is not a session id: want up to 64 letters, digits, - and _.", id)
	}
	open := filepath.Join(dir, openDir, id+ext)
	isOpen := exists(open) // looked for first: the way that it moves
	all, err := filepath.Glob(filepath.Join(dir, "[0-9]*", "*", "*", id+ext))
	if err != nil {
		return "", fmt.Errorf("find recording: %w", err)
	}
	if isOpen && (len(all) == 0 || exists(open)) {
		all = append(all, open)
	}
	if len(all) == 0 {
		return "", access.Errorf(access.CodeNotFound, "There is no recording of session %s in %s.", id, dir)
	}
	if len(all) > 1 {
		return "", access.Errorf(access.CodeConflict, "There are %d recordings of session %s, want one: %s.", len(all), id, strings.Join(all, ", "))
	}
	return all[0], nil
}

// Locate is the path of a recording in a folder, without a search; empty where
// it is not there.
func Locate(dir string, s access.SessionInfo) string {
	if dir == "" || !sessionID.MatchString(s.ID) {
		return ""
	}
	// The way that a recording moves: one that moves meanwhile is not missed.
	for _, path := range []string{filepath.Join(dir, openDir, s.ID+ext), sealedPath(dir, s.ID, s.Started)} {
		if exists(path) {
			return path
		}
	}
	return ""
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// List is the paths of all recordings in a folder, oldest day first.
func List(dir string) ([]string, error) {
	var paths []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, ext) {
			paths = append(paths, path)
		}
		return err
	})
	return paths, err
}
