package policies

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/tidegate/tidegate/access"
)

// kind is the type of an expression.
type kind string

const (
	kindBool   kind = "bool"
	kindInt    kind = "number"
	kindString kind = "string"
	kindList   kind = "list of strings"
	kindMap    kind = "map of strings" // target.labels, identity.claims: only its fields have values
)

// vocabulary is what expressions may speak of: root, attribute, kind.
type vocabulary map[string]map[string]kind

// planWords are known when a request is planned; judgeWords when a session is.
var (
	planWords = vocabulary{
		"target": {"kind": kindString, "name": kindString, "zone": kindString, "labels": kindMap},
		"grant": {
			"id": kindString, "role": kindString, "seconds": kindInt,
			"people": kindInt, "reason": kindString, "ticket": kindString,
		},
	}
	judgeWords = vocabulary{
		"target": planWords["target"],
		"grant":  planWords["grant"],
		"identity": {
			"provider": kindString, "issuer": kindString, "subject": kindString,
			"email": kindString, "groups": kindList, "claims": kindMap,
		},
		"statement": {
			"kind": kindString, "writes": kindBool, "ddl": kindBool, "has_where": kindBool,
			"tables": kindList, "columns": kindList, "functions": kindList, "text": kindString,
			"rows": kindInt,
		},
		"command": {
			"kind": kindString, "account": kindString, "name": kindString, "words": kindList, "simple": kindBool,
			"pty": kindBool, "writes": kindBool, "path": kindString, "address": kindString, "text": kindString,
		},
	}
)

// unknown is the value of what nobody found out. It is never true.
type unknown struct{}

// scope is what an expression reads: facts by root and attribute. A value is
// a bool, an int64, a string, a []string or a map[string]string.
type scope map[string]access.Facts

// evaluator is a compiled expression: a value of its kind, or unknown.
type evaluator func(scope) any

// expr is a compiled expression with its canonical text.
type expr struct {
	kind kind
	text string
	eval evaluator
	sign string // of a binary operator
}

// inner is the text as part of a larger one. A chain of one associative
// operator needs no parentheses, so it stays flat.
func (x *expr) inner(sign string) string {
	if x.sign == "" || x.sign == sign && (sign == "&&" || sign == "||") {
		return x.text
	}
	return "(" + x.text + ")"
}

// maxExprBytes bounds one expression, and so what one judgement costs.
const maxExprBytes = 4096

type compiler struct {
	words vocabulary
	diags *diagnostics
}

// compileAs compiles an expression that must have the kind; nil if it has mistakes.
func compileAs(e hclsyntax.Expression, want kind, words vocabulary, diags *diagnostics) *expr {
	at := e.Range()
	if at.End.Byte-at.Start.Byte > maxExprBytes {
		diags.errorf(at, "The expression is too long", "It may have %d bytes; split it into two blocks.", maxExprBytes)
		return nil
	}
	c := compiler{words, diags}
	x := c.compile(e)
	if x == nil || !c.want(x, want, at) {
		return nil
	}
	return x
}

// compileText compiles an expression's source as a Rule carries it.
func compileText(name, src string, words vocabulary) (*expr, access.Diagnostics) {
	var diags diagnostics
	if !guard(name, []byte(src), hclsyntax.LexExpression, &diags) {
		return nil, diags.sorted()
	}
	e, ds := hclsyntax.ParseExpression([]byte(src), name, hcl.InitialPos)
	if ds.HasErrors() {
		diags.addHCL(ds)
		return nil, diags.sorted()
	}
	return compileAs(e, kindBool, words, &diags), diags.sorted()
}

func (c compiler) want(x *expr, want kind, at hcl.Range) bool {
	if x.kind == want {
		return true
	}
	c.diags.errorf(at, "The kind of value is wrong", "Wanted a %s, got a %s.", want, x.kind)
	return false
}

// compile is the allow-list of syntax: a node that is not here is refused.
func (c compiler) compile(e hclsyntax.Expression) *expr {
	switch e := e.(type) {
	case *hclsyntax.ParenthesesExpr:
		return c.compile(e.Expression)
	case *hclsyntax.TemplateExpr, *hclsyntax.LiteralValueExpr:
		return c.literal(e)
	case *hclsyntax.ScopeTraversalExpr:
		return c.reference(e)
	case *hclsyntax.UnaryOpExpr:
		return c.unary(e)
	case *hclsyntax.BinaryOpExpr:
		return c.binary(e)
	case *hclsyntax.ConditionalExpr:
		return c.conditional(e)
	case *hclsyntax.TupleConsExpr:
		return c.tuple(e)
	case *hclsyntax.FunctionCallExpr:
		return c.call(e)
	}
	c.diags.errorf(e.Range(), "This syntax is not allowed",
		"Use literals, names, comparisons, && || !, a ? b : c, arithmetic and the known functions.")
	return nil
}

func constant(k kind, text string, v any) *expr {
	return &expr{kind: k, text: text, eval: func(scope) any { return v }}
}

func (c compiler) literal(e hclsyntax.Expression) *expr {
	if s, ok := literalString(e); ok {
		return constant(kindString, quote(s), s)
	}
	if n, ok := literalInt(e); ok {
		return constant(kindInt, strconv.FormatInt(n, 10), n)
	}
	if v, ok := literalBool(e); ok {
		return constant(kindBool, strconv.FormatBool(v), v)
	}
	c.diags.errorf(e.Range(), "The value is not allowed", "Use a plain string, a whole number, true or false; null is none of them.")
	return nil
}

func (c compiler) tuple(e *hclsyntax.TupleConsExpr) *expr {
	items := []string{}
	for _, x := range e.Exprs {
		s, ok := literalString(x)
		if !ok {
			c.diags.errorf(x.Range(), "The list is not allowed", "A list holds plain strings only.")
			return nil
		}
		items = append(items, s)
	}
	return constant(kindList, fmt.Sprintf("[%s]", quoted(items)), items)
}

// quote writes a string as HCL reads it back.
func quote(s string) string {
	return strings.NewReplacer("${", "$${", "%{", "%%{").Replace(strconv.Quote(s))
}

func quoted(items []string) string {
	out := make([]string, len(items))
	for i, s := range items {
		out[i] = quote(s)
	}
	return strings.Join(out, ", ")
}

func (c compiler) reference(e *hclsyntax.ScopeTraversalExpr) *expr {
	p, ok := dotted(e)
	if !ok || len(p) < 2 || len(p) > 3 {
		c.diags.errorf(e.Range(), "The reference is not understood", "Write root.name or root.name.key; indexes and whole roots are not allowed.")
		return nil
	}
	words, ok := c.words[p[0]]
	if !ok {
		c.diags.errorf(e.Range(), "The name is unknown", "Nothing here is called %q; known are %s.", p[0], strings.Join(sortedKeys(c.words), ", "))
		return nil
	}
	k, ok := words[p[1]]
	if !ok {
		c.diags.errorf(e.Range(), "The attribute is unknown", "%s has no %q; it has %s.", p[0], p[1], strings.Join(sortedKeys(words), ", "))
		return nil
	}
	if (k == kindMap) != (len(p) == 3) {
		c.diags.errorf(e.Range(), "The reference is not understood", "%s.%s is a %s.", p[0], p[1], k)
		return nil
	}
	text := strings.Join(p, ".")
	if k == kindMap {
		return &expr{kind: kindString, text: text, eval: func(s scope) any { return lookup(s, p) }}
	}
	return &expr{kind: k, text: text, eval: func(s scope) any { return fact(s[p[0]], p[1], k) }}
}

// lookup reads a field of a map; a missing one is unknown.
func lookup(s scope, p []string) any {
	m, ok := s[p[0]][p[1]].(map[string]string)
	if !ok {
		return unknown{}
	}
	v, ok := m[p[2]]
	if !ok {
		return unknown{}
	}
	return v
}

// fact reads a fact of the kind; a missing one, or one of another kind, is unknown.
func fact(facts access.Facts, name string, k kind) any {
	switch v := facts[name].(type) {
	case bool:
		if k == kindBool {
			return v
		}
	case int64:
		if k == kindInt {
			return v
		}
	case string:
		if k == kindString {
			return v
		}
	case []string:
		if k == kindList {
			return v
		}
	}
	return unknown{}
}

func (c compiler) unary(e *hclsyntax.UnaryOpExpr) *expr {
	x := c.compile(e.Val)
	if x == nil {
		return nil
	}
	switch e.Op {
	case hclsyntax.OpLogicalNot:
		if !c.want(x, kindBool, e.Range()) {
			return nil
		}
		return &expr{kind: kindBool, text: "!" + x.inner("!"), eval: func(s scope) any {
			if v, ok := x.eval(s).(bool); ok {
				return !v
			}
			return unknown{}
		}}
	case hclsyntax.OpNegate:
		if !c.want(x, kindInt, e.Range()) {
			return nil
		}
		return &expr{kind: kindInt, text: "-" + x.inner("-"), eval: func(s scope) any {
			if v, ok := x.eval(s).(int64); ok {
				return -v
			}
			return unknown{}
		}}
	}
	c.diags.errorf(e.Range(), "This operator is not allowed", "Use ! or -.")
	return nil
}

func (c compiler) conditional(e *hclsyntax.ConditionalExpr) *expr {
	// All three are compiled before any is looked at, so that mistakes come at once.
	cond, yes, no := c.compile(e.Condition), c.compile(e.TrueResult), c.compile(e.FalseResult)
	if cond == nil || yes == nil || no == nil {
		return nil
	}
	if !c.want(cond, kindBool, e.Condition.Range()) || !c.want(no, yes.kind, e.FalseResult.Range()) {
		return nil
	}
	text := fmt.Sprintf("%s ? %s : %s", cond.inner("?"), yes.inner("?"), no.inner("?"))
	return &expr{kind: yes.kind, text: text, sign: "?", eval: func(s scope) any {
		v, ok := cond.eval(s).(bool)
		switch {
		case !ok:
			return unknown{}
		case v:
			return yes.eval(s)
		}
		return no.eval(s)
	}}
}

// wholePattern compiles a pattern that must match a whole string.
func wholePattern(p string) (*regexp.Regexp, error) {
	if len(p) > 256 {
		return nil, fmt.Errorf("it has %d bytes and may have 256", len(p))
	}
	// Alone first: joined to the anchors, unbalanced parentheses could pair with ours.
	if _, err := regexp.Compile(p); err != nil {
		return nil, err
	}
	return regexp.Compile(`\A(?:` + p + `)\z`)
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
