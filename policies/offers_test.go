package policies

import (
	"strings"
	"testing"

	"github.com/tidegate/tidegate/access"
)

func TestOffers(t *testing.T) {
	tree := access.Tree{Files: []access.File{{Path: "policies/a.hcl", Content: []byte(`
target "postgres" "b" {
  address = "h:1/d"
  admin   = secret("s")
  role "writer" {
    longest = "1h"
    write   = ["public.*"]
  }
  role "reader" {
    longest = "1h"
    read    = ["public.*"]
  }
}
target "postgres" "a" {
  address = "h:1/e"
  admin   = secret("s")
  role "reader" {
    longest = "1h"
    read    = ["public.*"]
  }
}
mask "m" {
  on      = [postgres.b]
  columns = ["*.email"]
  with    = partial(4)
}
`)}}}
	offers, diags := Offers(tree)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	var got []string
	for _, o := range offers {
		line := o.Target.TargetRef.String() + " " + o.Role.Name
		for _, m := range o.Masks {
			line += " " + m.Name
		}
		got = append(got, line)
	}
	if want := "postgres.a reader, postgres.b reader m, postgres.b writer m"; strings.Join(got, ", ") != want {
		t.Errorf("got %q, want %q", strings.Join(got, ", "), want)
	}
	tree.Files[0].Content = []byte("target {")
	if offers, diags := Offers(tree); !diags.HasErrors() || offers != nil {
		t.Errorf("got %v and %v, want nothing of policies that do not load", offers, diags)
	}
}
