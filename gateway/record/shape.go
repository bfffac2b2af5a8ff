package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tidegate/tidegate/access"
)

// A verifier must know that a reader will understand each event, and that two
// readers understand the same. encoding/json tells neither fast nor strictly:
// it takes a field twice, in any case, or of a name that it does not know. So
// this walks the bytes along the shape that access.Event has.

// shape is what a JSON value must be.
type shape struct {
	kind   shapeKind
	fields []field // of an object
	needed uint64  // a bit for each field that must be there
	of     *shape  // the elements of a list, the values of a table
}

type field struct {
	name  string
	shape *shape
}

type shapeKind int

const (
	anything shapeKind = iota
	object             // of known fields, each at most once
	dict               // names to values
	list
	text
	moment // RFC 3339
	base64Text
	whole // a whole number
	flag
)

// What stands in the lines, and in a header's certificate.
var (
	eventShape       = objectOf[access.Event]("type", "time")
	headerShape      = objectOf[header]("v", "session", "segment", "prev", "key", "opened")
	closingShape     = objectOf[closing]("segment", "events", "closed", "last")
	certificateShape = objectOf[Certificate]("installation", "gateway", "key", "from", "until")
)

// objectOf is the shape of a struct, some of whose fields must be there.
func objectOf[T any](needed ...string) *shape {
	s := shapeOf(reflect.TypeFor[T]())
	for i, f := range s.fields {
		if slices.Contains(needed, f.name) {
			s.needed |= 1 << i
		}
	}
	return s
}

// eventTypes are all that there are.
var eventTypes = []access.EventType{
	access.EventData, access.EventOpen, access.EventClose, access.EventResize, access.EventNotice,
	access.EventSessionStart, access.EventSessionEnd, access.EventHoldOpen, access.EventHoldAnswer,
}

func shapeOf(t reflect.Type) *shape {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return &shape{kind: moment}
	case t == reflect.TypeFor[[]byte]():
		return &shape{kind: base64Text}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return shapeOf(t.Elem())
	case reflect.Struct:
		return &shape{kind: object, fields: fieldsOf(t)}
	case reflect.Slice:
		return &shape{kind: list, of: shapeOf(t.Elem())}
	case reflect.Map:
		return &shape{kind: dict, of: shapeOf(t.Elem())}
	case reflect.String:
		return &shape{kind: text}
	case reflect.Bool:
		return &shape{kind: flag}
	case reflect.Int, reflect.Int8, reflect.Int64, reflect.Uint64:
		return &shape{kind: whole}
	case reflect.Interface:
		return &shape{kind: anything}
	}
	panic("record: no shape for " + t.String()) // a new kind of field needs its case here
}

func fieldsOf(t reflect.Type) (out []field) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-" || !f.IsExported():
		case f.Anonymous && name == "":
			out = append(out, fieldsOf(f.Type)...)
		default:
			out = append(out, field{name, shapeOf(f.Type)})
		}
	}
	return out
}

const maxDepth = 32

// checkEvent says why the body of an E line is not an event.
func checkEvent(body []byte) error {
	c := checker{rest: body}
	if err := c.value(eventShape, 0); err != nil {
		return err
	}
	if len(c.rest) > 0 {
		return errors.New("something follows the event")
	}
	if !slices.Contains(eventTypes, access.EventType(c.typ)) {
		return fmt.Errorf("there is no type %.32q", c.typ)
	}
	return nil
}

// checker walks JSON as this package writes it: without white space.
type checker struct {
	rest []byte
	typ  []byte // the event's
}

func (c *checker) value(s *shape, depth int) error {
	if len(c.rest) == 0 || depth > maxDepth {
		return errors.New("want a value here, at most 32 deep")
	}
	if c.rest[0] == 'n' && s.kind != text && s.kind != moment && s.kind != whole && s.kind != flag {
		return c.word("null")
	}
	switch s.kind {
	case object:
		return c.object(s, depth)
	case dict:
		return c.dict(s.of, depth)
	case list:
		return c.list(s.of, depth)
	case text:
		_, err := c.text()
		return err
	case moment:
		return c.moment()
	case base64Text:
		return c.base64()
	case whole:
		return c.whole()
	case flag:
		return c.flag()
	}
	return c.any(depth)
}

func (c *checker) take(b byte) bool {
	if len(c.rest) > 0 && c.rest[0] == b {
		c.rest = c.rest[1:]
		return true
	}
	return false
}

func (c *checker) word(w string) error {
	if !bytes.HasPrefix(c.rest, []byte(w)) {
		return fmt.Errorf("want %s here", w)
	}
	c.rest = c.rest[len(w):]
	return nil
}

// each walks what stands between two brackets, with commas.
func (c *checker) each(open, end byte, one func() error) error {
	if !c.take(open) {
		return fmt.Errorf("want %c here", open)
	}
	if c.take(end) {
		return nil
	}
	for {
		if err := one(); err != nil {
			return err
		}
		if c.take(end) {
			return nil
		}
		if !c.take(',') {
			return fmt.Errorf("want a comma or %c here", end)
		}
	}
}

func (c *checker) name() ([]byte, error) {
	name, err := c.text()
	if err == nil && !c.take(':') {
		err = errors.New("want a colon behind a name")
	}
	return name, err
}

func (c *checker) object(s *shape, depth int) error {
	var seen uint64
	err := c.each('{', '}', func() error {
		name, err := c.name()
		if err != nil {
			return err
		}
		i := slices.IndexFunc(s.fields, func(f field) bool { return f.name == string(name) })
		if i < 0 {
			return fmt.Errorf("there is no field %.32q", name)
		}
		if seen&(1<<i) != 0 {
			return fmt.Errorf("the field %.32q stands twice", name)
		}
		seen |= 1 << i
		from := c.rest
		if err := c.value(s.fields[i].shape, depth+1); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if depth == 0 && string(name) == "type" {
			c.typ = from[1 : len(from)-len(c.rest)-1]
		}
		return nil
	})
	if missing := s.needed &^ seen; err == nil && missing != 0 {
		err = fmt.Errorf("the field %q is missing", s.fields[bits.TrailingZeros64(missing)].name)
	}
	return err
}

// dict bounds nothing but depth: an event has at most one line.
func (c *checker) dict(of *shape, depth int) error {
	seen := map[string]bool{}
	return c.each('{', '}', func() error {
		name, err := c.name()
		if err != nil {
			return err
		}
		if seen[string(name)] {
			return fmt.Errorf("the name %.32q stands twice", name)
		}
		seen[string(name)] = true
		return c.value(of, depth+1)
	})
}

func (c *checker) list(of *shape, depth int) error {
	return c.each('[', ']', func() error { return c.value(of, depth+1) })
}

func (c *checker) any(depth int) error {
	switch first := c.rest[0]; {
	case first == '{':
		return c.dict(&shape{}, depth)
	case first == '[':
		return c.list(&shape{}, depth)
	case first == '"':
		_, err := c.text()
		return err
	case first == 't' || first == 'f':
		return c.flag()
	default:
		return c.whole() // facts know no other numbers
	}
}

func (c *checker) flag() error {
	if c.rest[0] == 't' {
		return c.word("true")
	}
	return c.word("false")
}

func (c *checker) whole() error {
	n := 0
	for n < len(c.rest) && (c.rest[n] == '-' || c.rest[n] >= '0' && c.rest[n] <= '9') {
		n++
	}
	if n > 0 && n < 19 && c.rest[0] >= '1' && bytes.IndexByte(c.rest[:n], '-') < 0 {
		c.rest = c.rest[n:]
		return nil
	}
	digits := string(c.rest[:n])
	c.rest = c.rest[n:]
	if _, err := strconv.ParseInt(digits, 10, 64); err != nil {
		if u, err := strconv.ParseUint(digits, 10, 64); err != nil || u <= math.MaxInt64 {
			return fmt.Errorf("%.32q is not a whole number", digits)
		}
	}
	if digits[0] == '0' && n > 1 || strings.HasPrefix(digits, "-0") {
		return fmt.Errorf("%.32q begins with a zero", digits)
	}
	return nil
}

func (c *checker) moment() error {
	t, err := c.text()
	if err != nil {
		return err
	}
	if _, err := time.Parse(time.RFC3339Nano, string(t)); err != nil {
		return fmt.Errorf("%.64q is not a time of RFC 3339", t)
	}
	return nil
}

// plain marks what stands in a string as itself, of one byte.
var plain = func() (t [256]bool) {
	for b := 0x20; b < 0x80; b++ {
		t[b] = b != '"' && b != '\\'
	}
	return t
}()

// plainWords is how many bytes at the beginning are plain, in words of eight:
// most of a recording is looked at here.
func plainWords(s []byte) (n int) {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	for ; n+8 <= len(s); n += 8 {
		w := binary.LittleEndian.Uint64(s[n:])
		quote, slash := w^(ones*'"'), w^(ones*'\\')
		low := (w - ones*0x20) | (quote - ones) | (slash - ones) // borrows where a byte is smaller
		if (low|w)&highs != 0 {
			return n
		}
	}
	return n
}

// text walks a string and answers with what stands between its quotes.
func (c *checker) text() ([]byte, error) {
	if !c.take('"') {
		return nil, errors.New("want a string here")
	}
	s, wide := c.rest, false
	for i := 0; ; {
		i += plainWords(s[i:])
		for i < len(s) && plain[s[i]] {
			i++
		}
		switch {
		case i == len(s) || s[i] < 0x20:
			return nil, errors.New("a string does not end")
		case s[i] == '"':
			if c.rest = s[i+1:]; wide && !utf8.Valid(s[:i]) {
				return nil, errors.New("a string is not UTF-8")
			}
			return s[:i], nil
		case s[i] == '\\':
			n := escape(s[i:])
			if n == 0 {
				return nil, errors.New("a string has an escape that JSON does not know")
			}
			i += n
		default:
			wide = true
			i++
		}
	}
}

// escape is how many bytes the escape at the beginning has; 0 if it is none.
func escape(s []byte) int {
	switch {
	case len(s) > 1 && strings.IndexByte(`"\/bfnrt`, s[1]) >= 0:
		return 2
	case len(s) > 5 && s[1] == 'u':
		for _, b := range s[2:6] {
			if strings.IndexByte("0123456789abcdefABCDEF", b) < 0 {
				return 0
			}
		}
		return 6
	}
	return 0
}

// digit64 marks base64's letters.
var digit64 = func() (t [256]bool) {
	for _, b := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") {
		t[b] = true
	}
	return t
}()

func (c *checker) base64() error {
	end := -1
	if c.take('"') {
		end = bytes.IndexByte(c.rest, '"')
	}
	if end < 0 || end%4 != 0 {
		return errors.New("want a string of base64 here")
	}
	s := c.rest[:end]
	c.rest = c.rest[end+1:]
	for range 2 {
		s = bytes.TrimSuffix(s, []byte("="))
	}
	for _, b := range s {
		if !digit64[b] {
			return errors.New("a string is not base64")
		}
	}
	return nil
}
