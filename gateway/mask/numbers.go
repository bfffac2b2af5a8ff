package mask

// digits is a run of digits as it stands in text: groups with one separator
// between them.
type digits struct {
	value  [maxDigits]byte // 0 to 9
	n      int
	from   [maxGroups]int // where each group begins in the text
	to     [maxGroups]int // and ends
	upTo   [maxGroups]int // how many digits there are to its end
	sep    [maxGroups]byte
	groups int
}

const (
	maxDigits = 19
	maxGroups = 8
)

// number is a kind of number that people write in digits alone.
type number struct {
	name   string
	digits int    // 0: as fits says
	forms  []form // how it may be grouped besides not at all
	bare   bool   // whether it may
	valid  func(d []byte) bool
}

// form is a way of writing a number in groups.
type form struct {
	groups []int  // digits of each
	seps   string // between them: each separator, or one for all
}

var numberKinds = []number{
	{"card", 0, nil, true, validCard},
	{"us_ssn", 9, []form{{[]int{3, 2, 4}, "-"}, {[]int{3, 2, 4}, " "}}, false, validSSN},
	{"ca_sin", 9, []form{{[]int{3, 3, 3}, "-"}, {[]int{3, 3, 3}, " "}}, true, func(d []byte) bool { return d[0] != 0 && luhn(d) }},
	{"uk_nhs", 10, []form{{[]int{3, 3, 4}, "-"}, {[]int{3, 3, 4}, " "}}, true, validNHS},
	{"de_idnr", 11, []form{{[]int{2, 3, 3, 3}, " "}}, true, validIdNr},
	{"fr_nir", 15, []form{{[]int{1, 2, 2, 2, 3, 3, 2}, " "}, {[]int{13, 2}, " "}}, true, validNIR},
	{"nl_bsn", 9, []form{{[]int{4, 2, 3}, "."}}, true, validBSN},
	{"pl_pesel", 11, nil, true, validPESEL},
	{"br_cpf", 11, []form{{[]int{3, 3, 3, 2}, "..-"}}, true, validCPF},
	{"in_aadhaar", 12, []form{{[]int{4, 4, 4}, " "}, {[]int{4, 4, 4}, "-"}}, true, func(d []byte) bool { return d[0] > 1 && verhoeff(d) }},
}

func isDigit(c byte) bool { return c-'0' <= 9 }
func isAlnum(c byte) bool { return isDigit(c) || c|0x20-'a' <= 'z'-'a' }

func isSeparator(c byte) bool { return c == ' ' || c == '-' || c == '.' }

// read reads digits from text[at:], where a group begins.
func (d *digits) read(text []byte, at int) {
	d.n, d.groups = 0, 0
	for d.groups < maxGroups {
		from := at
		for at < len(text) && isDigit(text[at]) && d.n < maxDigits {
			d.value[d.n] = text[at] - '0'
			d.n, at = d.n+1, at+1
		}
		if at == from {
			return
		}
		d.from[d.groups], d.to[d.groups], d.upTo[d.groups] = from, at, d.n
		d.groups++
		if at+1 >= len(text) || !isSeparator(text[at]) || !isDigit(text[at+1]) || d.groups == maxGroups {
			return
		}
		d.sep[d.groups-1] = text[at]
		at++
	}
}

// findNumbers finds numbers of the chosen kinds. It looks once at each group.
func (s *Set) findNumbers(text []byte, f *found) {
	var d digits
	for i := 0; i < len(text); i++ {
		if !isDigit(text[i]) {
			continue
		}
		end := i + 1
		for end < len(text) && isDigit(text[end]) {
			end++
		}
		if beginsNumber(text, i) {
			d.read(text, i)
			if to := s.numberAt(text, &d); to > i {
				f.add(i, to)
				end = to
			}
		}
		i = end
	}
}

// beginsNumber: not in a word, and not behind a decimal point.
func beginsNumber(text []byte, i int) bool {
	if i == 0 {
		return true
	}
	before := text[i-1]
	return !isAlnum(before) && before != '_' && (before != '.' || i == 1 || !isDigit(text[i-2]))
}

// numberAt says where the longest number ends that begins with the digits.
func (s *Set) numberAt(text []byte, d *digits) int {
	for g := d.groups - 1; g >= 0; g-- {
		n, end := d.upTo[g], d.to[g]
		if n < 9 || end < len(text) && (isAlnum(text[end]) || text[end] == '_') {
			continue
		}
		for _, k := range s.numbers {
			if k.fits(d, g, n) && k.valid(d.value[:n]) {
				return end
			}
		}
	}
	return 0
}

func (k *number) fits(d *digits, last, n int) bool {
	if k.digits == 0 {
		return n >= 13 && cardGroups(d, last)
	}
	if k.digits != n {
		return false
	}
	if last == 0 {
		return k.bare
	}
	for _, f := range k.forms {
		if f.is(d, last) {
			return true
		}
	}
	return false
}

func (f form) is(d *digits, last int) bool {
	if len(f.groups) != last+1 {
		return false
	}
	for i, n := range f.groups {
		if d.to[i]-d.from[i] != n {
			return false
		}
		if i < last && d.sep[i] != f.seps[min(i, len(f.seps)-1)] {
			return false
		}
	}
	return true
}

// cardGroups: all in one, fours with a shorter last one, or 4-6-4 and 4-6-5.
func cardGroups(d *digits, last int) bool {
	size := func(g int) int { return d.to[g] - d.from[g] }
	for g := range last {
		if d.sep[g] == '.' || d.sep[g] != d.sep[0] {
			return false
		}
	}
	if last == 2 && size(0) == 4 && size(1) == 6 {
		return size(2) == 4 || size(2) == 5
	}
	for g := range last {
		if size(g) != 4 {
			return false
		}
	}
	return last == 0 || size(last) <= 4
}

func luhn(d []byte) bool {
	sum := 0
	for i, c := range d {
		v := int(c)
		if (len(d)-i)%2 == 0 {
			if v *= 2; v > 9 {
				v -= 9
			}
		}
		sum += v
	}
	return sum%10 == 0
}

// validCard wants a number as one of the schemes gives it out.
func validCard(d []byte) bool {
	four := int(d[0])*1000 + int(d[1])*100 + int(d[2])*10 + int(d[3])
	n := len(d)
	ok := false
	switch {
	case d[0] == 4: // Visa
		ok = n == 13 || n == 16 || n == 19
	case four/100 >= 51 && four/100 <= 55, four >= 2221 && four <= 2720: // Mastercard
		ok = n == 16
	case four/100 == 34, four/100 == 37: // American Express
		ok = n == 15
	case four/100 == 36, four/100 == 38, four/100 == 39, four/10 >= 300 && four/10 <= 305: // Diners Club
		ok = n >= 14
	case four >= 3528 && four <= 3589: // JCB
		ok = n >= 16
	case four == 6011, four/10 >= 644 && four/10 <= 649, four/100 == 65, four/100 == 62, four/100 == 81: // Discover, UnionPay
		ok = n >= 16
	case d[0] == 5, d[0] == 6: // Maestro
		ok = true
	}
	return ok && luhn(d)
}

func validSSN(d []byte) bool {
	area := int(d[0])*100 + int(d[1])*10 + int(d[2])
	return area != 0 && area != 666 && area < 900 && d[3]+d[4] > 0 && d[5]+d[6]+d[7]+d[8] > 0
}

// weighed is the sum of digits times weights.
func weighed(d []byte, weights ...int) (sum int) {
	for i, w := range weights {
		sum += int(d[i]) * w
	}
	return sum
}

func validNHS(d []byte) bool {
	check := 11 - weighed(d, 10, 9, 8, 7, 6, 5, 4, 3, 2)%11
	return check%11 == int(d[9]) && check != 10 && !same(d)
}

func validBSN(d []byte) bool {
	return weighed(d, 9, 8, 7, 6, 5, 4, 3, 2, -1)%11 == 0 && !same(d)
}

func validPESEL(d []byte) bool {
	month, day := int(d[2]%2)*10+int(d[3]), int(d[4])*10+int(d[5])
	return month >= 1 && month <= 12 && day >= 1 && day <= 31 && weighed(d, 1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)%10 == 0
}

func validCPF(d []byte) bool {
	check := func(n int) bool {
		sum := 0
		for i := range n {
			sum += int(d[i]) * (n + 1 - i)
		}
		return sum*10%11%10 == int(d[n])
	}
	return check(9) && check(10) && !same(d)
}

// validIdNr is ISO 7064 MOD 11,10; among the first ten digits one occurs two
// or three times.
func validIdNr(d []byte) bool {
	var counts [10]int
	p := 10
	for _, c := range d[:10] {
		counts[c]++
		s := (int(c) + p) % 10
		if s == 0 {
			s = 10
		}
		p = 2 * s % 11
	}
	repeated := 0
	for _, n := range counts {
		if n > 1 {
			repeated++
		}
		if n > 3 {
			return false
		}
	}
	return d[0] != 0 && repeated >= 1 && (11-p)%10 == int(d[10])
}

func validNIR(d []byte) bool {
	month := int(d[3])*10 + int(d[4])
	if d[0] < 1 || d[0] > 4 || month < 1 || month > 12 && month < 20 || month > 99 {
		return false
	}
	var v int64
	for _, c := range d[:13] {
		v = v*10 + int64(c)
	}
	return 97-v%97 == int64(d[13])*10+int64(d[14])
}

func same(d []byte) bool {
	for _, c := range d {
		if c != d[0] {
			return false
		}
	}
	return true
}

// Verhoeff's tables: multiplication in the dihedral group of order ten, and
// the powers of its permutation.
var (
	dihedral = [10][10]byte{
		{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, {1, 2, 3, 4, 0, 6, 7, 8, 9, 5}, {2, 3, 4, 0, 1, 7, 8, 9, 5, 6},
		{3, 4, 0, 1, 2, 8, 9, 5, 6, 7}, {4, 0, 1, 2, 3, 9, 5, 6, 7, 8}, {5, 9, 8, 7, 6, 0, 4, 3, 2, 1},
		{6, 5, 9, 8, 7, 1, 0, 4, 3, 2}, {7, 6, 5, 9, 8, 2, 1, 0, 4, 3}, {8, 7, 6, 5, 9, 3, 2, 1, 0, 4},
		{9, 8, 7, 6, 5, 4, 3, 2, 1, 0},
	}
	permuted = [8][10]byte{
		{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, {1, 5, 7, 6, 2, 8, 3, 0, 9, 4}, {5, 8, 0, 3, 7, 9, 6, 1, 4, 2},
		{8, 9, 1, 6, 0, 4, 3, 5, 2, 7}, {9, 4, 5, 3, 1, 2, 6, 8, 7, 0}, {4, 2, 8, 6, 5, 7, 3, 9, 0, 1},
		{2, 7, 9, 3, 8, 0, 6, 4, 1, 5}, {7, 0, 4, 6, 9, 1, 3, 2, 5, 8},
	}
)

func verhoeff(d []byte) bool {
	var c byte
	for i := range d {
		c = dihedral[c][permuted[i%8][d[len(d)-1-i]]]
	}
	return c == 0
}
