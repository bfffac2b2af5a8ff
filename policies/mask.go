package policies

import (
	"regexp"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/tidegate/tidegate/access"
)

type mask struct {
	access.Mask
	on []located[access.TargetRef]
	at hcl.Range
}

var columnPattern = regexp.MustCompile(`\A(?:[A-Za-z0-9_$*]+\.){1,2}[A-Za-z0-9_$*]+\z`)

// readMask reads a mask: of columns, of what is detected in text, or both.
func readMask(b block) mask {
	b.only([]string{"on", "columns", "with", "detect"})
	m := mask{on: b.targets("on"), at: b.DefRange()}
	m.Mask = access.Mask{Name: b.Labels[0], On: values(m.on)}
	if b.attr("detect") != nil {
		m.Detect = readDetect(b)
	}
	if b.attr("columns") != nil || b.attr("with") != nil || b.attr("detect") == nil {
		m.Columns = readColumns(b)
		if e := b.need("with"); e != nil {
			m.With = readWith(b, e)
		}
	}
	return m
}

func readColumns(b block) []string {
	e := b.need("columns")
	if e == nil {
		return nil
	}
	columns := b.strings("columns")
	if len(columns) == 0 {
		b.wrong(e, "at least one column here")
	}
	for i, c := range columns {
		if !columnPattern.MatchString(c) {
			b.wrong(list(e)[i], `columns such as "*.email", "users.ssn" or "public.users.ssn"`)
		}
	}
	return columns
}

func readDetect(b block) []string {
	e := b.attr("detect")
	names := b.strings("detect")
	if len(names) == 0 {
		b.wrong(e, "at least one detector here")
	}
	for i, name := range names {
		at := list(e)[i].Range()
		switch _, unknown := access.ExpandDetectors(names[i : i+1]); {
		case len(unknown) > 0:
			b.diags.errorf(at, "A detector is unknown", "%q is none of %s.", name, access.DetectorNames())
		case slices.Contains(names[:i], name):
			b.diags.errorf(at, "A name is there twice", "Remove one %q.", name)
		}
	}
	return names
}

func readWith(b block, e hclsyntax.Expression) access.MaskWith {
	name, args, _ := call(e)
	switch {
	case name == "null" && len(args) == 0:
		return access.MaskWith{Kind: access.MaskNull}
	case name == "constant" && len(args) == 1:
		if s, ok := literalString(args[0]); ok {
			return access.MaskWith{Kind: access.MaskConstant, Text: s}
		}
	case name == "partial" && len(args) == 1:
		if n, ok := literalInt(args[0]); ok && n >= 1 && n <= 64 {
			return access.MaskWith{Kind: access.MaskPartial, Keep: int(n)}
		}
	}
	b.wrong(e, `partial(1 to 64), constant("text") or null() here`)
	return access.MaskWith{}
}
