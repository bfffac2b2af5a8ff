package mint

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tidegate/tidegate/access"
)

const maxPatterns = 1000

// pattern is names with dots between them; "" in a place matches every name.
type pattern struct {
	text  string
	parts []string
}

// parsePattern reads "public.orders", "public.*", `public."Odd.Name"`. A star
// stands for a whole name.
func parsePattern(text string) (pattern, error) {
	p := pattern{text: text}
	for rest, more := text, true; more; {
		var part string
		var ok bool
		if part, rest, more, ok = cutName(rest); !ok {
			return p, access.Errorf(access.CodeInvalid, "Pattern %q is not understood: want names with dots between them, where * stands for every name and odd names stand in double quotes.", text)
		}
		p.parts = append(p.parts, part)
	}
	return p, nil
}

func cutName(s string) (name, rest string, more, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		name, rest, more = strings.Cut(s, ".")
		if name == "*" {
			return "", rest, more, true
		}
		return name, rest, more, name != "" && len(name) <= 63 && !strings.ContainsAny(name, "*\"\x00 \t\n")
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == 0:
			return "", "", false, false
		case s[i] != '"':
			b.WriteByte(s[i])
		case strings.HasPrefix(s[i+1:], `"`):
			b.WriteByte('"')
			i++
		default:
			name, rest = b.String(), s[i+1:]
			rest, more = strings.CutPrefix(rest, ".")
			return name, rest, more, name != "" && len(name) <= 63 && (more || rest == "")
		}
	}
	return "", "", false, false
}

func (p pattern) matches(names ...string) bool {
	for i, part := range p.parts {
		if part != "" && part != names[i] {
			return false
		}
	}
	return true
}

// exact reports whether the pattern names one thing.
func (p pattern) exact() bool { return !slices.Contains(p.parts, "") }

// tablePatterns reads a role's patterns: schema.table or schema.*.
func tablePatterns(texts []string) ([]pattern, error) {
	if len(texts) > maxPatterns {
		return nil, access.Errorf(access.CodeTooLarge, "The role has %d patterns; at most %d are allowed.", len(texts), maxPatterns)
	}
	var out []pattern
	for _, text := range texts {
		p, err := parsePattern(text)
		if err != nil {
			return nil, err
		}
		if len(p.parts) != 2 || p.parts[0] == "" {
			return nil, access.Errorf(access.CodeInvalid, "Pattern %q is not understood: want schema.table or schema.*.", text)
		}
		out = append(out, p)
	}
	return out, nil
}

// masked is one mask's patterns, each of three parts: schema, table, column.
type masked struct {
	with     access.MaskWith
	patterns []pattern
}

func maskPatterns(masks []access.Mask, on access.TargetRef) ([]masked, error) {
	var out []masked
	for _, m := range masks {
		if len(m.On) > 0 && !slices.Contains(m.On, on) {
			continue
		}
		if len(m.Columns) == 0 && len(m.Detect) > 0 {
			continue // the gateway's business alone
		}
		if err := checkWith(m); err != nil {
			return nil, err
		}
		k := masked{with: m.With}
		if len(m.Columns) == 0 || len(m.Columns) > maxPatterns {
			return nil, access.Errorf(access.CodeInvalid, "Mask %q has %d column patterns; want 1 to %d.", m.Name, len(m.Columns), maxPatterns)
		}
		for _, text := range m.Columns {
			p, err := parsePattern(text)
			if err != nil {
				return nil, err
			}
			if len(p.parts) == 2 {
				p.parts = append([]string{""}, p.parts...)
			}
			if len(p.parts) != 3 || (p.parts[1] == "" && p.parts[2] == "") {
				return nil, access.Errorf(access.CodeInvalid, "Mask %q: pattern %q is not understood: want table.column or schema.table.column, where * stands for every name, not in both places.", m.Name, text)
			}
			k.patterns = append(k.patterns, p)
		}
		out = append(out, k)
	}
	return out, nil
}

func checkWith(m access.Mask) error {
	switch w := m.With; w.Kind {
	case access.MaskNull, access.MaskConstant, "":
		return nil
	case access.MaskPartial:
		if w.Keep >= 1 && w.Keep <= 64 {
			return nil
		}
		return access.Errorf(access.CodeInvalid, "Mask %q keeps %d characters; want 1 to 64.", m.Name, w.Keep)
	default:
		return access.Errorf(access.CodeInvalid, "Mask %q: PostgreSQL targets don't know the way %q; they know null, constant and partial.", m.Name, w.Kind)
	}
}

// stricter orders ways of masking: where two masks meet on a column, the one
// that shows less holds.
func stricter(a, b access.MaskWith) access.MaskWith {
	ra, rb := rank(a), rank(b)
	if ra < rb || (ra == rb && (a.Keep < b.Keep || (a.Keep == b.Keep && a.Text <= b.Text))) {
		return a
	}
	return b
}

func rank(w access.MaskWith) int {
	switch w.Kind {
	case access.MaskPartial:
		return 2
	case access.MaskConstant:
		return 1
	}
	return 0
}

// shows says for people what is left of a masked value.
func shows(w access.MaskWith) string {
	switch w.Kind {
	case access.MaskPartial:
		return fmt.Sprintf("last %d characters", w.Keep)
	case access.MaskConstant:
		return fmt.Sprintf("always %q", w.Text)
	}
	return "nothing shown"
}
