package console

import (
	"fmt"
	"strings"

	"github.com/tidegate/tidegate/access"
)

// rowOf turns an event into words. Its texts are shown escaped, and never
// longer than a bound.
func rowOf(e access.Event) eventRow {
	row := eventRow{At: e.Time.UTC().Format("15:04:05.000"), Kind: string(e.Type), Op: e.Op, Text: e.Text}
	switch e.Type {
	case access.EventSessionStart:
		row.Kind, row.Class = "start", "quiet"
		if s := e.Session; s != nil {
			row.Text = fmt.Sprintf("%s (%s) from %s as %s", s.Person.Login, s.Identity, s.Remote, s.Role)
		}
	case access.EventSessionEnd:
		row.Kind, row.Class = "end", "quiet"
	case access.EventOpen:
		row.open(e)
	case access.EventClose:
		row.Kind, row.Class, row.Text = "result", "quiet", outcome(e.Outcome)
	case access.EventData:
		row.Kind, row.Text = map[access.Direction]string{access.ToClient: "output", access.ToTarget: "input"}[e.Direction], string(e.Data)
	case access.EventResize:
		row.Kind, row.Class, row.Text = "resize", "quiet", fmt.Sprintf("%d x %d", e.Columns, e.Rows)
	case access.EventHoldOpen:
		row.Kind, row.Class = "held", "waiting"
	case access.EventHoldAnswer:
		row.answered(e.Decision)
	case access.EventNotice:
		row.Kind = "notice"
	}
	if len(row.Text) > maxText {
		row.Left = len(row.Text) - maxText
		row.Text = strings.ToValidUTF8(row.Text[:maxText], "")
	}
	row.fewer()
	return row
}

// fewer leaves out the parameters that would go beyond the bound.
func (row *eventRow) fewer() {
	size := 0
	for i, p := range row.Params {
		if size += len(p) + paramSize; size > maxText {
			for _, more := range row.Params[i:] {
				row.Left += len(more)
			}
			row.Params = row.Params[:i]
			return
		}
	}
}

// paramSize is about what the page writes around each parameter.
const paramSize = 32

func (row *eventRow) size() int {
	n := len(row.Text) + len(row.Note)
	for _, p := range row.Params {
		n += len(p) + paramSize
	}
	return n
}

func (row *eventRow) open(e access.Event) {
	if e.Operation == nil || e.Decision == nil {
		return
	}
	row.Text, row.Params = e.Operation.Text, e.Operation.Params
	switch e.Decision.Verdict {
	case access.Allow:
		row.Kind, row.Class = "allowed", "active"
	case access.Hold:
		row.Kind, row.Class = "held", "waiting"
	default:
		row.Kind, row.Class = "refused", "denied"
	}
	if e.Decision.Verdict != access.Allow {
		row.Note = strings.TrimSpace("rule " + e.Decision.Rule + ": " + e.Decision.Say)
	}
}

func (row *eventRow) answered(d *access.Decision) {
	row.Kind = "answer"
	if d == nil {
		return
	}
	row.Text, row.Class = d.Say, "denied"
	if d.Verdict == access.Allow {
		row.Class = "active"
	}
}

func outcome(o *access.Outcome) string {
	if o == nil {
		return ""
	}
	parts := []string{o.Status}
	if o.Code != "" {
		parts = append(parts, o.Code)
	}
	return strings.Join(parts, " ") + fmt.Sprintf(", %d rows, %d bytes", o.Rows, o.Bytes)
}
