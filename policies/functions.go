package policies

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// function is one that expressions may call. The literal ones want their last
// argument as a plain string, which make reads once.
type function struct {
	args  []kind
	gives kind
	// make builds the evaluator's work; last is the last argument if it is literal.
	make func(last string) (func(args []any) any, error)
	last bool // the last argument must be literal
}

var functions = map[string]function{
	"seconds":    {[]kind{kindString}, kindInt, makeSeconds, true},
	"lower":      {[]kind{kindString}, kindString, plain(func(a []any) any { return strings.ToLower(a[0].(string)) }), false},
	"length":     {[]kind{kindList}, kindInt, plain(func(a []any) any { return int64(len(a[0].([]string))) }), false},
	"contains":   {[]kind{kindList, kindString}, kindBool, plain(func(a []any) any { return slices.Contains(a[0].([]string), a[1].(string)) }), false},
	"startswith": {[]kind{kindString, kindString}, kindBool, plain(func(a []any) any { return strings.HasPrefix(a[0].(string), a[1].(string)) }), false},
	"endswith":   {[]kind{kindString, kindString}, kindBool, plain(func(a []any) any { return strings.HasSuffix(a[0].(string), a[1].(string)) }), false},
	"matches":    {[]kind{kindString, kindString}, kindBool, makeMatches, true},
	"any":        {[]kind{kindList, kindString}, kindBool, overList(true), true},
	"all":        {[]kind{kindList, kindString}, kindBool, overList(false), true},
}

func plain(do func([]any) any) func(string) (func([]any) any, error) {
	return func(string) (func([]any) any, error) { return do, nil }
}

func makeSeconds(s string) (func([]any) any, error) {
	n, err := parseLength(s)
	if err != nil {
		return nil, fmt.Errorf("want %w", err)
	}
	return func([]any) any { return int64(n) }, nil
}

func makeMatches(pattern string) (func([]any) any, error) {
	re, err := wholePattern(pattern)
	if err != nil {
		return nil, err
	}
	return func(a []any) any { return re.MatchString(a[0].(string)) }, nil
}

// overList makes any (some element matches the pattern) and all (each does).
func overList(some bool) func(string) (func([]any) any, error) {
	return func(pattern string) (func([]any) any, error) {
		re, err := wholePattern(pattern)
		if err != nil {
			return nil, err
		}
		return func(a []any) any {
			for _, s := range a[0].([]string) {
				if re.MatchString(s) == some {
					return some
				}
			}
			return !some
		}, nil
	}
}

func (c compiler) call(e *hclsyntax.FunctionCallExpr) *expr {
	if e.Name == "touches" {
		return c.touches(e)
	}
	f, ok := functions[e.Name]
	if !ok || e.ExpandFinal || len(e.Args) != len(f.args) {
		c.diags.errorf(e.Range(), "The call is not understood", "Known are %s and touches, each with its own number of arguments.",
			strings.Join(sortedKeys(functions), ", "))
		return nil
	}
	args := make([]*expr, len(e.Args))
	for i, a := range e.Args {
		if args[i] = c.compile(a); args[i] == nil || !c.want(args[i], f.args[i], a.Range()) {
			return nil
		}
	}
	tail := e.Args[len(e.Args)-1]
	last, literal := literalString(tail)
	if f.last && !literal {
		c.diags.errorf(tail.Range(), "The argument is not allowed", "%s wants a plain string as its last argument.", e.Name)
		return nil
	}
	do, err := f.make(last)
	if err != nil {
		c.diags.errorf(tail.Range(), "The argument is not understood", "%s: %s.", e.Name, err)
		return nil
	}
	return &expr{kind: f.gives, text: callText(e.Name, args), eval: applied(do, args)}
}

func callText(name string, args []*expr) string {
	texts := make([]string, len(args))
	for i, a := range args {
		texts[i] = a.text
	}
	return name + "(" + strings.Join(texts, ", ") + ")"
}

// applied evaluates the arguments; one that is unknown makes the call unknown.
func applied(do func([]any) any, args []*expr) evaluator {
	return func(s scope) any {
		vs := make([]any, len(args))
		for i, a := range args {
			vs[i] = a.eval(s)
			if _, is := vs[i].(unknown); is {
				return unknown{}
			}
		}
		return do(vs)
	}
}

var namePattern = regexp.MustCompile(`\A[A-Za-z0-9_$*-]+(?:\.[A-Za-z0-9_$*-]+){0,3}\z`)

// touches("users.ssn") says whether a statement reaches a table or a column.
func (c compiler) touches(e *hclsyntax.FunctionCallExpr) *expr {
	if _, ok := c.words["statement"]; !ok {
		c.diags.errorf(e.Range(), "The call is not allowed here", "Only rules know statements.")
		return nil
	}
	name, ok := "", false
	if len(e.Args) == 1 && !e.ExpandFinal {
		name, ok = literalString(e.Args[0])
	}
	if !ok || !namePattern.MatchString(name) {
		c.diags.errorf(e.Range(), "The call is not understood", `Write touches("table") or touches("table.column").`)
		return nil
	}
	want := strings.Split(strings.ToLower(name), ".")
	return &expr{kind: kindBool, text: fmt.Sprintf("touches(%q)", strings.ToLower(name)), eval: func(s scope) any {
		return touched(s, want)
	}}
}

func touched(s scope, want []string) any {
	missing := false
	for _, fact := range [...]string{"columns", "tables"} {
		names, ok := s["statement"][fact].([]string)
		missing = missing || !ok
		for _, n := range names {
			if sameTail(strings.Split(strings.ToLower(n), "."), want) {
				return true
			}
		}
	}
	if missing {
		return unknown{}
	}
	return false
}

// sameTail compares names from their ends, as far as both go: a name that the
// room could not qualify ("users") may be any schema's, so it counts.
func sameTail(a, b []string) bool {
	for i := 1; i <= min(len(a), len(b)); i++ {
		x, y := a[len(a)-i], b[len(b)-i]
		if x != y && x != "*" && y != "*" {
			return false
		}
	}
	return true
}
