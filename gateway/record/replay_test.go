package record

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidegate/tidegate/access"
)

// harmless is everything that may reach a viewer's terminal.
var harmless = regexp.MustCompile(`\A(?:[^\x00-\x1f\x7f-\x{9f}\p{Cf}\p{Zl}\p{Zp}]|[\t\n\r\x08]|\x1b[78DEM]|\x1b\([0B]|\x1b\[[0-9;:]{0,80}[@A-HJ-MPSTXZ\x60abdefmrsu]|\x1b\[\?(?:7|25|1049)[hl])*\z`)

func shown(t *testing.T, parts ...string) string {
	t.Helper()
	var out bytes.Buffer
	s := &screen{out: &out}
	for _, p := range parts {
		if _, err := s.Write([]byte(p)); err != nil {
			t.Fatal(err)
		}
	}
	return out.String()
}

// TestTheViewersTerminalIsSafe: what terminals do when they are told.
func TestTheViewersTerminalIsSafe(t *testing.T) {
	for name, c := range map[string]struct{ wrote, shows string }{
		"text and colours":           {"a\x1b[1;31mé\x1b[0m\r\n\t\b", "a\x1b[1;31mé\x1b[0m\r\n\t\b"},
		"a full-screen program":      {"\x1b[?1049h\x1b[2J\x1b[5;7Hx\x1b[?25l", "\x1b[?1049h\x1b[2J\x1b[5;7Hx\x1b[?25l"},
		"lines of boxes":             {"\x1b(0lqk\x1b(B\x1b)0\x1b%G", "\x1b(0lqk\x1b(B"},
		"a title":                    {"a\x1b]0;rm -rf ~\x07b", "ab"},
		"a title ended by ST":        {"a\x1b]2;x\x1b\\b", "ab"},
		"the clipboard":              {"a\x1b]52;c;cm0=\x07b", "ab"},
		"a link":                     {"\x1b]8;;http://x\x1b\\y\x1b]8;;\x1b\\", "y"},
		"a report of the title":      {"\x1b[21t", ""},
		"where is the cursor":        {"\x1b[6n", ""},
		"who are you":                {"\x1b[c\x1b[>c\x1b[=c\x1bZ\x05", ""},
		"DECRQSS":                    {"a\x1bP$q\"p\x1b\\b", "ab"},
		"sixel":                      {"a\x1bPq#0\x1b\\b", "ab"},
		"APC, PM, SOS":               {"\x1b_Gx\x1b\\\x1b^x\x1b\\\x1bXx\x1b\\y", "y"},
		"mouse, paste, focus":        {"\x1b[?1000h\x1b[?1006;2004;1004h\x1b[?1h", ""},
		"one good mode among others": {"\x1b[?1000;25l", "\x1b[?25l"},
		"keypad, reset":              {"\x1b=\x1b>\x1bc", wipe},
		"soft reset, cursor's shape": {"\x1b[!p\x1b[5 q", ""},
		"what stands above":          {"\x1b[3J\x1b[03J\x1b[3;0J\x1b[0;3J\x1b[3:1J\x1b[13J\x1b[2J", "\x1b[2J"},
		"print, media copy":          {"\x1b[i\x1b[5i", ""},
		"8-bit controls":             {"\u009b6n\u0090x\u009c\x9bc", "6nx\ufffdc"},
		"a repeat that never ends":   {"x\x1b[999999999b\x1b[99999999999999999999;2H", "x\x1b[1000b\x1b[1000;2H"},
		"a bell, a null, DEL":        {"\x07\x00\x7f", ""},
		"text that turns":            {"a\u202eb\u2028", "ab"},
		"broken off":                 {"\x1b]0;x\x1b[31mred\x1b[3\x18a\x1b[1\x1b[2mb", "\x1b[31mreda\x1b[2mb"},
		"a return in a sequence":     {"\x1b[3\r1m", "\r\x1b[31m"},
		"a title that does not end":  {"\x1b]0;" + strings.Repeat("x", maxString-1) + "seen", "seen"},
		"a sequence without an end":  {"\x1b[" + strings.Repeat("1;", maxSequence) + "mseen", "seen"},
	} {
		got := shown(t, c.wrote)
		if got != c.shows {
			t.Errorf("%s: %q shows %q, want %q", name, c.wrote, got, c.shows)
		}
		if one := shown(t, strings.Split(c.wrote, "")...); strings.IndexByte(c.wrote, 0x9b) < 0 && one != got {
			t.Errorf("%s: in single characters it shows %q, want %q", name, one, got)
		}
	}
}

func FuzzScreen(f *testing.F) {
	f.Add([]byte("a\x1b]0;t\x07\x1b[31m\x1b[?1049h\x1bP\x1b\\é\x9b\x1b[6n"), 3)
	f.Fuzz(func(t *testing.T, data []byte, cut int) {
		whole := shown(t, string(data))
		if !harmless.MatchString(whole) {
			t.Fatalf("%q shows %q", data, whole)
		}
		cut = max(0, min(cut, len(data)))
		if parts := shown(t, string(data[:cut]), string(data[cut:])); parts != whole {
			t.Errorf("cut at %d, %q shows %q, whole %q", cut, data, parts, whole)
		}
		var end bytes.Buffer
		if err := (&screen{out: &end, other: true}).close(); err != nil || !harmless.Match(end.Bytes()) {
			t.Errorf("the end is %q, %v", end.Bytes(), err)
		}
	})
}

var replayKey = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))

// film records a terminal that says a number each second, in segments of a few.
func film(t *testing.T, seconds, size, pad int) []byte {
	t.Helper()
	dir, now := t.TempDir(), time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	store, err := Open(Config{Dir: dir, Key: replayKey, MinFree: 1, SegmentBytes: size, SyncEvery: time.Hour, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	w, err := store.Record(access.SessionInfo{ID: "film", Started: now}, func(access.Head) {})
	if err != nil {
		t.Fatal(err)
	}
	say := func(e access.Event) {
		e.Time = now
		if err := w.Append(e, false); err != nil {
			t.Fatal(err)
		}
	}
	say(access.Event{Type: access.EventResize, Op: 3, Columns: 80, Rows: 24})
	for i := range seconds {
		say(access.Event{Type: access.EventData, Op: 3, Direction: access.ToClient, Data: fmt.Appendf(nil, "<%d>%*s", i, pad, "")})
		say(access.Event{Type: access.EventData, Op: 3, Direction: access.ToTarget, Data: []byte("typed")})
		now = now.Add(time.Second)
	}
	if _, err := w.Seal("done"); err != nil {
		t.Fatal(err)
	}
	path, err := Find(dir, "film")
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func play(t *testing.T, p Replay, file []byte) (string, time.Duration) {
	t.Helper()
	var out bytes.Buffer
	begin := time.Now()
	if err := p.Show(t.Context(), &out, bytes.NewReader(file), int64(len(file))); err != nil {
		t.Fatal(err)
	}
	return out.String(), time.Since(begin)
}

// TestReplayTakesItsTime: speed, pauses, and a seek, on a fake clock.
func TestReplayTakesItsTime(t *testing.T) {
	file := film(t, 61, 600, 0)
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			how  Replay
			took time.Duration
			has  string
		}{
			{Replay{Speed: 1}, 61 * time.Second, "<0><1>"},
			{Replay{Speed: 4}, 61 * time.Second / 4, "<59><60>"},
			{Replay{Speed: 1, Idle: 100 * time.Millisecond}, 6100 * time.Millisecond, "<0>"},
			{Replay{Speed: 1, From: 50 * time.Second}, 11 * time.Second, "<0><1>"}, // what stood on the screen
			{Replay{}, 0, "session.end: done"},
			{Replay{JSON: true, From: 60 * time.Second}, 0, `{"type":"data","time":"2026-03-01T12:01:00Z"`},
		} {
			out, took := play(t, c.how, file)
			if took != c.took || !strings.Contains(out, c.has) {
				t.Errorf("%+v took %s, want %s with %q: %.300q", c.how, took, c.took, c.has, out)
			}
			if c.how.Speed > 0 && (strings.Contains(out, "typed") || !harmless.MatchString(out)) {
				t.Errorf("%+v shows %q", c.how, out)
			}
		}
	})
}

// counted counts what is read.
type counted struct {
	io.ReaderAt
	bytes int64
}

func (c *counted) ReadAt(b []byte, at int64) (int, error) {
	n, err := c.ReaderAt.ReadAt(b, at)
	c.bytes += int64(n)
	return n, err
}

// TestASeekReadsLittle: of a long recording only what is asked for.
func TestASeekReadsLittle(t *testing.T) {
	file := film(t, 8_000, 8<<10, 1500)
	r := &counted{ReaderAt: bytes.NewReader(file)}
	for _, from := range []int{0, 1, 777, 4_000, 7_999, 20_000} {
		r.bytes = 0
		place, at, err := seek(r, int64(len(file)), time.Duration(from)*time.Second)
		if err != nil || !bytes.HasPrefix(file[place:], []byte("H {")) {
			t.Fatalf("from %d: place %d, %v", from, place, err)
		}
		if r.bytes > 3<<20 || r.bytes > int64(len(file))/4 {
			t.Errorf("from %d: %d of %d bytes were read", from, r.bytes, len(file))
		}
		begun := file[place:]
		if want := fmt.Sprintf("<%d>", from); from < 8_000 && from > 0 && !bytes.Contains(decoded(t, begun[:min(len(begun), screenful+64<<10)], at), []byte(want)) {
			t.Errorf("from %d: it is not what is read first", from)
		}
	}
}

// decoded is what the terminal showed in a piece of a recording, from a moment on.
func decoded(t *testing.T, piece []byte, from time.Time) (out []byte) {
	t.Helper()
	for e, err := range Read(bytes.NewReader(piece)) {
		if err != nil {
			break // the piece ends in a line
		}
		if !e.Time.Before(from) {
			out = append(out, e.Data...)
		}
	}
	return out
}

// TestFollow shows a session while it goes on, and ends with it.
func TestFollow(t *testing.T) {
	dir := t.TempDir()
	store, err := Open(Config{Dir: dir, Key: replayKey, MinFree: 1, SegmentBytes: 600})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	w, err := store.Record(access.SessionInfo{ID: "live", Started: time.Now()}, func(access.Head) {})
	if err != nil {
		t.Fatal(err)
	}
	say := func(text string) {
		if err := w.Append(access.Event{Type: access.EventNotice, Time: time.Now().UTC(), Text: text}, false); err != nil {
			t.Fatal(err)
		}
	}
	say("first")
	f, err := os.Open(filepath.Join(dir, openDir, "live"+ext))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	r, pipe := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- Replay{Follow: true}.Show(context.Background(), pipe, f, info.Size())
		pipe.Close()
	}()
	next := func(want string) {
		t.Helper()
		line := make([]byte, 200)
		n, err := r.Read(line)
		if err != nil || !strings.Contains(string(line[:n]), want) {
			t.Fatalf("got %q, %v; want %q", line[:n], err, want)
		}
	}
	next("first")
	for i := range 9 { // over several segments
		say(fmt.Sprint("number ", i))
		next(fmt.Sprint("number ", i))
	}
	if _, err := w.Seal("over"); err != nil {
		t.Fatal(err)
	}
	next("over")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Who reads a recording sees who let a held statement run.
func TestTheAnswerToAHoldIsTold(t *testing.T) {
	var out strings.Builder
	writeEvent(&out, access.Event{Type: access.EventHoldAnswer, Op: 2, Held: "h-1", Decision: &access.Decision{Verdict: access.Allow, Rule: "big", Say: "Approved by bob."}})
	if want := "#2 hold.answer allow: Approved by bob.\n"; !strings.HasSuffix(out.String(), want) {
		t.Errorf("got %q, want it to end in %q", out.String(), want)
	}
}
