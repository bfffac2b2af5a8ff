package record

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/tidegate/tidegate/access"
)

// WriteJSON writes a recording's events as JSON lines.
func WriteJSON(w io.Writer, r io.Reader) error {
	for e, err := range Read(r) {
		if err != nil {
			return err
		}
		if err := EncodeVisible(w, e); err != nil {
			return fmt.Errorf("write events: %w", err)
		}
	}
	return nil
}

// EncodeVisible writes one line of JSON that may be looked at: encoding/json
// leaves characters as they are that a terminal obeys (U+0080 to U+009F), or
// that turn and hide text. They are escaped here as well.
func EncodeVisible(w io.Writer, v any) error {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	line := text.Bytes()[:text.Len()-1]
	if bytes.IndexFunc(line, harmful) < 0 {
		_, err := w.Write(text.Bytes())
		return err
	}
	var out []byte
	for _, r := range string(line) {
		if !harmful(r) {
			out = utf8.AppendRune(out, r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			out = fmt.Appendf(out, `\u%04x`, unit)
		}
	}
	_, err := w.Write(append(out, '\n'))
	return err
}

// WriteText writes a recording for a person to read. No control character of
// the recorded text reaches w: a replay can't drive the viewer's terminal.
func WriteText(w io.Writer, r io.Reader) error {
	out := bufio.NewWriter(w)
	for e, err := range Read(r) {
		if err != nil {
			_ = out.Flush() // the read error is the one to tell
			return err
		}
		writeEvent(out, e)
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write replay: %w", err)
	}
	return nil
}

func writeEvent(w io.Writer, e access.Event) {
	line := liner{w, e.Time.UTC().Format("15:04:05.000")}
	switch e.Type {
	case access.EventSessionStart:
		if s := e.Session; s != nil {
			line.print("session %s: %s on %s as %s, grant %s until %s", s.ID, s.Person.Login, s.Target, s.Role, s.Grant.ID, s.NotAfter.UTC().Format(time.RFC3339))
			line.print("from %s by %s, %s", s.Remote, s.Identity, s.PullURL)
		}
	case access.EventOpen:
		writeOpen(line, e)
	case access.EventClose:
		if o := e.Outcome; o != nil {
			line.print("#%d %s %s %d rows %d bytes", e.Op, o.Status, o.Code, o.Rows, o.Bytes)
		}
	case access.EventData:
		line.print("#%d %s| %s", e.Op, e.Direction, e.Data)
	case access.EventHoldOpen:
		line.print("#%d %s %s", e.Op, e.Type, e.Text)
	case access.EventHoldAnswer:
		if d := e.Decision; d != nil {
			line.print("#%d %s %s: %s", e.Op, e.Type, d.Verdict, d.Say)
		}
	default:
		line.print("%s: %s", e.Type, e.Text)
	}
}

func writeOpen(line liner, e access.Event) {
	if e.Operation == nil || e.Decision == nil {
		return
	}
	line.print("#%d %s  %s", e.Op, e.Decision.Verdict, e.Operation.Text)
	if len(e.Operation.Params) > 0 {
		line.print("#%d with %s", e.Op, strings.Join(e.Operation.Params, ", "))
	}
	if e.Decision.Verdict != access.Allow {
		line.print("#%d rule %s: %s", e.Op, e.Decision.Rule, e.Decision.Say)
	}
}

// liner writes lines that begin with when it happened. Whatever is in them can
// do nothing on a terminal: the file may be anybody's.
type liner struct {
	w  io.Writer
	at string
}

func (l liner) print(format string, args ...any) {
	_, _ = io.WriteString(l.w, l.at+"  "+Visible(fmt.Sprintf(format, args...))+"\n") // writers here keep their error
}

// Visible shows control characters and those that turn or hide text as
// escapes, and leaves everything else as it is.
func Visible(s string) string {
	if strings.IndexFunc(s, harmful) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case !harmful(r):
			b.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

func harmful(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Zl, r) ||
		unicode.Is(unicode.Zp, r) || r == unicode.ReplacementChar
}
