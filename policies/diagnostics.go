package policies

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2"

	"github.com/tidegate/tidegate/access"
)

// diagnostics collects complaints, so that all are said at once.
type diagnostics access.Diagnostics

func (ds *diagnostics) errorf(at hcl.Range, summary, detail string, args ...any) {
	*ds = append(*ds, diagnostic(at, summary, fmt.Sprintf(detail, args...)))
}

func (ds *diagnostics) addHCL(in hcl.Diagnostics) {
	for i, d := range in {
		if i == maxDiags {
			return
		}
		at := hcl.Range{}
		if d.Subject != nil {
			at = *d.Subject
		}
		if d.Summary == openString {
			ds.errorf(at, "A quoted text does not end", `A closing quote is missing on this line; text of several lines is written as <<END … END.`)
			return
		}
		*ds = append(*ds, diagnostic(at, d.Summary, d.Detail))
	}
}

// openString is what the parser says of a quote that nothing closes, and then
// again of each line behind it.
const openString = "Invalid multi-line string"

func diagnostic(at hcl.Range, summary, detail string) access.Diagnostic {
	return access.Diagnostic{
		File: at.Filename, Line: max(1, at.Start.Line), Column: max(1, at.Start.Column),
		EndLine: max(1, at.End.Line), EndCol: max(1, at.End.Column),
		Summary: summary, Detail: detail,
	}
}

// sorted puts them in reading order, each once.
func (ds diagnostics) sorted() access.Diagnostics {
	out := slices.Clone(access.Diagnostics(ds))
	slices.SortStableFunc(out, func(a, b access.Diagnostic) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Column, b.Column), cmp.Compare(a.Summary, b.Summary))
	})
	return slices.Compact(out)
}

func (ds diagnostics) hasErrors() bool { return access.Diagnostics(ds).HasErrors() }
