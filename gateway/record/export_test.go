package record

import "os"

// MoveTo has a writer write elsewhere.
func MoveTo(w *Writer, f *os.File) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.file = f
}

// Round runs one round of a store whose own are far between, with a journal of
// at most so many bytes.
func Round(s *Store, journalMax int64) {
	s.journal.max = journalMax
	s.commit()
}
