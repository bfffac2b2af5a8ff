package main

import (
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/tidegate/tidegate/access"
)

// decoder collects what is wrong with a configuration.
type decoder struct {
	dir   string // relative paths start here
	diags access.Diagnostics
	certs []certFile
}

// certFile is a file of certificates that the configuration names: those of
// CAs, or one that we show, with its chain.
type certFile struct {
	path  string
	shown bool
}

func (d *decoder) errorf(at hcl.Range, summary, detail string, args ...any) {
	d.add(access.SeverityError, at, summary, fmt.Sprintf(detail, args...))
}

func (d *decoder) warnf(at hcl.Range, summary, detail string, args ...any) {
	d.add(access.SeverityWarning, at, "warning: "+summary, fmt.Sprintf(detail, args...))
}

func (d *decoder) add(s access.Severity, at hcl.Range, summary, detail string) {
	d.diags = append(d.diags, access.Diagnostic{
		Severity: s, File: at.Filename, Line: at.Start.Line, Column: at.Start.Column,
		EndLine: at.End.Line, EndCol: at.End.Column, Summary: summary, Detail: detail,
	})
}

func (d *decoder) addHCL(in hcl.Diagnostics) {
	for _, one := range in {
		at := hcl.Range{}
		if one.Subject != nil {
			at = *one.Subject
		}
		d.add(access.SeverityError, at, one.Summary, one.Detail)
	}
}

// path is where a relative path of the configuration leads.
func (d *decoder) path(text string) string {
	if text == "" || filepath.IsAbs(text) {
		return text
	}
	return filepath.Join(d.dir, text)
}

// block reads one block by hand. Whatever was not asked for when it is done is
// unknown.
type block struct {
	*decoder
	name  string // as messages say it
	label string
	at    hcl.Range
	body  *hclsyntax.Body
	used  map[string]bool
}

// value is one text and where it stands. The zero value was not given, or was
// refused already.
type value struct {
	text string
	at   hcl.Range
}

func (v value) ok() bool { return v.text != "" }

func (b *block) use(name string) {
	if b.used == nil {
		b.used = map[string]bool{}
	}
	b.used[name] = true
}

func (b *block) has(name string) bool { return b.body.Attributes[name] != nil }

// eval is an attribute's value of the wanted type.
func (b *block) eval(name string, want cty.Type, like string) (cty.Value, hcl.Range, bool) {
	b.use(name)
	attr := b.body.Attributes[name]
	if attr == nil {
		return cty.NilVal, hcl.Range{}, false
	}
	v, ok := b.constant(attr.Expr, want, name, like)
	return v, attr.Expr.Range(), ok
}

// constant evaluates an expression without variables and functions.
func (b *block) constant(expr hcl.Expression, want cty.Type, name, like string) (cty.Value, bool) {
	v, diags := expr.Value(nil)
	if diags.HasErrors() {
		b.addHCL(diags)
		return v, false
	}
	if v.IsNull() || !v.IsKnown() || v.Type() != want {
		b.errorf(expr.Range(), "Wrong type", "Got %s for %s, want %s.", v.Type().FriendlyName(), name, like)
		return v, false
	}
	return v, true
}

// text is an optional text.
func (b *block) text(name string) value {
	v, at, ok := b.eval(name, cty.String, `text in quotes`)
	if !ok {
		return value{}
	}
	if v.AsString() == "" {
		b.errorf(at, "Empty text", "Got an empty %s; say what it is, or leave it out.", name)
	}
	return value{v.AsString(), at}
}

// need is a text that must be there.
func (b *block) need(name, why string) value {
	if !b.has(name) {
		b.errorf(b.at, "Missing attribute", "Got no %s in %s, want one: %s.", name, b.name, why)
	}
	return b.text(name)
}

// flag is an optional true or false.
func (b *block) flag(name string) bool {
	v, _, ok := b.eval(name, cty.Bool, "true or false")
	return ok && v.True()
}

// number is an optional whole number of at least 1.
func (b *block) number(name string, max int64) int64 {
	v, at, ok := b.eval(name, cty.Number, "a whole number")
	if !ok {
		return 0
	}
	n, exact := v.AsBigFloat().Int64()
	if exact != 0 || n < 1 || n > max {
		b.errorf(at, "Wrong number", "Got %s for %s, want a whole number from 1 to %d.", v.AsBigFloat().Text('f', -1), name, max)
		return 0
	}
	return n
}

// duration is an optional time such as "30s".
func (b *block) duration(name string, max time.Duration) time.Duration {
	v := b.text(name)
	if !v.ok() {
		return 0
	}
	d, err := time.ParseDuration(v.text)
	if err != nil || d <= 0 || d > max {
		b.errorf(v.at, "Wrong duration", `Got %q for %s, want a time such as "30s" or "15m", at most %s.`, v.text, name, max)
		return 0
	}
	return d
}

// texts is an optional list of texts.
func (b *block) texts(name string) (out []value) {
	b.use(name)
	attr := b.body.Attributes[name]
	if attr == nil {
		return nil
	}
	items, diags := hcl.ExprList(attr.Expr)
	if diags.HasErrors() {
		b.errorf(attr.Expr.Range(), "Wrong type", `Got no list for %s, want one such as ["…", "…"].`, name)
		return nil
	}
	for _, item := range items {
		v, ok := b.constant(item, cty.String, name, "a list of texts in quotes")
		if ok && v.AsString() == "" {
			b.errorf(item.Range(), "Empty text", "Got an empty text in %s.", name)
		} else if ok {
			out = append(out, value{v.AsString(), item.Range()})
		}
	}
	return out
}

// prefixes is an optional list of networks.
func (b *block) prefixes(name string) (out []netip.Prefix) {
	for _, v := range b.texts(name) {
		p, err := netip.ParsePrefix(v.text)
		if err != nil {
			b.errorf(v.at, "Wrong address", `Got %q in %s, want a prefix such as "10.0.0.5/32".`, v.text, name)
			continue
		}
		out = append(out, p)
	}
	return out
}

// blocks are the blocks of a type, with one label each or none.
func (b *block) blocks(kind string, labels int) (out []*block) {
	b.use(kind + " {")
	seen := map[string]hcl.Range{}
	for _, in := range b.body.Blocks {
		if in.Type != kind {
			continue
		}
		at := in.DefRange()
		if len(in.Labels) != labels {
			b.errorf(at, "Wrong block", "Got %d names for the block %s, want %d.", len(in.Labels), kind, labels)
			continue
		}
		one := &block{decoder: b.decoder, name: "the block " + kind, at: at, body: in.Body}
		if labels == 1 {
			one.label = in.Labels[0]
			one.name += fmt.Sprintf(" %q", one.label)
		}
		if first, twice := seen[one.label]; twice {
			b.errorf(at, "Duplicate block", "Got %s again, want it once; the first is on line %d.", one.name, first.Start.Line)
			continue
		}
		seen[one.label] = at
		out = append(out, one)
	}
	return out
}

// block is the one block of a type; nil if there is none.
func (b *block) block(kind string) *block {
	if all := b.blocks(kind, 0); len(all) > 0 {
		return all[0]
	}
	return nil
}

// needBlock is a block that must be there.
func (b *block) needBlock(kind, why string) *block {
	for _, in := range b.body.Blocks {
		if in.Type == kind {
			return b.block(kind)
		}
	}
	b.use(kind + " {")
	b.errorf(b.at, "Missing block", "Got no block %s in %s, want one: %s.", kind, b.name, why)
	return nil
}

// done complains about everything that nobody asked for.
func (b *block) done() {
	for _, name := range slices.Sorted(maps.Keys(b.body.Attributes)) {
		if !b.used[name] {
			b.errorf(b.body.Attributes[name].NameRange, "Unknown attribute", "Got %s in %s, which knows no such attribute.", name, b.name)
		}
	}
	for _, in := range b.body.Blocks {
		if !b.used[in.Type+" {"] {
			b.errorf(in.TypeRange, "Unknown block", "Got the block %s in %s, which knows no such block.", in.Type, b.name)
		}
	}
}
