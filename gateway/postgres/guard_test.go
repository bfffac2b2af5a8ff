package postgres

import (
	"testing"

	"github.com/tidegate/tidegate/gateway/postgres/backing"
)

// The planner's statistics are of hidden rows as well: EXPLAIN would tell how
// often a value is among them.
func TestExplainWhereRowsAreLimited(t *testing.T) {
	masked := plan
	masked.Masked = plan.Masked[:1]
	for _, sql := range []string{
		"explain select * from parcels where note = 'x'", "explain (costs off) select 1", "EXPLAIN ANALYZE update public.parcels set note = ''",
		"prepare p as select 1; explain execute p", "select 1; explain (format json) table parcels",
	} {
		for what, c := range map[string]struct {
			plan backing.Backing
			want bool
		}{"limited": {plan, true}, "masked": {masked, false}} {
			read, err := newPlanned(c.plan).read([]byte(sql))
			if err != nil {
				t.Fatal(err)
			}
			last := read.ops[len(read.ops)-1].Guard
			if got := last != nil && last.Rule == "explain-limited"; got != c.want {
				t.Errorf("%s, %s: refused is %v (%v)", what, sql, got, last)
			}
		}
	}
}
