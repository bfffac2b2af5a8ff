package access

import (
	"slices"
	"testing"
)

// TestAddDetect: today's masks only ever detect more, and bring no columns.
func TestAddDetect(t *testing.T) {
	approved := []Mask{{Name: "a", Detect: []string{"email"}}}
	if got := AddDetect(approved, []Mask{{Name: "b", Detect: []string{"email"}}, {Name: "c", Columns: []string{"*.x"}}}); len(got) != 1 {
		t.Errorf("nothing new: got %+v", got)
	}
	got := AddDetect(approved, []Mask{{Name: "b", Columns: []string{"*.x"}, Detect: []string{"secrets"}}})
	if want := []string{"email", "password", "private_key", "token"}; len(got) != 2 || got[1].Columns != nil || !slices.Equal(Plan{Masks: got}.Detect(), want) {
		t.Errorf("got %+v, want what both detect: %v", got, want)
	}
}
