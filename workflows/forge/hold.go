package forge

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-github/v60/github"

	"github.com/tidegate/tidegate/access"
)

const (
	maxStatement   = 50_000 // bytes of everything that an approver must read
	maxOpenShown   = 20
	maxClosedShown = 5
	consoleOnly    = "-"
)

var holdCheck = regexp.MustCompile(`\Atidegate/hold H([1-9][0-9]{0,8})\z`)

// holdRun is the check run of a held operation. What it shows is exactly what the
// answer is bound to; if it can't show all of it, it says so and takes no answer.
func holdRun(head string, h access.Held) run {
	body, whole := renderHeld(h)
	quote := h.Short()
	if !whole {
		quote = consoleOnly
	}
	r := run{name: "tidegate/hold " + h.Name(), head: head, text: body,
		external: fmt.Sprintf("hold %s %s %d", h.ID, quote, h.Expires.Unix())}
	r.title, r.summary, r.conclusion = heldWords(h)
	if h.State == access.HeldOpen {
		r.summary += "\n\n" + answerLines(h.Name(), quote)
	}
	return r
}

func heldWords(h access.Held) (title, summary, conclusion string) {
	what := fmt.Sprintf("%s: %s on %s (rule %s)", h.Name(), h.Who, h.Target, h.Rule)
	switch h.State {
	case access.HeldOpen:
		return what, fmt.Sprintf("Why: %s\n\nWaits for one of %s until %s. No answer means no.", text(clip(h.Say, maxSentence)), parties(h.Ask), when(h.Expires)), "action_required"
	case access.HeldCancelled:
		return what + ": given up", "The client gave up, or the grant ended. Nothing was run.", "cancelled"
	case access.HeldTimedOut:
		return what + ": nobody answered", "Nobody answered in time, which means no. Nothing was run.", "timed_out"
	}
	by, verb, conclusion := "", "denied", "failure"
	if h.Answer != nil {
		by = h.Answer.By.Login
		if h.Answer.Approve {
			verb, conclusion = "approved", "success"
		}
	}
	if h.State == access.HeldConsumed && conclusion == "success" {
		return fmt.Sprintf("%s: %s by %s", what, verb, by), "Approved by " + code(by) + ", and run once.", conclusion
	}
	return fmt.Sprintf("%s: %s by %s", what, verb, by), strings.ToUpper(verb[:1]) + verb[1:] + " by " + code(by) + ".", conclusion
}

// renderHeld shows the operation with all that its digest covers; whole is false
// when a part had to be left out.
func renderHeld(h access.Held) (body string, whole bool) {
	op := h.Operation
	var b strings.Builder
	fmt.Fprintf(&b, "- **Who:** %s in session %s under grant %s\n", code(h.Who), code(h.Session), code(h.Grant.ID))
	fmt.Fprintf(&b, "- **Where:** %s\n- **Digest:** %s\n", code(h.Target.String()), code(h.Digest))
	writeBlock(&b, "This will run", []string{op.Text})
	writeBlock(&b, "With these parameters, in order", op.Params)
	writeBlock(&b, "In this context", op.Context)
	if shown := strings.Join(append(append([]string{op.Text}, op.Params...), op.Context...), ""); shown != visible(shown) {
		b.WriteString("\nCharacters that can't be seen, and brackets like ⟨ ⟩, are shown as ⟨U+XXXX⟩.\n")
	}
	if b.Len() <= maxStatement {
		return b.String(), true
	}
	return fmt.Sprintf("**This is not all: the first %d of %d bytes are shown. It can only be answered in the console, where all of it can be read.**\n\n%s",
		maxStatement/2, len(op.Text), fenced(cut(op.Text, maxStatement/2))), false
}

func writeBlock(b *strings.Builder, title string, parts []string) {
	if len(parts) == 0 {
		return
	}
	fmt.Fprintf(b, "\n**%s**\n\n", title)
	for _, p := range parts {
		b.WriteString(fenced(p) + "\n")
	}
}

// cut keeps the first bytes whose visible form is not longer than n.
func cut(s string, n int) string {
	s = s[:min(n, len(s))]
	for len(visible(s)) > n {
		s = s[:len(s)/2]
	}
	return strings.ToValidUTF8(s, "")
}

func answerLines(name, quote string) string {
	if quote == consoleOnly {
		return "It is too long to show here: answer it in the console."
	}
	return fmt.Sprintf("Answer with a new comment:\n\n```text\n/tidegate approve %s %s\n```\n\nor\n\n```text\n/tidegate deny %s\n```", name, quote, name)
}

// heldLine is a held operation as its check run remembers it.
type heldLine struct {
	number  int
	open    bool
	quote   string
	expires time.Time
	title   string
	url     string
}

// heldLines reads the holds back from the check runs, which only the App can
// write; the comment is never believed.
func heldLines(runs map[string]*github.CheckRun) []heldLine {
	var out []heldLine
	for name, r := range runs {
		m, f := holdCheck.FindStringSubmatch(name), strings.Fields(r.GetExternalID())
		if m == nil || len(f) < 4 || f[0] != "hold" {
			continue
		}
		number, _ := strconv.Atoi(m[1])              // the pattern has digits only
		expires, _ := strconv.ParseInt(f[3], 10, 64) // ours; 0 would only look odd
		out = append(out, heldLine{number: number, open: r.GetConclusion() == "action_required", quote: f[2],
			expires: time.Unix(expires, 0), title: r.GetOutput().GetTitle(), url: r.GetHTMLURL()})
	}
	slices.SortFunc(out, func(a, b heldLine) int { return a.number - b.number })
	return out
}

func renderHolds(lines []heldLine) string {
	var open, closed []string
	for _, l := range lines {
		if l.open {
			open = append(open, fmt.Sprintf("**%s** waits until %s. Read %s first. %s\n", code(clip(l.title, 255)), when(l.expires), link(l),
				answerLines(fmt.Sprintf("H%d", l.number), l.quote)))
		} else {
			closed = append(closed, fmt.Sprintf("- %s (%s)\n", code(clip(l.title, 255)), link(l)))
		}
	}
	var b strings.Builder
	if len(open) > 0 {
		b.WriteString("### Waiting for an answer\n\n" + strings.Join(open[:min(len(open), maxOpenShown)], "\n"))
		if n := len(open) - maxOpenShown; n > 0 {
			fmt.Fprintf(&b, "\n**%d more wait; the checks of this pull request show them.**\n", n)
		}
	}
	if len(closed) > 0 {
		b.WriteString("\n### Answered\n\n" + strings.Join(closed[max(0, len(closed)-maxClosedShown):], ""))
	}
	return strings.TrimSpace(b.String())
}

func link(l heldLine) string {
	u, err := url.Parse(l.url)
	if err != nil || u.Host == "" || strings.ContainsAny(l.url, "()<>[] \n`") {
		return fmt.Sprintf("the check `tidegate/hold H%d`", l.number)
	}
	return "[what it is](" + l.url + ")"
}
