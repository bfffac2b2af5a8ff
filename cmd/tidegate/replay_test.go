package main

import (
	"os"
	"strings"
	"testing"
)

// TestReplayVerb: the flags fit together, and a film ends with the terminal as
// it was.
func TestReplayVerb(t *testing.T) {
	const file = "../../gateway/record/testdata/v2.tgr"
	if _, err := os.Stat(file); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		has  string
	}{
		{nil, exitOK, "rule no-rm"},
		{[]string{"--from", "3s"}, exitOK, "Your grant inc-1 ends"},
		{[]string{"--speed", "1000"}, exitOK, "\x1b[1;32mbin\x1b[0m"},
		{[]string{"--idle", "1ms"}, exitOK, "\x1b[?25h"},
		{[]string{"--json", "--from", "3s"}, exitOK, `"type":"notice"`},
		{[]string{"--asciicast", "3"}, exitOK, `"version":3`},
		{[]string{"--follow"}, exitOK, "session.end"},
		{[]string{"--speed", "-1"}, exitUsage, "0.01 to 1000"},
		{[]string{"--speed", "NaN"}, exitUsage, "0.01 to 1000"},
		{[]string{"--from", "-1s"}, exitUsage, "negative"},
		{[]string{"--asciicast", "2", "--speed", "2"}, exitUsage, "leave"},
		{[]string{"--json", "--speed", "2"}, exitUsage, "leave"},
	} {
		s := cli(t, "", append(append([]string{"replay", "--dir", t.TempDir()}, c.args...), file)...)
		if s.code != c.code || !strings.Contains(s.out+s.err, c.has) {
			t.Errorf("replay %q: exit code %d, want %d with %q:\n%q", c.args, s.code, c.code, c.has, s.out+s.err)
		}
		if c.args != nil && c.args[0] == "--from" && strings.Contains(s.out, "rm -rf") {
			t.Errorf("what was before is shown: %s", s.out)
		}
	}
}
