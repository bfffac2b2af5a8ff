package access

import "testing"

func TestDecodeTakesNothingElse(t *testing.T) {
	for text, want := range map[string]bool{
		`{"id":"a"}`: true, " {\"id\":\"a\"}\n": true,
		``: false, `{"id":"a"`: false, `{"id":"a","narrower":true}`: false, `{"id":"a"}{}`: false, `{"id":"a"}}`: false, `{"id":7}`: false,
	} {
		var v struct {
			ID string `json:"id"`
		}
		if err := Decode([]byte(text), &v); (err == nil) != want || want && v.ID != "a" {
			t.Errorf("%q: got %+v, %v", text, v, err)
		}
	}
}
