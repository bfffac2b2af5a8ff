package workflows

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
)

// denying is a forge that for long does not let Tidegate ask who is who.
type denying struct {
	Forge
	asked int
}

func (d *denying) Directory(context.Context, []string, []string) (access.Directory, error) {
	d.asked++
	return access.Directory{}, access.Errorf(access.CodeDenied, "GitHub does not let Tidegate do that; an operator must look at its permissions.")
}

// TestLastingRefusalIsToldOf: bob's revocation is tried for as long as GitHub
// refuses us, ever less often, and bob and the operator are told, bob once.
func TestLastingRefusalIsToldOf(t *testing.T) {
	w, a, _ := active(t)
	reg, _ := listen(t, a)
	a.waiting, a.Log = newWaits(), slog.New(slog.DiscardHandler)
	a.Signals.now = a.now
	real, no := a.Forge, &denying{Forge: a.Forge}
	a.Forge = no
	w.comment(bob, "revoke")
	var said []string
	for i := range 2 * 60 { // an hour, as the clock reads
		some, err := a.Commands(t.Context(), pr7)
		if err != nil && len(some) > 0 {
			t.Fatal("what is said goes with an error, and would be lost")
		}
		said = append(said, some...)
		later(w, time.Duration(i+1)*30*time.Second)
	}
	if all := strings.Join(said, "\n"); len(said) != 1 || !strings.Contains(all, "@bob: `/tidegate revoke` waits") || !strings.Contains(all, "look at its permissions") {
		t.Errorf("said was %q", all)
	}
	if n := strings.Count(strings.Join(w.audits, "\n"), "bob command.waits 1296269-7 revoke: GitHub does not let"); n != 1 {
		t.Errorf("audited %d times in %q", n, w.audits)
	}
	if no.asked < 25 || no.asked > 40 {
		t.Errorf("tried %d times in an hour", no.asked)
	}
	if got := number(t, reg, "tidegate_control_command_wait_seconds", ""); got < 3590 || got > 3610 {
		t.Errorf("it waits for %v s", got)
	}
	if number(t, reg, "tidegate_control_alerts_total", "") == 0 {
		t.Error("no alert")
	}
	a.Forge = real
	later(w, time.Hour+longestRest)
	if all := heard(t, a); !strings.Contains(all, "revoked inc-1") || w.grant(t, key1).State != access.StateRevoked {
		t.Errorf("heard were %q", all)
	}
	if got := number(t, reg, "tidegate_control_command_wait_seconds", ""); got != 0 {
		t.Errorf("it still waits, for %v s", got)
	}
}

// TestWaitingKeepsNothingElseBack: what waits for later is left out of a
// reading, and what its author lets go on waits behind a hold.
func TestWaitingKeepsNothingElseBack(t *testing.T) {
	w, a, _ := active(t)
	a.waiting, a.heard, w.hidden = newWaits(), newMarks(), true
	w.comment(bob, "hold")
	for i := range 3 { // the third failure is two minutes old, and leaves it for a while
		_, _ = a.Commands(t.Context(), pr7)
		later(w, time.Duration(i+1)*time.Minute)
	}
	later(w, 2*time.Minute+time.Second)
	w.comment(bob, "resume")
	w.comment(carol, "help")
	if all := heard(t, a); !strings.Contains(all, "@carol") || strings.Contains(all, "@bob") {
		t.Errorf("heard were %q, want carol's alone", all)
	}
	if a.heard.upTo(pr7) != 0 {
		t.Error("what waits is taken for handled")
	}
	w.hidden = false
	later(w, 3*time.Minute+longestRest)
	if all := heard(t, a); !strings.Contains(all, "on hold") || !strings.Contains(all, "goes on") {
		t.Errorf("heard were %q, want both of bob's in their order", all)
	}
}

// TestCommandThatIsGoneWaitsNoMore: its comment was deleted, or another control
// carried it out.
func TestCommandThatIsGoneWaitsNoMore(t *testing.T) {
	w, a, _ := active(t)
	reg, _ := listen(t, a)
	a.Signals.now = a.now
	a.Signals.waits("1-1-1", w.clock().Add(-time.Minute))
	if got := number(t, reg, "tidegate_control_command_wait_seconds", ""); got < 59 || got > 61 {
		t.Errorf("it waits for %v s", got)
	}
	later(w, forgetWait+time.Minute)
	if got := number(t, reg, "tidegate_control_command_wait_seconds", ""); got != 0 {
		t.Errorf("it still waits, for %v s", got)
	}
}

// TestHiddenTeamIsNotKnown: GitHub shows no team that we may not see, and bob
// may be of it. His no waits, and a yes is not believed.
func TestHiddenTeamIsNotKnown(t *testing.T) {
	for name, c := range map[string]struct {
		by        access.User
		verb      string
		args      []string
		operators []access.Principal
		now, then string // what is said while it is hidden, and when it is shown
	}{
		"an approver revokes":          {by: bob, verb: "revoke", then: "revoked inc-1"},
		"a stranger revokes":           {by: mallory, verb: "revoke", then: "Only who asked"},
		"the requester revokes":        {by: alice, verb: "revoke", now: "revoked inc-1"},
		"an operator revokes":          {by: carol, verb: "revoke", operators: []access.Principal{{Kind: access.KindUser, Name: "carol"}}, now: "revoked inc-1"},
		"a hidden operator revokes":    {by: bob, verb: "revoke", operators: []access.Principal{dba.Principal}, then: "revoked inc-1"},
		"an approver holds":            {by: bob, verb: "hold", then: "on hold"},
		"an approver resumes":          {by: bob, verb: "resume", now: "no team acme/dba"},
		"an approver denies":           {by: bob, verb: "deny", args: []string{"H7"}, then: "is denied"},
		"an approver approves":         {by: bob, verb: "approve", args: []string{"H7", "DIGEST"}, now: "no team acme/dba"},
		"a stranger approves":          {by: mallory, verb: "approve", args: []string{"H7", "DIGEST"}, now: "no team acme/dba"},
		"who receives can't all along": {by: alice, verb: "approve", args: []string{"H7", "DIGEST"}, now: "You can't answer"},
	} {
		t.Run(name, func(t *testing.T) {
			w, a, _ := active(t)
			a.Rules.Operators = c.operators
			h := hold(t, w, time.Now().Add(time.Hour))
			for i := range c.args {
				c.args[i] = strings.Replace(c.args[i], "DIGEST", h.Short(), 1)
			}
			w.hidden = true
			w.comment(c.by, c.verb, c.args...)
			said, err := a.Commands(t.Context(), pr7)
			if all := strings.Join(said, "\n"); c.now != "" && !strings.Contains(all, c.now) || c.now == "" && (all != "" || err == nil) {
				t.Errorf("said was %q, %v; want %q", all, err, c.now)
			}
			later(w, 2*time.Minute)
			if c.now == "" {
				if all := heard(t, a); !strings.Contains(all, "waits") || !strings.Contains(all, "members: read") {
					t.Errorf("said was %q", all)
				}
			}
			if got, _ := w.Held(t.Context(), h.ID); got.State != access.HeldOpen {
				t.Errorf("held is %s", got.State)
			}
			w.hidden = false
			if all := heard(t, a); !strings.Contains(all, c.then) || (c.then == "") != (all == "") {
				t.Errorf("then said was %q, want %q", all, c.then)
			}
		})
	}
}

// TestWhatGitHubKeepsFromBeingDoneIsToBeGivenAgain: a command that opens is not
// repeated by itself, and its author is not left to believe so.
func TestWhatGitHubKeepsFromBeingDoneIsToBeGivenAgain(t *testing.T) {
	w, a, _ := active(t)
	a.Forge = thrifty{fakeForge{w}}
	if all := says(t, w, a, alice, "extend", "30m", "more"); !strings.Contains(all, "a fifth of GitHub's calls are left") || !strings.Contains(all, "`/tidegate extend` was not carried out: give it again") {
		t.Errorf("said was %q", all)
	}
	if all := says(t, w, a, alice, "extend", "30m"); strings.Contains(all, "give it again") {
		t.Errorf("our own no is said as %q", all)
	}
}
