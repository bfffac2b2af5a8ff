package mint

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/postgres/backing"
)

// The room is told what is behind views and partitions, as the catalog knows it.
func TestPlanSaysWhatIsBehindViewsAndPartitions(t *testing.T) {
	b := newBench(t, `create table people (id int, ssn text, note text); create view listed as select id, ssn as s from people;
		create view counted as select count(*) from people; create view rows_whole as select p::text from people p; create view over as select id from listed;
		create table parts (id int, ssn text) partition by list (id); create table parts_1 partition of parts for values in (1); create table parts_2 partition of parts for values in (2);
		create view of_part as select ssn from parts_1; create table plain (id int); create table kid () inherits (plain);
		create table many (id int) partition by list (id); do $$ begin for i in 1..17 loop execute format('create table many_%s partition of many for values in (%s)', i, i); end loop; end $$;
		revoke all on schema public from public;`)
	g := b.ask(t, access.Role{Name: "r", Read: []string{"public.*"}})
	b.mint(t, &g)
	plan, err := backing.Parse(g.Backing)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"people": "", "listed": "people(id ssn)", "counted": "people()", "rows_whole": "people(*)", "over": "listed(id) people(id ssn)",
		"parts": "parts_1* parts_2*", "parts_1": "parts*", "parts_2": "parts*", "of_part": "parts(*) parts_1(ssn)", "plain": "kid*", "kid": "plain*", "many": "",
	}
	for i := range 17 {
		want[fmt.Sprint("many_", i+1)] = "many*"
	}
	for _, table := range plan.Tables {
		var got []string
		for _, s := range table.Behind {
			slices.Sort(s.Columns)
			got = append(got, s.Name+map[bool]string{true: "*", false: fmt.Sprintf("(%s)", strings.Join(s.Columns, " "))}[s.Part])
		}
		if strings.Join(got, " ") != want[table.Name] {
			t.Errorf("behind %s is %q, want %q", table.Name, got, want[table.Name])
		}
	}
	if len(plan.Tables) != len(want) {
		t.Errorf("%d tables, want %d", len(plan.Tables), len(want))
	}
	b.end(t, g)
}
