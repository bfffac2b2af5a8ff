package mask

import (
	"bytes"
	"math/rand/v2"
	"regexp/syntax"
	"strings"
	"testing"
	"time"
)

// TestEveryRule: for each rule a text is made that its expression matches, and
// what the search around words finds is what the expression finds in the whole.
func TestEveryRule(t *testing.T) {
	s := set(t, "token", "password")
	rnd := rand.New(rand.NewPCG(3, 4))
	for i := range s.rules.rules {
		r := &s.rules.rules[i]
		if r.ID == jwtID {
			continue
		}
		tried := 0
		for n := 0; n < 200 && tried < 4; n++ {
			text := []byte("see: " + sample(rnd, r) + "\n")
			m := r.compile().FindSubmatchIndex(text)
			if m == nil || !r.counts(text, m) {
				continue
			}
			tried++
			from, to := r.secret(m)
			want := bytes.Clone(text[from:to])
			stars(want)
			s.Mask(text)
			if string(text[from:to]) != string(want) {
				t.Errorf("%s: %q is left of a value that its rule finds in %q", r.ID, text[from:to], text)
				break
			}
		}
		if tried == 0 {
			t.Errorf("%s: no text was made that it matches", r.ID)
		}
	}
}

// sample makes a text of the rule's expression, with one of its words in it, or before it.
func sample(rnd *rand.Rand, r *rule) string {
	tree, err := syntax.Parse(r.Regex, syntax.Perl)
	if err != nil {
		panic(err)
	}
	var b strings.Builder
	write(rnd, &b, tree)
	text := b.String()
	for _, k := range r.Keywords {
		if strings.Contains(strings.ToLower(text), k) {
			return text
		}
	}
	return r.Keywords[rnd.IntN(len(r.Keywords))] + " " + text
}

func write(rnd *rand.Rand, b *strings.Builder, t *syntax.Regexp) {
	switch t.Op {
	case syntax.OpLiteral:
		b.WriteString(string(t.Rune))
	case syntax.OpCharClass:
		for range 50 {
			i := 2 * rnd.IntN(len(t.Rune)/2)
			if low, high := max(t.Rune[i], ' '), min(t.Rune[i+1], '~'); low <= high {
				b.WriteRune(low + rnd.Int32N(high-low+1))
				return
			}
		}
		b.WriteRune(t.Rune[0])
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		b.WriteByte(byte('a' + rnd.IntN(26)))
	case syntax.OpAlternate:
		write(rnd, b, t.Sub[rnd.IntN(len(t.Sub))])
	case syntax.OpStar, syntax.OpPlus, syntax.OpQuest, syntax.OpRepeat:
		low, high := times(t)
		for range low + rnd.IntN(min(high-low, 8)+1) {
			write(rnd, b, t.Sub[0])
		}
	default:
		for _, sub := range t.Sub {
			write(rnd, b, sub)
		}
	}
}

// TestNoFalseAlarm: ordinary text is left alone.
func TestNoFalseAlarm(t *testing.T) {
	s := set(t, "secrets")
	for _, text := range []string{
		"key = value\nprimary_key: order_id\npublic_key_path: /etc/ssh/ssh_host_ed25519_key.pub\n",
		"tokens: 512 of 4096 were used; access log at /var/log/nginx/access.log\n",
		"commit 9aece52d1f5a53b1d6c1f62f09d1ee86a4a0c9f3\nauthor alice\n",
		"The api-version is 2024-11-05T12:00:00Z. Passwords are asked for: later.\n",
		"http://acme.test:8080/path@x drwxr-xr-x 2 root root 4096 Nov 28 05:31 secrets\n",
	} {
		got := []byte(text)
		if s.Mask(got) {
			t.Errorf("got %s", got)
		}
	}
}

// TestHostileText: no text makes the search slower than a megabyte in some
// seconds: what it is full of is not searched again for each word.
func TestHostileText(t *testing.T) {
	s := set(t, all()...)
	for _, word := range []string{"curl ", "key=", "eyJ.", "eyJ", "s.", "test_", "a@", "-----BEGIN ", "kind: secret ", "linkedin ", "4111 ", "AKIA", "password ", "\x1b["} {
		text := bytes.Repeat([]byte(word), 1<<17/len(word))
		began := time.Now()
		m := s.Stream(true)
		for at := 0; at < len(text); {
			at += m.Advance(text[at:min(len(text), at+64<<10)], at+64<<10 >= len(text))
		}
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("%q: %d bytes took %s", word, len(text), took)
		} else {
			t.Logf("%q: %.1f MB/s", word, float64(len(text))/took.Seconds()/1e6)
		}
	}
}

func BenchmarkMask(b *testing.B) {
	line := "2026-11-28T05:31:57Z web-1 app[812]: GET /orders/12345 200 in 13 ms, token cache hit, key=order_12345 user 77\n"
	for name, names := range map[string][]string{"email": {"email"}, "numbers": {"card", "iban", "national_id"}, "secrets": {"secrets"}, "all": all()} {
		b.Run(name, func(b *testing.B) {
			s := set(b, names...)
			text := bytes.Repeat([]byte(line), 600)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				s.Mask(text)
			}
		})
		b.Run(name+" terminal", func(b *testing.B) {
			m := set(b, names...).Stream(true)
			text := bytes.Repeat([]byte(line), 600)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				m.Advance(text, false)
			}
		})
	}
}
