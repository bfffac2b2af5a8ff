package mint

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/postgres/backing"
)

// job is one mint: what must exist at the target afterwards.
type job struct {
	names    names
	role     string
	key      access.GrantKey
	verifier string
	until    time.Time
	settings settings
	body     body
	making   string          // tells this mint from others of the same role, while it takes several transactions
	plan     backing.Backing // the room's

	publicConnect bool            // PUBLIC may connect to the database
	publicUsage   map[string]bool // schemas that PUBLIC may use
}

// schemas are the source schemas, public first, then by name.
func (j *job) schemas() []string {
	var out []string
	for _, t := range j.body.Tables {
		out = append(out, t.Schema)
	}
	for _, r := range j.body.Calls {
		out = append(out, r.Schema)
	}
	slices.SortFunc(out, func(a, b string) int {
		if (a == "public") != (b == "public") {
			return map[bool]int{true: -1, false: 1}[a == "public"]
		}
		return strings.Compare(a, b)
	})
	return slices.Compact(out)
}

// maskSchemas maps each source schema with masked tables to its mask schema.
func (j *job) maskSchemas() map[string]string {
	out := map[string]string{}
	for i, s := range j.schemas() {
		if slices.ContainsFunc(j.body.Tables, func(t table) bool { return t.Schema == s && viewed(t) }) {
			out[s] = maskSchema(j.role, i+1)
		}
	}
	return out
}

// viewed reports whether the role meets the table through a view.
func viewed(t table) bool { return t.limited() || t.Read && t.masked() }

func (j *job) searchPath() []string {
	var out []string
	if j.body.Owner != "" {
		return nil
	}
	masks := j.maskSchemas()
	for _, s := range j.schemas() {
		if m := masks[s]; m != "" {
			out = append(out, m)
		}
		out = append(out, s)
	}
	return out
}

// backing is the room's plan, but for what today's reading adds.
func (j *job) backing() backing.Backing {
	b := backing.Backing{Role: j.role, Database: j.body.Database, SearchPath: j.searchPath(), Acts: j.body.Owner}
	masks := j.maskSchemas()
	for _, t := range j.body.Tables {
		b.Tables = append(b.Tables, backing.Table{Schema: t.Schema, Name: t.Name, Columns: columnNames(t)})
		if !viewed(t) {
			continue
		}
		mt := backing.MaskedTable{Schema: t.Schema, Table: t.Name, MaskSchema: masks[t.Schema], Limited: t.limited()}
		for _, c := range t.Columns {
			if c.Mask != nil {
				mt.Columns = append(mt.Columns, backing.MaskedColumn{Name: c.Name})
			}
		}
		b.Masked = append(b.Masked, mt)
	}
	return b
}

func columnNames(t table) []string {
	names := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		names[i] = c.Name
	}
	return names
}

// plainNames are the columns that are not masked.
func plainNames(t table) (names []string) {
	for _, c := range t.Columns {
		if c.Mask == nil {
			names = append(names, c.Name)
		}
	}
	return names
}

// without is a list but for some of it.
func without(list, some []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(some, s) })
}

// login makes the role what it is, whether it is new or was there before.
func (j *job) login(exists bool) []string {
	// ALTER may not even name the other attributes without having them. A
	// role is made without them, and only a superuser can have changed that.
	form := "alter role %s with login noinherit"
	if !exists {
		form = "create role %s with login noinherit nosuperuser nocreatedb nocreaterole noreplication nobypassrls"
	}
	return []string{fmt.Sprintf(form+" connection limit %d valid until%s password%s",
		ident(j.role), j.settings.connections, literal(j.until.UTC().Format("2006-01-02 15:04:05.999999Z07:00")), literal(j.verifier))}
}

// settle pins the role's settings.
func (j *job) settle() []string {
	r := ident(j.role)
	out := []string{fmt.Sprintf("alter role %s set search_path to %s", r, idents(j.searchPath()))}
	if j.body.Owner != "" { // whose search path is the server's own
		out = []string{fmt.Sprintf("alter role %s set role to %s", r, literal(j.body.Owner))}
	}
	for name, d := range map[string]time.Duration{"lock_timeout": j.settings.lockTimeout, "statement_timeout": j.settings.statementTimeout} {
		if d > 0 {
			out = append(out, fmt.Sprintf("alter role %s set %s to '%dms'", r, name, d.Milliseconds()))
		}
	}
	slices.Sort(out)
	return out
}

// give is the rights and views.
func (j *job) give() []string {
	r := ident(j.role)
	var out []string
	if !j.publicConnect {
		out = append(out, fmt.Sprintf("grant connect on database %s to %s", ident(j.body.Database), r))
	}
	if j.body.Owner != "" {
		return append(out, fmt.Sprintf("grant %s to %s", ident(j.body.Owner), r))
	}
	for _, s := range j.schemas() {
		if !j.publicUsage[s] {
			out = append(out, fmt.Sprintf("grant usage on schema %s to %s", ident(s), r))
		}
	}
	var gifts []gift
	for _, t := range j.body.Tables {
		gifts = append(gifts, giveTable(t)...)
	}
	return slices.Concat(out, grants(gifts, r), j.giveCalls(), j.giveViews())
}

// gift is rights on one relation, both as GRANT writes them.
type gift struct{ rights, on string }

// grants gives them away. Tables that are given the same share a statement,
// which costs the server a quarter less.
func grants(gifts []gift, to string) []string {
	on, order := map[string][]string{}, []string{}
	for _, g := range gifts {
		if on[g.rights] == nil {
			order = append(order, g.rights)
		}
		on[g.rights] = append(on[g.rights], g.on)
	}
	out := make([]string, len(order))
	for i, rights := range order {
		out[i] = fmt.Sprintf("grant %s %s to %s", rights, strings.Join(on[rights], ", "), to)
	}
	return out
}

// changes are the rights to change a table's rows; what is fixed can't be
// changed once a row is there.
func changes(columns []string, fixed ...string) []string {
	out := []string{"insert (" + idents(columns) + ")", "delete"}
	if free := without(columns, fixed); len(free) > 0 {
		out = append(out, "update ("+idents(free)+")")
	}
	return out
}

// giveTable is the rights on the table itself. One that is limited to some of
// its rows is only met through its view. A masked table that is only read gives
// none; one that is written as well lets the columns be read that are not
// masked, for WHERE and RETURNING.
func giveTable(t table) []gift {
	var rights []string
	var out []gift
	if plain := plainNames(t); t.Read && (t.Write || !t.masked()) && len(plain) > 0 {
		rights = append(rights, "select ("+idents(plain)+")")
	}
	if t.Write {
		rights = append(rights, changes(columnNames(t))...)
	}
	if len(rights) > 0 && !t.limited() {
		out = append(out, gift{strings.Join(rights, ", ") + " on table", ident(t.Schema, t.Name)})
	}
	for _, s := range t.Sequences {
		out = append(out, gift{"usage on sequence", ident(s[0], s[1])})
	}
	return out
}

func (j *job) giveViews() []string {
	masks, owner := j.maskSchemas(), ident(j.names.masks())
	var before, views []string
	var read, shown []gift
	for _, s := range j.schemas() {
		m, ok := masks[s]
		if !ok {
			continue
		}
		before = append(before, fmt.Sprintf("create schema %s authorization %s", ident(m), owner))
		if !j.publicUsage[s] {
			before = append(before, fmt.Sprintf("grant usage on schema %s to %s", ident(s), owner))
		}
		views = append(views, fmt.Sprintf("revoke all on schema %s from public", ident(m)),
			fmt.Sprintf("grant usage on schema %s to %s", ident(m), ident(j.role)))
	}
	for _, t := range j.body.Tables {
		if viewed(t) {
			read = append(read, gift{strings.Join(ownerRights(t), ", ") + " on table", ident(t.Schema, t.Name)})
			view, rights := maskView(t, masks[t.Schema])
			views, shown = append(views, view), append(shown, rights)
		}
	}
	if len(views) == 0 {
		return nil
	}
	// The owner makes its views itself: nobody else's rights stand behind them.
	return slices.Concat(before, grants(read, owner), []string{"set local role " + owner}, views, grants(shown, ident(j.role)), []string{"reset role"})
}

// ownerRights are what the views' owner needs on the table.
func ownerRights(t table) []string {
	out := []string{"select (" + idents(rawColumns(t)) + ")"}
	if t.limited() && t.Write {
		out = append(out, changes(rawColumns(t), t.limitColumns()...)...) // no column is masked
	}
	return out
}

// rawColumns is what the views' owner must read: not the columns of which
// nothing is shown.
func rawColumns(t table) []string {
	var out []string
	limits := t.limitColumns()
	for _, c := range t.Columns {
		if c.Mask == nil || c.Mask.Kind == access.MaskPartial || slices.Contains(limits, c.Name) {
			out = append(out, c.Name)
		}
	}
	if len(out) == 0 { // a view without any right on its table can't even count rows
		out = append(out, t.Columns[0].Name)
	}
	return out
}

// maskView makes the view of a table, and says what the role may do with it.
// Nobody else gets a right on it, nor on its schema.
func maskView(t table, schema string) (create string, rights gift) {
	shown := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		shown[i] = expression(c) + " as " + ident(c.Name)
	}
	name, options, can := ident(schema, t.Name), "security_barrier=true", []string{}
	if t.Read {
		can = append(can, "select")
	}
	if t.limited() && t.Write {
		options += ", check_option=cascaded" // what is written must be a row that is given
		// ON CONFLICT DO UPDATE meets rows that the view leaves out, and asks of
		// them only that they fit the condition afterwards. So nobody may make
		// them fit.
		can = append(can, changes(rawColumns(t), t.limitColumns()...)...)
	}
	return fmt.Sprintf("create view %s with (%s) as select %s from %s as t%s", name, options, strings.Join(shown, ", "), ident(t.Schema, t.Name), t.where()),
		gift{strings.Join(can, ", ") + " on table", name}
}

// expression shows a column as its mask says, in its own type. It uses cheap
// functions only: a regular expression made a scan 13 times as slow.
func expression(c column) string {
	raw := "t." + ident(c.Name)
	if c.Mask == nil {
		return raw
	}
	switch c.Mask.Kind {
	case access.MaskPartial:
		return fmt.Sprintf("(case when pg_catalog.length(%[1]s::pg_catalog.text) >= %[2]d then '****'::pg_catalog.text operator(pg_catalog.||) pg_catalog.right(%[1]s::pg_catalog.text, %[3]d) else '****'::pg_catalog.text end)::%[4]s",
			raw, 2*c.Mask.Keep, c.Mask.Keep, c.Type)
	case access.MaskConstant:
		return literal(c.Mask.Text) + "::" + c.Type
	}
	return "null::" + c.Type
}

// comment says whose role it is, and by its fingerprint which rights it was
// given, so that a second mint of the same changes nothing.
func (j *job) comment() string {
	sum := sha256.Sum256([]byte(strings.Join(append(j.give(), j.settle()...), "\n")))
	return fmt.Sprintf("tidegate %s grant %s rights %s", j.names.installation, j.key, hex.EncodeToString(sum[:]))
}

// unfinished stands in the comment's place until all rights are given.
func (j *job) unfinished() string {
	return fmt.Sprintf("tidegate %s grant %s being minted, %s", j.names.installation, j.key, j.making)
}

func (j *job) views() (n int) {
	for _, t := range j.body.Tables {
		if viewed(t) {
			n++
		}
	}
	return n
}
