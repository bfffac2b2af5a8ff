package mask

import "bytes"

// Values with letters: IBANs, the ids of Spain and Italy, e-mail addresses,
// JSON Web Tokens.

// ibanLengths are how long a country's IBANs are, by ISO 13616.
var ibanLengths = map[[2]byte]int{}

func init() {
	const list = "AD24AE23AL28AT20AZ28BA20BE16BG22BH22BR29BY28CH21CR22CY28CZ24DE22DK18DO28EE20EG29ES24FI18FO18FR27GB22GE22GI23GL18GR27GT28" +
		"HR21HU28IE22IL23IQ23IS26IT27JO30KW30KZ20LB28LC32LI21LT20LU20LV21MC27MD24ME22MK19MR27MT31MU30NL18NO15PK24PL28PS29PT25QA29RO24" +
		"RS22SA24SC31SE24SI19SK24SM27ST25SV28TL23TN24TR26UA29VA22VG24XK20"
	for i := 0; i < len(list); i += 4 {
		ibanLengths[[2]byte{list[i], list[i+1]}] = int(list[i+2]-'0')*10 + int(list[i+3]-'0')
	}
}

func upper(c byte) byte {
	if c >= 'a' && c <= 'z' {
		return c - 'a' + 'A'
	}
	return c
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

// findLettered looks at each place where letters and digits begin.
func (s *Set) findLettered(text []byte, f *found) {
	for i := 0; i < len(text); i++ {
		if !isAlnum(text[i]) {
			continue
		}
		end := i + 1
		for end < len(text) && isAlnum(text[end]) {
			end++
		}
		if to := s.letteredAt(text, i, end); to > 0 {
			f.add(i, to)
			end = to
		}
		i = end
	}
}

func (s *Set) letteredAt(text []byte, from, to int) int {
	word := text[from:to]
	switch {
	case s.iban && len(word) >= 4 && isDigit(word[2]) && isDigit(word[3]):
		return ibanAt(text, from)
	case s.esDNI && len(word) == 9 && validDNI(word), s.itCF && len(word) == 16 && validCF(word):
		return to
	}
	return 0
}

// ibanAt reads an IBAN, in one or in groups of four.
func ibanAt(text []byte, from int) int {
	size := ibanLengths[[2]byte{upper(text[from]), upper(text[from+1])}]
	if size == 0 {
		return 0
	}
	var chars [34]byte
	n, at := 0, from
	for n < size && at < len(text) {
		switch {
		case isAlnum(text[at]):
			chars[n] = upper(text[at])
			n++
		case text[at] != ' ' || n%4 != 0:
			return 0
		}
		at++
	}
	if n < size || at < len(text) && isAlnum(text[at]) || !mod97(chars[:n]) {
		return 0
	}
	return at
}

func mod97(iban []byte) bool {
	rest := 0
	for i := range iban {
		c := iban[(i+4)%len(iban)]
		if isDigit(c) {
			rest = (rest*10 + int(c-'0')) % 97
		} else {
			rest = (rest*100 + int(c-'A') + 10) % 97
		}
	}
	return rest == 1
}

func validDNI(w []byte) bool {
	v := 0
	for i, c := range w[:8] {
		if i == 0 && upper(c) >= 'X' && upper(c) <= 'Z' {
			c = '0' + upper(c) - 'X'
		}
		if !isDigit(c) {
			return false
		}
		v = v*10 + int(c-'0')
	}
	return upper(w[8]) == "TRWAGMYFPDXBNJZSQVHLCKE"[v%23]
}

// validCF checks the form LLLLLLDDLDDLDDDL, in which some digits may be
// written as letters, and the letter at the end.
func validCF(w []byte) bool {
	const form, digits, odd = "AAAAAA00A00A000A", "LMNPQRSTUV", "BAFHJNPRTVCESULDGIMOQKWZYX"
	sum := 0
	for i, c := range w {
		c = upper(c)
		value := 0
		switch {
		case isDigit(c) && form[i] == '0':
			value = int(c - '0')
		case isLetter(c) && (form[i] == 'A' || bytes.IndexByte([]byte(digits), c) >= 0):
			value = int(c - 'A')
		default:
			return false
		}
		if i == 15 {
			return value == sum%26
		}
		if i%2 == 0 {
			value = int(odd[value] - 'A')
		}
		sum += value
	}
	return false
}

func isLocal(c byte) bool {
	return isAlnum(c) || c >= 0x80 || bytes.IndexByte([]byte("._%+-'!#$&*/=?^{|}~"), c) >= 0
}

func isDomain(c byte) bool { return isAlnum(c) || c >= 0x80 || c == '.' || c == '-' }

// Bounds of an address: RFC 5321's, in bytes.
const (
	maxLocal  = 64
	maxDomain = 255
)

var localBytes, domainBytes [256]bool

func init() {
	for c := range 256 {
		localBytes[c], domainBytes[c] = isLocal(byte(c)), isDomain(byte(c))
	}
}

func findEmails(text []byte, f *found) {
	for at := 0; ; {
		n := bytes.IndexByte(text[at:], '@')
		if n < 0 {
			return
		}
		at += n
		from, to := at, at+1
		for from > 0 && at-from < maxLocal && localBytes[text[from-1]] {
			from--
		}
		for to < len(text) && to-at <= maxDomain && domainBytes[text[to]] {
			to++
		}
		for to > at && (text[to-1] == '.' || text[to-1] == '-') {
			to--
		}
		from = trimLocal(text, from, at)
		if from < at && hasTop(text[at+1:to]) {
			f.add(from, to)
		}
		at++
	}
}

// trimLocal leaves out what may stand in an address and more often stands
// before one: quotes, brackets, "name=", "mailto:", "<".
func trimLocal(text []byte, from, at int) int {
	for i := at - 1; i >= from; i-- {
		if bytes.IndexByte([]byte("'=/|{}$?&!*"), text[i]) >= 0 {
			return i + 1
		}
	}
	if from < at && from > 0 && text[from-1] == '\\' { // the n of an escaped line's end
		from++
	}
	for from < at && (text[from] == '.' || text[from] == '-') {
		from++
	}
	return from
}

// hasTop reports whether a domain ends in a dot and at least two letters.
func hasTop(domain []byte) bool {
	dot := bytes.LastIndexByte(domain, '.')
	if dot <= 0 || len(domain)-dot <= 2 {
		return false
	}
	for _, c := range domain[dot+1:] {
		if !isLetter(c) && c < 0x80 && c != '-' && !isDigit(c) {
			return false
		}
	}
	return isLetter(domain[dot+1]) || domain[dot+1] >= 0x80
}

func isBase64URL(c byte) bool { return isAlnum(c) || c == '-' || c == '_' }

// beginsToken: not in the middle of one, but for the n of an escaped line's end.
func beginsToken(text []byte, at int) bool {
	if at == 0 || !isBase64URL(text[at-1]) && text[at-1] != '.' {
		return true
	}
	return at > 1 && text[at-2] == '\\'
}

// jwtAt reads a JSON Web Token at "eyJ": three parts, of which the first two
// are objects, or five of an encrypted one, whose second may be anything.
func jwtAt(text []byte, from int) int {
	at, dots := from, 0
	for at < len(text) && (isBase64URL(text[at]) || text[at] == '.') {
		if text[at] == '.' {
			dots++
		}
		at++
	}
	parts := bytes.SplitN(text[from:at], []byte("."), 3)
	if dots == 1 && at == len(text) && at-from > overlap && bytes.HasPrefix(parts[1], []byte("eyJ")) {
		return at // so long that its end is not waited for
	}
	if dots < 2 || len(parts[0]) < 10 {
		return 0
	}
	if !bytes.HasPrefix(parts[1], []byte("eyJ")) && dots < 4 {
		return 0
	}
	for at > from && text[at-1] == '.' && dots > 2 {
		at--
	}
	return at
}
