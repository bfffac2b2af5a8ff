package record

import "os"

// MoveTo has a writer write elsewhere.
func MoveTo(w *Writer, f *os.File) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.file = f
}
