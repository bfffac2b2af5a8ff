package forge

import (
	"fmt"
	"strings"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/workflows"
)

const (
	maxReport    = 44_000 // bytes; what is left of 65,536 is for holds
	maxGrant     = 14_000
	maxItems     = 25
	maxSentence  = 600
	maxCondition = 1000 // a part of one would say something else
	maxDepth     = 6
	maxReasons   = 120
)

// page is markdown that grows to a bound and says when something is left out.
type page struct {
	b       strings.Builder
	most    int
	skipped int
}

// add appends a whole part, or counts it as left out: half a part would lie.
func (p *page) add(part string) {
	if p.b.Len()+len(part) > p.most {
		p.skipped++
		return
	}
	p.b.WriteString(part)
}

func (p *page) addf(format string, args ...any) { p.add(fmt.Sprintf(format, args...)) }

func (p *page) String() string {
	if p.skipped > 0 {
		return p.b.String() + fmt.Sprintf("\n> **%d parts are left out here: the report is too long. Read the files, or split the request.**\n", p.skipped)
	}
	return p.b.String()
}

// RenderReport shows a report as markdown: who gets what, until when, who must
// agree, what is masked and blocked. It is a pure function; nothing that people
// wrote can act in its result.
func RenderReport(r workflows.Report) string {
	p := &page{most: maxReport}
	p.addf("## Tidegate: %s\n\n", headline(r))
	if r.Refusal != "" {
		p.addf("> **Refused.** %s\n\n", text(clip(r.Refusal, maxSentence)))
	}
	p.add(renderDiagnostics(r.Diagnostics))
	for i, g := range r.Grants {
		if i >= maxItems {
			p.addf("**%d more grants are not shown here.**\n\n", len(r.Grants)-i)
			break
		}
		p.add(renderGrant(g))
	}
	p.add(renderPolicy(r.Policy))
	p.add(renderReplies(r.Replies))
	p.addf("<sub>For commit %s. Agree by a review of the files; a review counts for exactly what it saw. Commands: %s.</sub>\n",
		code(short(r.Head)), code("/tidegate help"))
	return strings.TrimSpace(p.String())
}

// headline is the report in a few words, for the comment and the check runs.
func headline(r workflows.Report) string {
	errs, waiting := 0, 0
	for _, d := range r.Diagnostics {
		if d.Severity == access.SeverityError {
			errs++
		}
	}
	for _, g := range r.Grants {
		if !g.Approval.Met {
			waiting++
		}
	}
	switch {
	case r.Refusal != "":
		return "this request can't be used"
	case errs > 0:
		return plural(errs, "error") + " to fix"
	case r.Policy != nil && r.Policy.Met:
		return "new policies are agreed to; they come into force when this is merged"
	case r.Policy != nil:
		return "new policies wait for agreement"
	case len(r.Grants) == 0:
		return "no access is asked for"
	case len(r.Grants) == 1:
		return stateWords(r.Grants[0])
	case waiting > 0:
		return fmt.Sprintf("%d of %s wait for approval", waiting, plural(len(r.Grants), "grant"))
	}
	return plural(len(r.Grants), "grant")
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

func stateWords(g workflows.GrantReport) string {
	if g.Paused && !g.State.Ended() {
		return "access is on hold, until somebody lets it go on or it ends at " + when(g.Until)
	}
	switch g.State {
	case access.StateLanded:
		return "approved and merged; access is being made"
	case access.StateActive:
		return "access is open until " + when(g.Until)
	case access.StateExpired:
		return "access has ended: its time was up"
	case access.StateRevoked:
		return "access was taken back"
	case access.StateSuperseded:
		return "access was replaced by a newer grant"
	case access.StateRefused:
		return "access was refused"
	}
	if g.Approval.Met {
		return "approved; access opens when this is merged"
	}
	return "waits for approval"
}

func renderDiagnostics(ds access.Diagnostics) string {
	if len(ds) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("### Problems in the files\n\n")
	for i, d := range ds {
		if i >= maxItems {
			fmt.Fprintf(&b, "- %d more; the check `%s` has them.\n", len(ds)-i, planCheck)
			break
		}
		mark := "❌"
		if d.Severity == access.SeverityWarning {
			mark = "⚠️"
		}
		fmt.Fprintf(&b, "- %s %s: **%s** %s\n", mark, code(fmt.Sprintf("%s:%d:%d", clip(d.File, maxPath), d.Line, d.Column)),
			text(clip(d.Summary, maxSentence)), text(clip(d.Detail, maxSentence)))
	}
	return b.String() + "\n"
}

func renderGrant(g workflows.GrantReport) string {
	p := &page{most: maxGrant}
	plan := g.Plan
	p.addf("### %s: %s\n\n", code(clip(plan.Request.ID, 100)), stateWords(g))
	if g.Why != "" {
		p.addf("State: %s\n\n", text(clip(g.Why, maxSentence)))
	}
	p.addf("- **Who:** %s\n", people(plan))
	p.addf("- **Gets:** role %s on %s%s\n", code(clip(plan.Role.Name, 100)), code(clip(plan.Target.TargetRef.String(), 200)), labels(plan.Target))
	p.addf("- **Until:** %s\n", until(g))
	if d := plan.Role.Drain(); d > 0 {
		p.addf("- **Then:** what runs at the end may finish, and its transaction commit, for %s; nothing new starts\n", d)
	}
	p.addf("- **Because:** %s%s\n", code(clip(plan.Request.Reason, maxSentence)), ticket(plan.Request))
	p.add(renderScope(plan))
	p.add(renderMasks(plan.Masks))
	p.add(renderRules(plan.Rules))
	p.add("\n**Who must agree**\n\n" + renderRequirements(plan.Requirements))
	p.add("\n" + renderReason(g.Approval) + "\n")
	p.add(renderSessions(g.Sessions))
	p.addf("<sub>Plan %s, policy %s</sub>\n\n", code(clip(g.Digest, 64)), code(clip(plan.PolicyDigest, 64)))
	return p.String()
}

// renderPolicy shows who must agree to a change of policies, and who did.
func renderPolicy(r *access.Reason) string {
	if r == nil {
		return ""
	}
	return "**Who must agree to new policies**\n\n" + renderReason(*r) + "\n"
}

func people(plan access.Plan) string {
	var names []string
	for _, person := range plan.People {
		names = append(names, code(clip(person.Login, 100)))
	}
	if len(names) == 0 { // not planned: the names as they were asked for
		for _, who := range plan.Request.To {
			names = append(names, code(clip(who.String(), 200)))
		}
	}
	return some(names)
}

// some joins a list and says how many are not shown.
func some(items []string) string {
	switch {
	case len(items) == 0:
		return "nobody"
	case len(items) > maxItems:
		return strings.Join(items[:maxItems], ", ") + fmt.Sprintf(" and **%d more**", len(items)-maxItems)
	}
	return strings.Join(items, ", ")
}

func labels(t access.Target) string {
	if env := t.Labels["env"]; env != "" {
		return " (env " + code(clip(env, 100)) + ")"
	}
	return ""
}

func until(g workflows.GrantReport) string {
	r := g.Plan.Request
	switch {
	case !g.Until.IsZero():
		return when(g.Until)
	case r.Lasts > 0:
		return length(r.Lasts) + " after the merge"
	default:
		return fmt.Sprintf("%s, from %s", when(r.Until), when(r.From))
	}
}

func ticket(r access.Request) string {
	if r.Ticket == "" {
		return ""
	}
	return " (" + code(clip(r.Ticket, 200)) + ")"
}

func renderScope(plan access.Plan) string {
	var b strings.Builder
	item := func(label string, list []string) {
		if len(list) == 0 {
			return
		}
		var shown []string
		for _, s := range list {
			shown = append(shown, code(clip(s, 200)))
		}
		fmt.Fprintf(&b, "- **%s:** %s\n", label, some(shown))
	}
	item("May read", plan.Role.Read)
	item("May write", plan.Role.Write)
	for _, r := range plan.Role.Rows {
		fmt.Fprintf(&b, "- **Only rows** where %s%s\n", code(clip(r.Where, maxCondition)), ofTables(r.Tables))
	}
	item("Today that is", plan.Expansion.Summary)
	return b.String()
}

func ofTables(pattern string) string {
	if pattern == "" {
		return ""
	}
	return ", of " + code(clip(pattern, 200))
}

func renderMasks(masks []access.Mask) string {
	var b strings.Builder
	for _, m := range masks[:min(len(masks), maxItems)] {
		var columns []string
		for _, c := range m.Columns {
			columns = append(columns, code(clip(c, 200)))
		}
		if len(columns) > 0 {
			fmt.Fprintf(&b, "- **Masked** by %s: %s, %s\n", code(clip(m.Name, 100)), some(columns), maskWords(m.With))
		}
		if len(m.Detect) > 0 {
			fmt.Fprintf(&b, "- **Masked where it is found in text** by %s: %s\n", code(clip(m.Name, 100)), detectWords(m.Detect))
		}
	}
	return b.String() + more(len(masks), "masks")
}

func detectWords(names []string) string {
	var out []string
	for _, n := range names {
		out = append(out, code(clip(n, 100)))
	}
	return some(out)
}

func maskWords(w access.MaskWith) string {
	switch w.Kind {
	case access.MaskConstant:
		return "shown as " + code(clip(w.Text, 100))
	case access.MaskPartial:
		return fmt.Sprintf("only the last %d characters are shown", w.Keep)
	}
	return "shown as NULL"
}

func renderRules(rules []access.Rule) string {
	var b strings.Builder
	for _, r := range rules[:min(len(rules), maxItems)] {
		fmt.Fprintf(&b, "- **Rule** %s %s: %s\n", code(clip(r.Name, 100)), does(r), text(clip(r.Say, maxSentence)))
	}
	return b.String() + more(len(rules), "rules")
}

// does says what a rule may do to a statement.
func does(r access.Rule) string {
	var all []string
	if r.Deny != "" {
		all = append(all, "blocks")
	}
	if r.Hold != "" {
		all = append(all, "holds until one of "+parties(r.Ask)+" agrees")
	}
	if r.LimitRows > 0 {
		all = append(all, fmt.Sprintf("shows at most %d rows", r.LimitRows))
	}
	if r.LimitTime > 0 {
		all = append(all, fmt.Sprintf("cuts after %s", r.LimitTime))
	}
	if r.Record != "" {
		all = append(all, "records the "+r.Record)
	}
	return strings.Join(all, " or ")
}

func more(n int, what string) string {
	if n > maxItems {
		return fmt.Sprintf("- **%d more %s** are not shown here.\n", n-maxItems, what)
	}
	return ""
}

func parties(list []access.Party) string {
	var names []string
	for _, p := range list {
		names = append(names, code(clip(p.Name, 200)))
	}
	return some(names)
}

func renderRequirements(list []access.Requirement) string {
	if len(list) == 0 {
		return "- No approval block applies, so this can't be approved.\n"
	}
	var b strings.Builder
	for _, r := range list[:min(len(list), maxItems)] {
		need := fmt.Sprintf("%d of %s", r.Need, parties(r.From))
		if r.Need == 0 {
			need = "nobody: it is approved beforehand"
		}
		fmt.Fprintf(&b, "- %s: %s. %s\n", code(clip(r.Name, 100)), need, text(clip(r.Say, maxSentence)))
	}
	return b.String() + more(len(list), "requirements")
}

// renderReason shows a judgement as a nested list, and says where it was cut.
func renderReason(r access.Reason) string {
	if r.Name == "" && r.Text == "" && len(r.Children) == 0 {
		return "- ❌ Not judged yet.\n"
	}
	var b strings.Builder
	left := maxReasons
	writeReason(&b, r, 0, &left)
	if left < 0 {
		fmt.Fprintf(&b, "- **%d more reasons are not shown here.**\n", -left)
	}
	return b.String()
}

func writeReason(b *strings.Builder, r access.Reason, depth int, left *int) {
	if *left--; *left < 0 {
		for _, c := range r.Children {
			writeReason(b, c, depth+1, left)
		}
		return
	}
	mark := "❌"
	if r.Met {
		mark = "✅"
	}
	say := text(clip(r.Text, maxSentence))
	if r.Name != "" {
		say = strings.TrimSpace(code(clip(r.Name, 200)) + " " + say)
	}
	fmt.Fprintf(b, "%s- %s %s\n", strings.Repeat("  ", min(depth, maxDepth)), mark, say)
	for _, c := range r.Children {
		writeReason(b, c, depth+1, left)
	}
}

func renderSessions(list []workflows.SessionLine) string {
	if len(list) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("**Sessions**\n\n")
	for _, s := range list[max(0, len(list)-maxItems):] {
		ended := "still open"
		if !s.Ended.IsZero() {
			ended = "until " + when(s.Ended)
		}
		fmt.Fprintf(&b, "- %s %s from %s, %s\n", code(clip(s.ID, 100)), code(clip(s.Person.Login, 100)), when(s.Started), ended)
	}
	if n := len(list) - maxItems; n > 0 {
		fmt.Fprintf(&b, "- **%d earlier ones** are not shown here.\n", n)
	}
	return b.String() + "\n"
}

func renderReplies(replies []string) string {
	if len(replies) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("### Answers\n\n")
	for _, r := range replies[max(0, len(replies)-10):] {
		fmt.Fprintf(&b, "- %s\n", text(clip(r, 2*maxSentence)))
	}
	return b.String() + "\n"
}
