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
	at := e.Time.UTC().Format("15:04:05.000")
	switch e.Type {
	case access.EventSessionStart:
		if s := e.Session; s != nil {
			fmt.Fprintf(w, "%s  session %s: %s on %s as %s, grant %s until %s\n", at, s.ID, Visible(s.Person.Login),
				Visible(s.Target.String()), Visible(s.Role), Visible(s.Grant.ID), s.NotAfter.UTC().Format(time.RFC3339))
			fmt.Fprintf(w, "%s  from %s by %s, %s\n", at, Visible(s.Remote), Visible(s.Identity.String()), Visible(s.PullURL))
		}
	case access.EventOpen:
		writeOpen(w, at, e)
	case access.EventClose:
		if o := e.Outcome; o != nil {
			fmt.Fprintf(w, "%s  #%d %s %s %d rows %d bytes\n", at, e.Op, o.Status, Visible(o.Code), o.Rows, o.Bytes)
		}
	case access.EventData:
		fmt.Fprintf(w, "%s  #%d %s| %s\n", at, e.Op, e.Direction, Visible(string(e.Data)))
	case access.EventHoldOpen:
		fmt.Fprintf(w, "%s  #%d %s %s\n", at, e.Op, e.Type, Visible(e.Text))
	case access.EventHoldAnswer:
		if d := e.Decision; d != nil {
			fmt.Fprintf(w, "%s  #%d %s %s: %s\n", at, e.Op, e.Type, d.Verdict, Visible(d.Say))
		}
	default:
		fmt.Fprintf(w, "%s  %s: %s\n", at, e.Type, Visible(e.Text))
	}
}

func writeOpen(w io.Writer, at string, e access.Event) {
	if e.Operation == nil || e.Decision == nil {
		return
	}
	fmt.Fprintf(w, "%s  #%d %s  %s\n", at, e.Op, e.Decision.Verdict, Visible(e.Operation.Text))
	if len(e.Operation.Params) > 0 {
		fmt.Fprintf(w, "%s  #%d with %s\n", at, e.Op, Visible(strings.Join(e.Operation.Params, ", ")))
	}
	if e.Decision.Verdict != access.Allow {
		fmt.Fprintf(w, "%s  #%d rule %s: %s\n", at, e.Op, Visible(e.Decision.Rule), Visible(e.Decision.Say))
	}
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
