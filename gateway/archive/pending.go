package archive

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// pending are the sealed recordings without a note that they were copied. The
// notes of those that somebody deleted since then are removed.
func (a *Archive) pending() (paths []string, err error) {
	days, err := filepath.Glob(filepath.Join(a.cfg.Dir, "[0-9]*", "*", "*"))
	if err != nil {
		return nil, fmt.Errorf("list recordings: %w", err)
	}
	var errs []error
	for _, day := range days {
		entries, err := os.ReadDir(day)
		if err != nil {
			errs = append(errs, fmt.Errorf("list recordings: %w", err))
			continue
		}
		there := make(map[string]bool, len(entries))
		for _, e := range entries {
			there[e.Name()] = true
		}
		for name := range there {
			recording, isNote := strings.CutSuffix(name, sentSuffix)
			switch {
			case strings.HasSuffix(name, ext) && !there[name+sentSuffix]:
				paths = append(paths, filepath.Join(day, name))
			case isNote && strings.HasSuffix(recording, ext) && !there[recording]:
				errs = append(errs, os.Remove(filepath.Join(day, name)))
			}
		}
	}
	slices.Sort(paths) // the oldest first
	return paths, errors.Join(errs...)
}

// Sent reports whether a recording was copied.
func Sent(path string) bool {
	_, err := os.Lstat(path + sentSuffix)
	return err == nil
}

const (
	longestWait = 10 * time.Minute
	differsWait = 24 * time.Hour // a person must look; each look reads the whole object
	enough      = 3              // failures in a row: the bucket is taken to be away
)

// errDiffers is that an object has another content than the recording.
var errDiffers = errors.New("the bucket holds another file")

// delays say which recordings wait after a failure, and until when.
type delays struct {
	first time.Duration
	of    map[string]delay // by path
	inRow int              // failures since something was copied
}

type delay struct {
	until   time.Time
	wait    time.Duration
	differs bool
}

func (d *delays) due(path string, now time.Time) bool {
	return !d.of[path].until.After(now)
}

// failed has a recording wait, twice as long each time. say: nobody was told
// yet; stop: others would fare no better.
func (d *delays) failed(path string, err error, now time.Time) (say, stop bool) {
	if errors.Is(err, errDiffers) {
		d.of[path] = delay{until: now.Add(differsWait), differs: true}
		return true, false
	}
	old, again := d.of[path]
	wait := min(max(2*old.wait, d.first), longestWait)
	d.of[path] = delay{until: now.Add(wait), wait: wait}
	d.inRow++
	return !again && d.inRow <= enough, d.inRow >= enough
}

// succeeded reports whether the bucket had been away. Then nobody waits any
// longer, except where a person must look.
func (d *delays) succeeded(path string) (back bool) {
	delete(d.of, path)
	back = d.inRow >= enough
	d.inRow = 0
	if back {
		maps.DeleteFunc(d.of, func(_ string, one delay) bool { return !one.differs })
	}
	return back
}

// keep forgets recordings that are gone.
func (d *delays) keep(paths []string) {
	maps.DeleteFunc(d.of, func(path string, _ delay) bool {
		_, there := slices.BinarySearch(paths, path)
		return !there
	})
}
