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

// policySet is what policies/*.hcl say.
type policySet struct {
	people    map[string]person // by lower-case login
	targets   map[access.TargetRef]target
	approvals []approval
	rules     []rule
	masks     []mask
	checks    []check
}

type person struct {
	login      string
	identities []access.IdentityRef
	at         hcl.Range
}

type target struct {
	access.Target
	roles map[string]access.Role
	at    hcl.Range
}

type approval struct {
	name     string
	when     *expr // nil: for policies only
	need     *expr
	from     []access.Principal
	say      string
	policies bool // asked for when policies change
	at       hcl.Range
	needAt   hcl.Range
}

type rule struct {
	access.Rule // Ask is resolved later
	on          []located[access.TargetRef]
	ask         []access.Principal
	at          hcl.Range
}

const policiesDir = "policies/"

// loadPolicies reads policies/*.hcl of a tree. The set is complete only if
// there are no errors.
func loadPolicies(t access.Tree, diags *diagnostics) *policySet {
	set := &policySet{people: map[string]person{}, targets: map[access.TargetRef]target{}}
	seen := map[string]hcl.Range{}
	if len(t.Files) > MaxFiles {
		diags.errorf(hcl.Range{Filename: policiesDir}, "There are too many files", "The tree has %d and may have %d.", len(t.Files), MaxFiles)
		return set
	}
	found := false
	for _, f := range t.Files {
		if !strings.HasPrefix(f.Path, policiesDir) || !strings.HasSuffix(f.Path, ".hcl") {
			continue
		}
		found = true
		if body := parse(f, diags); body != nil {
			set.read(body, seen, diags)
		}
	}
	if !found {
		diags.errorf(hcl.Range{Filename: policiesDir}, "There are no policies", "Write policies/*.hcl; without them nothing is allowed.")
	}
	set.crossCheck(diags)
	set.sort()
	return set
}

// sort makes the order of blocks and files irrelevant.
func (set *policySet) sort() {
	slices.SortFunc(set.approvals, func(a, b approval) int { return strings.Compare(a.name, b.name) })
	slices.SortFunc(set.rules, func(a, b rule) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(set.masks, func(a, b mask) int { return strings.Compare(a.Name, b.Name) })
}

func (set *policySet) read(body *hclsyntax.Body, seen map[string]hcl.Range, diags *diagnostics) {
	for _, a := range body.Attributes {
		diags.errorf(a.NameRange, "An attribute is not allowed here", "A policy file holds blocks only.")
	}
	for _, in := range body.Blocks {
		b := block{in, diags}
		wanted := 1
		if b.Type == "target" {
			wanted = 2
		}
		if !b.labels(wanted) {
			continue
		}
		key := b.Type + "\x00" + strings.ToLower(strings.Join(b.Labels, "\x00"))
		if first, dup := seen[key]; dup {
			diags.errorf(b.DefRange(), "A name is taken", "%s %q is already at %s:%d.", b.Type, strings.Join(b.Labels, "."), first.Filename, first.Start.Line)
			continue
		}
		seen[key] = b.DefRange()
		set.readBlock(b)
	}
}

func (set *policySet) readBlock(b block) {
	switch b.Type {
	case "person":
		p := readPerson(b)
		set.people[strings.ToLower(p.login)] = p
	case "target":
		t := readTarget(b)
		set.targets[t.TargetRef] = t
	case "approval":
		set.approvals = append(set.approvals, readApproval(b))
	case "rule":
		set.rules = append(set.rules, readRule(b))
	case "mask":
		set.masks = append(set.masks, readMask(b))
	case "check":
		set.checks = append(set.checks, readCheck(b))
	default:
		b.diags.errorf(b.TypeRange, "A block is unknown", "%q is none of person, target, approval, rule, mask, check.", b.Type)
	}
}

func readPerson(b block) person {
	b.only([]string{"identity"})
	p := person{login: b.Labels[0], at: b.DefRange()}
	if !loginPattern.MatchString(p.login) {
		b.diags.errorf(b.LabelRanges[0], "A login is not understood", "Write the person's GitHub login.")
	}
	e := b.need("identity")
	if e == nil {
		return p
	}
	for _, item := range list(e) {
		if ref, ok := identity(item); ok {
			p.identities = append(p.identities, ref)
		} else {
			b.wrong(item, `oidc("provider", "e-mail or subject") or saml(…) here`)
		}
	}
	if len(p.identities) == 0 {
		b.wrong(e, "at least one identity here")
	}
	return p
}

// identity reads oidc("okta", "a@b.c"); without an @ it is a subject.
func identity(e hclsyntax.Expression) (access.IdentityRef, bool) {
	name, args, ok := call(e)
	if !ok || (name != "oidc" && name != "saml") || len(args) != 2 {
		return access.IdentityRef{}, false
	}
	provider, ok1 := literalString(args[0])
	who, ok2 := literalString(args[1])
	if !ok1 || !ok2 || provider == "" || who == "" || !ascii(provider) || !ascii(who) {
		return access.IdentityRef{}, false
	}
	if strings.Contains(who, "@") {
		return access.IdentityRef{Provider: provider, Email: strings.ToLower(who)}, true
	}
	return access.IdentityRef{Provider: provider, Subject: who}, true
}

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
	if t.WhenStale = b.text("when_stale"); t.WhenStale != "" && t.WhenStale != access.WhenStaleEnd && t.WhenStale != access.WhenStaleKeep {
		b.wrong(b.attr("when_stale"), `"end" or "keep" for when_stale`)
	}
	t.Settings = b.kindSettings(words.target, nil)
	for _, in := range b.Body.Blocks {
		if in.Type == "role" {
			readRole(block{in, b.diags}, words, t.roles)
		}
	}
	return t
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

func readApproval(b block) approval {
	b.only([]string{"when", "need", "from", "say", "policies"})
	a := approval{name: b.Labels[0], say: b.sentence("say"), policies: b.bool("policies"), at: b.DefRange()}
	when := b.attr("when")
	if when == nil && !a.policies {
		b.need("when")
	}
	if when != nil {
		a.when = compileAs(when, kindBool, planWords, b.diags)
	}
	if e := b.need("need"); e != nil {
		a.need, a.needAt = compileAs(e, kindInt, planWords, b.diags), e.Range()
	}
	if e := b.need("from"); e != nil {
		a.from = b.principals(e)
	}
	return a
}

func readRule(b block) rule {
	b.only([]string{"on", "deny", "hold", "ask", "say", "sync", "when", "limit_rows", "limit_time", "record"})
	r := rule{on: b.targets("on"), at: b.DefRange()}
	r.Rule = access.Rule{Name: b.Labels[0], On: values(r.on), Say: b.sentence("say"), Sync: b.bool("sync")}
	r.Deny, r.Hold = condition(b, "deny"), condition(b, "hold")
	r.readLimits(b)
	if b.attr("deny") == nil && b.attr("hold") == nil && b.attr("limit_rows") == nil && b.attr("limit_time") == nil && b.attr("record") == nil {
		b.diags.errorf(b.DefRange(), "A rule does nothing", "Write deny, hold, limit_rows, limit_time or record.")
	}
	ask := b.attr("ask")
	switch {
	case ask != nil:
		r.ask = b.principals(ask)
	case b.attr("hold") != nil:
		b.need("ask")
	}
	return r
}

// Bounds of limits. A rule with a longer time, or more rows, limits nothing.
const (
	maxLimitRows = 1_000_000_000
	maxLimitTime = 24 * 3600
)

// readLimits reads what a rule does to what it lets run.
func (r *rule) readLimits(b block) {
	if e := b.attr("limit_rows"); e != nil {
		n, ok := literalInt(e)
		if r.LimitRows = n; !ok || n < 1 || n > maxLimitRows {
			b.wrong(e, "1 to 1000000000 for limit_rows")
		}
	}
	if e := b.attr("limit_time"); e != nil {
		if r.LimitTime = b.length(e); r.LimitTime > maxLimitTime {
			b.wrong(e, "at most a day for limit_time")
		}
	}
	if e := b.attr("record"); e != nil {
		if r.Record = b.stringOf(e); r.Record != access.RecordResults {
			b.wrong(e, `"results" for record`)
		}
	}
	r.When = condition(b, "when")
	if e := b.attr("when"); e != nil && !r.Limits() {
		b.diags.errorf(e.Range(), "A condition has no effect", "when says for what limit_rows, limit_time and record hold; write one of them.")
	}
}

// condition is an expression's canonical text: comments and layout are gone.
func condition(b block, name string) string {
	e := b.attr(name)
	if e == nil {
		return ""
	}
	x := compileAs(e, kindBool, judgeWords, b.diags)
	if x == nil {
		return ""
	}
	// What gateways compile is the canonical text: it must pass the guard too.
	if again, _ := compileText(name, x.text, judgeWords); again == nil || again.text != x.text {
		b.diags.errorf(e.Range(), "The expression is too complex", "Write it flatter, or as two rules.")
	}
	return x.text
}

// crossCheck looks at what one block says of another.
func (set *policySet) crossCheck(diags *diagnostics) {
	for _, r := range set.rules {
		set.known(r.on, diags)
	}
	for _, m := range set.masks {
		set.known(m.on, diags)
	}
	for _, c := range set.checks {
		set.checkExpect(c, diags)
	}
	set.sharedIdentities(diags)
}

func (set *policySet) known(on []located[access.TargetRef], diags *diagnostics) {
	for _, ref := range on {
		if _, ok := set.targets[ref.value]; !ok && ref.value.Kind != "" {
			diags.errorf(ref.at, "The target is unknown", "No block says target %q %q.", ref.value.Kind, ref.value.Name)
		}
	}
}

// sharedIdentities refuses one identity for two people: nobody could say who came.
func (set *policySet) sharedIdentities(diags *diagnostics) {
	owner := map[access.IdentityRef]string{}
	for _, login := range sortedKeys(set.people) {
		p := set.people[login]
		for _, ref := range p.identities {
			if other, dup := owner[ref]; dup {
				diags.errorf(p.at, "An identity is there twice", "%s and %s name the same one; an identity is one person's.", other, login)
			}
			owner[ref] = login
		}
	}
}

// principals are all the users and teams that approvals and rules name.
func (set *policySet) principals() (out []access.Principal) {
	for _, a := range set.approvals {
		out = append(out, a.from...)
	}
	for _, r := range set.rules {
		out = append(out, r.ask...)
	}
	return slices.Clip(out)
}
