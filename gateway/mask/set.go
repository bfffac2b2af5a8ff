package mask

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/tidegate/tidegate/access"
)

// Set is a choice of detectors. It is safe for concurrent use.
type Set struct {
	names []string

	email, iban, esDNI, itCF, pem, jwt bool

	numbers []*number
	rules   *ruleBook // nil: no rules

	holds [256]bool // bytes of which values are made
	pool  sync.Pool // of *found
}

// sets are shared: there are few choices, whatever the number of policies.
var sets struct {
	sync.Mutex
	made map[string]*Set
}

const maxSets = 64

// For returns the set of the named detectors and groups; nil is one that
// detects nothing. A name that is not known is an error: its values would be
// shown.
func For(names []string) (*Set, error) {
	known, unknown := access.ExpandDetectors(names)
	if len(unknown) > 0 {
		return nil, fmt.Errorf("make masker: detectors %q are not known; known are %s", unknown, access.DetectorNames())
	}
	if len(known) == 0 {
		return nil, nil
	}
	key := strings.Join(known, " ")
	sets.Lock()
	defer sets.Unlock()
	if s := sets.made[key]; s != nil {
		return s, nil
	}
	s, err := newSet(known)
	if err != nil {
		return nil, err
	}
	if sets.made == nil || len(sets.made) >= maxSets {
		sets.made = map[string]*Set{}
	}
	sets.made[key] = s
	return s, nil
}

func newSet(names []string) (*Set, error) {
	s := &Set{names: names}
	var rules []rule
	for _, name := range names {
		switch name {
		case "email":
			s.email = true
		case "iban":
			s.iban = true
		case "es_dni":
			s.esDNI = true
		case "it_cf":
			s.itCF = true
		case "private_key":
			s.pem = true
		case "token":
			s.jwt = true
			rules = append(rules, gitleaks()...)
			rules = append(rules, rule{ID: jwtID, Keywords: []string{"eyj"}})
		case "password":
			rules = append(rules, passwords()...)
		default:
			k := slices.IndexFunc(numberKinds, func(k number) bool { return k.name == name })
			if k < 0 {
				return nil, fmt.Errorf("make masker: nothing here finds %q", name)
			}
			s.numbers = append(s.numbers, &numberKinds[k])
		}
	}
	if len(rules) > 0 {
		s.rules = newRuleBook(rules)
	}
	s.setHolds()
	s.pool.New = func() any { return &found{} }
	return s, nil
}

const jwtID = "json-web-token"

// setHolds says of which bytes a value that still goes on may be made.
func (s *Set) setHolds() {
	for c := range 256 {
		b := byte(c)
		switch {
		case s.rules != nil || s.pem:
			s.holds[c] = b > ' ' && b != 0x7f
		case s.email:
			s.holds[c] = localBytes[c] || domainBytes[c] || b == '@'
		default:
			s.holds[c] = isAlnum(b) || isSeparator(b) && b != ' '
		}
	}
}

// grouped reports whether values may hold single spaces.
func (s *Set) grouped() bool { return len(s.numbers) > 0 || s.iban }

// Span is where a value lies in a text.
type Span struct{ From, To int }

// found gathers spans, and has what a search needs besides.
type found struct {
	spans []Span
	done  []int    // by rule: how far it has looked
	rules []uint16 // those that have looked at all
	text  []byte   // a stream's: context and what is new
	plain plain    // a terminal's
}

func (f *found) add(from, to int) { f.spans = append(f.spans, Span{from, to}) }

// take sorts the spans and joins those that overlap.
func (f *found) take() []Span {
	slices.SortFunc(f.spans, func(a, b Span) int { return a.From - b.From })
	out := f.spans[:0]
	for _, s := range f.spans {
		if n := len(out); n > 0 && s.From <= out[n-1].To {
			out[n-1].To = max(out[n-1].To, s.To)
			continue
		}
		out = append(out, s)
	}
	f.spans = out
	return out
}

// Find says where values lie in a whole text, in order and apart.
func (s *Set) Find(text []byte) []Span {
	f := s.pool.Get().(*found)
	defer s.pool.Put(f)
	s.find(text, f)
	s.findKeys(text, f)
	return slices.Clone(f.take())
}

// Mask writes asterisks over the values in a whole text, and reports whether
// there were any. White space in a value stays.
func (s *Set) Mask(text []byte) bool {
	f := s.pool.Get().(*found)
	defer s.pool.Put(f)
	s.find(text, f)
	s.findKeys(text, f)
	for _, at := range f.take() {
		stars(text[at.From:at.To])
	}
	return len(f.spans) > 0
}

func stars(p []byte) {
	for i, c := range p {
		if c > ' ' && c != 0x7f {
			p[i] = '*'
		}
	}
}

// find looks for everything but private keys, which have no bound.
func (s *Set) find(text []byte, f *found) {
	f.spans = f.spans[:0]
	if s.email {
		findEmails(text, f)
	}
	if len(s.numbers) > 0 {
		s.findNumbers(text, f)
	}
	if s.iban || s.esDNI || s.itCF {
		s.findLettered(text, f)
	}
	if s.rules != nil {
		s.findSecrets(text, f)
	}
}

func (s *Set) findSecrets(text []byte, f *found) {
	b := s.rules
	if len(f.done) < len(b.rules) {
		f.done = make([]int, len(b.rules))
	}
	b.words.find(text, func(word uint16, end int) {
		for _, to := range b.leads[word] {
			r := to.rule
			if f.done[r] == 0 {
				f.rules = append(f.rules, r)
			}
			if end > f.done[r] {
				f.done[r] = b.rules[r].look(text, end-len(b.list[word]), end, to.place, f)
			}
		}
	})
	for _, r := range f.rules {
		f.done[r] = 0
	}
	f.rules = f.rules[:0]
}

// look searches around one of the rule's words, and says how far a word needs
// no other look.
func (r *rule) look(text []byte, from, to int, p place, f *found) int {
	if r.ID == jwtID {
		if bytes.HasPrefix(text[from:], []byte("eyJ")) && beginsToken(text, from) {
			if end := jwtAt(text, from); end > 0 {
				f.add(from, end)
				return end
			}
		}
		return to
	}
	low, high, ok := r.region(text, from, to, p)
	if !ok {
		return to
	}
	region, last := text[low:high], to
	if p != inName {
		last = min(to+r.reach(p), high) // see reach: all that begins before it is found here
	}
	for at := 0; at < len(region); {
		m := r.compile().FindSubmatchIndex(region[at:])
		if m == nil {
			break
		}
		begin, end := r.secret(m)
		if r.counts(region[at:], m) {
			f.add(low+at+begin, low+at+end)
			last = max(last, low+at+end)
		}
		at += max(end, m[0]+1) // what ends one value may begin the next
	}
	return last
}

// How far a match may begin before its word.
const (
	beforeName = 64
	beforeAny  = 1 << 10
)

// region is what to search, if a match is possible at all.
func (r *rule) region(text []byte, from, to int, p place) (low, high int, ok bool) {
	s := r.shape
	high = min(len(text), to+2*r.reach(p))
	switch {
	case p == anywhere:
		return max(0, from-beforeAny), high, true
	case p == inMatch && s.solid:
		for low = from; low > 0 && text[low-1] > ' ' && from-low < s.max; {
			low--
		}
		for end := to; end < high; end++ {
			if text[end] <= ' ' {
				return low, end + 1, end-low >= s.min
			}
		}
		return low, high, high-low >= s.min
	case p == inName:
		value, after := assigned(text[to:])
		if value < 0 || r.Entropy > 0 && value < after && entropy(text[to+value:to+after]) <= r.Entropy-entropySlack {
			return 0, 0, false
		}
		return max(0, from-beforeName), min(len(text), to+max(after, longestName)+2), true
	default:
		low = max(0, from-min(s.max, beforeAny))
	}
	for low > 0 && from-low < 2*beforeAny && isAlnum(text[low]) {
		low--
	}
	return low, high, high-low >= s.min
}

// reach is how far from its word a match may end. Twice as far is searched, so
// that a text full of such words is searched twice in all, and not for each.
func (r *rule) reach(p place) int {
	if p == anywhere {
		return longestValue
	}
	return r.shape.max
}

// assigned finds, behind a name that goes on here, an operator and a value.
// value is -1 without them; a value that is not there yet has no length.
func assigned(p []byte) (value, after int) {
	name := p[:min(len(p), longestName)]
	for i := 0; i < len(name); {
		i += run(name[i:], &nameBytes)
		n := run(name[i:], &operatorBytes)
		if n == 0 {
			break
		}
		i += n
		value = i + run(name[i:], &quoteBytes)
		after = value + run(p[value:min(len(p), value+longestNamed)], &valueBytes)
		if after-value >= shortest || after == len(p) {
			return value, after
		}
	}
	if len(name) == len(p) {
		return len(p), len(p)
	}
	return -1, -1
}

// longestName bounds a name from its word on, with the operator. What is
// taken for a value here may have bytes at its ends that are none of it, so
// its entropy is only nearly right.
const (
	longestName  = 64
	longestNamed = 512 // the value
	entropySlack = 0.5
)

// shortest is the fewest bytes of a value that is known by its name, without
// those that may also stand before it.
const shortest = 6

var (
	nameBytes     = bytesOf("_.- \t\r\n'\"", isAlnum)
	operatorBytes = bytesOf("=>:|?,", nil)
	quoteBytes    = bytesOf(" \t\r\n'\"`=", nil)
	valueBytes    = bytesOf("", func(c byte) bool { return c > ' ' && bytes.IndexByte([]byte("'\"`,;"), c) < 0 })
)

func bytesOf(list string, more func(byte) bool) (out [256]bool) {
	for c := range 256 {
		out[c] = strings.IndexByte(list, byte(c)) >= 0 || more != nil && more(byte(c))
	}
	return out
}

// run counts the bytes of a class at the beginning.
func run(p []byte, class *[256]bool) int {
	for i, c := range p {
		if !class[c] {
			return i
		}
	}
	return len(p)
}
