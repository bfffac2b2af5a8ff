package policies

import (
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/tidegate/tidegate/access"
)

// block reads one HCL block's attributes. What it does not know it reports.
type block struct {
	*hclsyntax.Block
	diags *diagnostics
}

// only reports attributes and nested blocks that are not in the lists.
func (b block) only(attributes []string, blocks ...string) {
	for _, name := range slices.Sorted(maps.Keys(b.Body.Attributes)) {
		if !slices.Contains(attributes, name) {
			b.diags.errorf(b.Body.Attributes[name].NameRange, "An attribute is unknown",
				"%s has no %q; it has %s.", b.Type, name, strings.Join(attributes, ", "))
		}
	}
	for _, in := range b.Body.Blocks {
		if !slices.Contains(blocks, in.Type) {
			b.diags.errorf(in.TypeRange, "A block is not allowed here", "%s holds no block %q.", b.Type, in.Type)
		}
	}
}

// labels reports whether the block has n labels that are plain.
func (b block) labels(n int) bool {
	if len(b.Labels) != n {
		b.diags.errorf(b.DefRange(), "The labels are wrong", "%s takes %d, got %d.", b.Type, n, len(b.Labels))
		return false
	}
	for i, l := range b.Labels {
		if l == "" || len(l) > 100 || !ascii(l) {
			b.diags.errorf(b.LabelRanges[i], "A label is not allowed", "Use 1 to 100 ASCII characters.")
			return false
		}
	}
	return true
}

// attr is the attribute's expression, or nil.
func (b block) attr(name string) hclsyntax.Expression {
	if a, ok := b.Body.Attributes[name]; ok {
		return a.Expr
	}
	return nil
}

// need is attr for one that must be there.
func (b block) need(name string) hclsyntax.Expression {
	e := b.attr(name)
	if e == nil {
		b.diags.errorf(b.DefRange(), "An attribute is missing", "%s needs %q.", b.Type, name)
	}
	return e
}

// text reads an optional string; "" if it is absent.
func (b block) text(name string) string {
	if e := b.attr(name); e != nil {
		return b.stringOf(e)
	}
	return ""
}

// sentence reads a string that must be there and say something.
func (b block) sentence(name string) string {
	e := b.need(name)
	if e == nil {
		return ""
	}
	s := b.stringOf(e)
	if strings.TrimSpace(s) == "" {
		b.diags.errorf(e.Range(), "A text is empty", "%q must say something.", name)
	}
	return s
}

func (b block) wrong(e hclsyntax.Expression, wanted string) {
	b.diags.errorf(e.Range(), "The value is not understood", "%s wants %s.", b.Type, wanted)
}

func (b block) stringOf(e hclsyntax.Expression) string {
	s, ok := literalString(e)
	if !ok {
		b.wrong(e, "a plain string of at most 1000 readable characters here")
	}
	return s
}

// literalString reads a quoted string without interpolation. Escapes can
// write what the guard refuses in the file, so it looks again.
func literalString(e hclsyntax.Expression) (string, bool) {
	t, ok := e.(*hclsyntax.TemplateExpr)
	if !ok {
		return "", false
	}
	var s strings.Builder
	for _, p := range t.Parts {
		l, ok := p.(*hclsyntax.LiteralValueExpr)
		if !ok || l.Val.Type() != cty.String || l.Val.IsNull() {
			return "", false
		}
		s.WriteString(l.Val.AsString())
	}
	for _, r := range s.String() {
		if unreadable(r, 3) != "" {
			return "", false
		}
	}
	return s.String(), s.Len() <= 4000
}

func literalInt(e hclsyntax.Expression) (int64, bool) {
	l, ok := e.(*hclsyntax.LiteralValueExpr)
	if !ok || l.Val.IsNull() || l.Val.Type() != cty.Number {
		return 0, false
	}
	n, acc := l.Val.AsBigFloat().Int64()
	return n, acc == 0 && n <= math.MaxInt32
}

func literalBool(e hclsyntax.Expression) (value, ok bool) {
	l, isLit := e.(*hclsyntax.LiteralValueExpr)
	if !isLit || l.Val.IsNull() || l.Val.Type() != cty.Bool {
		return false, false
	}
	return l.Val.True(), true
}

func (b block) bool(name string) bool {
	e := b.attr(name)
	if e == nil {
		return false
	}
	v, ok := literalBool(e)
	if !ok {
		b.wrong(e, "true or false here")
	}
	return v
}

// list is the elements of [a, b], or of a alone.
func list(e hclsyntax.Expression) []hclsyntax.Expression {
	if t, ok := e.(*hclsyntax.TupleConsExpr); ok {
		return t.Exprs
	}
	return []hclsyntax.Expression{e}
}

func (b block) strings(name string) []string {
	e := b.attr(name)
	if e == nil {
		return nil
	}
	var out []string
	for _, item := range list(e) {
		out = append(out, b.stringOf(item))
	}
	return out
}

// call reads name("…", …): a function with literal arguments.
func call(e hclsyntax.Expression) (name string, args []hclsyntax.Expression, ok bool) {
	c, ok := e.(*hclsyntax.FunctionCallExpr)
	if !ok || c.ExpandFinal {
		return "", nil, false
	}
	return c.Name, c.Args, true
}

var (
	loginPattern = regexp.MustCompile(`\A[A-Za-z0-9](?:[A-Za-z0-9-]{0,38})(?:\[bot\])?\z`)
	teamPattern  = regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9_.-]{1,100}\z`)
)

// principals reads user("a"), team("o/t") or a list of them.
func (b block) principals(e hclsyntax.Expression) []access.Principal {
	var out []access.Principal
	for _, item := range list(e) {
		p, ok := principal(item)
		switch {
		case !ok:
			b.wrong(item, `user("login") or team("org/name") here`)
		case slices.Contains(out, p):
			b.diags.errorf(item.Range(), "A name is there twice", "Remove one %s.", p)
		default:
			out = append(out, p)
		}
	}
	if len(out) == 0 {
		b.wrong(e, "at least one user or team here")
	}
	return out
}

func principal(e hclsyntax.Expression) (access.Principal, bool) {
	name, args, ok := call(e)
	if !ok || len(args) != 1 {
		return access.Principal{}, false
	}
	s, ok := literalString(args[0])
	p := access.Principal{Kind: access.PrincipalKind(name), Name: strings.ToLower(s)}
	switch p.Kind {
	case access.KindUser:
		return p, ok && loginPattern.MatchString(s)
	case access.KindTeam:
		return p, ok && teamPattern.MatchString(s)
	}
	return p, false
}

// target reads postgres.orders-prod.
func (b block) target(e hclsyntax.Expression) access.TargetRef {
	if p, ok := dotted(e); ok && len(p) == 2 {
		return access.TargetRef{Kind: p[0], Name: p[1]}
	}
	b.wrong(e, "a target such as postgres.orders-prod here")
	return access.TargetRef{}
}

func (b block) targets(name string) (out []located[access.TargetRef]) {
	e := b.need(name)
	if e == nil {
		return nil
	}
	for _, item := range list(e) {
		out = append(out, located[access.TargetRef]{b.target(item), item.Range()})
	}
	if len(out) == 0 {
		b.wrong(e, "at least one target here")
	}
	return out
}

// located is a value and where it was written.
type located[T any] struct {
	value T
	at    hcl.Range
}

func values[T any](in []located[T]) (out []T) {
	for _, l := range in {
		out = append(out, l.value)
	}
	return out
}

// dotted reads a.b.c: names joined by dots, no index.
func dotted(e hclsyntax.Expression) ([]string, bool) {
	t, ok := e.(*hclsyntax.ScopeTraversalExpr)
	if !ok {
		return nil, false
	}
	var out []string
	for _, step := range t.Traversal {
		switch s := step.(type) {
		case hcl.TraverseRoot:
			out = append(out, s.Name)
		case hcl.TraverseAttr:
			out = append(out, s.Name)
		default:
			return nil, false
		}
	}
	return out, true
}

// object reads { key = value } with plain keys, in the order written.
func (b block) object(e hclsyntax.Expression) (out []field) {
	o, ok := e.(*hclsyntax.ObjectConsExpr)
	if !ok {
		b.wrong(e, "{ name = value } here")
		return nil
	}
	seen := map[string]bool{}
	for _, item := range o.Items {
		key := hcl.ExprAsKeyword(item.KeyExpr)
		if key == "" {
			key, _ = literalString(unwrapKey(item.KeyExpr))
		}
		if key == "" || seen[key] || !ascii(key) {
			b.diags.errorf(item.KeyExpr.Range(), "A key is not allowed", "Write each name once, as a plain word.")
			continue
		}
		seen[key] = true
		out = append(out, field{key, item.ValueExpr})
	}
	return out
}

type field struct {
	name string
	expr hclsyntax.Expression
}

func unwrapKey(e hclsyntax.Expression) hclsyntax.Expression {
	if k, ok := e.(*hclsyntax.ObjectConsKeyExpr); ok {
		return k.Wrapped
	}
	return e
}

var lengthPattern = regexp.MustCompile(`\A([1-9][0-9]{0,8})([smhd])\z`)

// parseLength reads "60s", "30m", "2h" or "1d", up to a year.
func parseLength(s string) (access.Seconds, error) {
	m := lengthPattern.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf(`a length such as "60s", "30m", "2h" or "1d"`)
	}
	var n int64
	if _, err := fmt.Sscanf(m[1], "%d", &n); err != nil {
		return 0, fmt.Errorf("read length: %w", err)
	}
	n *= map[string]int64{"s": 1, "m": 60, "h": 3600, "d": 86400}[m[2]]
	if n > 366*86400 {
		return 0, fmt.Errorf("a length of at most 366 days")
	}
	return access.Seconds(n), nil
}

func (b block) length(e hclsyntax.Expression) access.Seconds {
	s, _ := literalString(e)
	n, err := parseLength(s)
	if err != nil {
		b.wrong(e, err.Error())
	}
	return n
}

// moment reads an absolute time that ends in Z, in whole seconds.
func (b block) moment(e hclsyntax.Expression) time.Time {
	s, _ := literalString(e)
	t, err := time.Parse("2006-01-02T15:04:05Z", s)
	if err != nil || t.Nanosecond() != 0 { // Parse lets fractions of a second through
		b.wrong(e, `a moment such as "2026-01-31T08:00:00Z"`)
	}
	return t.UTC()
}
