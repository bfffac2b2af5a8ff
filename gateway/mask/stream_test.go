package mask

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
)

// pump sends text through a stream in the given pieces, as a room does, and
// returns what came out.
func pump(t testing.TB, m *Stream, text string, cuts ...int) string {
	t.Helper()
	var out, held []byte
	at := 0
	for _, c := range append(cuts, len(text)) {
		held = append(held, text[at:c]...)
		at = c
		n := m.Advance(held, false)
		out, held = append(out, held[:n]...), held[n:]
		if len(held) > MaxHeld {
			t.Fatalf("holds %d bytes, want %d at most", len(held), MaxHeld)
		}
	}
	n := m.Advance(held, true)
	if n != len(held) {
		t.Fatalf("the end released %d of %d bytes", n, len(held))
	}
	return string(append(out, held...))
}

// canaries are values and where they stand; what is masked begins with the
// first byte and ends with the last.
var canaries = []struct{ names, before, value, after string }{
	{"email", "to: ", "alice.canary@acme.test", "\r\n"},
	{"card", "pay ", "4111 1111 1111 1111", " now"},
	{"iban", "", "DE89 3704 0044 0532 0130 00", "\n"},
	{"us_ssn", "ssn ", "536-90-4399", ","},
	{"token", "t=", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl", " x"},
	{"token", "aws_access_key_id = ", "AKIAQ3EGRZPFWNDXKTYM", "\n"},
	{"token", "api_key: \"", "x3Jk9vQ2mZ8bL5nR7tW1yC4dF6", "\"\n"},
	{"password", "password = ", "hunter2canary", "\n"},
	{"password", "postgres://app:", "hunter2canary", "@db/x "},
	{"private_key", "-----BEGIN PRIVATE KEY-----\n", "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj\nMIIEvQIBADANBg==", "\n-----END PRIVATE KEY-----\n"},
}

// TestEverySplit: each value is masked wherever the text is cut in two, and
// byte by byte, alone and with every other detector beside it.
func TestEverySplit(t *testing.T) {
	for _, c := range canaries {
		for _, names := range [][]string{{c.names}, all()} {
			s := set(t, names...)
			for _, terminal := range []bool{false, true} {
				text := "some words before it " + c.before + c.value + c.after + "and after"
				var single []int
				for cut := range len(text) {
					single = append(single, cut)
					check(t, c.value, text, pump(t, newStream(s, terminal), text, cut))
				}
				check(t, c.value, text, pump(t, newStream(s, terminal), text, single...))
			}
		}
	}
}

func newStream(s *Set, terminal bool) *Stream { return s.Stream(terminal) }

// check wants the value masked and everything else as it was.
func check(t *testing.T, value, text, got string) {
	t.Helper()
	p := []byte(value)
	stars(p)
	if want := strings.Replace(text, value, string(p), 1); got != want {
		t.Fatalf("got  %q\nwant %q", got, want)
	}
}

// TestTerminal: a value is seen through what a terminal does with it.
func TestTerminal(t *testing.T) {
	for name, c := range map[string]struct {
		width    int
		in, want string
	}{
		"colours":          {0, "a \x1b[1malice@\x1b[0;31macme\x1b[0m.test b", "a \x1b[1m******\x1b[0;31m****\x1b[0m***** b"},
		"a moved cursor":   {0, "alice@\x1b[5;1Hacme.test ", "******\x1b[5;1H********* "},
		"drawn apart":      {0, "root\x1b[2;5Hbob@acme.test\x1b[3;5Hmore", "****\x1b[2;5H*************\x1b[3;5H****"},
		"a shell's wrap":   {11, "xx alice@ac \rme.test\n", "xx ******** \r*******\n"},
		"full lines":       {10, "xx alice@a\r\ncme.test y\r\n", "xx *******\r\n******** y\r\n"},
		"lines not full":   {80, "xx alice@a\r\ncme.test y\r\n", "xx alice@a\r\ncme.test y\r\n"},
		"bold by overtype": {0, "a\ba l\x1b[mi@acme.test ", "a\ba *\x1b[m*********** "},
		"a title":          {0, "\x1b]0;bob@acme.test\x07$ ", "\x1b]0;*************\x07$ "},
		"a link":           {0, "\x1b]8;;mailto:bob@acme.test\x1b\\x ", "\x1b]8;;mailto:*************\x1b\\x "},
		"an unknown end":   {0, "x \x1b[31", "x \x1b[31"},
	} {
		s := set(t, "email")
		var single []int
		for cut := range len(c.in) {
			single = append(single, cut)
		}
		for _, cuts := range [][]int{nil, single} {
			m := newStream(s, true)
			m.SetWidth(c.width)
			if got := pump(t, m, c.in, cuts...); got != c.want {
				t.Errorf("%s, cut at %d places:\n got %q\nwant %q", name, len(cuts), got, c.want)
			}
		}
	}
}

// TestPromptIsNotHeld: what a shell writes and then waits is released at once
// where it ends with a space, and kept only from where a value may begin.
func TestPromptIsNotHeld(t *testing.T) {
	for text, want := range map[string]int{
		"total 3\r\nalice@web-1:~$ ":        -1,
		"\x1b[?2004halice@web-1:~$ \x1b[0m": -1,
		"Password: ":                        -1,
		"choose [y/n]":                      len("choose "),
		"see alice@ac":                      len("see "),
		"x \x1b[3":                          len("x "),
		"card 4111 1111 ":                   len("card "),
	} {
		p := []byte(text)
		if want < 0 {
			want = len(text)
		}
		if got := set(t, all()...).Stream(true).Advance(p, false); got != want || string(p) != text {
			t.Errorf("%q: got %d of %d bytes (%q), want %d", text, got, len(text), p, want)
		}
	}
}

// TestAfterAPause: what was released in the middle of a value shows, and the
// rest of it does not.
func TestAfterAPause(t *testing.T) {
	m := newStream(set(t, "token"), true)
	first, rest := []byte("id AKIAQ3EGRZ"), []byte("PFWNDXKTYM ok ")
	m.Advance(first, true)
	if n := m.Advance(rest, false); string(first) != "id AKIAQ3EGRZ" || string(rest[:n]) != "********** ok " {
		t.Errorf("got %q and %q", first, rest[:n])
	}
}

// TestLongRuns: no run without spaces is held beyond the bound, values in it
// are found, and a value over the bound is masked to its end.
func TestLongRuns(t *testing.T) {
	s := set(t, "email", "secrets")
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		text := strings.Repeat("x1,", 20_000) + `"alice@acme.test"` + strings.Repeat(",y2", 20_000)
		check(t, "alice@acme.test", text, pump(t, newStream(s, false), text, someCuts(rnd, len(text))...))
	}
	body := "eyJzdWIiOiJhbGlj" + strings.Repeat("Zabc", 20_000)
	jwt := "eyJhbGciOiJIUzI1NiJ9." + body + ".c2ln"
	got := pump(t, newStream(s, false), "t "+jwt+" z", someCuts(rnd, len(jwt))...)
	if shown := strings.ReplaceAll(got, "*", ""); len(shown) > 2*MaxHeld {
		t.Errorf("%d bytes of a token of %d are shown", len(shown), len(jwt))
	}
	if !strings.HasSuffix(got, " z") || len(got) != len(jwt)+4 {
		t.Errorf("what follows a long token: %q", got[len(got)-20:])
	}
}

func someCuts(rnd *rand.Rand, n int) (cuts []int) {
	for at := 0; ; {
		if at += 1 + rnd.IntN(9000); at >= n {
			return cuts
		}
		cuts = append(cuts, at)
	}
}

// FuzzMask plants a value into any text, cuts it anywhere, and wants nothing
// of it to come out, and everything else to keep its length.
func FuzzMask(f *testing.F) {
	f.Add(uint8(0), []byte("some text "), []byte(" more"), uint16(3), uint16(14), true)
	f.Add(uint8(5), []byte("\x1b[31mkey\x1b[0m \x00\xff"), []byte("\r\n"), uint16(9), uint16(40), true)
	f.Add(uint8(9), []byte("-----BEGIN "), []byte("-----END"), uint16(0), uint16(99), false)
	f.Fuzz(func(t *testing.T, which uint8, before, after []byte, cut1, cut2 uint16, terminal bool) {
		if len(before)+len(after) > 4096 {
			return
		}
		c := canaries[int(which)%len(canaries)]
		text := string(before) + "\n " + c.before + c.value + c.after + "\n" + string(after)
		if strings.Contains(string(before), "\x1b") && !wholeSequences(before) {
			return // the value would be a part of a sequence, and not shown
		}
		a, b := int(cut1)%(len(text)+1), int(cut2)%(len(text)+1)
		got := pump(t, newStream(set(t, all()...), terminal), text, min(a, b), max(a, b))
		if len(got) != len(text) {
			t.Fatalf("%d bytes became %d", len(text), len(got))
		}
		if strings.Contains(got, c.value) {
			t.Errorf("%q\nlets the value through: %q", text, got)
		}
		for i := range len(text) {
			if got[i] != text[i] && (got[i] != '*' || text[i] <= ' ') {
				t.Fatalf("byte %d became %q from %q", i, got[i], text[i])
			}
		}
		if i := bytes.IndexByte([]byte(got), 0x1b); terminal && i >= 0 && text[i] != 0x1b {
			t.Error("a sequence was made")
		}
	})
}

// wholeSequences reports whether a terminal is back in text at the end.
func wholeSequences(p []byte) bool {
	var pl plain
	pl.read(append(bytes.Clone(p), "\n A"...), 0)
	return len(pl.text) > 0 && pl.text[len(pl.text)-1] == 'A' && bytes.HasSuffix(pl.text, []byte(" A"))
}
