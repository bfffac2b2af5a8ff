// Package backing is the PostgreSQL room's plan: what mint leaves at the
// target for one grant, and what the room must know of it to let the user's
// own SQL meet the masked views. It holds no secret. It stands alone so that
// the control side, which mints, needs neither the room nor its SQL parser.
package backing

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/tidegate/tidegate/access"
)

// Bounds of a plan. A plan over them is refused by both sides.
const (
	MaxBytes  = 4 << 20
	MaxTables = 10_000
	MaxNames  = 10_000 // of functions, in each list
	maxName   = 63     // PostgreSQL's NAMEDATALEN - 1
)

// Backing is one grant's plan. Encode sorts Masked, so equal plans have equal
// bytes; SearchPath keeps its order, which is its meaning.
type Backing struct {
	Role       string        `json:"role"`
	Database   string        `json:"database"`
	SearchPath []string      `json:"search_path"`    // mask schemas first
	Acts       string        `json:"acts,omitempty"` // the role as which each session acts
	Masked     []MaskedTable `json:"masked,omitempty"`
	Calls      []Routine     `json:"calls,omitempty"`    // the customer's functions and procedures that may be called
	Builtins   []string      `json:"builtins,omitempty"` // the server's own functions that are not among Builtins()
	Shadows    []string      `json:"shadows,omitempty"`  // names by which a function that may not be called could be met
	Tables     []Table       `json:"tables,omitempty"`   // all that the role may use; left out where the plan would grow too large
}

// Table is a table as the minter found it, by which the room tells what a name
// in a statement stands for.
type Table struct {
	Schema  string   `json:"schema"`
	Name    string   `json:"name"`
	Columns []string `json:"columns,omitempty"` // in the table's order
	Behind  []Source `json:"behind,omitempty"`  // what is met through it as well
}

// Source is a relation that is met through another one: because a view reads
// it, or because one is part of the other, as a partition is.
type Source struct {
	Schema  string   `json:"schema"`
	Name    string   `json:"name"`
	Columns []string `json:"columns,omitempty"` // that a view reads; "*" is any
	Part    bool     `json:"part,omitempty"`    // its columns are the other's, by their names
}

// Routine is a function or a procedure, whatever its arguments.
type Routine struct {
	Schema string `json:"schema"`
	Name   string `json:"name"`
}

// MaskedTable is a table that the role can only read through a view of the
// same name in MaskSchema: columns are masked, or rows left out.
type MaskedTable struct {
	Schema     string         `json:"schema"`
	Table      string         `json:"table"`
	MaskSchema string         `json:"mask_schema"`
	Limited    bool           `json:"limited,omitempty"` // to some of its rows: it is changed through the view, too
	Columns    []MaskedColumn `json:"columns,omitempty"`
}

// MaskedColumn is a column that shows a mask in the view.
type MaskedColumn struct {
	Name string `json:"name"`
}

// Encode checks the plan and returns its canonical JSON.
func (b Backing) Encode() ([]byte, error) {
	if err := b.Validate(); err != nil {
		return nil, err
	}
	b.Masked = slices.Clone(b.Masked)
	slices.SortFunc(b.Masked, func(x, y MaskedTable) int {
		return slices.Compare([]string{x.Schema, x.Table}, []string{y.Schema, y.Table})
	})
	out, err := json.Marshal(b)
	if len(out) > MaxBytes && len(b.Tables) > 0 { // the room does without: it then takes a name for all that it may be
		b.Tables = nil
		out, err = json.Marshal(b)
	}
	if err == nil && len(out) > MaxBytes {
		err = fmt.Errorf("%d bytes, at most %d are allowed", len(out), MaxBytes)
	}
	if err != nil {
		return nil, fmt.Errorf("encode backing: %w", err)
	}
	return out, nil
}

// Parse reads a plan and checks it. A field that it does not know is an error.
func Parse(data []byte) (Backing, error) {
	var b Backing
	if len(data) > MaxBytes {
		return b, fmt.Errorf("parse backing: %d bytes, at most %d are allowed", len(data), MaxBytes)
	}
	if err := access.Decode(data, &b); err != nil {
		return Backing{}, fmt.Errorf("parse backing: %w", err)
	}
	if err := b.Validate(); err != nil {
		return Backing{}, err
	}
	return b, nil
}

// Validate reports the first thing that is wrong with the plan.
func (b Backing) Validate() error {
	names := []string{b.Role, b.Database}
	names = append(names, b.SearchPath...)
	if len(b.Masked) > MaxTables {
		return fmt.Errorf("validate backing: %d masked tables, at most %d are allowed", len(b.Masked), MaxTables)
	}
	seen := make(map[[2]string]bool, len(b.Masked))
	for _, t := range b.Masked {
		names = append(names, t.Schema, t.Table, t.MaskSchema)
		for _, c := range t.Columns {
			names = append(names, c.Name)
		}
		key := [2]string{t.Schema, t.Table}
		if seen[key] {
			return fmt.Errorf("validate backing: table %q.%q is named twice", t.Schema, t.Table)
		}
		seen[key] = true
		if !slices.Contains(b.SearchPath, t.MaskSchema) {
			return fmt.Errorf("validate backing: mask schema %q is not in the search path", t.MaskSchema)
		}
	}
	if len(b.Tables) > MaxTables {
		return fmt.Errorf("validate backing: %d tables, at most %d are allowed", len(b.Tables), MaxTables)
	}
	for _, t := range b.Tables {
		names = append(append(names, t.Schema, t.Name), t.Columns...)
		for _, s := range t.Behind {
			names = append(append(names, s.Schema, s.Name), s.Columns...)
		}
	}
	if n := max(len(b.Calls), len(b.Builtins), len(b.Shadows)); n > MaxNames {
		return fmt.Errorf("validate backing: %d functions in a list, at most %d are allowed", n, MaxNames)
	}
	names = slices.Concat(names, b.Builtins, b.Shadows)
	for _, r := range b.Calls {
		names = append(names, r.Schema, r.Name)
	}
	for _, n := range names {
		if n == "" || len(n) > maxName || bytes.IndexByte([]byte(n), 0) >= 0 {
			return fmt.Errorf("validate backing: name %q: want 1 to %d bytes without a zero byte", n, maxName)
		}
	}
	return nil
}
