package record

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/tidegate/tidegate/access"
)

// evil is what a terminal obeys: a title, and C1's control sequence introducer.
const evil = "\x1b]0;mallory\x07\u009b2J\u202e"

// forged is a file that nobody signed, with evil in each text that there is.
func forged(t *testing.T) []byte {
	t.Helper()
	at := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	who := access.SessionInfo{
		ID: evil, Grant: access.GrantKey{ID: evil}, PullURL: evil, Person: access.User{Login: evil}, Role: evil, Remote: evil,
		Identity: access.Identity{Issuer: evil, Subject: evil, Email: evil}, Target: access.TargetRef{Kind: evil, Name: evil},
	}
	bad := access.Operation{Kind: evil, Subject: evil, Text: evil, Params: []string{evil}}
	file := bytes.NewBufferString("H {\"v\":1}\n")
	for _, e := range []access.Event{
		{Type: access.EventSessionStart, Session: &who},
		{Type: access.EventOpen, Op: 1, Operation: &bad, Decision: &access.Decision{Rule: evil, Say: evil}},
		{Type: access.EventData, Op: 1, Direction: access.Direction(evil), Data: []byte(evil)},
		{Type: access.EventHoldOpen, Op: 1, Text: evil},
		{Type: access.EventHoldAnswer, Op: 1, Decision: &access.Decision{Say: evil}},
		{Type: access.EventClose, Op: 1, Outcome: &access.Outcome{Status: evil, Code: evil}},
		{Type: access.EventType(evil), Text: evil},
	} {
		e.Time = at
		text, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(file, "E %s\n", text)
	}
	return file.Bytes()
}

// TestAForgedFileDrivesNoTerminal: replay shows files that prove nothing, too.
func TestAForgedFileDrivesNoTerminal(t *testing.T) {
	file := forged(t)
	for name, show := range map[string]func(*bytes.Buffer) error{
		"text": func(b *bytes.Buffer) error { return WriteText(b, bytes.NewReader(file)) },
		"json": func(b *bytes.Buffer) error { return WriteJSON(b, bytes.NewReader(file)) },
		"asciicast 2": func(b *bytes.Buffer) error {
			return WriteAsciicast(b, bytes.NewReader(file), Asciicast{Version: 2})
		},
		"asciicast 3": func(b *bytes.Buffer) error {
			return WriteAsciicast(b, bytes.NewReader(file), Asciicast{Version: 3})
		},
		"show": func(b *bytes.Buffer) error {
			return Replay{}.Show(t.Context(), b, bytes.NewReader(file), int64(len(file)))
		},
	} {
		var out bytes.Buffer
		if err := show(&out); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if at := strings.IndexFunc(out.String(), func(r rune) bool { return r != '\n' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r)) }); at >= 0 {
			t.Errorf("%s: byte %d drives the terminal:\n%q", name, at, out.String())
		}
		if !strings.Contains(out.String(), "mallory") {
			t.Errorf("%s: want the text shown, got %q", name, out.String())
		}
	}
}

// TestAPlayersTerminalHasASize: a client says any, and some say none.
func TestAPlayersTerminalHasASize(t *testing.T) {
	var file bytes.Buffer
	for _, size := range [][2]int{{0, 0}, {1 << 31, 1 << 31}, {0, 0}, {-1, 40}, {132, 50}} {
		fmt.Fprintf(&file, `E {"type":"resize","time":"2026-11-28T12:00:00Z","op":1,"columns":%d,"rows":%d}`+"\n", size[0], size[1])
	}
	var out strings.Builder
	if err := WriteAsciicast(&out, &file, Asciicast{Version: 2}); err != nil {
		t.Fatal(err)
	}
	want := `{"height":24,"timestamp":1795867200,"title":"","version":2,"width":80}
[0,"r","1000x1000"]
[0,"r","80x24"]
[0,"r","80x40"]
[0,"r","132x50"]
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &out, want)
	}
}
