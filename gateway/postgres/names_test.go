package postgres

import (
	"strings"
	"testing"

	"github.com/tidegate/tidegate/access"
)

func TestNamesKeepABoundedSize(t *testing.T) {
	n := newNames('S', "s")
	big := func() *named {
		return &named{ops: []access.Operation{{Text: strings.Repeat("x", maxKept/2)}}}
	}
	first := &reply{}
	for i, name := range []string{"a", "b", "a"} { // the third takes the first one's place
		r := &reply{}
		if err := n.set(name, big(), r); err != nil {
			t.Fatalf("set %d: %v", i, err)
		}
		first = r
	}
	if err := n.set("c", big(), &reply{}); access.CodeOf(err) != access.CodeTooLarge {
		t.Fatalf("got %v, want code %s", err, access.CodeTooLarge)
	}
	first.undo()
	if err := n.set("b", nil, &reply{}); err != nil {
		t.Fatal(err)
	}
	if n.kept != maxKept/2 {
		t.Errorf("got %d bytes kept, want %d", n.kept, maxKept/2)
	}
}
