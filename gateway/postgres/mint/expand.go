package mint

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/access"
)

// body is an expansion: what a role means on a database. Its order is fixed,
// so that equal access has equal bytes.
type body struct {
	Database string    `json:"database"`
	Login    string    `json:"login,omitempty"` // a static credential's
	Tables   []table   `json:"tables"`
	Calls    []routine `json:"calls,omitempty"`
	Owner    string    `json:"owner,omitempty"` // as whom the role acts
	Reach    []string  `json:"reach,omitempty"` // of whom the owner is a member
	LeftOut  []leftOut `json:"left_out,omitempty"`
}

type table struct {
	Schema    string      `json:"schema"`
	Name      string      `json:"name"`
	Kind      string      `json:"kind"`
	Read      bool        `json:"read,omitempty"`
	Write     bool        `json:"write,omitempty"`
	Rows      []string    `json:"rows,omitempty"` // conditions that all hold; none: every row
	Columns   []column    `json:"columns"`
	Sequences [][2]string `json:"sequences,omitempty"`
}

type column struct {
	Name string           `json:"name"`
	Type string           `json:"type"`
	Mask *access.MaskWith `json:"mask,omitempty"`
}

// leftOut is a table that a pattern with a star matched and that can't be given.
type leftOut struct {
	Table string `json:"table"`
	Why   string `json:"why"`
}

// empty reports whether the role gives nothing.
func (b body) empty() bool { return len(b.Tables)+len(b.Calls) == 0 && b.Owner == "" }

func (t table) String() string { return t.Schema + "." + t.Name }

func (t table) masked() bool {
	return slices.ContainsFunc(t.Columns, func(c column) bool { return c.Mask != nil })
}

// Expand says what the plan's role means on the target today.
func (m *Minter) Expand(ctx context.Context, plan access.Plan) (access.Expansion, error) {
	if plan.Target.Static != "" {
		return m.expandStatic(ctx, plan)
	}
	if _, err := roleSettings(plan.Role); err != nil {
		return access.Expansion{}, err
	}
	p, err := m.pool(plan.Target)
	if err != nil {
		return access.Expansion{}, err
	}
	var b body
	err = pgx.BeginTxFunc(ctx, p, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if plan.Role.Settings["owner"] != "" {
			b, err = expandOwner(ctx, tx, plan)
			return err
		}
		e, err := expanderFor(ctx, tx, plan)
		if err == nil {
			err = cmp.Or(e.matchAll(), e.callable.check())
		}
		if err == nil {
			b, err = e.expand(plan.Role)
		}
		if err != nil {
			return err
		}
		if err := checkConditions(ctx, tx, b); err != nil {
			return err
		}
		return checkConstants(ctx, tx, b)
	})
	if err != nil {
		return access.Expansion{}, explain("expand role", plan.Target, err)
	}
	b.Database = p.database
	out, err := json.Marshal(b)
	if err != nil {
		return access.Expansion{}, fmt.Errorf("encode expansion: %w", err)
	}
	return access.Expansion{Body: out, Summary: b.summary()}, nil
}

// expand is what the role means today. What matches nothing any more gives
// nothing: a migration may have dropped it since it was approved.
func expand(ctx context.Context, tx pgx.Tx, plan access.Plan) (body, error) {
	if plan.Role.Settings["owner"] != "" {
		return expandOwner(ctx, tx, plan)
	}
	e, err := expanderFor(ctx, tx, plan)
	if err != nil {
		return body{}, err
	}
	return e.expand(plan.Role)
}

func expanderFor(ctx context.Context, tx pgx.Tx, plan access.Plan) (*expander, error) {
	read, err := tablePatterns(plan.Role.Read)
	if err != nil {
		return nil, err
	}
	write, err := tablePatterns(plan.Role.Write)
	if err != nil {
		return nil, err
	}
	masks, err := maskPatterns(plan.Masks, plan.Target.TargetRef)
	if err != nil {
		return nil, err
	}
	rows, err := rowScopes(plan.Role)
	if err != nil {
		return nil, err
	}
	if len(read)+len(write)+len(calls(plan.Role)) == 0 {
		return nil, access.Errorf(access.CodeInvalid, "Role %q reads, writes and calls nothing: want at least one pattern in read, write or call.", plan.Role.Name)
	}
	c, err := readCatalog(ctx, tx, read, write, masks)
	if err == nil && len(masks)+len(rows) > 0 {
		err = c.readLeaks(ctx, tx)
	}
	if err != nil {
		return nil, err
	}
	e := newExpander(c, asked{read, write, masks, rows})
	e.callable, err = readCallable(ctx, tx, calls(plan.Role))
	return e, err
}

// parseBody reads an approved expansion. A field that is not known is an error.
func parseBody(raw []byte) (b body, err error) {
	if err = access.Decode(raw, &b); err != nil {
		return body{}, access.Errorf(access.CodeInvalid, "The approved expansion is not understood (%v): plan the request again.", err)
	}
	return b, nil
}

// intersect keeps what both hold. A column that changed its type or its mask
// is another column.
func intersect(approved, today body) body {
	was := make(map[[2]string]table, len(approved.Tables))
	for _, t := range approved.Tables {
		was[[2]string{t.Schema, t.Name}] = t
	}
	out := body{Database: today.Database, Tables: []table{}, Calls: commonRoutines(approved.Calls, today.Calls)}
	out.Owner, out.Reach = sameOwner(approved, today)
	for _, t := range today.Tables {
		a, ok := was[[2]string{t.Schema, t.Name}]
		if !ok || a.Kind != t.Kind {
			continue
		}
		t.Read, t.Write, t.Rows = t.Read && a.Read, t.Write && a.Write, both(t.Rows, a.Rows)
		t.Columns = slices.DeleteFunc(slices.Clone(t.Columns), func(c column) bool {
			return !slices.ContainsFunc(a.Columns, c.equal)
		})
		t.Sequences = slices.DeleteFunc(slices.Clone(t.Sequences), func(s [2]string) bool {
			return !slices.Contains(a.Sequences, s)
		})
		if len(t.Columns) > 0 && (t.Read || t.Write) && t.limitable() {
			out.Tables = append(out.Tables, t)
		}
	}
	return out
}

func (c column) equal(o column) bool {
	if c.Name != o.Name || c.Type != o.Type || (c.Mask == nil) != (o.Mask == nil) {
		return false
	}
	return c.Mask == nil || *c.Mask == *o.Mask
}

// checkConstants asks the server whether each constant can be a value of its
// column's type. It comes last: a failure ends the transaction.
func checkConstants(ctx context.Context, tx pgx.Tx, b body) error {
	for _, t := range b.Tables {
		for _, c := range t.Columns {
			if c.Mask == nil || c.Mask.Kind != access.MaskConstant || !t.Read {
				continue
			}
			if _, err := tx.Exec(ctx, "select "+literal(c.Mask.Text)+"::"+c.Type); err != nil {
				return &access.Error{Code: access.CodeInvalid, Cause: err, Message: fmt.Sprintf(
					"Column %s.%s can't be masked with the text %q: it is no %s. Use null.", t, c.Name, c.Mask.Text, c.Type)}
			}
		}
	}
	return nil
}

const maxNamed = 50 // names in one line for people

// summary is the expansion for people.
func (b body) summary() []string {
	var reads, writes, masks, out []string
	for _, t := range b.Tables {
		if t.Read {
			reads = append(reads, t.String())
		}
		if t.Write {
			writes = append(writes, t.String())
		}
		for _, c := range t.Columns {
			if c.Mask != nil {
				masks = append(masks, fmt.Sprintf("%s.%s (%s)", t, c.Name, shows(*c.Mask)))
			}
		}
	}
	add := func(verb, noun string, names []string) {
		if len(names) > 0 {
			out = append(out, fmt.Sprintf("%s %s: %s", verb, count(len(names), noun), some(names, maxNamed)))
		}
	}
	add("reads", "table", reads)
	add("writes", "table", writes)
	add("masks", "column", masks)
	out = append(append(out, b.limitsSummary()...), b.callSummary()...)
	for i, l := range b.LeftOut {
		if i == maxNamed {
			out = append(out, fmt.Sprintf("leaves out %d more", len(b.LeftOut)-i))
			break
		}
		out = append(out, fmt.Sprintf("leaves out %s: %s", l.Table, l.Why))
	}
	return append(append(out, b.viewsSummary()...), b.ownerSummary()...)
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func some(names []string, most int) string {
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
