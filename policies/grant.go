package policies

import (
	"path"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/tidegate/tidegate/access"
)

const grantsDir = "grants/"

// pathID is the grant id that a file's name says.
func pathID(file string) string { return strings.TrimSuffix(path.Base(file), ".hcl") }

// wrote is a request with the places that later complaints point at.
type wrote struct {
	access.Request
	at     hcl.Range
	places map[string]hcl.Range // by attribute
}

func (w wrote) place(name string) hcl.Range {
	if at, ok := w.places[name]; ok {
		return at
	}
	return w.at
}

// readGrant reads one grant file; false if it has mistakes.
func readGrant(f access.File, diags *diagnostics) (wrote, bool) {
	before := len(*diags)
	at := hcl.Range{Filename: f.Path, Start: hcl.InitialPos, End: hcl.InitialPos}
	if _, ok := access.GrantFileID(f.Path); !ok {
		diags.errorf(at, "The file's place is wrong", "A grant is grants/<who>/<id>.hcl, the id 1 to 48 of a-z, 0-9 and -.")
		return wrote{}, false
	}
	body := parse(f, diags)
	if body == nil {
		return wrote{}, false
	}
	if len(body.Blocks) != 1 || len(body.Attributes) != 0 || body.Blocks[0].Type != "grant" {
		diags.errorf(at, "The file is not one grant", `A grant file holds exactly one block: grant "%s" { … }.`, pathID(f.Path))
		return wrote{}, false
	}
	b := block{body.Blocks[0], diags}
	if !b.labels(1) {
		return wrote{}, false
	}
	b.only([]string{"to", "on", "role", "lasts", "from", "until", "reason", "ticket"})
	w := readRequest(b)
	w.File, w.ID, w.at = f.Path, b.Labels[0], b.DefRange()
	if w.ID != pathID(f.Path) {
		diags.errorf(b.LabelRanges[0], "The id is not the file's name", "The block says %q and the file %q; make them equal.", w.ID, pathID(f.Path))
	}
	w.Reason, w.Ticket = b.sentence("reason"), b.text("ticket")
	return w, len(*diags) == before
}

// readRequest reads what a grant and a check's given have in common.
func readRequest(b block) wrote {
	w := wrote{places: map[string]hcl.Range{}}
	for name, a := range b.Body.Attributes {
		w.places[name] = a.Expr.Range()
	}
	if e := b.need("to"); e != nil {
		w.To = b.principals(e)
	}
	if e := b.need("on"); e != nil {
		w.On = b.target(e)
	}
	w.Role = b.sentence("role")
	readTime(b, &w)
	return w
}

func readTime(b block, w *wrote) {
	lasts, from, until := b.attr("lasts"), b.attr("from"), b.attr("until")
	switch {
	case lasts != nil && from == nil && until == nil:
		w.Lasts = b.length(lasts)
	case lasts == nil && from != nil && until != nil:
		w.From, w.Until = b.moment(from), b.moment(until)
		if !w.From.Before(w.Until) {
			b.diags.errorf(until.Range(), "The end is not after the start", "until must be later than from.")
		}
	default:
		b.diags.errorf(b.DefRange(), "The time is not understood", `Write lasts = "2h", or from and until as moments in UTC.`)
	}
}
