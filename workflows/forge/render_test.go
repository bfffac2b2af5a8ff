package forge

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-github/v60/github"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/workflows"
)

var update = flag.Bool("update", false, "write the golden files")

const goldenHead = "0123456789012345678901234567890123456789"

// evil acts wherever text is not shown as text.
const evil = "x` @acme/dba #1 **b**\n## Approved\n<!-- tidegate:comment --><img src=x>| a | [l](https://evil.test) www.evil.test\n\n- ✅ \u202ereversed\u200b ⟨U+0041⟩ \x1b[31m https://evil.test a@evil.test"

func reports() map[string]workflows.Report {
	refusedFiles := workflows.Report{Head: goldenHead, Refusal: "Policies and grants are in one pull request. Split it: policies first.",
		Diagnostics: access.Diagnostics{
			{File: "grants/alice/inc-1.hcl", Line: 3, Column: 12, EndLine: 3, EndCol: 20, Summary: "Unknown role", Detail: `There is no role "admin"; want "readonly" or "operator".`},
			{Severity: access.SeverityWarning, File: "policies/a.hcl", Line: 1, Column: 1, EndLine: 2, Summary: "Unused mask"}}}
	active := waiting(goldenHead)
	g := &active.Grants[0]
	g.State, g.Until, g.Why = access.StateActive, time.Date(2030, 1, 2, 16, 0, 0, 0, time.UTC), "Landed as approved."
	g.Approval = access.Reason{Name: "inc-1", Met: true, Text: "2 of 2 approvals."}
	g.Plan.Expansion.Summary = []string{"12 tables", "2 columns masked"}
	g.Plan.Masks = append(g.Plan.Masks, access.Mask{Name: "k", Columns: []string{"a.b"}, With: access.MaskWith{Kind: access.MaskConstant, Text: "***"}}, access.Mask{Name: "n", Columns: []string{"a.c"}})
	g.Sessions = []workflows.SessionLine{
		{ID: "s-1", Person: access.User{ID: 11, Login: "alice"}, Started: g.Until.Add(-2 * time.Hour), Ended: g.Until.Add(-time.Hour)},
		{ID: "s-2", Person: access.User{ID: 11, Login: "alice"}, Started: g.Until.Add(-time.Hour)}}
	active.Replies = []string{"bob asked to extend inc-1 by 30m: refused, the role's longest is 8h."}
	hostile := waiting(goldenHead)
	h := &hostile.Grants[0]
	h.Plan.Request.ID, h.Plan.Request.Reason, h.Plan.Request.Ticket, h.Why, h.Digest = evil, evil, evil, evil, evil
	h.Plan.People[0].Login, h.Plan.Role.Name, h.Plan.Role.Read, h.Plan.Target.Name = evil, evil, []string{evil}, evil
	h.Plan.Target.Labels["env"], h.Plan.Masks[0].Name, h.Plan.Masks[0].Columns = evil, evil, []string{evil}
	h.Plan.Rules[0].Say, h.Plan.Rules[0].Name, h.Plan.Requirements[0].Say, h.Plan.Requirements[0].From[0].Name = evil, evil, evil, evil
	h.Approval = access.Reason{Name: evil, Text: evil, Children: []access.Reason{{Name: evil, Met: true, Text: evil}}}
	hostile.Refusal, hostile.Replies = evil, []string{evil}
	hostile.Diagnostics = access.Diagnostics{{File: evil, Line: 1, Column: 1, Summary: evil, Detail: evil}}
	policy := workflows.Report{Head: goldenHead, Policy: &access.Reason{Text: "1 of 2 approvals.", Children: []access.Reason{
		{Name: "policy_owners", Text: "Got 0 of 1."}, {Name: "policy-change", Met: true, Text: "carol agreed."}}}}
	agreed := workflows.Report{Head: goldenHead, Policy: &access.Reason{Met: true, Text: "2 of 2 approvals."}}
	return map[string]workflows.Report{"policy": policy, "policy-agreed": agreed, "waiting": waiting(goldenHead), "refused": refusedFiles, "active": active, "hostile": hostile, "empty": {Head: goldenHead}}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".md")
	if *update {
		if err := os.WriteFile(path, []byte(got+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (make it with go test -update)", err)
	}
	if diff := cmp.Diff(string(want), got+"\n"); diff != "" {
		t.Errorf("%s (look at it, then go test -update): %s", path, diff)
	}
}

func TestRenderGoldens(t *testing.T) {
	for name, r := range reports() {
		golden(t, name, RenderReport(r))
	}
	h := held()
	h.Operation.Text = "delete from orders where note = '```\n@acme/dba\u202e';\n"
	run := holdRun(goldenHead, h)
	golden(t, "hold", run.title+"\n\n"+run.summary+"\n\n"+run.text)
	line := heldLines(map[string]*github.CheckRun{run.name: {Name: &run.name, ExternalID: github.String(run.mark()), Conclusion: &run.conclusion,
		HTMLURL: github.String("https://github.test/acme/access/runs/1"), Output: run.output(nil)}})
	golden(t, "holds", renderHolds(line))
}

// TestPolicyRunWaits: a change of policies is no success before everybody whom
// it needs has agreed.
func TestPolicyRunWaits(t *testing.T) {
	for name, want := range map[string]string{"policy": "in_progress", "policy-agreed": "completed success", "empty": "completed neutral"} {
		run := approvedRun(reports()[name])
		if got := strings.TrimSpace(run.status() + " " + run.conclusion); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	if run := approvedRun(reports()["policy"]); !strings.Contains(run.summary, "policy_owners") {
		t.Errorf("want who must agree, got %q", run.summary)
	}
}

// TestNothingWrittenActs checks the hostile report for everything that would act
// if it stood outside of a code span: what is left after taking the spans away.
func TestNothingWrittenActs(t *testing.T) {
	out := RenderReport(reports()["hostile"])
	plain := regexp.MustCompile("\\\\[!-/:-@\\[-`{-~]").ReplaceAllString(withoutSpans(t, out), "") // escaped: shown as it is
	if m := regexp.MustCompile("[@#][A-Za-z0-9]").FindString(strings.ReplaceAll(withoutSpans(t, out), zeroWidth, "\u200b")); m != "" {
		t.Errorf("%q is a mention or a reference in %s", m, out)
	}
	for _, act := range []string{"@acme", "#1 ", "**b**", "<!--", "<img", "](", "://", " www.", "\u202e", "\u200b", "\x1b"} {
		if strings.Contains(plain, act) {
			t.Errorf("%q acts in %s", act, plain)
		}
	}
	for l := range strings.SplitSeq(out, "\n") {
		if strings.HasPrefix(l, "## ") && !strings.HasPrefix(l, "## Tidegate: ") || strings.HasPrefix(l, "- ✅ rev") {
			t.Errorf("line %q is what somebody wrote", l)
		}
	}
}

// withoutSpans takes code spans away as CommonMark finds them: a run of backticks
// closes with the next run of the same length.
func withoutSpans(t *testing.T, s string) string {
	t.Helper()
	var b strings.Builder
	for len(s) > 0 {
		i := strings.IndexByte(s, '`')
		if i < 0 {
			break
		}
		if i > 0 && s[i-1] == '\\' {
			b.WriteString(s[:i+1])
			s = s[i+1:]
			continue
		}
		b.WriteString(s[:i])
		n := len(s[i:]) - len(strings.TrimLeft(s[i:], "`"))
		end := closing(s[i+n:], n)
		if end < 0 {
			t.Fatalf("a code span is not closed: %.80s", s[i:])
		}
		s = s[i+n+end+n:]
	}
	return b.String() + s
}

func closing(s string, n int) int {
	for i := 0; i < len(s); {
		if s[i] != '`' {
			i++
			continue
		}
		run := len(s[i:]) - len(strings.TrimLeft(s[i:], "`"))
		if run == n {
			return i
		}
		i += run
	}
	return -1
}

// TestRenderIsBounded draws the longest report, with the most holds, and wants it
// to fit and to say what it leaves out.
func TestRenderIsBounded(t *testing.T) {
	long := strings.Repeat("é`@#", 5000)
	r := workflows.Report{Head: goldenHead}
	for range 60 {
		g := waiting(goldenHead).Grants[0]
		g.Plan.Request.ID, g.Plan.Request.Reason, g.Why = long, long, long
		for range 60 {
			g.Plan.Rules = append(g.Plan.Rules, access.Rule{Name: long, Hold: "x", Say: long})
			g.Plan.Role.Read = append(g.Plan.Role.Read, long)
			g.Approval.Children = append(g.Approval.Children, access.Reason{Name: long, Text: long})
		}
		r.Grants = append(r.Grants, g)
	}
	out := RenderReport(r)
	if len(out) > maxReport+1000 || !strings.Contains(out, "left out here") || !utf8.ValidString(out) {
		t.Errorf("got %d bytes, want at most about %d, and the cut said", len(out), maxReport)
	}
	runs := map[string]*github.CheckRun{planCheck: {Output: &github.CheckRunOutput{Text: &out}}}
	for i := range 100 {
		h := held()
		h.Number, h.Who, h.Rule = i+1, long, long
		run := holdRun(goldenHead, h)
		o := run.output(nil)
		if len(o.GetTitle()) > maxTitle || len(o.GetSummary()) > maxRunText || len(o.GetText()) > maxRunText {
			t.Fatalf("check run is too long: %d, %d, %d", len(o.GetTitle()), len(o.GetSummary()), len(o.GetText()))
		}
		runs[run.name] = &github.CheckRun{Name: &run.name, ExternalID: github.String(run.mark()), Conclusion: &run.conclusion, Output: o}
	}
	if body := renderComment(runs); len(body) > maxComment || !strings.Contains(body, "80 more wait") || strings.Contains(body[len(body)-100:], "more bytes") {
		t.Errorf("got a comment of %d bytes, want at most %d, whole: %s", len(body), maxComment, body[len(body)-200:])
	}
}

func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"plain": "plain", "a\u202eb": "a⟨U+202E⟩b", "\xff": "⟨0xFF⟩", "⟨U+202E⟩": "⟨U+27E8⟩U+202E⟨U+27E9⟩", "a\u00a0b": "a⟨U+00A0⟩b",
		"\u3164": "⟨U+3164⟩", "\r": "⟨U+000D⟩", "é日": "é日", "\ufe0f": "⟨U+FE0F⟩",
	} {
		if got := visible(in); got != want {
			t.Errorf("visible(%q): got %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{"a": "`a`", "a`b": "``a`b``", "`": "`` ` ``", "": "(empty)", " \n ": "(empty)", "a\nb": "`a b`"} {
		if got := code(in); got != want {
			t.Errorf("code(%q): got %q, want %q", in, got, want)
		}
	}
	if got := length(5400) + length(7200) + length(90) + length(1800); got != "1h30m2h1m30s30m" {
		t.Errorf("got %s", got)
	}
}

func FuzzText(f *testing.F) {
	f.Add(evil)
	f.Add("``` \n~~~\n")
	f.Fuzz(func(t *testing.T, s string) {
		v := visible(s)
		if !utf8.ValidString(v) || strings.ContainsAny(v, "\u202e\u200b\x00\x1b\r") {
			t.Fatalf("visible(%q) is %q", s, v)
		}
		if got := withoutSpans(t, code(s)); got != "" && got != "(empty)" {
			t.Fatalf("code(%q): %q is outside", s, got)
		}
		block := strings.Split(fenced(s), "\n")
		fence := strings.TrimSuffix(block[0], "text")
		for _, l := range block[1 : len(block)-1] {
			if strings.HasPrefix(strings.TrimLeft(l, " "), fence) {
				t.Fatalf("fenced(%q) is closed by %q", s, l)
			}
		}
		if got := text(s); strings.Contains(got, "\n") || strings.Contains(got, "://") || strings.Contains(got, "@a") ||
			strings.Count(got, "<") != strings.Count(got, `\<`) {
			t.Fatalf("text(%q) is %q", s, got)
		}
	})
}
