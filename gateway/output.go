package gateway

import (
	"bytes"
	"encoding/hex"
	"strings"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/mask"
)

// masks are what is detected in the operation's text. In what says nothing to
// a reader, a file or a tunnel, nothing is looked for: asterisks would damage
// it.
func (o *openOp) masks() *mask.Set {
	if o.opaque {
		return nil
	}
	return o.session.masks
}

// masker is a set as rooms see it.
type masker struct{ *mask.Set }

func (m masker) Stream() MaskStream { return m.Set.Stream(false) }

// Masker implements Session.
func (s *session) Masker() Masker {
	if s.masks == nil {
		return nil
	}
	return masker{s.masks}
}

// output implements Output.
type output struct {
	op     *openOp
	stream *mask.Stream // nil: nothing is looked for
	buf    []byte
	sent   int // buf[sent:] is withheld
}

// smallHeld is how large a buffer an output keeps while it waits.
const smallHeld = 1 << 10

// Output implements Open. What a program writes is a terminal's text, also
// where there is no terminal: colours are written to pipes as well.
func (o *openOp) Output() Output {
	out := &output{op: o}
	if masks := o.masks(); masks != nil {
		out.stream = masks.Stream(true)
	}
	return out
}

// Tap implements Output.
func (t *output) Tap(b []byte) ([]byte, error) {
	if t.stream == nil {
		return t.op.Tap(access.ToClient, b)
	}
	t.shift()
	t.buf = append(t.buf, b...)
	return t.release(false)
}

// Flush implements Output.
func (t *output) Flush() ([]byte, error) {
	if t.stream == nil || !t.Withholds() {
		return nil, nil
	}
	t.shift()
	return t.release(true)
}

// Withholds implements Output.
func (t *output) Withholds() bool { return t.sent < len(t.buf) }

// SetWidth implements Output.
func (t *output) SetWidth(columns int) {
	if t.stream != nil {
		t.stream.SetWidth(columns)
	}
}

// shift drops what was returned by the last call.
func (t *output) shift() {
	rest := t.buf[t.sent:]
	if t.sent = 0; len(rest) < smallHeld/2 && cap(t.buf) > smallHeld {
		t.buf = append([]byte(nil), rest...)
		return
	}
	t.buf = t.buf[:copy(t.buf, rest)]
}

// release masks, records and returns what need not be withheld.
func (t *output) release(now bool) ([]byte, error) {
	if err := t.op.session.alive(); err != nil {
		return nil, err
	}
	if t.sent = t.stream.Advance(t.buf, now); t.sent == 0 {
		return nil, nil
	}
	return t.op.pass(access.ToClient, t.buf[:t.sent])
}

// withoutTyped is what is recorded of bytes. In the client's, too, values are
// masked, as far as they came in one piece: nothing is forwarded before it is
// recorded, so nothing can be withheld.
func (o *openOp) withoutTyped(dir access.Direction, b []byte) []byte {
	masks := o.masks()
	if masks == nil || dir == access.ToClient {
		return b
	}
	if o.typed == nil {
		o.typed = masks.Stream(true)
	}
	b = bytes.Clone(b)
	o.typed.Advance(b, true)
	return b
}

// shown is an operation as it is recorded and shown to approvers: for each
// value that the masks detect there is its length and a keyed hash.
func (s *session) shown(op access.Operation) access.Operation {
	if s.masks == nil {
		return op
	}
	op.Text, op.Params, op.Context = s.withheld(op.Text), s.allWithheld(op.Params), s.allWithheld(op.Context)
	for i, p := range op.Params {
		op.Params[i] = s.withheldBinary(p)
	}
	facts := access.Facts{}
	for name, v := range op.Facts {
		switch v := v.(type) {
		case string:
			facts[name] = s.withheld(v)
		case []string:
			facts[name] = s.allWithheld(v)
		default:
			facts[name] = v
		}
	}
	op.Facts, op.Class = facts, nil
	return op
}

func (s *session) allWithheld(texts []string) (out []string) {
	for _, text := range texts {
		out = append(out, s.withheld(text))
	}
	return out
}

func (s *session) withheld(text string) string {
	var out strings.Builder
	at := 0
	for _, v := range s.masks.Find([]byte(text)) {
		out.WriteString(text[at:v.From])
		out.WriteString(s.Withhold([]byte(text[v.From:v.To])))
		at = v.To
	}
	if at == 0 {
		return text
	}
	out.WriteString(text[at:])
	return out.String()
}

// withheldBinary looks into a parameter that is shown in hexadecimal, for a
// text in binary form is still a text. One that holds a value is withheld as
// a whole.
func (s *session) withheldBinary(param string) string {
	digits, ok := strings.CutPrefix(param, `\x`)
	if !ok {
		return param
	}
	value, err := hex.DecodeString(digits)
	if err != nil { // cut, with a remark behind it
		value, _ = hex.DecodeString(digits[:strings.IndexFunc(digits+" ", notHex)&^1])
	}
	if len(s.masks.Find(value)) == 0 {
		return param
	}
	return s.Withhold(value)
}

func notHex(r rune) bool { return !strings.ContainsRune("0123456789abcdef", r) }
