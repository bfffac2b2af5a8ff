package record

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/tidegate/tidegate/access"
)

// recover seals the recordings that a crash left open: what is whole stays,
// an event of which only a part reached the file is cut, and the end says so.
func (s *Store) recover() error {
	mended, err := s.journal.replay()
	if err != nil {
		return fmt.Errorf("recover recordings: %w", err)
	}
	if mended > 0 {
		s.cfg.Log.Warn("the machine died with recordings that were not on the disk; the journal had the rest", "recordings", mended)
	}
	paths, err := filepath.Glob(filepath.Join(s.cfg.Dir, openDir, "*"+ext))
	if err != nil {
		return fmt.Errorf("recover recordings: %w", err)
	}
	for _, path := range paths {
		if err := s.recoverOne(path); err != nil {
			// Not ours to mend, nor to throw away: it stays for a person.
			s.cfg.Log.Error("recording is damaged and stays as it is", "file", filepath.Base(path), "error", err)
		}
	}
	return nil
}

func (s *Store) recoverOne(path string) error {
	f, err := openPlain(path, os.O_RDWR|os.O_APPEND)
	if err != nil {
		return err
	}
	w := &Writer{store: s, file: f, session: strings.TrimSuffix(filepath.Base(path), ext), anchor: s.cfg.Anchor}
	err = w.resume()
	sealed := errors.Is(err, errSealed) // the machine died, or the disk was full, before it was moved
	if to := s.sealedPath(w.session, w.started); (sealed || err == nil) && exists(to) {
		err = fmt.Errorf("%s is there, and is not replaced: move one of the two away", to)
	} else if sealed {
		if err = w.move(); err == nil {
			s.cfg.Anchor(*w.head)
		}
	} else if err == nil {
		err = f.Truncate(w.at)
	}
	if err != nil || sealed {
		return errors.Join(err, f.Close())
	}
	head, err := w.Seal("the gateway ended without closing this session")
	if err == nil {
		s.cfg.Anchor(head)
	}
	return err
}

// resume brings the writer to where the file is to go on: before a part of a
// line, or a closing line without its signature.
func (w *Writer) resume() error {
	now, all, err := w.store.signers()
	if err != nil {
		return err
	}
	v := newVerifier(keysOf(all), nil)
	v.own = true
	err = v.read(w.file)
	torn := false
	if fault := (*Fault)(nil); errors.As(err, &fault) && fault.What == notWhole {
		torn, err = true, nil
	}
	switch {
	case err != nil:
		return err
	case v.report.Session != "" && v.report.Session != w.session:
		return fmt.Errorf("it holds session %q", v.report.Session)
	case v.report.Sealed && torn:
		return errors.New("something follows the last segment")
	}
	w.number, w.prev, w.signer = v.report.Segments, v.report.Head, now
	w.started = w.store.cfg.Now()
	if first, err := firstEvent(w.file.Name()); err == nil && first.Session != nil {
		w.started = first.Session.Started
	}
	if v.report.Sealed {
		w.head = &access.Head{Session: w.session, Segment: w.number - 1, Hash: w.prev, Sealed: true, Time: w.store.cfg.Now().UTC()}
		return errSealed
	}
	if w.at = v.end; v.tail == nil {
		return nil
	}
	if w.signer, err = signerOf(v.tail.head.Key, all); err != nil {
		return err
	}
	w.continueIn(v.tail)
	w.at = v.tail.offset + int64(v.tail.content)
	return nil
}

// continueIn goes on in a segment that is open.
func (w *Writer) continueIn(s *segment) {
	w.vouched, w.version, w.opened = true, s.head.Version, s.head.Opened
	w.hash, w.events, w.size = sha256.New(), s.events, s.content
	w.hash.Write(s.raw[:s.content])
}

// signerOf finds the key that a segment names: it must end with that one.
func signerOf(id string, all []Signer) (Signer, error) {
	for _, s := range all {
		if s.id() == id {
			return s, nil
		}
	}
	return Signer{}, fmt.Errorf("its last segment wants the key %.32q, which is not here", id)
}

func firstEvent(path string) (access.Event, error) {
	f, err := os.Open(path)
	if err != nil {
		return access.Event{}, err
	}
	defer f.Close()
	for e, err := range Read(f) {
		return e, err
	}
	return access.Event{}, io.EOF
}
