package workflows

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/tidegate/tidegate/access"
)

// wakeTimeout bounds what a person at the desk waits for Temporal. Losing the
// hint costs a poll interval, nothing else.
const wakeTimeout = 2 * time.Second

// Desk is where people see and act outside a pull request: the console. Who
// may do what is decided by the functions that comment commands are judged by.
// Reading and revoking need no Temporal.
type Desk struct{ acts *Activities }

// NewDesk is a desk over activities that were validated.
func NewDesk(a *Activities) *Desk { return &Desk{acts: a} }

// Desk is the running control side's.
func (c *Control) Desk() *Desk { return NewDesk(c.acts) }

// Account is the forge's account that has the login today. One that the forge
// does not know is CodeDenied. It is asked urgently: who logs in may come to
// revoke.
func (d *Desk) Account(ctx context.Context, login string) (access.User, error) {
	dir, err := d.acts.Forge.Directory(Urgent(ctx), []string{login}, nil)
	if err != nil {
		return access.User{}, fmt.Errorf("look up %s: %w", login, err)
	}
	u, ok := dir.User(login)
	if !ok || u.ID == 0 {
		return access.User{}, access.Errorf(access.CodeDenied, "The policies name you %q, and the forge knows no account of that name today.", login)
	}
	return u, nil
}

// Oversees reports whether the person is an operator or owns the policies, by
// the server's own settings and today's teams.
func (d *Desk) Oversees(ctx context.Context, u access.User) (bool, error) {
	all := append(append([]access.Principal{}, d.acts.Rules.Operators...), d.acts.Rules.PolicyOwners...)
	ps, err := d.acts.parties(Urgent(ctx), all)
	return err == nil && access.Includes(ps, u.ID), err
}

// Asked reports whether the person is one of the parties today: who left a
// team is not, and neither is a name that means another id by now.
func (d *Desk) Asked(ctx context.Context, ask []access.Party, u access.User) (bool, error) {
	if u.ID == 0 || u.Bot {
		return false, nil
	}
	ps, err := d.acts.askedToday(Urgent(ctx), ask)
	return err == nil && access.Includes(ps, u.ID), err
}

// Holds reports whether the person receives the grant or asked for it.
func (d *Desk) Holds(g access.Grant, u access.User) bool { return isHolder(g, u) }

// MayRevoke is nil if the person may end the grant, and says why not otherwise.
func (d *Desk) MayRevoke(ctx context.Context, g access.Grant, u access.User) error {
	return d.acts.mayRevoke(ctx, g, u)
}

// RevokeInput asks for the early end of a grant by a person.
type RevokeInput struct {
	Key access.GrantKey
	By  access.User
	Why string
}

// Revoke ends a grant early, if the person may. Gateways cut when they read
// the row.
func (d *Desk) Revoke(ctx context.Context, in RevokeInput) error {
	why := strings.Join(strings.Fields(in.Why), " ")
	if why == "" {
		return access.Errorf(access.CodeInvalid, "Say why you revoke it.")
	}
	if len(why) > access.MaxWhy {
		return access.Errorf(access.CodeInvalid, "The reason has %d bytes, and %d is the most.", len(why), access.MaxWhy)
	}
	g, err := d.acts.Ledger.Grant(ctx, in.Key)
	if err != nil {
		return fmt.Errorf("read grant %s: %w", in.Key, err)
	}
	if err := d.acts.mayRevoke(ctx, g, in.By); err != nil {
		return d.denied(ctx, in.By, in.Key.String(), err)
	}
	if g.State.Ended() {
		return access.Errorf(access.CodeEnded, "The grant %s has ended already: it is %s.", g.Key.ID, g.State)
	}
	end := ending{key: in.Key, state: access.StateRevoked, by: in.By.Login, why: "Revoked by " + in.By.Login + " in the console. " + why}
	if _, err := d.acts.end(ctx, end); err != nil {
		return fmt.Errorf("revoke grant %s: %w", in.Key, err)
	}
	ctx, cancel := context.WithTimeout(ctx, wakeTimeout)
	defer cancel()
	d.acts.wake(ctx, in.Key)
	return nil
}

// MayAnswer is nil if the person may answer the held operation, and says why
// not otherwise. It asks the forge, urgently: the answer may be no.
func (d *Desk) MayAnswer(ctx context.Context, h access.Held, u access.User) error {
	g, err := d.acts.Ledger.Grant(ctx, h.Grant)
	if err != nil {
		return fmt.Errorf("read grant %s: %w", h.Grant, err)
	}
	return d.acts.mayAnswer(Urgent(ctx), refOf(g), h, u)
}

// AnswerInput is a person's answer to what was shown to them.
type AnswerInput struct {
	Held    string // its id
	Digest  string // the whole digest of what was shown
	Approve bool
	By      access.User
}

// Answer stores the answer, if the person may give it and what waits is what
// was shown.
func (d *Desk) Answer(ctx context.Context, in AnswerInput) error {
	h, err := d.acts.Ledger.Held(ctx, in.Held)
	if err != nil {
		return fmt.Errorf("read held %s: %w", in.Held, err)
	}
	if len(h.Digest) < 8 || h.Digest != in.Digest {
		return d.denied(ctx, in.By, h.ID, access.Errorf(access.CodeConflict, "What waits as %s is not what you were shown. Look at it again.", h.Name()))
	}
	if err := d.acts.waits(h); err != nil {
		return err
	}
	g, err := d.acts.Ledger.Grant(ctx, h.Grant)
	if err != nil {
		return fmt.Errorf("read grant %s: %w", h.Grant, err)
	}
	said, err := d.acts.answer(ctx, refOf(g), h, answerOf{in.By, in.Approve})
	if err != nil {
		return d.denied(ctx, in.By, h.ID, err)
	}
	return d.acts.audit(ctx, entry{in.By.Login, "console.answer", h.ID, said + " digest " + h.Digest})
}

// denied keeps a refusal in the audit log; what can't be kept is logged.
func (d *Desk) denied(ctx context.Context, by access.User, subject string, refusal error) error {
	if !isRefusal(refusal) && access.CodeOf(refusal) != access.CodeConflict {
		return refusal
	}
	if err := d.acts.audit(ctx, entry{by.Login, "console.refused", subject, clip(access.Message(refusal))}); err != nil {
		d.acts.log().ErrorContext(ctx, "refusal not audited", "subject", subject, "error", err)
	}
	return refusal
}

// Why judges the approvals of a landed grant again, by today's people and
// policies: who approved, and why it counted. It asks the forge and the target.
func (d *Desk) Why(ctx context.Context, g access.Grant) (access.Reason, error) {
	pull, err := d.acts.Forge.Pull(ctx, refOf(g))
	if err != nil {
		return access.Reason{}, fmt.Errorf("read pull request %d: %w", g.Pull.Number, err)
	}
	if !pull.MergedAt.IsZero() {
		dropLate(&pull)
	}
	s, err := d.acts.assess(ctx, pull)
	if err != nil {
		return access.Reason{}, err
	}
	reason, ok := s.approvals[g.Key.ID]
	switch {
	case s.refusal != "":
		return access.Reason{Name: g.Key.ID, Text: s.refusal}, nil
	case !ok:
		return access.Reason{Name: g.Key.ID, Text: "It can't be planned today: " + firstError(s.eval.Diagnostics)}, nil
	}
	return reason, nil
}
