package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger"
	"github.com/tidegate/tidegate/gateway/record"
)

// Where things lie in a state folder.
const (
	keysDir       = "keys"
	recordingsDir = "recordings"
	ledgerFile    = "ledger.db"
	publicKeys    = "recorder.pub.pem" // in keysDir: enough to verify offline
)

// defaultDir is the state folder that verbs use without --dir.
func defaultDir() string {
	if dir, err := filepath.Abs(os.Getenv("TIDEGATE_DIR")); err == nil && os.Getenv("TIDEGATE_DIR") != "" {
		return dir
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "tidegate-dev"
	}
	return filepath.Join(home, ".local", "state", "tidegate-dev")
}

// dirFlag adds --dir to a verb. The folder is absolute: it goes into URLs and
// into command lines that people paste elsewhere.
func dirFlag(flags *flag.FlagSet) *string {
	dir := defaultDir()
	flags.Func("dir", "state `folder` of tidegate dev (or $TIDEGATE_DIR; default "+dir+")", func(s string) (err error) {
		dir, err = filepath.Abs(s)
		return err
	})
	return &dir
}

// one parses a verb that takes exactly one argument.
func one(flags *flag.FlagSet, args []string, io stdio, what string) (string, error) {
	if err := parse(flags, args, io, 1); err != nil {
		return "", err
	}
	if flags.NArg() != 1 {
		return "", fmt.Errorf("%w: want %s", errUsage, what)
	}
	return flags.Arg(0), nil
}

// openRecording opens a session's recording by id, or a file by its path.
func openRecording(dir, name string) (*os.File, error) {
	path := name
	if !isFile(name) {
		found, err := record.Find(filepath.Join(dir, recordingsDir), name)
		if err != nil {
			return nil, err
		}
		path = found
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open recording: %w", err)
	}
	return f, nil
}

// runReplay shows a session as text, or as JSON lines.
func runReplay(_ context.Context, args []string, io stdio) error {
	flags := flag.NewFlagSet("replay", flag.ContinueOnError)
	dir, asJSON := dirFlag(flags), flags.Bool("json", false, "print the events as JSON lines")
	name, err := one(flags, args, io, "a session id or a file")
	if err != nil {
		return err
	}
	f, err := openRecording(*dir, name)
	if err != nil {
		return err
	}
	defer f.Close()
	if *asJSON {
		return record.WriteJSON(io.out, f)
	}
	return record.WriteText(io.out, f)
}

// runVerify proves a recording with public keys, and with the heads that the
// ledger anchored where the ledger is at hand.
func runVerify(ctx context.Context, args []string, io stdio) error {
	flags := flag.NewFlagSet("verify", flag.ContinueOnError)
	dir := dirFlag(flags)
	keyFile := flags.String("keys", "", "PEM `file` of the trusted public keys (default: the state folder's)")
	asJSON := flags.Bool("json", false, "print the report as JSON")
	name, err := one(flags, args, io, "a session id or a file")
	if err != nil {
		return err
	}
	if *keyFile == "" {
		*keyFile = filepath.Join(*dir, keysDir, publicKeys)
	}
	f, err := openRecording(*dir, name)
	if err != nil {
		return err
	}
	defer f.Close()
	report, err := verify(ctx, f, *dir, *keyFile)
	if err != nil {
		return err
	}
	if *asJSON {
		return json.NewEncoder(io.out).Encode(report)
	}
	printReport(io.out, report)
	return nil
}

// verified is a report and whether anchors were at hand.
type verified struct {
	record.Report
	Anchored int `json:"anchored"` // heads of the ledger that were compared
}

func verify(ctx context.Context, f io.ReadSeeker, dir, keyFile string) (verified, error) {
	text, err := os.ReadFile(keyFile)
	if err != nil {
		return verified{}, fmt.Errorf("read keys: %w", err)
	}
	keys, err := record.ParseKeys(text)
	if err != nil {
		return verified{}, err
	}
	heads, err := anchored(ctx, f, dir)
	if err != nil {
		return verified{}, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return verified{}, fmt.Errorf("read recording: %w", err)
	}
	report, err := record.Verify(f, keys, heads)
	if err != nil {
		return verified{}, fmt.Errorf("the recording is not whole: %w", err)
	}
	return verified{report, len(heads)}, nil
}

// anchored reads the heads of the recorded session from the state folder's
// ledger. Without a ledger the chain and its signatures alone are judged.
func anchored(ctx context.Context, f io.Reader, dir string) ([]access.Head, error) {
	path := filepath.Join(dir, ledgerFile)
	if !isFile(path) {
		return nil, nil
	}
	session := ""
	for e, err := range record.Read(f) {
		if err == nil && e.Session != nil {
			session = e.Session.ID
		}
		break
	}
	if session == "" {
		return nil, nil // Verify names what is wrong with it
	}
	l, err := ledger.Open(ctx, ledger.Config{URL: "sqlite:" + path})
	if err != nil {
		return nil, err
	}
	heads, err := l.Heads(ctx, session)
	return heads, errors.Join(err, l.Close())
}

func printReport(w io.Writer, r verified) {
	state := "sealed"
	if !r.Sealed {
		state = fmt.Sprintf("still open, %d events not yet signed", r.Open)
	}
	fmt.Fprintf(w, "session %s is whole: %d segments, %d events, %s; %d anchored heads agree\n",
		r.Session, r.Segments, r.Events, state, r.Anchored)
}

// addPublicKey puts a recorder's public half where verify finds it, beside
// those of before: recordings outlive keys.
func addPublicKey(dir string, key ed25519.PublicKey) error {
	path, text := filepath.Join(dir, publicKeys), record.MarshalKey(key)
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read public keys: %w", err)
	}
	if bytes.Contains(old, text) {
		return nil
	}
	return writeNew(path, append(old, text...))
}
