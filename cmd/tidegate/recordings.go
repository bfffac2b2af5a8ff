package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger"
	"github.com/tidegate/tidegate/gateway/archive"
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

// fetchTime bounds how long a recording may take to come from a bucket.
const fetchTime = 10 * time.Minute

// fetchRecording brings a copy from the bucket.
func fetchRecording(ctx context.Context, bucket, id string) (*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	a, err := archive.Open(ctx, archive.Config{URL: bucket})
	if err != nil {
		return nil, err
	}
	f, err := a.Fetch(ctx, id)
	return f, errors.Join(err, a.Close())
}

// recordingFor opens what replay and verify were asked for, and says of which
// installation.
func recordingFor(ctx context.Context, w which, name string) (*os.File, installation, error) {
	i, err := w.find()
	if err != nil {
		return nil, i, err
	}
	f, err := openRecording(ctx, i.Recordings, i.Bucket, name)
	return f, i, err
}

// runReplay shows a session: as text, as JSON lines, as a terminal's film, or
// as it happened.
func runReplay(ctx context.Context, args []string, io stdio) error {
	var w which
	var how record.Replay
	var cast record.Asciicast
	flags := flag.NewFlagSet("replay", flag.ContinueOnError)
	w.addFlags(flags)
	flags.BoolVar(&how.JSON, "json", false, "print the events as JSON lines")
	flags.IntVar(&cast.Version, "asciicast", 0, "print a terminal in asciinema's format, `version` 2 or 3, for its player")
	flags.Float64Var(&how.Speed, "speed", 0, "play it, so many `times` as fast as it happened; without it all is told at once, as text")
	flags.DurationVar(&how.Idle, "idle", 0, "play it with no pause longer than this `time`")
	flags.DurationVar(&how.From, "from", 0, "begin so `long` after the session's beginning")
	flags.BoolVar(&how.Follow, "follow", false, "go on with what a live session does, until it ends")
	flags.Uint64Var(&how.Op, "op", 0, "`number` of the operation to play, or to print with --asciicast (default: the first with a terminal)")
	name, err := one(flags, args, io, "a session id or a file")
	if err != nil {
		return err
	}
	if how.Idle > 0 && how.Speed == 0 {
		how.Speed = 1
	}
	if err := checkReplay(how, cast); err != nil {
		return fmt.Errorf("%w: %v", errUsage, err)
	}
	f, _, err := recordingFor(ctx, w, name)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := notEmpty(f, name)
	if err != nil && !how.Follow {
		return err
	}
	if cast.Version != 0 {
		cast.Op = how.Op
		return explained(name, record.WriteAsciicast(io.out, f, cast))
	}
	err = how.Show(ctx, io.out, f, size)
	if errors.Is(err, context.Canceled) { // somebody has seen enough
		return nil
	}
	return explained(name, err)
}

// maxSpeed is faster than anybody sees.
const maxSpeed = 1000

func checkReplay(how record.Replay, cast record.Asciicast) error {
	switch {
	case cast.Version != 0 && cast.Version != 2 && cast.Version != 3:
		return fmt.Errorf("got --asciicast %d, want 2 or 3", cast.Version)
	case how.Speed != 0 && !(how.Speed >= 0.01 && how.Speed <= maxSpeed):
		return fmt.Errorf("got --speed %g, want 0.01 to %d", how.Speed, maxSpeed)
	case how.From < 0 || how.Idle < 0:
		return fmt.Errorf("got --from %s and --idle %s, want neither negative", how.From, how.Idle)
	case cast.Version != 0 && (how.JSON || how.Speed != 0 || how.From != 0 || how.Follow):
		return errors.New("--asciicast prints the whole of a terminal, for a player that can do the rest; leave --json, --speed, --idle, --from and --follow out")
	case how.JSON && how.Speed != 0:
		return errors.New("--json tells all at once; leave --speed and --idle out")
	case how.Op != 0 && how.Speed == 0 && cast.Version == 0:
		return errors.New("--op is for what is played: add --speed 1, or --asciicast")
	}
	return nil
}

// runVerify proves a recording with public keys, and with the heads that the
// ledger anchored where the ledger is at hand.
func runVerify(ctx context.Context, args []string, io stdio) error {
	var w which
	flags := flag.NewFlagSet("verify", flag.ContinueOnError)
	w.addFlags(flags)
	keyFile := flags.String("keys", "", "PEM `file` of the trusted public keys (default: the installation's)")
	asJSON := flags.Bool("json", false, "print the report as JSON")
	name, err := one(flags, args, io, "a session id or a file")
	if err != nil {
		return err
	}
	f, i, err := recordingFor(ctx, w, name)
	if err != nil {
		return err
	}
	defer f.Close()
	report, err := verify(ctx, f, i, *keyFile)
	if err != nil {
		return err
	}
	if report.Whole && !isFile(name) && report.Session != name {
		report.Whole, report.Fault = false, &record.Fault{What: fmt.Sprintf("it is the recording of session %.64q, put in the place of this one", report.Session)}
	}
	if report.Whole && report.Segments == 0 {
		report.Whole, report.Fault = false, &record.Fault{What: fmt.Sprintf("nothing of it is signed: the session began this second, or anybody wrote its %d events", report.Open)}
	}
	if *asJSON {
		err = encodeOne(io.out, report)
	} else if report.Whole {
		report.tell(io.out)
	}
	if err == nil && !report.Whole {
		if report.Fault.Foreign() {
			return explained(name, report.Fault)
		}
		return fmt.Errorf("the recording is not whole: %w%s", report.Fault, report.perhaps())
	}
	return err
}

// verified is what verify prints.
type verified struct {
	Whole bool          `json:"whole"`
	Fault *record.Fault `json:"fault,omitempty"` // where it is not
	record.Report
	Anchored int `json:"anchored"` // heads of the ledger that were compared
}

func verify(ctx context.Context, f io.ReadSeeker, i installation, keyFile string) (verified, error) {
	text, err := os.ReadFile(cmp.Or(keyFile, i.key(publicKeys)))
	if err != nil {
		return verified{}, fmt.Errorf("read keys: %w; --keys names a file with the public keys to trust", err)
	}
	keys, err := record.ParseKeys(text)
	if err != nil {
		return verified{}, fmt.Errorf("read keys %s: %w", cmp.Or(keyFile, i.key(publicKeys)), err)
	}
	heads, err := anchored(ctx, f, i)
	if err != nil {
		return verified{}, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return verified{}, fmt.Errorf("read recording: %w", err)
	}
	v := verified{Anchored: len(heads)}
	v.Report, err = record.Verify(f, keys, heads)
	if errors.As(err, &v.Fault) {
		return v, nil
	}
	v.Whole = err == nil
	return v, err
}

// anchored reads the heads of the recorded session from the ledger. Where dev
// left none, the chain and its signatures alone are judged; a ledger that a
// configuration names must answer.
func anchored(ctx context.Context, f io.Reader, i installation) (heads []access.Head, err error) {
	if i.Config == "" && !isFile(filepath.Join(i.Dir, ledgerFile)) {
		return nil, nil
	}
	session, err := record.SessionOf(f)
	if err != nil {
		return nil, err
	}
	if session == "" {
		return nil, nil // Verify names what is wrong with it
	}
	err = i.withLedger(ctx, func(l *ledger.Ledger) (err error) {
		heads, err = l.Heads(ctx, session)
		return err
	})
	return heads, err
}

func (r verified) tell(w io.Writer) {
	state, against := "sealed", fmt.Sprintf("%d anchored heads agree", r.Anchored)
	if !r.Sealed {
		state = fmt.Sprintf("still open, %d events not yet signed", r.Open)
	}
	if r.Anchored == 0 {
		against = "no ledger has its heads, so a cut tail would not show"
	}
	fmt.Fprintf(w, "session %s is whole: %d segments, %d events, %s; %s\n", record.Visible(r.Session), r.Segments, r.Events, state, against)
}

// perhaps says what else a fault may mean.
func (r verified) perhaps() string {
	if r.Fault.Cut() && !r.Sealed {
		return "; if its session goes on it is being written there, and a moment later it is whole: verify it again"
	}
	return ""
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
