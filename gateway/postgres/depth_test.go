package postgres

import (
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
