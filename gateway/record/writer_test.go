package record

import (
	"log/slog"
	"testing"

	"github.com/tidegate/tidegate/access"
)

// TestAHungDiskIsToldToWhoAsksLate: it may hang between a recording's first
// line and the question, and its lock is held by who waits for it.
func TestAHungDiskIsToldToWhoAsksLate(t *testing.T) {
	w := &Writer{store: &Store{cfg: Config{Log: slog.New(slog.DiscardHandler)}, writers: map[*Writer]struct{}{}}}
	w.mu.Lock()
	w.hang()
	var told []error
	w.OnFailure(func(err error) { told = append(told, err) })
	w.hang()
	if len(told) != 1 || access.CodeOf(told[0]) != access.CodeUnavailable {
		t.Errorf("told %v, want once that the disk does not answer", told)
	}
}
