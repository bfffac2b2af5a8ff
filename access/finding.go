package access

import (
	"fmt"
	"time"
)

// Finding is what a part says of itself when an operator asks how it is.
// It holds no secret.
type Finding struct {
	Part  string `json:"part"` // "ledger", "target postgres.orders-prod"
	Level Level  `json:"level"`
	Say   string `json:"say"`          // one line: what was found
	Do    string `json:"do,omitempty"` // what to do about it
}

// Level is how bad a finding is.
type Level string

// The levels. Only a failure keeps Tidegate, or somebody, from working.
const (
	LevelOK   Level = "ok"
	LevelWarn Level = "warn"
	LevelFail Level = "fail"
)

// Findings are those of one part, in the order in which it looked.
type Findings struct {
	Part string
	List []Finding
}

// OK notes what is as it should be.
func (f *Findings) OK(format string, args ...any) {
	f.add(LevelOK, "", format, args)
}

// Warn notes what works today and will not stay so, or is weaker than it
// could be.
func (f *Findings) Warn(do, format string, args ...any) {
	f.add(LevelWarn, do, format, args)
}

// Fail notes what does not work.
func (f *Findings) Fail(do, format string, args ...any) {
	f.add(LevelFail, do, format, args)
}

func (f *Findings) add(l Level, do, format string, args []any) {
	f.List = append(f.List, Finding{Part: f.Part, Level: l, Say: fmt.Sprintf(format, args...), Do: do})
}

// MaxSkew is how far two clocks of one installation may be apart.
const MaxSkew = 5 * time.Second

// Clock compares a part's clock, read between two moments of ours, with ours.
func (f *Findings) Clock(theirs, asked, answered time.Time) {
	off := time.Duration(0)
	switch {
	case theirs.Before(asked):
		off = theirs.Sub(asked)
	case theirs.After(answered):
		off = theirs.Sub(answered)
	}
	if off.Abs() > MaxSkew {
		f.Fail("Set both clocks by NTP.", "its clock and this machine's are %s apart, want at most %s", off.Abs().Round(time.Second), MaxSkew)
		return
	}
	f.OK("its clock agrees with this machine's")
}

// Expiry judges how long something is good.
func (f *Findings) Expiry(what string, end, now time.Time, renew string) {
	day := fmt.Sprintf("%s (%d days)", end.UTC().Format(time.DateOnly), int(end.Sub(now).Hours()/24))
	switch {
	case !now.Before(end):
		f.Fail(renew, "%s ended on %s", what, end.UTC().Format(time.DateOnly))
	case end.Sub(now) < soon:
		f.Warn(renew, "%s ends on %s", what, day)
	default:
		f.OK("%s is good until %s", what, day)
	}
}

// soon is when somebody should renew what ends.
const soon = 30 * 24 * time.Hour
