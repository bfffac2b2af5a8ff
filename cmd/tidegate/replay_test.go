package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger"
	"github.com/tidegate/tidegate/gateway/record"
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
		{[]string{"--op", "1"}, exitUsage, "add --speed"},
		{[]string{"--op", "99", "--speed", "1000"}, exitFailed, "nothing of an operation 99"},
		{[]string{"--from", "1h"}, exitFailed, "Nothing was recorded from 1h"},
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

// TestWrongRecordings: each message says what was got, what was wanted, and
// what to do.
func TestWrongRecordings(t *testing.T) {
	dir := t.TempDir()
	file, err := os.ReadFile("../../gateway/record/testdata/v2.tgr")
	if err != nil {
		t.Fatal(err)
	}
	at := func(name, text string) string { return put(t, filepath.Join(dir, name), text, 0o600) }
	trusted := at("keys.pem", string(record.MarshalKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, ed25519.SeedSize)).Public().(ed25519.PublicKey))))
	for _, c := range []struct {
		name, replay, verify string
		more                 []string
	}{
		{at("readme.md", "# Tidegate\n"), `no recording: it begins with "# Tidegate\n", want the header`, "no recording: it begins with", []string{"tidegate sessions"}},
		{at("noise", "\x7fELF"+strings.Repeat("\x00", 5<<20)), `begins with "\x7fELF`, `begins with "\x7fELF`, nil},
		{at("empty.tgr", ""), "is empty, and a recording begins with a header", "is empty", []string{"--follow"}},
		{at("cut.tgr", string(file[:3000])), "the last line is not whole: it was cut there", "the last line is not whole", []string{"byte 2935"}},
		{at("cut-header.tgr", string(file[:40])), "the last line is not whole: it was cut there", "the last line is not whole", nil},
		{dir, "is a folder, want the file", "is a folder, want the file", []string{"tidegate sessions"}},
		{filepath.Join(dir, "none.tgr"), "there is no file", "there is no file", []string{"tidegate sessions"}},
		{"none", "no recording of session none in " + filepath.Join(dir, recordingsDir), "no recording of session none", []string{"tidegate sessions"}},
		{"two words", "is not a session id", "is not a session id", []string{"want up to 64"}},
		{"", "an empty name", "an empty name", []string{"want the file"}},
	} {
		for verb, want := range map[string]string{"replay": c.replay, "replay --speed 1000": c.replay, "replay --json": c.replay, "replay --asciicast 3": c.replay, "verify --keys " + trusted: c.verify} {
			s := cli(t, "", append(strings.Fields(verb), "--dir", dir, c.name)...)
			if s.code != exitFailed || !strings.Contains(s.err, want) {
				t.Errorf("%s %s: exit code %d, want %q:\n%s", verb, c.name, s.code, want, s.err)
			}
			for _, more := range c.more {
				if !strings.Contains(s.err, more) && verb == "replay" {
					t.Errorf("%s %s: want %q:\n%s", verb, c.name, more, s.err)
				}
			}
		}
	}
}

// TestSessionsSayWhere: the file here while there is one, the copy once there
// is one, or where there is no file.
func TestSessionsSayWhere(t *testing.T) {
	dir := t.TempDir()
	started := time.Date(2026, 11, 28, 23, 59, 59, 0, time.UTC)
	of := func(id string) access.SessionInfo { return access.SessionInfo{ID: id, Started: started} }
	open := put(t, filepath.Join(dir, "open", "live.tgr"), "x", 0o600)
	sealed := put(t, filepath.Join(dir, "2026", "11", "28", "sealed.tgr"), "x", 0o600)
	sent := put(t, filepath.Join(dir, "2026", "11", "28", "sent.tgr"), "x", 0o600)
	put(t, sent+".sent", "x", 0o600)
	i := installation{Recordings: dir, Bucket: "gs://acme-recordings?prefix=prod/&endpoint=https://gcs.internal"}
	for n, want := range []located{
		{of("live"), open, ""}, {of("sealed"), sealed, ""}, {of("sent"), sent, "gs://acme-recordings/prod/sent.tgr"},
		{of("gone"), "", "gs://acme-recordings/prod/gone.tgr"},
	} {
		if got := i.located([]access.SessionInfo{want.SessionInfo})[0]; !reflect.DeepEqual(got, want) {
			t.Errorf("%d: got %+v, want %+v", n, got, want)
		}
	}
	i.Bucket, i.Recordings = "", ""
	if got := i.located([]access.SessionInfo{of("sent")})[0]; got.Recording != "" || got.Copy != "" {
		t.Errorf("a gateway's in another process: %+v", got)
	}
	var out bytes.Buffer
	if err := encodeAll(&out, []located{{of("sent"), sent, "gs://b/sent.tgr"}}); err != nil || !strings.Contains(out.String(), `"copy":"gs://b/sent.tgr"`) || !strings.Contains(out.String(), `"id":"sent"`) {
		t.Errorf("as JSON: %s, %v", out.String(), err)
	}
}

// TestRecordingsElsewhere: a recording that is gone here is read from the
// bucket, and one that lies in another's place is refused.
func TestRecordingsElsewhere(t *testing.T) {
	dir := t.TempDir()
	file, err := os.ReadFile("../../gateway/record/testdata/v1.tgr")
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "bucket", "golden.tgr"), string(file), 0o600)
	put(t, filepath.Join(dir, "recordings", "2026", "03", "01", "other.tgr"), string(file), 0o600)
	config := put(t, filepath.Join(dir, "tidegate.hcl"), fmt.Sprintf(`
state_dir = %q
ledger { url = %q }
recordings {
  dir    = %q
  bucket = "file://%s"
}
`, filepath.Join(dir, "state"), "sqlite:"+filepath.Join(dir, "ledger.db"), filepath.Join(dir, "recordings"), filepath.Join(dir, "bucket")), 0o600)
	if s := cli(t, "", "replay", "--config", config, "golden"); s.code != exitOK || !strings.Contains(s.out, "rule no-rm") {
		t.Errorf("from the bucket: exit code %d\n%s%s", s.code, s.out, s.err)
	}
	if s := cli(t, "", "replay", "--config", config, "none"); s.code != exitFailed || !strings.Contains(s.err, "nor in the bucket") {
		t.Errorf("from nowhere: exit code %d\n%s%s", s.code, s.out, s.err)
	}
	recorder := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	keys := put(t, filepath.Join(dir, "keys.pem"), string(record.MarshalKey(recorder.Public().(ed25519.PublicKey))), 0o600)
	if s := cli(t, "", "verify", "--dir", dir, "--keys", keys, "other"); s.code != exitFailed || !strings.Contains(s.err, "put in the place of this one") {
		t.Errorf("another session's: exit code %d\n%s%s", s.code, s.out, s.err)
	}
}

// TestACutBeginningShows: whose recording it is says its header, not an event
// that can be taken away: else nothing would be compared with the ledger.
func TestACutBeginningShows(t *testing.T) {
	dir := t.TempDir()
	file, err := os.ReadFile("../../gateway/record/testdata/v1.tgr")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(file), "\n")
	recorder := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	put(t, filepath.Join(dir, keysDir, publicKeys), string(record.MarshalKey(recorder.Public().(ed25519.PublicKey))), 0o600)
	l, err := ledger.Open(t.Context(), ledger.Config{URL: "sqlite:" + filepath.Join(dir, ledgerFile)})
	if err != nil {
		t.Fatal(err)
	}
	hash := strings.Fields(lines[5])[1]
	if err := errors.Join(l.Anchor(t.Context(), access.Head{Session: "golden", Hash: hash}), l.Close()); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text string
		code int
		says string
	}{
		"whole":                       {string(file), exitOK, "1 anchored heads agree"},
		"the header alone":            {lines[0], exitFailed, "the tail was cut"},
		"another session's beginning": {lines[0] + strings.Replace(lines[1], `"id":"golden"`, `"id":"gilded"`, 1), exitFailed, "the tail was cut"},
		"another first event":         {lines[0] + lines[7], exitFailed, "the tail was cut"},
	} {
		put(t, filepath.Join(dir, recordingsDir, "2026", "03", "01", "golden.tgr"), c.text, 0o600)
		if s := cli(t, "", "verify", "--dir", dir, "golden"); s.code != c.code || !strings.Contains(s.out+s.err, c.says) {
			t.Errorf("%s: exit code %d, want %d with %q\n%s%s", name, s.code, c.code, c.says, s.out, s.err)
		}
	}
}

// TestNothingSignedIsNotWhole: whoever knows a key's name can write a recording
// that begins, and ends before its first signature.
func TestNothingSignedIsNotWhole(t *testing.T) {
	dir := t.TempDir()
	file, err := os.ReadFile("../../gateway/record/testdata/v1.tgr")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(file), "\n")
	recorder := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	keys := put(t, filepath.Join(dir, "keys.pem"), string(record.MarshalKey(recorder.Public().(ed25519.PublicKey))), 0o600)
	path := put(t, filepath.Join(dir, "forged.tgr"), lines[0]+lines[1]+strings.Replace(lines[2], "op.open", "op.close", 1), 0o600)
	if s := cli(t, "", "verify", "--json", "--dir", dir, "--keys", keys, path); s.code != exitFailed || !strings.Contains(s.out, `"whole":false`) || !strings.Contains(s.err, "nothing of it is signed") {
		t.Errorf("exit code %d\n%s%s", s.code, s.out, s.err)
	}
}

// TestJSONDrivesNoTerminal: JSON leaves the controls from U+0080 on as they
// are, and what turns text, and terminals obey both.
func TestJSONDrivesNoTerminal(t *testing.T) {
	const text = "a\u009b2J\u202eb\u2066\x7f\U000e0041é<"
	var out bytes.Buffer
	if err := encodeOne(&out, map[string]string{"text": text}); err != nil {
		t.Fatal(err)
	}
	if want := `{"text":"a\u009b2J\u202eb\u2066\u007f\udb40\udc41é<"}` + "\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	var back map[string]string
	if err := json.Unmarshal(out.Bytes(), &back); err != nil || back["text"] != text {
		t.Errorf("reads as %q, %v, want %q", back["text"], err, text)
	}
}
