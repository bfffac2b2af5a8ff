package record

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/tidegate/tidegate/access"
)

// spaceEvery is how often keep looks at how full the disk is.
const spaceEvery = time.Second

// Least is how many bytes must be free for open sessions to go on: a quarter of
// what it takes to open one. The rest is for what else lies on the disk, and
// for the ends of recordings: a disk that is full to the last byte leaves them
// torn.
func (s *Store) Least() uint64 { return s.cfg.MinFree / 4 }

// space warns when no session opens for want of room, and ends those that are
// open when it gets less still. It is keep's alone.
func (s *Store) space() {
	if now := s.clock(); now-s.looked < int64(spaceEvery) {
		return
	}
	s.looked = s.clock()
	if err := s.displaced(); err != nil {
		s.endAll(err)
		return
	}
	free, err := freeBytes(s.cfg.Dir)
	if short := err != nil || free < s.cfg.MinFree; short != s.short {
		s.short = short
		if short {
			s.cfg.Log.Warn("the disk of the recordings has too little room: no session opens", "free", free, "needed", s.cfg.MinFree, "error", err)
		} else {
			s.cfg.Log.Info("the disk of the recordings has room again", "free", free)
		}
	}
	if err != nil || free >= s.Least() {
		return
	}
	for _, w := range s.open() {
		s.cfg.Log.Error("a session ends: the disk of the recordings is nearly full", "session", w.session, "free", free, "least", s.Least())
		w.tell(errNoRoom())
		if head, err := w.Seal("The disk for recordings is nearly full."); err == nil {
			w.anchor(head)
		} else if !errors.Is(err, errSealed) {
			s.cfg.Log.Error("recording not sealed", "session", w.session, "error", err)
		}
		s.round.Store(s.clock()) // each has its time
	}
}

// displaced says that the folder is another than was opened: what is open is
// written to files that nobody finds any more.
func (s *Store) displaced() error {
	opened, err := s.folder.Stat()
	if err != nil {
		return err
	}
	now, err := os.Stat(s.cfg.Dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(opened, now) {
		return fmt.Errorf("the folder %s was removed, moved or replaced while the gateway wrote there; bring it back, or start the gateway again", s.cfg.Dir)
	}
	return nil // what else is wrong with it shows where something is written
}

func (s *Store) endAll(why error) {
	for _, w := range s.open() {
		w.mu.Lock()
		if w.err == nil {
			_ = w.fail(why) // which says so
		}
		w.mu.Unlock()
		s.round.Store(s.clock()) // each has its time
	}
}

func errNoRoom() error {
	return &access.Error{
		Code:    access.CodeUnavailable,
		Message: "The disk for recordings is nearly full, and nothing goes on unrecorded.",
	}
}
