package gateway

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tidegate/tidegate/access"
)

const (
	holdPoll  = 250 * time.Millisecond // behind the change notices
	holdTurns = 4                      // how many rules may each hold one operation
	maxHolds  = 32                     // how many operations of one person may wait: each is shown to others, and asked for all the time
)

// hold waits until every rule that holds the operation has its yes. The
// answers are consumed only when all are there, just before it may run.
func (s *session) hold(ctx context.Context, o *openOp, op access.Operation) (access.Decision, error) {
	var yes []agreed
	var ids, by []string
	for range holdTurns {
		d := s.decide(op, yes)
		switch d.Verdict {
		case access.Allow:
			if err := s.consume(ctx, ids); err != nil {
				return access.Decision{}, err
			}
			if d = s.decide(op, yes); d.Verdict != access.Allow {
				return access.Decision{}, access.Errorf(access.CodeDenied, "The rules changed while this waited. Run it again.")
			}
			d.Say = "Approved by " + strings.Join(by, ", ") + "."
			return d, nil
		case access.Deny:
			return access.Decision{}, refusal(d)
		}
		h, err := s.ask(ctx, o, op, d)
		if err != nil {
			return access.Decision{}, err
		}
		yes = append(yes, agreed{d.Rule, h.Answer.By.ID})
		ids, by = append(ids, h.ID), append(by, h.Answer.By.Login+" ("+h.Name()+")")
	}
	return access.Decision{}, access.Errorf(access.CodeDenied, "More than %d rules hold this. Run it in smaller steps.", holdTurns)
}

func (s *session) consume(ctx context.Context, ids []string) error {
	for _, id := range ids {
		if _, err := s.server.cfg.Ledger.ConsumeHeld(ctx, id); err != nil {
			return classified(err, access.CodeUnavailable, "The answer could not be taken from the ledger, so nothing ran. Run it again.")
		}
	}
	return nil
}

// ask opens one hold and waits for its yes.
func (s *session) ask(ctx context.Context, o *openOp, op access.Operation, d access.Decision) (_ access.Held, err error) {
	id := o.id
	if !s.server.takeHold(s.info.Person.ID) {
		return access.Held{}, &access.Error{Code: access.CodeTooLarge, Rule: d.Rule, Message: fmt.Sprintf("%s But %d of your operations wait for an answer already, the most; wait for one, or cancel it.", d.Say, maxHolds)}
	}
	defer s.server.leaveHold(s.info.Person.ID)
	h, err := s.openHeld(ctx, op, d)
	if err != nil {
		return h, err
	}
	told := s.holding(o, h)
	defer func() { told(err) }()
	text := fmt.Sprintf("Held as %s: %s Waiting for %s. Answer on the PR: /tidegate approve %s %s", h.Name(), h.Say, parties(h.Ask), h.Name(), h.Short())
	if err := s.record(access.Event{Type: access.EventHoldOpen, Op: id, Held: h.ID, Decision: &d, Text: text}, d.Sync); err != nil {
		s.cancelHeld(h, access.HeldCancelled)
		return h, err
	}
	s.notice(id, text)
	answered, err := s.await(ctx, h)
	said := access.Decision{Verdict: access.Allow, Rule: d.Rule}
	if err != nil {
		said = access.Decision{Verdict: access.Deny, Rule: d.Rule, Say: access.Message(err)}
	} else {
		said.Say = "Approved by " + answered.Answer.By.Login + "."
	}
	if recErr := s.record(access.Event{Type: access.EventHoldAnswer, Op: id, Held: h.ID, Decision: &said}, d.Sync); err == nil {
		err = recErr
	}
	return answered, err
}

func (s *session) openHeld(ctx context.Context, op access.Operation, d access.Decision) (access.Held, error) {
	g, now := s.grantNow(), s.server.cfg.Now().UTC()
	h := access.Held{
		ID: newID(), Grant: g.Key, Generation: g.Generation, Session: s.info.ID, Who: s.info.Person.Login,
		Target: s.info.Target, Rule: d.Rule, Say: d.Say, Ask: d.Ask, Operation: s.shown(op), Opened: now,
		Expires: now.Add(s.server.cfg.HoldTimeout), State: access.HeldOpen, Gateway: s.server.cfg.Name,
	}
	if g.NotAfter.Before(h.Expires) {
		h.Expires = g.NotAfter.UTC()
	}
	if !answerable(d.Ask, g) {
		return h, &access.Error{Code: access.CodeDenied, Rule: d.Rule, Message: d.Say + " Nobody may answer this, since the rule asks no one outside the grant; so it is refused."}
	}
	h.Digest = h.ShownDigest()
	h.Signature = ed25519.Sign(s.server.cfg.Key, h.SigningBytes())
	stored, err := s.server.cfg.Ledger.OpenHeld(ctx, h)
	if err != nil {
		return h, classified(err, access.CodeUnavailable, "This needs a second person, and could not be put before one. Nothing ran; try again.")
	}
	h.Number = stored.Number
	return h, nil
}

// answerable reports whether anybody is asked who isn't named in the grant.
func answerable(ask []access.Party, g access.Grant) bool {
	for _, p := range ask {
		if p.Kind == access.KindUser && !g.Plan.Receives(p.ID) {
			return true
		}
		for _, m := range p.Members {
			if !g.Plan.Receives(m.ID) {
				return true
			}
		}
	}
	return false
}

func parties(ask []access.Party) string {
	var names []string
	for _, p := range ask {
		names = append(names, p.Name)
	}
	return strings.Join(names, " or ")
}

// takeHold counts one more operation of a person that waits.
func (s *Server) takeHold(person int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holding[person] >= maxHolds {
		return false
	}
	s.holding[person]++
	return true
}

func (s *Server) leaveHold(person int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holding[person]--; s.holding[person] <= 0 {
		delete(s.holding, person)
	}
}

// await polls the ledger until there is an answer, or no reason to wait.
func (s *session) await(ctx context.Context, h access.Held) (access.Held, error) {
	poll := time.NewTicker(holdPoll)
	defer poll.Stop()
	expire := time.NewTimer(h.Expires.Sub(s.server.cfg.Now().Round(0)))
	defer expire.Stop()
	for {
		changed := s.server.pulse.wait() // before the read: no change is missed
		now, err := s.server.cfg.Ledger.Held(ctx, h.ID)
		switch {
		case err != nil && access.CodeOf(err) == access.CodeNotFound:
			return h, access.Errorf(access.CodeDenied, "%s is no longer in the ledger, so nothing ran.", h.Name())
		case err == nil && now.State != access.HeldOpen:
			return s.verdict(h, now)
		}
		select {
		case <-ctx.Done():
			s.cancelHeld(h, access.HeldCancelled)
			return h, access.Errorf(access.CodeCancelled, "%s was cancelled before anybody answered. Nothing ran.", h.Name())
		case <-s.ctx.Done():
			s.cancelHeld(h, access.HeldCancelled)
			return h, context.Cause(s.ctx)
		case <-expire.C:
			s.cancelHeld(h, access.HeldTimedOut)
			return h, &access.Error{Code: access.CodeDenied, Rule: h.Rule, Message: "Nobody answered " + h.Name() + " in time, so it is refused. Nothing ran.", Cause: errNoAnswer}
		case <-changed:
		case <-poll.C:
		}
	}
}

// verdict reads an answer; only a yes that is whole lets the operation go on.
func (s *session) verdict(h, now access.Held) (access.Held, error) {
	if now.State != access.HeldAnswered || now.Answer == nil {
		e := access.Errorf(access.CodeDenied, "%s was ended as %s. Nothing ran.", h.Name(), now.State)
		if now.State == access.HeldTimedOut {
			e.Cause = errNoAnswer
		}
		return h, e
	}
	if err := s.checkAnswer(h, *now.Answer); err != nil {
		s.log.Error("answer to a held operation refused", "held", h.ID, "error", err)
		s.cancelHeld(h, access.HeldCancelled)
		return h, &access.Error{Code: access.CodeDenied, Rule: h.Rule, Message: "The answer to " + h.Name() + " could not be believed, so nothing ran.", Cause: err}
	}
	if !now.Answer.Approve {
		return h, &access.Error{Code: access.CodeDenied, Rule: h.Rule, Message: now.Answer.By.Login + " said no to " + h.Name() + ": " + h.Say, Cause: errSaidNo}
	}
	h.Answer, h.State = now.Answer, now.State
	return h, nil
}

// checkAnswer holds an answer against what was asked, not against what the
// ledger says was asked.
func (s *session) checkAnswer(h access.Held, a access.Answer) error {
	switch {
	case !ed25519.Verify(s.server.cfg.ControlKey, a.SigningBytes(), a.Signature):
		return errors.New("the answer is not signed by control")
	case a.Held != h.ID:
		return fmt.Errorf("the answer is for %s, want %s", a.Held, h.ID)
	case a.Digest != h.Digest:
		return errors.New("the answer is for another digest than the one shown")
	case s.grantNow().Plan.Receives(a.By.ID):
		return fmt.Errorf("%s is named in the grant, and may not answer", a.By.Login)
	case !access.Includes(h.Ask, a.By.ID):
		return fmt.Errorf("%s is not among those asked", a.By.Login)
	case a.At.After(h.Expires):
		return errors.New("the answer came after the hold's end")
	}
	return nil
}

// cancelHeld ends a hold that nobody waits for, also when the client is gone.
func (s *session) cancelHeld(h access.Held, state access.HeldState) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := s.server.cfg.Ledger.CancelHeld(ctx, h.ID, state); err != nil && access.CodeOf(err) != access.CodeConflict {
		s.log.Warn("held operation not cancelled", "held", h.ID, "error", err)
	}
}
