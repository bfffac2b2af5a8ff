package access

import (
	"testing"
	"time"
)

func TestClock(t *testing.T) {
	asked := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	answered := asked.Add(2 * time.Second)
	for off, want := range map[time.Duration]Level{
		0: LevelOK, time.Second: LevelOK, -5 * time.Second: LevelOK, 7 * time.Second: LevelOK,
		-6 * time.Second: LevelFail, 8 * time.Second: LevelFail, time.Hour: LevelFail,
	} {
		var f Findings
		f.Clock(asked.Add(off), asked, answered)
		if got := f.List[0].Level; got != want {
			t.Errorf("a clock %s after the question: got %s, want %s", off, got, want)
		}
	}
}

func TestExpiry(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	for days, want := range map[int]Level{-1: LevelFail, 0: LevelFail, 1: LevelWarn, 29: LevelWarn, 30: LevelOK} {
		var f Findings
		f.Expiry("it", now.AddDate(0, 0, days), now, "renew")
		if got := f.List[0].Level; got != want {
			t.Errorf("%d days: got %s, want %s", days, got, want)
		}
	}
}
