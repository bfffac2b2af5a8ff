package mask

import "bytes"

// keyReader follows private keys in PEM over any number of pieces: behind the
// line that begins one, everything is masked up to the line that ends it.
type keyReader struct {
	state  keyState
	short  int // short words, one after another
	masked int // bytes of this key
}

type keyState uint8

const (
	noKey  keyState = iota
	begun           // the first line was there
	inside          // and a line that looks like a key's
)

// Bounds of what is taken for a key, so that a first line alone does not mask
// a whole session.
const (
	maxKey       = 64 << 10
	longWord     = 16 // a word of at least this many is a key's line
	maxShort     = 12 // short ones, one after another, that may be of one
	maxKeyHeader = 100
)

var (
	keyBegins = []byte("-----BEGIN ")
	keyNamed  = []byte("PRIVATE KEY")
	dashes    = []byte("-----")
)

func (s *Set) findKeys(text []byte, f *found) {
	if s.pem && bytes.Contains(text, keyBegins) {
		var k keyReader
		k.read(text, 0, len(text), f)
	}
}

// read follows the text from one place to another; it may look at what is
// before, where a first line may have begun.
func (k *keyReader) read(text []byte, from, to int, f *found) {
	for from < to {
		if k.state == noKey {
			at := keyHeaderEnd(text[:to], from)
			if at < 0 {
				return
			}
			from, *k = at, keyReader{state: begun}
		}
		from = k.body(text, from, to, f)
	}
}

// keyHeaderEnd finds where the first line of a key ends, at or behind from.
func keyHeaderEnd(text []byte, from int) int {
	at := max(0, from-maxKeyHeader-len(keyBegins))
	for {
		n := bytes.Index(text[at:], keyBegins)
		if n < 0 {
			return -1
		}
		at += n + len(keyBegins)
		line := text[at:min(len(text), at+maxKeyHeader)]
		n = bytes.Index(line, dashes)
		if n >= 0 && bytes.Contains(line[:n], keyNamed) && at+n+len(dashes) > from {
			return at + n + len(dashes)
		}
	}
}

// body masks words up to the key's end, or to what can be none of a key.
func (k *keyReader) body(text []byte, from, to int, f *found) int {
	for from < to {
		c := text[from]
		switch {
		case c == '\\': // an escaped line's end: \n, \r
			from = min(to, from+2)
		case c == '-' && bytes.HasPrefix(text[from:], dashes):
			k.state = noKey
			return from
		case isBase64(c):
			end := from
			for end < to && isBase64(text[end]) {
				end++
			}
			if k.word(text[from:end]) {
				f.add(from, end)
			}
			if from = end; k.state == noKey {
				return from
			}
		case bytes.IndexByte([]byte(" \t\r\n:,.-\"'$+>|"), c) >= 0:
			from++
		default:
			k.state = noKey
			return from
		}
	}
	return to
}

// word says whether a word is a part of the key; the state may end with it.
// Short ones before the first long one are the key's own headers.
func (k *keyReader) word(w []byte) bool {
	k.masked += len(w)
	k.short++
	if len(w) >= longWord {
		k.state, k.short = inside, 0
	}
	if k.masked > maxKey || k.short > maxShort {
		k.state = noKey
	}
	return k.state == inside
}

func isBase64(c byte) bool { return isAlnum(c) || c == '+' || c == '/' || c == '=' }
