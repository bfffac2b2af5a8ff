package mint

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/tidegate/tidegate/access"
)

// names makes the names of everything that the minter creates: all of them
// carry the installation, so that two of them can share a cluster.
type names struct{ installation string }

// prefix begins the name of each generation of a grant.
func (n names) prefix(key access.GrantKey) string {
	sum := sha256.Sum256([]byte(key.String()))
	return n.all() + hex.EncodeToString(sum[:6]) + "_g"
}

func (n names) all() string   { return "tg_" + n.installation + "_" }
func (n names) masks() string { return n.all() + "masks" }
func (n names) lock() string  { return "tidegate_" + n.installation }
func (n names) yield() string { return ident(n.lock(), "yield") }

func (n names) role(g access.Grant) string {
	return n.prefix(g.Key) + strconv.Itoa(g.Generation)
}

func maskSchema(role string, i int) string { return fmt.Sprintf("%s_m_%d", role, i) }

var minted = regexp.MustCompile(`\Atg_[a-z0-9]{4,12}_[0-9a-f]{12}_g[0-9]{1,10}\z`)

// ours reports whether a role's name is one that this installation minted.
func (n names) ours(role string) bool {
	return strings.HasPrefix(role, n.all()) && minted.MatchString(role)
}

// ident quotes a name.
func ident(parts ...string) string {
	quoted := make([]string, len(parts))
	for i, p := range parts {
		quoted[i] = `"` + strings.ReplaceAll(p, `"`, `""`) + `"`
	}
	return strings.Join(quoted, ".")
}

// idents quotes a list of names.
func idents(list []string) string {
	quoted := make([]string, len(list))
	for i, p := range list {
		quoted[i] = ident(p)
	}
	return strings.Join(quoted, ", ")
}

// literal quotes a text. The escape form holds whatever
// standard_conforming_strings says.
func literal(s string) string {
	return ` E'` + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(s) + `'`
}
