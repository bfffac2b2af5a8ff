package record

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
)

// TestAsciicast: sizes, times, and a character that two events share.
func TestAsciicast(t *testing.T) {
	at := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	var file bytes.Buffer
	for i, e := range []access.Event{
		{Type: access.EventSessionStart, Session: &access.SessionInfo{ID: "s"}},
		{Type: access.EventOpen, Op: 1, Operation: &access.Operation{Text: "uptime"}},
		{Type: access.EventClose, Op: 1, Outcome: &access.Outcome{Status: "ok", Code: "0"}},
		{Type: access.EventOpen, Op: 2, Operation: &access.Operation{Text: "a shell\x1b"}},
		{Type: access.EventResize, Op: 2, Columns: 100, Rows: 40},
		{Type: access.EventData, Op: 2, Direction: access.ToClient, Data: []byte("caf\xc3")},
		{Type: access.EventData, Op: 2, Direction: access.ToClient, Data: []byte("\xa9\x1b[31m\xff")},
		{Type: access.EventData, Op: 2, Direction: access.ToTarget, Data: []byte("ls\r")},
		{Type: access.EventResize, Op: 2, Columns: 80, Rows: 24},
		{Type: access.EventClose, Op: 2, Outcome: &access.Outcome{Status: "error", Code: "7"}},
	} {
		e.Time = at.Add(time.Duration(i) * 250 * time.Millisecond)
		file.WriteString("E ")
		if err := encodeSlowly(&file, e); err != nil {
			t.Fatal(err)
		}
	}
	for version, want := range map[int]string{
		2: `{"height":40,"timestamp":1795867201,"title":"a shell\\x1b","version":2,"width":100}
[0.25,"o","caf"]
[0.5,"o","é\u001b[31m\ufffd"]
[0.75,"i","ls\r"]
[1,"r","80x24"]
`,
		3: `{"term":{"cols":100,"rows":40},"timestamp":1795867201,"title":"a shell\\x1b","version":3}
[0.25,"o","caf"]
[0.25,"o","é\u001b[31m\ufffd"]
[0.25,"i","ls\r"]
[0.25,"r","80x24"]
[0.25,"x","7"]
`,
	} {
		var got strings.Builder
		if err := WriteAsciicast(&got, bytes.NewReader(file.Bytes()), Asciicast{Version: version}); err != nil {
			t.Fatal(err)
		}
		if got.String() != want {
			t.Errorf("version %d: got\n%s\nwant\n%s", version, got.String(), want)
		}
	}
	if err := WriteAsciicast(&strings.Builder{}, bytes.NewReader(file.Bytes()), Asciicast{Version: 1}); access.CodeOf(err) != access.CodeInvalid {
		t.Errorf("version 1: %v", err)
	}
	if err := WriteAsciicast(&strings.Builder{}, strings.NewReader(""), Asciicast{Version: 2}); access.CodeOf(err) != access.CodeNotFound {
		t.Errorf("without a terminal: %v", err)
	}
}
