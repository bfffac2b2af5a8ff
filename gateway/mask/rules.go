package mask

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"regexp/syntax"
	"strings"
	"sync"
)

// gitleaksJSON is what gen writes of gitleaks' rules (MIT: gitleaks.LICENSE).
//
//go:generate sh -c "go -C gen run . >gitleaks.json"
//go:embed gitleaks.json
var gitleaksJSON []byte

// rule is one kind of secret: words by which it is known, and a regular
// expression around such a word. It is compiled when the first of its words
// is met.
type rule struct {
	ID       string   `json:"id"`
	Regex    string   `json:"regex"`
	Group    int      `json:"group"` // the secret in the match; 0: the first that is not empty
	Entropy  float64  `json:"entropy"`
	Keywords []string `json:"keywords"` // lower case
	Allow    []allow  `json:"allow"`

	compile func() *regexp.Regexp
	shape   shape
	allows  func() []allowed
}

// place is where a word stands in a rule's matches.
type place uint8

const (
	inName   place = iota // before an operator, behind which the value is
	beside                // somewhere in name, operator and value
	inMatch               // somewhere
	anywhere              // perhaps only near it
)

// allow names values that are no secrets.
type allow struct {
	Target    string   `json:"target"` // "": the secret; "match", "line"
	All       bool     `json:"all"`
	Regexes   []string `json:"regexes"`
	StopWords []string `json:"stop_words"`
}

type allowed struct {
	allow
	regexes []*regexp.Regexp
}

// longestValue bounds how far from its word a match may reach.
const longestValue = 4 << 10

// shape is what can be said of a rule's matches without matching.
type shape struct {
	solid bool // no space in it, so it lies in one run of other bytes
	min   int  // bytes
	max   int
}

// ruleBook are rules and the words that lead to them.
type ruleBook struct {
	rules []rule
	words *words
	list  []string // the words
	leads [][]lead // by word: the rules that it leads to
}

type lead struct {
	rule  uint16
	place place
}

func newRuleBook(rules []rule) *ruleBook {
	b := &ruleBook{rules: rules}
	index := map[string]int{}
	for i, r := range rules {
		for _, k := range r.Keywords {
			at, ok := index[k]
			if !ok {
				at = len(b.list)
				index[k] = at
				b.list, b.leads = append(b.list, k), append(b.leads, nil)
			}
			b.leads[at] = append(b.leads[at], lead{uint16(i), r.placeOf(k)})
		}
	}
	b.words = newWords(b.list)
	return b
}

// placeOf reads it off the expression's text. gitleaks' rule for keys in
// general has its words in the name, and some of them only in pieces. Where
// one word of a rule need not be in the match, none need be.
func (r *rule) placeOf(keyword string) place {
	unescaped := strings.NewReplacer(`\`, "").Replace
	text := strings.ToLower(unescaped(r.Regex))
	name, _, assigns := strings.Cut(text, unescaped(operator))
	switch {
	case r.ID == "generic-api-key", assigns && strings.Contains(name, keyword):
		return inName
	case assigns:
		return beside
	}
	for _, k := range r.Keywords {
		if !strings.Contains(text, k) {
			return anywhere
		}
	}
	return inMatch
}

func (r *rule) prepare(global []allow) {
	r.shape = shapeOf(r.Regex)
	r.compile = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(strings.Replace(r.Regex, anyPrefix, "", 1))
	})
	r.allows = sync.OnceValue(func() (out []allowed) {
		for _, a := range append(r.Allow, global...) {
			one := allowed{allow: a}
			for _, text := range a.Regexes {
				one.regexes = append(one.regexes, regexp.MustCompile(text))
			}
			out = append(out, one)
		}
		return out
	})
}

// gitleaks reads the embedded rules, without those that this package has a
// better way for.
var gitleaks = sync.OnceValue(func() []rule {
	var file struct {
		Allow []allow
		Rules []rule
	}
	if err := json.Unmarshal(gitleaksJSON, &file); err != nil {
		panic(fmt.Sprintf("mask: read embedded rules: %v", err))
	}
	var out []rule
	for _, r := range file.Rules {
		if r.ID == "jwt" || r.ID == "private-key" {
			continue
		}
		out = append(out, r)
	}
	for i := range out {
		out[i].prepare(file.Allow)
	}
	return out
})

// What a name may begin with, what stands between name and value, and what
// ends a value, in most of gitleaks' rules. The first makes a search slow and
// changes no value.
const (
	anyPrefix  = `[\w.-]{0,50}?`
	terminator = `(?:[\x60'"\s;]|\\[nr]|$)`
	operator   = `(?:=|>|:{1,3}=|\|\||:|=>|\?=|,)`
)

func shapeOf(text string) shape {
	tree, err := syntax.Parse(strings.TrimSuffix(text, terminator), syntax.Perl)
	if err != nil {
		panic(fmt.Sprintf("mask: rule %q: %v", text, err))
	}
	s := shape{solid: !spaces(tree)}
	s.min, s.max = span(tree)
	s.max = min(s.max+1, longestValue)
	return s
}

// span is how many bytes a match has, at least and at most.
func span(t *syntax.Regexp) (least, most int) {
	switch t.Op {
	case syntax.OpLiteral:
		return len(t.Rune), 4 * len(t.Rune)
	case syntax.OpCharClass, syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return 1, 4
	case syntax.OpCapture, syntax.OpStar, syntax.OpPlus, syntax.OpQuest, syntax.OpRepeat:
		least, most = span(t.Sub[0])
		low, high := times(t)
		return least * low, min(most*high, longestValue)
	case syntax.OpConcat:
		for _, sub := range t.Sub {
			l, m := span(sub)
			least, most = least+l, min(most+m, longestValue)
		}
	case syntax.OpAlternate:
		least = longestValue
		for _, sub := range t.Sub {
			l, m := span(sub)
			least, most = min(least, l), max(most, m)
		}
	}
	return least, most
}

func times(t *syntax.Regexp) (low, high int) {
	switch t.Op {
	case syntax.OpStar:
		return 0, longestValue
	case syntax.OpPlus:
		return 1, longestValue
	case syntax.OpQuest:
		return 0, 1
	case syntax.OpRepeat:
		if t.Max < 0 {
			return t.Min, longestValue
		}
		return t.Min, t.Max
	}
	return 1, 1
}

// spaces reports whether a match may hold white space.
func spaces(t *syntax.Regexp) bool {
	switch t.Op {
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return true
	case syntax.OpLiteral:
		return strings.ContainsAny(string(t.Rune), " \t\r\n")
	case syntax.OpCharClass:
		for i := 0; i < len(t.Rune); i += 2 {
			for _, c := range " \t\r\n" {
				if t.Rune[i] <= c && c <= t.Rune[i+1] {
					return true
				}
			}
		}
	}
	for _, sub := range t.Sub {
		if spaces(sub) {
			return true
		}
	}
	return false
}

// secret is where the value lies in a match, as regexp's indexes say it.
func (r *rule) secret(m []int) (from, to int) {
	if r.Group > 0 && 2*r.Group+1 < len(m) && m[2*r.Group] >= 0 {
		return m[2*r.Group], m[2*r.Group+1]
	}
	for i := 2; i+1 < len(m); i += 2 {
		if m[i] >= 0 && m[i+1] > m[i] {
			return m[i], m[i+1]
		}
	}
	return m[0], m[1]
}

// counts reports whether a match is a secret.
func (r *rule) counts(text []byte, m []int) bool {
	from, to := r.secret(m)
	secret := text[from:to]
	if r.Entropy > 0 && entropy(secret) <= r.Entropy {
		return false
	}
	begin := m[0]
	for begin > 0 && m[0]-begin < 50 && nameBytes[text[begin-1]] && text[begin-1] > ' ' {
		begin-- // see anyPrefix
	}
	for _, a := range r.allows() {
		if a.allows(secret, text[begin:m[1]], func() []byte { return lineAround(text, m[0], m[1]) }) {
			return false
		}
	}
	return true
}

func (a allowed) allows(secret, match []byte, line func() []byte) bool {
	target := secret
	switch a.Target {
	case "match":
		target = match
	case "line":
		target = line()
	}
	byRegex, byWord := false, false
	for _, re := range a.regexes {
		byRegex = byRegex || re.Match(target)
	}
	if len(a.StopWords) > 0 {
		low := strings.ToLower(string(secret))
		for _, w := range a.StopWords {
			byWord = byWord || strings.Contains(low, w)
		}
	}
	if a.All {
		return (byRegex || len(a.regexes) == 0) && (byWord || len(a.StopWords) == 0)
	}
	return byRegex || byWord
}

func lineAround(text []byte, from, to int) []byte {
	for from > 0 && text[from-1] != '\n' {
		from--
	}
	for to < len(text) && text[to] != '\n' {
		to++
	}
	return text[from:to]
}

// entropy is Shannon's, in bits for a byte.
func entropy(p []byte) (bits float64) {
	var counts [256]int
	for _, c := range p {
		counts[c]++
	}
	for _, n := range counts {
		if n > 0 {
			f := float64(n) / float64(len(p))
			bits -= f * math.Log2(f)
		}
	}
	return bits
}

// passwords are rules of our own, for what gitleaks leaves out: a password
// has no form, so it is known by what stands before it.
var passwords = sync.OnceValue(func() []rule {
	noValue := []allow{{Regexes: []string{`(?i)^(?:true|false|null|none|nil|undefined|required|optional|yes|no|on|off|string|text|\*+|[$<{%].*)$`}}}
	list := []rule{
		{ID: "password-assigned", Keywords: []string{"password", "passwd", "passphrase", "pwd", "passwort"},
			Regex: `(?i)(?:password|passwd|passphrase|pwd|passwort)[a-z0-9_.-]{0,20}["']?[ \t]{0,3}(?:=>|:=|=|:)[ \t]{0,3}(?:\\?"([^"\r\n]{3,200})"|\\?'([^'\r\n]{3,200})'|([^\s"'\x60,;&|<>(){}\[\]]{3,200}))`},
		{ID: "password-sql", Keywords: []string{"password"}, Regex: `(?i)password\s{1,3}'((?:[^']|''){1,200})'`},
		{ID: "password-in-address", Keywords: []string{"://"}, Regex: `://[^\s/:@"']{0,100}:([^\s/@"']{1,200})@`},
		{ID: "password-in-header", Keywords: []string{"authorization"},
			Regex: `(?i)authorization["']?\s{0,2}[:=]\s{0,2}["']?(?:bearer|basic|token)\s{1,3}([A-Za-z0-9._~+/=-]{8,})`},
	}
	for i := range list {
		list[i].prepare(noValue)
	}
	return list
})
