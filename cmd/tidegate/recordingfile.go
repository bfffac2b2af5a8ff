package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/record"
)

// openRecording opens a session's recording by id, or a file by its path.
func openRecording(ctx context.Context, dir, bucket, name string) (*os.File, error) {
	if isFile(name) {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("open recording: %w", err)
		}
		return f, nil
	}
	if err := notAnID(name); err != nil {
		return nil, fmt.Errorf("open recording: %w", err)
	}
	if dir == "" {
		return nil, errors.New("open recording: this configuration has none; they lie where its gateways run")
	}
	f, err := record.OpenSession(dir, name)
	if access.CodeOf(err) == access.CodeNotFound && err != nil && bucket != "" {
		return fetchRecording(ctx, bucket, name)
	}
	if access.CodeOf(err) == access.CodeNotFound || access.CodeOf(err) == access.CodeInvalid {
		return nil, fmt.Errorf("open recording: %w `tidegate sessions` lists them, with --json where each lies", err)
	}
	return f, err
}

// notAnID says what somebody gave who meant a file, and gave none.
func notAnID(name string) error {
	const want = "want the file of a recording (….tgr), or a session's id; `tidegate sessions` lists them"
	info, err := os.Stat(name)
	switch isPath := strings.ContainsAny(name, `/\.`); {
	case name == "":
		return errors.New("got an empty name, " + want)
	case err == nil && info.IsDir() && (isPath || !record.ValidID(name)):
		return fmt.Errorf("%s is a folder, %s", record.Visible(name), want)
	case err == nil && isPath:
		return fmt.Errorf("%s is no regular file, %s", record.Visible(name), want)
	case isPath:
		return fmt.Errorf("there is no file %s; %s", record.Visible(name), want)
	}
	return nil
}

// notEmpty refuses a file in which nothing is to be seen.
func notEmpty(f *os.File, name string) (size int64, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("open recording: %w", err)
	}
	if info.Size() == 0 {
		return 0, fmt.Errorf("%s is empty, and a recording begins with a header: its session has recorded nothing yet (`tidegate replay --follow` waits), or the file was cut", record.Visible(name))
	}
	return info.Size(), nil
}

// explained adds to the fault of a recording what to do about it.
func explained(name string, err error) error {
	fault := (*record.Fault)(nil)
	name = record.Visible(name)
	switch {
	case !errors.As(err, &fault):
		return err
	case fault.Foreign():
		return fmt.Errorf("%s: %w; `tidegate sessions` lists those that there are", name, err)
	case fault.Cut():
		return fmt.Errorf("%s: %w: it was cut there, or is being written (--follow waits for more); `tidegate verify` says what of it is proved", name, err)
	}
	return fmt.Errorf("%s: %w: nothing behind that place is shown; see `tidegate verify`", name, err)
}
