package forge

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tidegate/tidegate/access"
)

// What people wrote is shown, and can't act. In a code span or a code block
// nothing acts but the fence, so the fence is always longer than any run inside;
// in sentences every character with a meaning is escaped, and a mention or a
// reference is broken by a zero-width space.

// Visible is text in which every character can be seen, as the check runs show
// it: the console shows the same.
func Visible(s string) string { return visible(s) }

// visible shows every character that a reader would not see, or would see in the
// wrong place, as ⟨U+202E⟩. The bracket itself is shown so as well, so nobody can
// write what looks like a shown character.
func visible(s string) string {
	if clean(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, "⟨0x%02X⟩", s[i])
		case hidden(r):
			fmt.Fprintf(&b, "⟨U+%04X⟩", r)
		default:
			b.WriteRune(r)
		}
		i += n
	}
	return b.String()
}

func clean(s string) bool {
	for i := range len(s) {
		if c := s[i]; c >= 0x7f || c < ' ' && c != '\n' && c != '\t' {
			return false
		}
	}
	return true
}

// hidden reports characters that are not seen: control and format characters,
// bidi overrides, spaces that look like others, fillers.
func hidden(r rune) bool {
	switch r {
	case '\n', '\t', ' ':
		return false
	case '⟨', '⟩', '\u2800', '\u3164', '\u115f', '\u1160', '\uffa0', '\u034f':
		return true
	}
	return !unicode.IsGraphic(r) || unicode.Is(unicode.Zs, r) || unicode.In(r, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point)
}

// line is visible on one line.
func line(s string) string {
	return strings.Join(strings.FieldsFunc(visible(s), func(r rune) bool { return r == '\n' || r == '\t' }), " ")
}

// code is a code span that holds anything.
func code(s string) string {
	s = line(s)
	if strings.TrimSpace(s) == "" {
		return "(empty)"
	}
	fence := strings.Repeat("`", longestRun(s, '`')+1)
	if s[0] == '`' || s[len(s)-1] == '`' || s[0] == ' ' && s[len(s)-1] == ' ' {
		s = " " + s + " "
	}
	return fence + s + fence
}

// zeroWidth is written as an entity, so that it is seen in the source.
const zeroWidth = "&#8203;"

// text is a sentence in which no character acts. It stands behind other words on
// its line: what acts at the start of a line only is left as it is.
func text(s string) string {
	var b strings.Builder
	all := []rune(line(s))
	for i, r := range all {
		next, last := at(all, i+1), at(all, i-1)
		switch {
		case r == '@' || r == '#': // no mention, no reference: GitHub looks for them after the escapes
			b.WriteString("\\" + string(r) + zeroWidth)
		case r == ':' && (next == '/' || next == '+' || next == '-' || unicode.IsLetter(next)): // no link, no emoji
			b.WriteString(":" + zeroWidth)
		case strings.ContainsRune("\\`*_<>[]~&|$!", r) || r == '.' && (last == 'w' || last == 'W'): // no www. link
			b.WriteString("\\" + string(r))
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func at(all []rune, i int) rune {
	if i < 0 || i >= len(all) {
		return 0
	}
	return all[i]
}

// fenced is a code block that holds anything.
func fenced(s string) string {
	s = visible(s)
	fence := strings.Repeat("`", max(3, longestRun(s, '`')+1))
	return fence + "text\n" + strings.TrimSuffix(s, "\n") + "\n" + fence
}

func longestRun(s string, c byte) int {
	longest, run := 0, 0
	for i := range len(s) {
		if s[i] != c {
			run = 0
			continue
		}
		run++
		longest = max(longest, run)
	}
	return longest
}

// clip cuts a long string and says so. The result may be a little longer than n.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return fmt.Sprintf("%s… (%d more bytes)", s[:n], len(s)-n)
}

// shortened is clip whose result has at most n bytes.
func shortened(s string, n int) string {
	if len(s) <= n {
		return s
	}
	const room = 32 // what clip adds
	return clip(s, max(0, n-room))
}

func when(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

func length(s access.Seconds) string {
	out := s.String()
	if strings.HasSuffix(out, "m0s") {
		out = strings.TrimSuffix(out, "0s")
	}
	if strings.HasSuffix(out, "h0m") {
		out = strings.TrimSuffix(out, "0m")
	}
	return out
}
