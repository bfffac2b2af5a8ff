package postgres

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/gateway/postgres/backing"
)

func shapeOf(text string) (string, bool) {
	var s shaped
	ok := s.shape([]byte(text))
	return string(s.bytes), ok
}

func TestShape(t *testing.T) {
	for text, want := range map[string]string{
		"select a1 from t where id = 42 and n='it''s' limit 5;": "select a1 from t where id = \x01 and n=\x02 limit \x01;",
		`select "u"."1'2" from "u" where x=-7`:                  `select "u"."1'2" from "u" where x=-` + "\x01",
		"select $1::int, 'a' 'b'":                               "select $1::int, \x02 \x02",
	} {
		if got, ok := shapeOf(text); !ok || got != want {
			t.Errorf("%s: got %q, %v", text, got, ok)
		}
	}
	for _, text := range []string{
		"select E'a'", "select e'\\''", "select U&'a'", `select U&"a"`, "select B'1'", "select $$a$$", "select $a$x$a$", "select 1.5", "select .5",
		"select 1e3", "select 0x1f", "select 1_000", "select 1 -- '", "select 1 /* ' */", "select 'a\\'", "select 'é'", "select é", "select 1234567890",
		"select 'open", `select "open`, "select \x01", "select '\x01'", `select "` + "\x02" + `"`, "select 1a", "select $1a", "select a$", "select 1$1",
	} {
		if got, ok := shapeOf(text); ok && text != "select a$" {
			t.Errorf("%s: got the shape %q, want none", text, got)
		}
	}
}

// What a text of a known shape means is what parsing it would say.
func FuzzShape(f *testing.F) {
	f.Add("select v from public.users where id = 1 and n = 'x'", 2, "y")
	f.Add("update users set a = 'b' where true or 1 = 1;", 0, "")
	f.Add(`insert into "users" values (1, 'a'), (2, 'b')`, 123456789, "o''x")
	f.Add("select 'a'\n'b' from t order by 1 limit 2", 7, " ")
	f.Fuzz(func(t *testing.T, text string, n int, s string) {
		var from shaped
		if !from.shape([]byte(text)) || n < 0 || n > 999_999_999 {
			return
		}
		other := replaceLiterals([]byte(text), from.literals, fmt.Sprint(n), "'"+s+"'")
		if got, ok := shapeOf(string(other)); !ok || got != string(from.bytes) {
			return // what was put in is no plain literal
		}
		p := newPlanned(plan)
		first, err := p.read([]byte(text))
		if err != nil || first.shape == nil {
			return
		}
		got, err := p.read(other)
		if err != nil {
			t.Fatal(err)
		}
		want, err := newPlanned(plan).read(other)
		if err != nil {
			return // a number out of a place where PostgreSQL's grammar wants another: it says so itself
		}
		if got.sent != want.sent {
			t.Errorf("%q after %q: sends %q, want %q", other, text, got.sent, want.sent)
		}
		for i := range want.ops {
			if got.ops[i].Text != want.ops[i].Text || !cmp.Equal(got.ops[i].Facts, want.ops[i].Facts) || want.ops[i].Guard != nil {
				t.Errorf("%q after %q:\ngot  %+v\nwant %+v", other, text, got.ops[i], want.ops[i])
			}
		}
	})
}

func replaceLiterals(text []byte, lits []literal, number, str string) []byte {
	out := slices.Clone(text)
	for _, l := range slices.Backward(lits) {
		with := number
		if text[l.from] == '\'' {
			with = str
		}
		out = slices.Concat(out[:l.from], []byte(with), out[l.to:])
	}
	return out
}

func TestReadingIsKept(t *testing.T) {
	p := newPlanned(plan)
	read := func(text string) reading {
		t.Helper()
		r, err := p.read([]byte(text))
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		return r
	}
	a, b := read("select * from public.users where id = 1"), read(" select * from public.users where id = 1234 ")
	if a.understood == b.understood {
		t.Error("texts of different shapes share a reading")
	}
	c := read("select * from public.users where id = 77777")
	if a.understood != c.understood || a.ops[0].Class != c.ops[0].Class {
		t.Error("texts of one shape do not share a reading")
	}
	if want := `select * from "m".users where id = 77777`; c.sent != want || c.ops[0].Text != "select * from public.users where id = 77777" {
		t.Errorf("sends %q, shows %q", c.sent, c.ops[0].Text)
	}
	for _, text := range []string{"copy t to stdout", "set work_mem = 5", "select pg_read_file('a')", "select 1; select 2"} {
		if r := read(text); r.shape != nil {
			t.Errorf("%s: is kept by its shape", text)
		}
	}
}

func TestIntake(t *testing.T) {
	var sent bytes.Buffer
	for i := range 40_000 {
		fmt.Fprintf(&sent, "%08d", i)
	}
	all := slices.Clone(sent.Bytes())
	in := newIntake(&sent)
	var got []byte
	for in.fill() == nil {
		n := len(in.bytes())
		if n < 300_000 && len(got) == 0 {
			continue // one message of 300 kB: the buffer has to grow
		}
		got = append(got, in.bytes()...)
		in.use(n)
	}
	if !bytes.Equal(got, all) {
		t.Errorf("read %d bytes, want the %d that were sent", len(got), len(all))
	}
	in.release()
}

// A text is not taken for one of the same shape that held no password.
func TestPasswordsBehindAShape(t *testing.T) {
	p := newPlanned(backing.Backing{Role: "dev", Database: "d", SearchPath: []string{"public"}})
	for _, sql := range []string{
		"insert into conf values ('x', 1)", "insert into conf values ('host=h PassWord=hunter2', 1)", "insert into conf values ('x', 2)",
		"insert into conf values ('postgres://me:hunter2@db/x', 1)",
	} {
		read, err := p.read([]byte(sql))
		if err != nil {
			t.Fatal(err)
		}
		read.withhold(func([]byte) string { return "[withheld]" })
		if got := read.ops[0].Text; strings.Contains(got, "hunter2") || strings.Contains(sql, "'x'") && got != sql {
			t.Errorf("%s is recorded as %s", sql, got)
		}
	}
}
