package mint

import (
	"slices"
	"testing"
)

func TestParsePattern(t *testing.T) {
	for text, want := range map[string][]string{
		"public.orders": {"public", "orders"}, "public.*": {"public", ""}, "*.email": {"", "email"},
		`public."a.b"`: {"public", "a.b"}, `"x""y".*`: {`x"y`, ""}, `p."*"`: {"p", "*"},
		"": nil, ".": nil, "a.": nil, ".a": nil, "a*.b": nil, `"a`: nil, `"a"b`: nil, `a"b`: nil, `"".a`: nil, "a b.c": nil,
	} {
		p, err := parsePattern(text)
		if (err == nil) != (want != nil) || err == nil && !slices.Equal(p.parts, want) {
			t.Errorf("%q: got %q, %v, want %q", text, p.parts, err, want)
		}
	}
}

// A name that is quoted and read back is the same name, whatever is in it.
func FuzzPattern(f *testing.F) {
	for _, s := range []string{"a", `"; DROP`, "a.b", "*", `""`, "ä ö"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, schema, name string) {
		p, err := parsePattern(ident(schema, name))
		if err == nil && (!p.exact() || !p.matches(schema, name)) {
			t.Errorf("%q.%q became %q", schema, name, p.parts)
		}
		if q, err := parsePattern(name); err == nil && len(q.parts) == 0 {
			t.Errorf("%q has no parts", name)
		}
	})
}
