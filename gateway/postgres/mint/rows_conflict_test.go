package mint

import (
	"strings"
	"testing"

	"github.com/tidegate/tidegate/access"
)

// TestRowsAreNotTakenByConflicts: PostgreSQL does not hold a view's condition
// against the row that ON CONFLICT DO UPDATE meets, only against what becomes
// of it. A row that is left out must not be changed, moved or shown that way.
func TestRowsAreNotTakenByConflicts(t *testing.T) {
	b := newBench(t, regions)
	g := b.ask(t, rowsRole("public.parcels"))
	b.mint(t, &g)
	c := b.session(t, g)
	for _, do := range []string{
		"update set region = 'eu' returning *", "update set region = excluded.region returning note", "update set note = 'taken' returning *",
		"update set note = parcels.note returning note", "update set (region, note) = (select 'eu', 'x')", "update set id = 99",
	} {
		sql := "insert into parcels (id, region) values (2, 'eu') on conflict (id) do " + do
		if got, err := say(t, c, sql); err == nil || raw(got) || raw(err.Error()) {
			t.Errorf("%s: got %q, %v; want it refused, and nothing shown", sql, got, err)
		}
	}
	if got, err := say(t, c, "insert into parcels (id, region) values (2, 'eu') on conflict do nothing returning *"); err != nil || got != "" {
		t.Errorf("do nothing: got %q, %v; want no row", got, err)
	}
	if got, err := say(t, c, "insert into parcels (id, region) values (1, 'eu') on conflict (id) do update set note = 'mine' returning note"); err != nil || got != "mine\n" {
		t.Errorf("a row of the role's: got %q, %v", got, err)
	}
	if got, err := say(t, b.super, "select region, note from parcels where id = 2"); err != nil || got != "us|"+canary+"\n" {
		t.Errorf("afterwards the row is %q, %v", got, err)
	}
	b.end(t, g)
}

// TestRowsByComputedColumn: who may write what the condition's column is
// computed from could move rows by it.
func TestRowsByComputedColumn(t *testing.T) {
	b := newBench(t, "create table places (id int primary key, code text, region text generated always as (left(code, 2)) stored); revoke all on schema public from public;")
	role := access.Role{Name: "eu", Read: []string{"public.places"}, Rows: []access.RowScope{{Where: "region = 'eu'"}}}
	if _, err := b.Expand(t.Context(), access.Plan{Target: b.target, Role: role}); err != nil {
		t.Errorf("to read: %v", err)
	}
	role.Write = role.Read
	if _, err := b.Expand(t.Context(), access.Plan{Target: b.target, Role: role}); err == nil || !strings.Contains(err.Error(), "computed from others") {
		t.Errorf("to write: got %v, want it refused", err)
	}
}
