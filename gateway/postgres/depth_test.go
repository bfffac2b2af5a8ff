package postgres

import (
	"os"
	"os/exec"
	"sort"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/access"
)

// Each of these texts fits into one message, and killed the process in the parser.
func TestDeepTextIsRefusedBeforeTheParser(t *testing.T) {
	const n = 60_000
	inner := "1"
	for range 20 { // the first operand is the deepest: chains in brackets add up
		inner = "(" + inner + strings.Repeat("+1", 3_000) + ")"
	}
	for name, text := range map[string]string{
		"operators":     "select 1" + strings.Repeat("+1", n),
		"casts":         "select 1" + strings.Repeat("::a", n),
		"joins":         "select 1 from a" + strings.Repeat(" cross join a", n),
		"sets":          "select 1,1" + strings.Repeat(" union select 1,1", n),
		"postfix":       "select 1" + strings.Repeat(" isnull", n),
		"collations":    "select 1" + strings.Repeat(" collate a", n),
		"brackets":      "select " + strings.Repeat("(", n) + "1" + strings.Repeat(")", n),
		"chains inside": "select " + inner,
		"too many":      "select 1" + strings.Repeat(",1", maxTokens),
		"a second one":  "select 1; select 1" + strings.Repeat("+1", n),
	} {
		if _, err := classify(text, &catalog{}); access.CodeOf(err) != access.CodeTooLarge {
			t.Errorf("%s: got %v, want code %s", name, err, access.CodeTooLarge)
		}
	}
}

func TestWideTextIsUnderstood(t *testing.T) {
	for name, text := range map[string]string{
		"rows":  "insert into t values (1, 'a', now())" + strings.Repeat(", (1, 'a', now())", 20_000),
		"list":  "select 1 from t where id in (1" + strings.Repeat(",1", 100_000) + ")",
		"or":    "select 1 from t where id = 1" + strings.Repeat(" or id = 1", 1_500),
		"many":  strings.Repeat("select 1+1;", 20_000),
		"union": "select 1,2" + strings.Repeat(" union all select 1,2", 1_000),
	} {
		if _, err := classify(text, &catalog{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// deepTexts nest n times.
var deepTexts = map[string]func(n int) string{
	"operators": func(n int) string { return "select 1" + strings.Repeat("+1", n) },
	"casts":     func(n int) string { return "select 1" + strings.Repeat("::a", n) },
	"not":       func(n int) string { return "select " + strings.Repeat("not ", n) + "a" },
	"joins":     func(n int) string { return "select 1 from a" + strings.Repeat(" cross join a", n) },
	"joins inside": func(n int) string {
		return "select from " + strings.Repeat("(a join ", n) + "a" + strings.Repeat(" on x)", n)
	},
	"subqueries": func(n int) string { return strings.Repeat("select (", n) + "1" + strings.Repeat(")", n) },
	"in FROM": func(n int) string {
		return strings.Repeat("select from (", n) + "values (1)" + strings.Repeat(") x", n)
	},
	"exists":    func(n int) string { return strings.Repeat("select exists (", n) + "select" + strings.Repeat(")", n) },
	"arrays":    func(n int) string { return strings.Repeat("select array(", n) + "select" + strings.Repeat(")", n) },
	"functions": func(n int) string { return "select " + strings.Repeat("f(", n) + "1" + strings.Repeat(")", n) },
	"rows":      func(n int) string { return "select " + strings.Repeat("row(", n) + "1" + strings.Repeat(")", n) },
	"cases": func(n int) string {
		return "select " + strings.Repeat("case a when ", n) + "1" + strings.Repeat(" then a end", n)
	},
	"withs":       func(n int) string { return strings.Repeat("with a as (", n) + "select" + strings.Repeat(") select", n) },
	"sets":        func(n int) string { return "select" + strings.Repeat(" union select", n) },
	"sets inside": func(n int) string { return strings.Repeat("(select union ", n) + "select" + strings.Repeat(")", n) },
	"json": func(n int) string {
		return "select " + strings.Repeat("json_object('a':", n) + "1" + strings.Repeat(")", n)
	},
}

// TestDeepestTextsFitSmallStacks: what is let through to the parser does not
// kill the process where its threads have the smallest stack that is usual.
func TestDeepestTextsFitSmallStacks(t *testing.T) {
	const inside = "TIDEGATE_TEST_SMALL_STACK"
	if os.Getenv(inside) == "" {
		cmd := exec.Command("sh", "-c", `ulimit -s 2048 && exec "$0" -test.run '^TestDeepestTextsFitSmallStacks$'`, os.Args[0])
		cmd.Env = append(os.Environ(), inside+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v:\n%s", err, out[:min(len(out), 2000)])
		}
		return
	}
	for name, text := range deepTexts {
		deepest := sort.Search(2*maxDepth, func(n int) bool { return measure(text(n)) != nil }) - 1
		if deepest < maxDepth/8 {
			t.Errorf("%s: only %d levels are let through", name, deepest)
		}
		_, err := classify(text(deepest), &catalog{}) // not understood is fine
		t.Log(name, deepest, err)
	}
}
