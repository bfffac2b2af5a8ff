package backing

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func plan() Backing {
	return Backing{
		Role: "tg_1", Database: "orders", SearchPath: []string{"tg_mask_public", "public"},
		Masked: []MaskedTable{
			{Schema: "public", Table: "users", MaskSchema: "tg_mask_public", Columns: []MaskedColumn{{"email"}}},
			{Schema: "public", Table: "cards", MaskSchema: "tg_mask_public"},
		},
	}
}

func TestEncodeIsDeterministicAndParses(t *testing.T) {
	a := plan()
	b := plan()
	b.Masked[0], b.Masked[1] = b.Masked[1], b.Masked[0]
	x, err := a.Encode()
	if err != nil {
		t.Fatal(err)
	}
	y, _ := b.Encode()
	if diff := cmp.Diff(string(x), string(y)); diff != "" {
		t.Errorf("order of tables shows in the bytes (-a +b):\n%s", diff)
	}
	got, err := Parse(x)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b, got); diff != "" {
		t.Errorf("parsed plan differs (-want +got):\n%s", diff)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, in := range map[string]string{
		"empty": ``, "unknown field": `{"role":"r","database":"d","search_path":[],"more":1}`,
		"no role": `{"database":"d"}`, "two values": `{"role":"r","database":"d","search_path":["p"]} {}`,
		"mask schema not in path": `{"role":"r","database":"d","search_path":["p"],"masked":[{"schema":"p","table":"t","mask_schema":"m"}]}`,
	} {
		if _, err := Parse([]byte(in)); err == nil {
			t.Errorf("%s: parsed, want an error", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	seed, _ := plan().Encode()
	f.Add(seed)
	f.Fuzz(func(t *testing.T, in []byte) {
		b, err := Parse(in)
		if err != nil {
			return
		}
		if _, err := b.Encode(); err != nil {
			t.Errorf("parsed plan does not encode: %v", err)
		}
	})
}

func TestTablesAreLeftOutBeforeThePlanGrowsTooLarge(t *testing.T) {
	b := plan()
	for i := range 2000 {
		wide := Table{Schema: "public", Name: fmt.Sprint("t", i)}
		for j := range 100 {
			wide.Columns = append(wide.Columns, fmt.Sprintf("column_with_quite_a_name_%d", j))
		}
		b.Tables = append(b.Tables, wide)
	}
	enc, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Parse(enc); err != nil || len(got.Tables) != 0 || len(got.Masked) != 2 {
		t.Errorf("got %d tables and %d masked, %v; want no tables, and what is masked", len(got.Tables), len(got.Masked), err)
	}
	b.Tables = b.Tables[:10]
	if enc, err = b.Encode(); err != nil {
		t.Fatal(err)
	}
	if got, err := Parse(enc); err != nil || len(got.Tables) != 10 {
		t.Errorf("got %d tables, %v; want 10", len(got.Tables), err)
	}
}
