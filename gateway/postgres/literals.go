package postgres

import "bytes"

// Texts that differ in their literals alone mean the same to everything that
// looks at kinds, tables, columns and functions. shape takes the literals out,
// so that such texts are parsed once. It is far simpler than PostgreSQL's
// lexer, and gives up wherever the two could disagree: no comments, escapes,
// dollar quotes, fractions, numbers of more than nine digits.

const (
	maxShape    = 4 << 10
	maxLiterals = 64
	aNumber     = 1 // stands for a number in a shape: no text holds these bytes
	aString     = 2
)

// literal is where one stood: text[from:to].
type literal struct{ from, to int }

// shaped is a text without its literals.
type shaped struct {
	bytes    []byte
	literals []literal
}

// shape appends to s, whose slices may be reused. It is not ok when the text
// is one that the parser must see.
func (s *shaped) shape(text []byte) (ok bool) {
	s.bytes, s.literals = s.bytes[:0], s.literals[:0]
	if len(text) > maxShape {
		return false
	}
	for i := 0; i < len(text); {
		end, stands := token(text, i)
		if end <= i || stands == aString && mayHoldPassword(text[i:end]) {
			return false
		}
		if stands == 0 {
			s.bytes = append(s.bytes, text[i:end]...)
		} else {
			if len(s.literals) == maxLiterals {
				return false
			}
			s.bytes = append(s.bytes, stands)
			s.literals = append(s.literals, literal{i, end})
		}
		i = end
	}
	return true
}

// token is where the token at i ends, and what stands for it in a shape; end
// is i when it must not be judged here.
func token(text []byte, i int) (end int, stands byte) {
	switch c := text[i]; {
	case isLetter(c):
		return afterWord(text, i), 0
	case isDigit(c):
		return afterNumber(text, i), aNumber
	case c == '\'':
		return afterQuoted(text, i, '\''), aString
	case c == '"':
		return afterQuoted(text, i, '"'), 0
	case c == '$':
		return afterParameter(text, i), 0
	case c == ' ' || c == '\n' || c == '\t' || c == '\r':
		return i + 1, 0
	case c == '-' && next(text, i) == '-', c == '/' && next(text, i) == '*', c == '.' && isDigit(next(text, i)):
		return i, 0
	case c == '&' && (next(text, i) == '\'' || next(text, i) == '"'): // U&'…'
		return i, 0
	case c > ' ' && c < 0x7f && c != '\\':
		return i + 1, 0
	}
	return i, 0
}

func next(text []byte, i int) byte {
	if i+1 < len(text) {
		return text[i+1]
	}
	return 0
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' || c == '_' }
func isDigit(c byte) bool  { return '0' <= c && c <= '9' }

// afterWord ends a word; one that a quote follows is the prefix of a special
// string (E'…', B'…'), and left to the parser.
func afterWord(text []byte, i int) int {
	end := i
	for end < len(text) && (isLetter(text[end]) || isDigit(text[end]) || text[end] == '$') {
		end++
	}
	if end < len(text) && (text[end] == '\'' || text[end] >= 0x80) {
		return i
	}
	return end
}

func afterNumber(text []byte, i int) int {
	end := i
	for end < len(text) && isDigit(text[end]) {
		end++
	}
	if end-i > 9 || end < len(text) && (isLetter(text[end]) || text[end] == '.' || text[end] == '$' || text[end] >= 0x80) {
		return i
	}
	return end
}

// afterQuoted ends a string or a quoted name, in which a quote is doubled.
func afterQuoted(text []byte, i int, quote byte) int {
	for end := i + 1; end < len(text); end++ {
		switch c := text[end]; {
		case c == '\\' || c < ' ' || c >= 0x7f:
			return i
		case c == quote && next(text, end) != quote:
			return end + 1
		case c == quote:
			end++
		}
	}
	return i
}

// mayHoldPassword reports whether a literal may be one that is withheld by what
// it holds itself: see isPassword.
func mayHoldPassword(literal []byte) bool {
	if bytes.Contains(literal, []byte("://")) {
		return true
	}
	for i, c := range literal {
		if c|0x20 == 'p' && (beginsWith(literal[i:], "passw") || beginsWith(literal[i:], "pwd")) {
			return true
		}
	}
	return false
}

func beginsWith(text []byte, word string) bool {
	return len(text) >= len(word) && bytes.EqualFold(text[:len(word)], []byte(word))
}

func afterParameter(text []byte, i int) int {
	end := i + 1
	for end < len(text) && isDigit(text[end]) {
		end++
	}
	if end == i+1 || end < len(text) && (isLetter(text[end]) || text[end] == '$' || text[end] == '.' || text[end] >= 0x80) {
		return i
	}
	return end
}

// inShape is where a place of the text lies in the shape. A place within a
// literal is none.
func (s *shaped) inShape(at int) int {
	for _, l := range s.literals {
		if at <= l.from {
			break
		}
		if at < l.to {
			return -1
		}
	}
	cut := 0
	for _, l := range s.literals {
		if l.to <= at {
			cut += l.to - l.from - 1
		}
	}
	return at - cut
}

// inText is where a place of the shape lies in the text.
func (s *shaped) inText(at int) int {
	for _, l := range s.literals {
		if at <= l.from {
			break
		}
		at += l.to - l.from - 1
	}
	return at
}
