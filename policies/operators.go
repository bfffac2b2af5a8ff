package policies

import (
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// operator is a binary operator over two values of one kind.
type operator struct {
	sign  string
	args  []kind // the kinds that it takes, on both sides
	gives kind
	do    func(a, b any) any
}

var operators = map[*hclsyntax.Operation]operator{
	hclsyntax.OpLogicalAnd:         {"&&", []kind{kindBool}, kindBool, nil}, // three-valued: see logic
	hclsyntax.OpLogicalOr:          {"||", []kind{kindBool}, kindBool, nil},
	hclsyntax.OpEqual:              {"==", scalars, kindBool, func(a, b any) any { return a == b }},
	hclsyntax.OpNotEqual:           {"!=", scalars, kindBool, func(a, b any) any { return a != b }},
	hclsyntax.OpLessThan:           {"<", numbers, kindBool, ints(func(a, b int64) any { return a < b })},
	hclsyntax.OpLessThanOrEqual:    {"<=", numbers, kindBool, ints(func(a, b int64) any { return a <= b })},
	hclsyntax.OpGreaterThan:        {">", numbers, kindBool, ints(func(a, b int64) any { return a > b })},
	hclsyntax.OpGreaterThanOrEqual: {">=", numbers, kindBool, ints(func(a, b int64) any { return a >= b })},
	hclsyntax.OpAdd:                {"+", numbers, kindInt, ints(func(a, b int64) any { return bounded(a + b) })},
	hclsyntax.OpSubtract:           {"-", numbers, kindInt, ints(func(a, b int64) any { return bounded(a - b) })},
	hclsyntax.OpMultiply:           {"*", numbers, kindInt, ints(func(a, b int64) any { return bounded(a * b) })},
	hclsyntax.OpDivide:             {"/", numbers, kindInt, ints(divide)},
	hclsyntax.OpModulo:             {"%", numbers, kindInt, ints(modulo)},
}

var (
	scalars = []kind{kindBool, kindInt, kindString}
	numbers = []kind{kindInt}
)

// maxNumber bounds numbers: with |n| at most 2^31 no single operation can
// overflow, and a result beyond is unknown.
const maxNumber = 1 << 31

func bounded(n int64) any {
	if n > maxNumber || n < -maxNumber {
		return unknown{}
	}
	return n
}

func divide(a, b int64) any {
	if b == 0 {
		return unknown{}
	}
	return a / b
}

func modulo(a, b int64) any {
	if b == 0 {
		return unknown{}
	}
	return a % b
}

func ints(do func(a, b int64) any) func(a, b any) any {
	return func(a, b any) any {
		x, okA := a.(int64)
		y, okB := b.(int64)
		if !okA || !okB || bounded(x) != any(x) || bounded(y) != any(y) {
			return unknown{}
		}
		return do(x, y)
	}
}

func (c compiler) binary(e *hclsyntax.BinaryOpExpr) *expr {
	// Both sides, always: `true || undefined.x` is a mistake.
	l, r := c.compile(e.LHS), c.compile(e.RHS)
	if l == nil || r == nil {
		return nil
	}
	op, ok := operators[e.Op]
	if !ok {
		c.diags.errorf(e.Range(), "This operator is not allowed", "Use comparisons, && || and arithmetic.")
		return nil
	}
	if !takes(op, l.kind) {
		c.diags.errorf(e.LHS.Range(), "The kind of value is wrong", "%s does not take a %s.", op.sign, l.kind)
		return nil
	}
	if !c.want(r, l.kind, e.RHS.Range()) {
		return nil
	}
	text := l.inner(op.sign) + " " + op.sign + " " + r.inner("")
	return &expr{kind: op.gives, text: text, eval: op.eval(l, r), sign: op.sign}
}

func takes(op operator, k kind) bool {
	for _, a := range op.args {
		if a == k {
			return true
		}
	}
	return false
}

func (op operator) eval(l, r *expr) evaluator {
	switch op.sign {
	case "&&":
		return logic(l, r, false)
	case "||":
		return logic(l, r, true)
	}
	return func(s scope) any {
		a, b := l.eval(s), r.eval(s)
		if a == (unknown{}) || b == (unknown{}) {
			return unknown{}
		}
		return op.do(a, b)
	}
}

// logic is && and || over true, false and unknown: decisive is the value that
// settles the matter whatever the other side is.
func logic(l, r *expr, decisive bool) evaluator {
	return func(s scope) any {
		a, okA := l.eval(s).(bool)
		if okA && a == decisive {
			return decisive
		}
		b, okB := r.eval(s).(bool)
		switch {
		case okB && b == decisive:
			return decisive
		case okA && okB:
			return !decisive
		}
		return unknown{}
	}
}
