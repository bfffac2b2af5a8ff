package policies

import (
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/tidegate/tidegate/access"
)

// target is a target block with its roles, by name.
type target struct {
	access.Target
	roles map[string]access.Role
	at    hcl.Range
}

// wordPattern is the name of a target, a role or a secret.
var wordPattern = regexp.MustCompile(`\A[A-Za-z0-9_][A-Za-z0-9_-]{0,47}\z`)

func readTarget(b block) target {
	words := kinds[b.Labels[0]]
	b.only(append([]string{"address", "admin", "credential", "labels", "zone", "when_stale"}, words.target...), "role")
	t := target{roles: map[string]access.Role{}, at: b.DefRange()}
	t.TargetRef = access.TargetRef{Kind: b.Labels[0], Name: b.Labels[1]}
	for i, l := range b.Labels {
		if !wordPattern.MatchString(l) {
			b.diags.errorf(b.LabelRanges[i], "A name is not allowed", "Use 1 to 48 of a-z, A-Z, 0-9, - and _.")
		}
	}
	t.Address = readAddress(b)
	if e := b.attr("admin"); e != nil {
		t.Admin = readSecretName(b, e, "admin")
	}
	t.Static = readCredential(b)
	if e := b.attr("labels"); e != nil {
		t.Labels = map[string]string{}
		for _, f := range b.object(e) {
			t.Labels[f.name] = b.stringOf(f.expr)
		}
	}
	t.Zone = b.text("zone")
	t.WhenStale = readWhenStale(b, t.Labels)
	t.Settings = b.kindSettings(words.target, nil)
	for _, in := range b.Body.Blocks {
		if in.Type == "role" {
			readRole(block{in, b.diags}, words, t.roles)
		}
	}
	return t
}

// readWhenStale reads what becomes of open sessions when their gateway hears no
// more of revocations: where production is, they end if nothing else is said.
func readWhenStale(b block, labels map[string]string) string {
	when := b.text("when_stale")
	switch {
	case when == "" && labels["env"] == "prod":
		return access.WhenStaleEnd
	case when != "" && when != access.WhenStaleEnd && when != access.WhenStaleKeep:
		b.wrong(b.attr("when_stale"), `"end" or "keep" for when_stale`)
	}
	return when
}

// readAddress wants host:port or host:port/database. What was got is not
// repeated: people paste passwords into addresses.
func readAddress(b block) string {
	e := b.need("address")
	if e == nil {
		return ""
	}
	s := b.stringOf(e)
	hostport, _, _ := strings.Cut(s, "/")
	host, port, err := net.SplitHostPort(hostport)
	n, errPort := strconv.Atoi(port)
	if err != nil || errPort != nil || host == "" || n < 1 || n > 65535 || strings.ContainsAny(s, "@ ?") || !ascii(s) {
		b.wrong(e, "an address host:port or host:port/database, without user or password,")
	}
	return s
}

// readSecretName reads secret("name"): a name, never a value.
func readSecretName(b block, e hclsyntax.Expression, what string) string {
	name, args, ok := call(e)
	if ok && name == "secret" && len(args) == 1 {
		if s, ok := literalString(args[0]); ok && wordPattern.MatchString(s) {
			return s
		}
	}
	b.wrong(e, `secret("name") for `+what+`, with the name of a secret in the server's config`)
	return ""
}

// readCredential reads static(secret("name")): the login of every session, at
// a target where nothing can be minted.
func readCredential(b block) string {
	e := b.attr("credential")
	if e == nil {
		return ""
	}
	name, args, ok := call(e)
	switch {
	case b.attr("admin") != nil:
		b.diags.errorf(e.Range(), "Two ways to log in", "Write admin, by which logins are minted, or credential, with which nothing is minted.")
	case ok && name == "static" && len(args) == 1:
		return readSecretName(b, args[0], "static")
	default:
		b.wrong(e, `static(secret("name")) for credential`)
	}
	return ""
}

// sqlSettings are attributes of a role that only a database's room reads.
var sqlSettings = []string{"owner", "call"}

func readRole(b block, words kindWords, roles map[string]access.Role) {
	if !b.labels(1) {
		return
	}
	own, known := words.role, []string{"longest", "read", "write", "record", "settings"}
	if own == nil {
		own, known = sqlSettings, append(known, "rows")
	}
	b.only(append(known, own...))
	r := access.Role{Name: b.Labels[0], Read: b.strings("read"), Write: b.strings("write"), Record: b.text("record")}
	if !wordPattern.MatchString(r.Name) {
		b.diags.errorf(b.LabelRanges[0], "A name is not allowed", "Use 1 to 48 of a-z, A-Z, 0-9, - and _.")
	}
	if e := b.need("longest"); e != nil {
		r.Longest = b.length(e)
	}
	r.Settings = b.kindSettings(own, b.settings())
	if e := b.attr("rows"); e != nil && words.role == nil {
		r.Rows = readRows(b, e)
	}
	if _, dup := roles[r.Name]; dup {
		b.diags.errorf(b.DefRange(), "A name is taken", "The target has two roles %q.", r.Name)
	}
	roles[r.Name] = r
}

// settings reads the attribute of that name: whatever the room knows.
func (b block) settings() map[string]string {
	e := b.attr("settings")
	if e == nil {
		return nil
	}
	out := map[string]string{}
	for _, f := range b.object(e) {
		out[f.name] = b.stringOf(f.expr)
	}
	return out
}

// readRows reads one condition for each table of the role, or { pattern =
// condition }.
func readRows(b block, e hclsyntax.Expression) (out []access.RowScope) {
	if _, ok := e.(*hclsyntax.ObjectConsExpr); !ok {
		out = append(out, access.RowScope{Where: b.stringOf(e)})
	} else {
		for _, f := range b.object(e) {
			out = append(out, access.RowScope{Tables: f.name, Where: b.stringOf(f.expr)})
		}
	}
	for _, r := range out {
		if strings.TrimSpace(r.Where) == "" {
			b.wrong(e, "a condition such as \"region = 'eu'\", or { \"schema.table\" = \"region = 'eu'\" } for rows")
		}
	}
	slices.SortFunc(out, func(x, y access.RowScope) int { return strings.Compare(x.Tables, y.Tables) })
	return out
}
