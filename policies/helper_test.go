package policies

import (
	"crypto/sha1"
	"encoding/hex"
	"flag"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/tidegate/tidegate/access"
)

var update = flag.Bool("update", false, "write the golden files anew")

// treeOf reads the files of an archive under a prefix such as "head/".
func treeOf(a *txtar.Archive, prefix string) access.Tree {
	var t access.Tree
	for _, f := range a.Files {
		if path, ok := strings.CutPrefix(f.Name, prefix); ok {
			t.Files = append(t.Files, file(path, string(f.Data)))
		}
	}
	return t
}

func file(path, content string) access.File {
	sum := sha1.Sum([]byte(content))
	return access.File{Path: path, Blob: hex.EncodeToString(sum[:]), Content: []byte(content)}
}

func tree(pairs ...string) access.Tree {
	var t access.Tree
	for i := 0; i < len(pairs); i += 2 {
		t.Files = append(t.Files, file(pairs[i], pairs[i+1]))
	}
	return t
}

var (
	alice   = access.User{ID: 1, Login: "alice"}
	bob     = access.User{ID: 2, Login: "bob"}
	carol   = access.User{ID: 3, Login: "carol"}
	mallory = access.User{ID: 4, Login: "mallory"}
	bot     = access.User{ID: 5, Login: "robot", Bot: true}
)

func directory() access.Directory {
	return access.Directory{
		Users: map[string]access.User{"alice": alice, "bob": bob, "carol": carol, "mallory": mallory},
		Teams: map[string]access.Team{
			"acme/data-owners": {ID: 10, Name: "acme/data-owners", Members: []access.User{carol, bob}},
			"acme/dba":         {ID: 11, Name: "acme/dba", Members: []access.User{carol}},
		},
	}
}

const basePolicies = `
person "alice" { identity = oidc("dev", "alice@acme.test") }
person "bob" { identity = oidc("dev", "bob@acme.test") }
person "carol" { identity = [oidc("dev", "carol@acme.test"), oidc("ci", "subject-3")] }

target "postgres" "orders-prod" {
  address = "db.internal:5432/orders"
  admin   = secret("orders-admin")
  labels  = { env = "prod" }
  role "readonly" {
    longest = "8h"
    read    = ["public.*"]
  }
}
approval "prod" {
  when = target.labels.env == "prod"
  need = grant.seconds > seconds("1h") ? 2 : 1
  from = team("acme/data-owners")
  say  = "A data owner must agree."
}
rule "big-delete" {
  on   = [postgres.orders-prod]
  hold = statement.kind == "delete" && !statement.has_where
  ask  = [team("acme/dba")]
  say  = "Deleting without WHERE needs a second pair of eyes."
}
mask "pii" {
  on      = [postgres.orders-prod]
  columns = ["*.email", "users.ssn"]
  with    = partial(4)
}
`

func grantText(id, to, lasts string) string {
	return fmt.Sprintf(`grant %q {
  to     = %s
  on     = postgres.orders-prod
  role   = "readonly"
  lasts  = %q
  reason = "Refund jobs stuck"
}
`, id, to, lasts)
}

// planned evaluates one added grant and wants a plan.
func planned(t *testing.T, policies, grant string) access.Plan {
	t.Helper()
	e := Evaluate(Input{
		Adopted: tree("policies/a.hcl", policies), Base: tree(),
		Head: tree("grants/alice/inc-1.hcl", grant), Directory: directory(),
	})
	for _, d := range e.Diagnostics {
		t.Error(d)
	}
	p, ok := e.Plans["inc-1"]
	if !ok {
		t.Fatal("no plan for inc-1")
	}
	return p
}
