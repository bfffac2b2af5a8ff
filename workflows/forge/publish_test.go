package forge

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-github/v60/github"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/workflows"
)

func TestPublishWritesOnceAndRepairs(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	ref, head := w.request()
	r := waiting(head)
	publish := func(f *Forge, r workflows.Report) []string {
		t.Helper()
		if err := f.Publish(ctx, ref, r); err != nil {
			t.Fatal(err)
		}
		writes, _, _ := w.calls.reset()
		return writes
	}
	if got := publish(w.forge, r); len(got) != 3 {
		t.Errorf("got writes %q, want a comment and two check runs", got)
	}
	if got := publish(w.newForge(), r); len(got) != 0 { // another process remembers nothing
		t.Errorf("got writes %q, want none: nothing changed", got)
	}
	if c := w.check(head, approvedCheck); c.GetStatus() != "in_progress" || c.GetConclusion() != "" {
		t.Errorf("got %s %s, want it to wait", c.GetStatus(), c.GetConclusion())
	}
	r.Grants[0].Approval = access.Reason{Name: "inc-1", Met: true, Text: "Enough people agreed."}
	if got := publish(w.forge, r); len(got) != 3 {
		t.Errorf("got writes %q, want all three changed", got)
	}
	if c := w.check(head, approvedCheck); c.GetConclusion() != "success" {
		t.Errorf("got %s, want success", c.GetConclusion())
	}
	for _, forged := range []string{"all is well", marker + "\n\n## Tidegate: approved"} {
		mine := w.botComments(ref)
		if _, _, err := w.client("mallory").Issues.EditComment(ctx, "acme", "access", mine[0].GetID(), &github.IssueComment{Body: &forged}); err != nil {
			t.Fatal(err)
		}
		publish(w.forge, r)
		after := w.botComments(ref)
		if len(after) != 1 || after[0].GetID() != mine[0].GetID() || after[0].GetBody() != mine[0].GetBody() {
			t.Errorf("got %d comments, want the one restored", len(after))
		}
	}
}

func TestPublishAppendsAnnotations(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	ref, head := w.request()
	r := workflows.Report{Head: head}
	for i := range 2*maxAnnotations + 7 {
		r.Diagnostics = append(r.Diagnostics, access.Diagnostic{File: "grants/alice/inc-1.hcl", Line: i + 1, Column: 3, EndLine: i + 1 + i%2, EndCol: 9,
			Summary: fmt.Sprintf("Wrong %d", i), Detail: "Repair it."})
	}
	for range 2 {
		if err := w.forge.Publish(ctx, ref, r); err != nil {
			t.Fatal(err)
		}
	}
	c := w.check(head, planCheck)
	if n := c.GetOutput().GetAnnotationsCount(); n != len(r.Diagnostics) || c.GetConclusion() != "failure" {
		t.Errorf("got %d annotations, %s, want %d, failure", n, c.GetConclusion(), len(r.Diagnostics))
	}
	r.Diagnostics = r.Diagnostics[:3]
	if err := w.forge.Publish(ctx, ref, r); err != nil {
		t.Fatal(err)
	}
	if n := w.check(head, planCheck).GetOutput().GetAnnotationsCount(); n != 3 {
		t.Errorf("got %d annotations after the repair, want 3", n)
	}
}

func TestHeldIsShownAndSurvivesTheReport(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	ref, head := w.request()
	if err := w.forge.Merge(ctx, ref, head); err != nil {
		t.Fatal(err)
	}
	h := held()
	const answer = "\n/tidegate approve H7 3fa9c2d1\n"
	shown := func(step string, want bool) {
		t.Helper()
		mine := w.botComments(ref)
		if len(mine) != 1 || strings.Contains(mine[0].GetBody(), answer) != want {
			t.Errorf("%s: got %d comments, want one, answer line %t:\n%s", step, len(mine), want, mine[0].GetBody())
		}
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	do(w.forge.PublishHeld(ctx, ref, h))
	shown("held before any report", true)
	do(w.newForge().Publish(ctx, ref, waiting(head)))
	shown("report by another process", true)
	if body := w.botComments(ref)[0].GetBody(); !strings.Contains(body, "postgres.orders-prod") || strings.Index(body, answer) > strings.Index(body, "### `inc-1`") {
		t.Errorf("want the hold above the report:\n%s", body)
	}
	c := w.check(head, "tidegate/hold H7")
	if c.GetConclusion() != "action_required" || !strings.Contains(c.GetOutput().GetText(), h.Operation.Text) {
		t.Errorf("got %s, want the statement in a check that asks: %s", c.GetConclusion(), c.GetOutput().GetText())
	}
	forged := strings.Replace(w.botComments(ref)[0].GetBody(), "3fa9c2d1", "00000000", 1)
	_, _, err := w.client("mallory").Issues.EditComment(ctx, "acme", "access", w.botComments(ref)[0].GetID(), &github.IssueComment{Body: &forged})
	do(err)
	do(w.forge.Publish(ctx, ref, waiting(head)))
	shown("after a forged edit", true)
	w.calls.reset()
	do(w.forge.PublishHeld(ctx, ref, h))
	if writes, _, _ := w.calls.reset(); len(writes) != 0 {
		t.Errorf("got writes %q, want none", writes)
	}
	h.State, h.Answer = access.HeldConsumed, &access.Answer{Approve: true, By: access.User{ID: 12, Login: "bob"}}
	do(w.forge.PublishHeld(ctx, ref, h))
	shown("answered", false)
	if c := w.check(head, "tidegate/hold H7"); c.GetConclusion() != "success" || !strings.Contains(c.GetOutput().GetTitle(), "approved by bob") {
		t.Errorf("got %s %q, want bob's approval", c.GetConclusion(), c.GetOutput().GetTitle())
	}
}

func TestConclusionOfHolds(t *testing.T) {
	no := &access.Answer{By: access.User{Login: "bob"}}
	for _, c := range []struct {
		state  access.HeldState
		answer *access.Answer
		want   string
	}{
		{access.HeldOpen, nil, "action_required"}, {access.HeldAnswered, no, "failure"}, {access.HeldConsumed, no, "failure"},
		{access.HeldCancelled, nil, "cancelled"}, {access.HeldTimedOut, nil, "timed_out"}, {access.HeldAnswered, nil, "failure"},
	} {
		h := held()
		h.State, h.Answer = c.state, c.answer
		if got := holdRun("x", h).conclusion; got != c.want {
			t.Errorf("%s: got %s, want %s", c.state, got, c.want)
		}
	}
}

// TestHeldThatIsTooLongTakesNoAnswer: nobody may agree to what was not shown.
func TestHeldThatIsTooLongTakesNoAnswer(t *testing.T) {
	h := held()
	h.Operation.Text = strings.Repeat("select '`é';\n", maxStatement/10)
	r := holdRun("x", h)
	if strings.Contains(r.summary, "/tidegate approve") || !strings.Contains(r.text, "This is not all") || len(r.text) > maxRunText {
		t.Errorf("got %d bytes, want a cut that is said, and no answer line: %s", len(r.text), r.summary)
	}
	line := heldLines(map[string]*github.CheckRun{r.name: {Name: &r.name, ExternalID: github.String(r.mark()), Conclusion: &r.conclusion}})
	if got := renderHolds(line); strings.Contains(got, "/tidegate approve") || !strings.Contains(got, "console") {
		t.Errorf("got %q, want the console named", got)
	}
}

func waiting(head string) workflows.Report {
	return workflows.Report{Head: head, Grants: []workflows.GrantReport{{State: access.StatePlanned, Digest: strings.Repeat("ab", 32),
		Plan: access.Plan{
			Request: access.Request{ID: "inc-1", File: "grants/alice/inc-1.hcl", Lasts: 7200, Reason: "Refund jobs stuck since 14:10", Ticket: "INC-1"},
			People:  []access.Person{{User: access.User{ID: 11, Login: "alice"}}},
			Target: access.Target{TargetRef: access.TargetRef{Kind: "postgres", Name: "orders-prod"}, Labels: map[string]string{"env": "prod"},
				Address: "db.internal:5432/orders", Admin: "orders-admin"},
			Role:  access.Role{Name: "readonly", Read: []string{"public.*"}},
			Masks: []access.Mask{{Name: "customer-pii", Columns: []string{"*.email", "users.ssn"}, With: access.MaskWith{Kind: access.MaskPartial, Keep: 4}}},
			Rules: []access.Rule{{Name: "big-delete", Hold: "x", Say: "Deleting without WHERE needs a second pair of eyes.",
				Ask: []access.Party{{Principal: access.Principal{Kind: access.KindTeam, Name: "acme/dba"}, ID: 21}}}},
			Requirements: []access.Requirement{{Name: "prod-pii", Need: 2, Say: "A database owner must agree to production data.",
				From: []access.Party{{Principal: access.Principal{Kind: access.KindTeam, Name: "acme/dba"}, ID: 21}}}},
			PolicyDigest: strings.Repeat("cd", 32),
		},
		Approval: access.Reason{Name: "inc-1", Text: "1 of 2 approvals.", Children: []access.Reason{
			{Name: "prod-pii", Text: "1 of 2 people of acme/dba agreed.", Children: []access.Reason{
				{Name: "bob", Met: true, Text: "agreed"},
				{Name: "alice", Text: "does not count: opened this request"},
				{Name: "carol", Text: "does not count: agreed to other bytes (commit 1234567)"},
			}},
		}},
	}}}
}

func held() access.Held {
	return access.Held{ID: "0c7f6a0e-0000-4000-8000-000000000001", Number: 7, Grant: access.GrantKey{Repo: repoID, ID: "inc-1"}, Session: "s-1",
		Who: "alice", Target: access.TargetRef{Kind: "postgres", Name: "orders-prod"}, Rule: "big-delete",
		Say:       "Deleting without WHERE needs a second pair of eyes.",
		Ask:       []access.Party{{Principal: access.Principal{Kind: access.KindTeam, Name: "acme/dba"}}},
		Operation: access.Operation{Kind: "query", Text: "delete from orders", Params: []string{"1"}, Context: []string{"begin"}},
		Digest:    "3fa9c2d1" + strings.Repeat("0", 56), Expires: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC), State: access.HeldOpen}
}
