package record

import (
	"crypto/ed25519"
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
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	w := &Writer{store: s, file: f, session: strings.TrimSuffix(filepath.Base(path), ext), anchor: func(access.Head) {}}
	if err := w.resume(); err != nil {
		return errors.Join(err, f.Close())
	}
	_, err = w.Seal("the gateway ended without closing this session")
	return err
}

// resume brings the writer to where the file stops, and cuts a part of a line
// or a closing line without its signature.
func (w *Writer) resume() error {
	v := &verifier{scanner: newScanner(w.file), keys: NewKeys(w.store.cfg.Key.Public().(ed25519.PublicKey))}
	for {
		tag, body, err := v.next()
		var fault *Fault
		if errors.Is(err, io.EOF) || errors.As(err, &fault) && fault.What == notWhole {
			break
		}
		if err != nil {
			return err
		}
		if tag == 'C' { // it counts with its signature only, which follows at once
			mark := v.offset
			if err := v.line(tag, body); err != nil {
				return err
			}
			tag, body, err = v.next()
			if err != nil {
				return w.cutAndResume(mark)
			}
			if err := v.line(tag, body); err != nil {
				return err
			}
			continue
		}
		if err := v.line(tag, body); err != nil {
			return err
		}
	}
	if v.report.Sealed {
		return errors.New("it is sealed already; move it to its day's folder")
	}
	return w.continueAt(v, v.offset)
}

// cutAndResume goes on before a closing line that lacks its signature. The
// hash has taken that line in, so the file is cut and read again.
func (w *Writer) cutAndResume(mark int64) error {
	if err := w.file.Truncate(mark); err != nil {
		return err
	}
	if _, err := w.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return w.resume()
}

func (w *Writer) continueAt(v *verifier, end int64) error {
	if v.report.Session != w.session {
		return fmt.Errorf("it holds session %q", v.report.Session)
	}
	w.started, w.opened = v.head.Opened, v.head.Opened
	w.number, w.prev = v.report.Segments, v.report.Head
	w.hash, w.events, w.size = v.hash, v.report.Open, v.size
	if first, err := firstEvent(w.file.Name()); err == nil && first.Session != nil {
		w.started = first.Session.Started
	}
	return w.file.Truncate(end)
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
