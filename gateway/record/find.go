package record

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// OpenSession opens a session's recording in a folder, to be read. A recording
// moves once, from the open ones to its day, and may do so between Find and the
// opening: then it is looked for once more. What is open goes on being read,
// wherever it moves.
func OpenSession(dir, id string) (*os.File, error) {
	f, err := openFound(dir, id)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = openFound(dir, id)
	}
	return f, err
}

func openFound(dir, id string) (*os.File, error) {
	path, err := Find(dir, id)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open recording: %w", err)
	}
	return f, nil
}
