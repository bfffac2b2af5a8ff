package record

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/tidegate/tidegate/access"
)

// Asciicast says what WriteAsciicast writes.
type Asciicast struct {
	Version int    // 2 or 3
	Op      uint64 // the operation to show; 0 is the first with a terminal
}

// The size of a terminal that nobody told.
const (
	usualColumns = 80
	usualRows    = 24
	maxShown     = 1000 // columns or rows
)

// WriteAsciicast writes one terminal of a recording in asciinema's format, for
// its player. What the program sent stands in it as it was: the player has a
// terminal of its own. On yours it draws nothing, for JSON escapes it.
func WriteAsciicast(w io.Writer, r io.Reader, a Asciicast) error {
	if a.Version != 2 && a.Version != 3 {
		return access.Errorf(access.CodeInvalid, "There is no asciicast version %d here, only 2 and 3.", a.Version)
	}
	c := &caster{Asciicast: a, out: bufio.NewWriter(w)}
	for e, err := range Read(r) {
		if err == nil {
			err = c.event(e)
		}
		if err != nil {
			return errors.Join(err, c.out.Flush())
		}
	}
	if !c.begun {
		return access.Errorf(access.CodeNotFound, "This recording has no terminal: no size was told and nothing was shown.")
	}
	return c.out.Flush()
}

type caster struct {
	Asciicast
	out     *bufio.Writer
	title   string
	begun   bool
	start   time.Time
	last    time.Time
	partial []byte // the beginning of a character whose rest is in the next event
}

func (c *caster) event(e access.Event) error {
	if c.Op == 0 && e.Op != 0 && (e.Type == access.EventResize || e.Type == access.EventData) {
		c.Op = e.Op
	}
	if c.Op == 0 || e.Op != c.Op {
		if e.Type == access.EventOpen && e.Operation != nil {
			c.title = Visible(e.Operation.Text)
		}
		return nil
	}
	switch e.Type {
	case access.EventOpen:
		if e.Operation != nil {
			c.title = Visible(e.Operation.Text)
		}
	case access.EventResize:
		return c.resize(e)
	case access.EventData:
		if err := c.begin(e.Time, usualColumns, usualRows); err != nil {
			return err
		}
		code := "o"
		if e.Direction == access.ToTarget {
			code = "i"
		}
		return c.line(e.Time, code, c.text(e))
	case access.EventClose:
		if c.begun && c.Version == 3 && e.Outcome != nil && isNumber(e.Outcome.Code) {
			return c.line(e.Time, "x", e.Outcome.Code)
		}
	}
	return nil
}

func isNumber(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

func (c *caster) resize(e access.Event) error {
	columns, rows := sized(e.Columns, usualColumns), sized(e.Rows, usualRows)
	if !c.begun {
		return c.begin(e.Time, columns, rows)
	}
	return c.line(e.Time, "r", fmt.Sprintf("%dx%d", columns, rows))
}

// sized is what a player can show of a size that a client told: some tell 0,
// and the largest would take all memory.
func sized(told, usual int) int {
	if told <= 0 {
		return usual
	}
	return min(told, maxShown)
}

// begin writes the header, once.
func (c *caster) begin(at time.Time, columns, rows int) error {
	if c.begun {
		return nil
	}
	c.begun, c.start, c.last = true, at, at
	header := map[string]any{"version": c.Version, "timestamp": at.Unix(), "title": c.title}
	if c.Version == 2 {
		header["width"], header["height"] = columns, rows
	} else {
		header["term"] = map[string]int{"cols": columns, "rows": rows}
	}
	return c.json(header)
}

// line writes one event. Version 2 counts time from the beginning, version 3
// from the event before.
func (c *caster) line(at time.Time, code, text string) error {
	if text == "" {
		return nil
	}
	since := at.Sub(c.start)
	if c.Version == 3 {
		since = at.Sub(c.last)
	}
	c.last = at
	return c.json([]any{math.Round(max(0, since.Seconds())*1e6) / 1e6, code, text})
}

func (c *caster) json(v any) error {
	if err := EncodeVisible(c.out, v); err != nil {
		return fmt.Errorf("write asciicast: %w", err)
	}
	return nil
}

// text is an event's bytes as text. A character whose bytes two events share
// waits for the second; what is no UTF-8 becomes a replacement character.
func (c *caster) text(e access.Event) string {
	if e.Direction == access.ToTarget {
		return strings.ToValidUTF8(string(e.Data), "\ufffd")
	}
	data := append(c.partial, e.Data...)
	keep := unfinished(data)
	c.partial = append([]byte(nil), data[len(data)-keep:]...)
	return strings.ToValidUTF8(string(data[:len(data)-keep]), "\ufffd")
}

// unfinished is how many bytes at the end begin a character and do not end it.
func unfinished(b []byte) int {
	for n := 1; n <= min(3, len(b)); n++ {
		first := b[len(b)-n]
		switch {
		case first < 0x80:
			return 0
		case first >= 0xf0 && first < 0xf5 && n < 4, first >= 0xe0 && first < 0xf0 && n < 3, first >= 0xc0 && first < 0xe0 && n < 2:
			return n
		case first >= 0xc0:
			return 0
		}
	}
	return 0
}
