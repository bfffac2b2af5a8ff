package backing

import (
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
