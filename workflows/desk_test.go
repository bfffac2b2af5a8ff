package workflows

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
)

func TestDeskAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		by    access.User
		no    bool
		spoil func(*world, *AnswerInput)
		code  access.Code // "" is an answer
	}{
		"an owner says yes": {by: bob},
		"an owner says no":  {by: bob, no: true},
		"the receiver":      {by: alice, code: access.CodeDenied},
		"a stranger":        {by: mallory, code: access.CodeDenied},
		"a pusher":          {by: bob, spoil: func(w *world, _ *AnswerInput) { w.pushed["head1"] = []access.User{bob} }, code: access.CodeDenied},
		"who left the team": {by: bob, spoil: func(w *world, _ *AnswerInput) { w.team = nil }, code: access.CodeDenied},
		"another digest":    {by: bob, spoil: func(_ *world, in *AnswerInput) { in.Digest = in.Digest[:8] }, code: access.CodeConflict},
		"no digest":         {by: bob, spoil: func(_ *world, in *AnswerInput) { in.Digest = "" }, code: access.CodeConflict},
		"another hold":      {by: bob, spoil: func(_ *world, in *AnswerInput) { in.Held = "0000" }, code: access.CodeNotFound},
		"too late":          {by: bob, spoil: func(w *world, _ *AnswerInput) { w.clock = func() time.Time { return time.Now().Add(time.Hour) } }, code: access.CodeEnded},
		"cancelled":         {by: bob, spoil: func(w *world, _ *AnswerInput) { _ = w.CancelHeld(context.Background(), "5f0c", access.HeldCancelled) }, code: access.CodeEnded},
	} {
		t.Run(name, func(t *testing.T) {
			w, a, _ := active(t)
			h := hold(t, w, time.Now().Add(10*time.Minute))
			in := AnswerInput{Held: h.ID, Digest: h.Digest, Approve: !c.no, By: c.by}
			if c.spoil != nil {
				c.spoil(w, &in)
			}
			err := NewDesk(a).Answer(t.Context(), in)
			if (err == nil) != (c.code == "") || err != nil && access.CodeOf(err) != c.code {
				t.Errorf("got %v, want code %q", err, c.code)
			}
			got, _ := w.Held(t.Context(), h.ID)
			if answered := got.State == access.HeldAnswered; answered != (c.code == "") || answered && got.Answer.Approve == c.no {
				t.Errorf("held is %s: %+v", got.State, got.Answer)
			}
			want := map[access.Code]string{"": "console.answer", access.CodeDenied: "console.refused", access.CodeConflict: "console.refused"}[c.code]
			if log := strings.Join(w.audits, "\n"); want != "" && !strings.Contains(log, c.by.Login+" "+want) {
				t.Errorf("want %s %s in the audit log:\n%s", c.by.Login, want, log)
			}
		})
	}
}

func TestDeskRevokes(t *testing.T) {
	for name, c := range map[string]struct {
		by   access.User
		why  string
		code access.Code
	}{
		"the receiver": {by: alice, why: "done"},
		"an approver":  {by: bob, why: "too\nlong"},
		"an operator":  {by: carol, why: "incident"},
		"a stranger":   {by: mallory, why: "fun", code: access.CodeDenied},
		"no reason":    {by: alice, why: " \n", code: access.CodeInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			w, a, s := active(t)
			a.Rules.Operators = []access.Principal{{Kind: access.KindUser, Name: "carol"}}
			d := NewDesk(a)
			err := d.Revoke(t.Context(), RevokeInput{Key: key1, By: c.by, Why: c.why})
			if (err == nil) != (c.code == "") || err != nil && access.CodeOf(err) != c.code {
				t.Errorf("got %v, want code %q", err, c.code)
			}
			g := w.grant(t, key1)
			if (g.State == access.StateRevoked) != (c.code == "") || strings.Contains(g.Why, "\n") {
				t.Errorf("the grant is %s: %q", g.State, g.Why)
			}
			if (len(s.woken) > 0) != (c.code == "") {
				t.Errorf("woken: %v", s.woken)
			}
			if c.code != "" {
				return
			}
			if err := d.Revoke(t.Context(), RevokeInput{Key: key1, By: c.by, Why: c.why}); access.CodeOf(err) != access.CodeEnded {
				t.Errorf("again: got %v, want it to say that it ended", err)
			}
		})
	}
}

func TestDeskKnowsPeople(t *testing.T) {
	w, a, _ := active(t)
	a.Rules.Operators = []access.Principal{{Kind: access.KindUser, Name: "carol"}}
	a.Rules.PolicyOwners = []access.Principal{{Kind: access.KindTeam, Name: "acme/dba"}}
	d := NewDesk(a)
	for u, want := range map[access.User]bool{carol: true, bob: true, mallory: false, {}: false} {
		if got, err := d.Oversees(t.Context(), u); got != want || err != nil {
			t.Errorf("%q oversees: %v, %v, want %v", u.Login, got, err, want)
		}
	}
	g := w.grant(t, key1)
	ask := g.Plan.Requirements[0].From
	asked := func(want bool) {
		t.Helper()
		if got, err := d.Asked(t.Context(), ask, bob); got != want || err != nil {
			t.Errorf("asked: %v, %v, want %v", got, err, want)
		}
	}
	asked(true)
	w.teamID++ // the name is another team's by now
	asked(false)
	if _, err := d.Account(t.Context(), "nobody"); access.CodeOf(err) != access.CodeDenied {
		t.Errorf("an unknown account: %v", err)
	}
	w.teamID--
	if why, err := d.Why(t.Context(), g); err != nil || !why.Met {
		t.Errorf("why: %+v, %v, want it approved", why, err)
	}
}

// TestDeskIsUrgent: who logs in to revoke or deny is not kept out by what
// pull requests used of the forge's calls; a yes waits.
func TestDeskIsUrgent(t *testing.T) {
	w, a, _ := active(t)
	a.Rules.Operators = []access.Principal{{Kind: access.KindUser, Name: "carol"}}
	a.Forge = thrifty{fakeForge{w}}
	h := hold(t, w, time.Now().Add(time.Hour))
	d := NewDesk(a)
	if u, err := d.Account(t.Context(), "carol"); u != carol || err != nil {
		t.Errorf("account: %v, %v", u, err)
	}
	if all, err := d.Oversees(t.Context(), carol); !all || err != nil {
		t.Errorf("oversees: %t, %v", all, err)
	}
	if asked, err := d.Asked(t.Context(), h.Ask, bob); !asked || err != nil {
		t.Errorf("asked: %t, %v", asked, err)
	}
	if err := d.MayAnswer(t.Context(), h, bob); err != nil {
		t.Errorf("may answer: %v", err)
	}
	answer := AnswerInput{Held: h.ID, Digest: h.Digest, Approve: true, By: bob}
	if err := d.Answer(t.Context(), answer); access.CodeOf(err) != access.CodeUnavailable {
		t.Errorf("yes: %v, want it to wait", err)
	}
	answer.Approve = false
	if err := d.Answer(t.Context(), answer); err != nil {
		t.Errorf("no: %v", err)
	}
	if err := d.Revoke(t.Context(), RevokeInput{Key: key1, By: carol, Why: "incident"}); err != nil {
		t.Errorf("revoke: %v", err)
	}
}
