package record

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"github.com/tidegate/tidegate/access"
)

// The beginnings and ends of operations are most of a recording, and each is
// written while somebody waits for an answer. appendEvent writes them as
// encoding/json would, in a tenth of the time; what it does not know it leaves
// to encoding/json.

// encode appends an event's JSON and a line's end.
func encode(buf *bytes.Buffer, e *access.Event) error {
	out, ok := appendEvent(buf.AvailableBuffer(), e)
	if ok {
		buf.Write(append(out, '\n'))
		return nil
	}
	return encodeSlowly(buf, *e) // a copy, so that events need not live on the heap
}

func encodeSlowly(buf *bytes.Buffer, v any) error {
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	return enc.Encode(v) // ends the line, too
}

// maxFacts is how many facts of an operation are sorted without help.
const maxFacts = 16

func appendEvent(b []byte, e *access.Event) (_ []byte, ok bool) {
	if e.Type == access.EventData {
		return appendData(b, e)
	}
	if !plainEvent(e) {
		return b, false
	}
	b = append(b, `{"type":"`...)
	b = append(b, e.Type...)
	b = append(b, `","time":"`...)
	b = e.Time.AppendFormat(b, time.RFC3339Nano)
	b = append(b, '"')
	if e.Op != 0 {
		b = strconv.AppendUint(append(b, `,"op":`...), e.Op, 10)
	}
	ok = true
	if e.Operation != nil {
		b, ok = appendOperation(append(b, `,"operation":`...), e.Operation)
	}
	if ok && e.Decision != nil {
		b, ok = appendDecision(append(b, `,"decision":`...), e.Decision)
	}
	if ok && e.Outcome != nil {
		b, ok = appendOutcome(append(b, `,"outcome":`...), e.Outcome)
	}
	return append(b, '}'), ok
}

// appendData writes bytes that flowed: most of what a terminal's recording is.
func appendData(b []byte, e *access.Event) (_ []byte, ok bool) {
	year := e.Time.Year()
	plain := (e.Direction == access.ToClient || e.Direction == access.ToTarget) && len(e.Data) > 0 &&
		e.Session == nil && e.Operation == nil && e.Decision == nil && e.Outcome == nil && e.Held == "" && e.Columns == 0 && e.Rows == 0 &&
		e.Text == "" && e.Time.Location() == time.UTC && year >= 0 && year <= 9999
	if !plain {
		return b, false
	}
	b = slices.Grow(b, 128+base64.StdEncoding.EncodedLen(len(e.Data)))
	b = append(b, `{"type":"data","time":"`...)
	b = append(e.Time.AppendFormat(b, time.RFC3339Nano), '"')
	if e.Op != 0 {
		b = strconv.AppendUint(append(b, `,"op":`...), e.Op, 10)
	}
	b = append(append(b, `,"direction":"`...), e.Direction...)
	b = base64.StdEncoding.AppendEncode(append(b, `","data":"`...), e.Data)
	return append(b, `"}`...), true
}

func plainEvent(e *access.Event) bool {
	if e.Type != access.EventOpen && e.Type != access.EventClose {
		return false
	}
	year := e.Time.Year() // beyond these, encoding/json refuses
	return e.Session == nil && e.Held == "" && e.Direction == "" && len(e.Data) == 0 && e.Columns == 0 && e.Rows == 0 &&
		e.Text == "" && e.Time.Location() == time.UTC && year >= 0 && year <= 9999
}

func appendOperation(b []byte, o *access.Operation) (_ []byte, ok bool) {
	if o.Guard != nil || o.Opaque {
		return b, false
	}
	if b, ok = appendClass(b, o); !ok {
		return b, false
	}
	if b, ok = appendField(b, `,"text":`, o.Text); !ok {
		return b, false
	}
	if len(o.Params) > 0 {
		if b, ok = appendList(append(b, `,"params":`...), o.Params); !ok {
			return b, false
		}
	}
	if len(o.Context) > 0 {
		if b, ok = appendList(append(b, `,"context":`...), o.Context); !ok {
			return b, false
		}
	}
	return append(b, '}'), true
}

// appendClass writes what operations of one class have in common.
func appendClass(b []byte, o *access.Operation) (_ []byte, ok bool) {
	_, text := o.Facts["text"] // no two have that in common
	keeps := o.Class != nil && !text
	if keeps {
		if kept := o.Class.Written.Load(); kept != nil {
			return append(b, *kept...), true
		}
	}
	from := len(b)
	if b, ok = appendField(b, `{"kind":`, o.Kind); !ok {
		return b, false
	}
	if b, ok = appendField(b, `,"subject":`, o.Subject); !ok {
		return b, false
	}
	if len(o.Facts) > 0 {
		if b, ok = appendFacts(append(b, `,"facts":`...), o.Facts); !ok {
			return b, false
		}
	}
	if keeps {
		kept := bytes.Clone(b[from:])
		o.Class.Written.Store(&kept)
	}
	return b, true
}

func appendFacts(b []byte, facts access.Facts) (_ []byte, ok bool) {
	if len(facts) > maxFacts {
		return b, false
	}
	var names [maxFacts]string
	n := 0
	for name := range facts {
		names[n] = name
		n++
	}
	slices.Sort(names[:n])
	for i, name := range names[:n] {
		before := byte(',')
		if i == 0 {
			before = '{'
		}
		if b, ok = appendText(append(b, before), name); !ok {
			return b, false
		}
		if b, ok = appendFact(append(b, ':'), facts[name]); !ok {
			return b, false
		}
	}
	return append(b, '}'), true
}

func appendFact(b []byte, v any) ([]byte, bool) {
	switch v := v.(type) {
	case bool:
		return strconv.AppendBool(b, v), true
	case int64:
		return strconv.AppendInt(b, v, 10), true
	case string:
		return appendText(b, v)
	case []string:
		if v == nil {
			return append(b, "null"...), true
		}
		return appendList(b, v)
	}
	return b, false
}

func appendDecision(b []byte, d *access.Decision) (_ []byte, ok bool) {
	if len(d.Ask) > 0 || d.Limits != (access.Limits{}) {
		return b, false
	}
	b = strconv.AppendInt(append(b, `{"verdict":`...), int64(d.Verdict), 10)
	if b, ok = appendOptional(b, `,"rule":`, d.Rule); !ok {
		return b, false
	}
	if b, ok = appendOptional(b, `,"say":`, d.Say); !ok {
		return b, false
	}
	if d.Sync {
		b = append(b, `,"sync":true`...)
	}
	return append(b, '}'), true
}

func appendOutcome(b []byte, o *access.Outcome) (_ []byte, ok bool) {
	if o.Received != 0 || o.ReceivedHash != "" {
		return b, false
	}
	if b, ok = appendField(b, `{"status":`, o.Status); !ok {
		return b, false
	}
	if b, ok = appendOptional(b, `,"code":`, o.Code); !ok {
		return b, false
	}
	if o.Rows != 0 {
		b = strconv.AppendInt(append(b, `,"rows":`...), o.Rows, 10)
	}
	if o.Bytes != 0 {
		b = strconv.AppendInt(append(b, `,"bytes":`...), o.Bytes, 10)
	}
	if b, ok = appendOptional(b, `,"hash":`, o.Hash); !ok {
		return b, false
	}
	return append(b, '}'), true
}

func appendList(b []byte, list []string) (_ []byte, ok bool) {
	b = append(b, '[')
	for i, s := range list {
		if i > 0 {
			b = append(b, ',')
		}
		if b, ok = appendText(b, s); !ok {
			return b, false
		}
	}
	return append(b, ']'), true
}

func appendField(b []byte, name, value string) ([]byte, bool) {
	return appendText(append(b, name...), value)
}

func appendOptional(b []byte, name, value string) ([]byte, bool) {
	if value == "" {
		return b, true
	}
	return appendField(b, name, value)
}

// appendText quotes a string of ASCII; any other is left to encoding/json.
func appendText(b []byte, s string) ([]byte, bool) {
	b = append(b, '"')
	from := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= ' ' && c < 0x7f && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			return b, false
		}
	}
	return append(append(b, s[from:]...), '"'), true
}
