package workflows

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/temporal"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/tracing"
)

// What is done to one grant. The workflow's activities, the commands and the
// sweeper share it; each act is idempotent.

// GrantView is the little that a workflow knows of a grant.
type GrantView struct {
	State     access.State `json:"state"`
	NotBefore time.Time    `json:"not_before"`
	NotAfter  time.Time    `json:"not_after"`
	Latest    time.Time    `json:"latest"` // no extension goes further
	Closed    bool         `json:"closed"`
	Drained   time.Time    `json:"drained,omitzero"` // until when what ran at NotAfter may go on; zero: nothing may
	Busy      bool         `json:"busy,omitempty"`   // something does: asked for after NotAfter alone
}

func view(g access.Grant) GrantView {
	v := GrantView{State: g.State, NotBefore: g.NotBefore, NotAfter: g.NotAfter, Latest: latest(g), Closed: !g.Closed.IsZero()}
	if d := g.Drained(); d.After(g.NotAfter) {
		v.Drained = d
	}
	return v
}

// latest is the end that the role's longest allows, counted from the start.
func latest(g access.Grant) time.Time {
	end := g.NotBefore.Add(g.Plan.Role.Longest.Duration() - g.Plan.Role.Drain())
	if end.Before(g.NotAfter) {
		return g.NotAfter // what was approved stands
	}
	return end
}

// maxConflicts bounds how often a compare-and-set is tried again at once.
const maxConflicts = 8

// change reads the row, lets edit change it, and stores it by compare-and-set;
// when somebody else was faster it looks again. edit answers false when there
// is nothing to do.
func (a *Activities) change(ctx context.Context, key access.GrantKey, edit func(*access.Grant) (bool, error)) (access.Grant, error) {
	for range maxConflicts {
		g, err := a.Ledger.Grant(ctx, key)
		if err != nil {
			return g, fmt.Errorf("read grant %s: %w", key, err)
		}
		wanted, err := edit(&g)
		if err != nil || !wanted {
			return g, err
		}
		stored, err := a.Ledger.Update(ctx, g)
		if access.CodeOf(err) == access.CodeConflict && err != nil {
			continue
		}
		if err != nil {
			return g, fmt.Errorf("store grant %s: %w", key, err)
		}
		return stored, nil
	}
	return access.Grant{}, access.Errorf(access.CodeConflict, "The grant %s is being changed by others; try again.", key.ID)
}

// ReadGrant is the row as it is now.
func (a *Activities) ReadGrant(ctx context.Context, key access.GrantKey) (GrantView, error) {
	g, err := a.Ledger.Grant(ctx, key)
	if err != nil {
		return GrantView{}, activityError(fmt.Errorf("read grant %s: %w", key, err))
	}
	v := view(g)
	if v.Drained.IsZero() || a.now().Before(v.NotAfter) {
		return v, nil
	}
	if v.Busy, err = a.busy(ctx, key); err != nil {
		return GrantView{}, activityError(err)
	}
	return v, nil
}

// busy reports whether any session of the grant is still open.
func (a *Activities) busy(ctx context.Context, key access.GrantKey) (bool, error) {
	sessions, err := a.Ledger.Sessions(ctx, key)
	if err != nil {
		return false, fmt.Errorf("read sessions of %s: %w", key, err)
	}
	return slices.ContainsFunc(sessions, func(s access.SessionInfo) bool { return s.Ended.IsZero() }), nil
}

// activityError keeps a final refusal from being tried again, and the cause
// from being kept in a history.
func activityError(err error) error {
	if err == nil || isBusy(err) {
		return err
	}
	code := access.CodeOf(err)
	if isRefusal(err) || code == access.CodeNotFound || code == access.CodeEnded {
		return temporal.NewNonRetryableApplicationError(access.Message(err), string(code), nil)
	}
	return temporal.NewApplicationError(access.Message(err), string(code))
}

// MintGrant makes the access of a landed grant and lets gateways open it. It
// judges the approvals again: days may lie between landing and start.
func (a *Activities) MintGrant(ctx context.Context, key access.GrantKey) (GrantView, error) {
	g, err := a.Ledger.Grant(ctx, key)
	if err != nil {
		return GrantView{}, activityError(fmt.Errorf("read grant %s: %w", key, err))
	}
	if g.State != access.StateLanded {
		return view(g), nil
	}
	var minted access.Minted
	err = a.gate.through(g.Plan.Target.TargetRef, func() (err error) { minted, err = a.timedMint(ctx, g); return err })
	if isRefusal(err) {
		g, err = a.end(ctx, ending{key: key, state: access.StateRefused, by: "tidegate", why: access.Message(err)})
		return view(g), a.logged(ctx, "refuse", key, err)
	}
	if err != nil {
		return view(g), a.logged(ctx, "mint", key, err)
	}
	g, err = a.activate(ctx, g, minted)
	return view(g), a.logged(ctx, "activate", key, err)
}

// logged writes the cause to the log, which a history must not hold.
func (a *Activities) logged(ctx context.Context, what string, key access.GrantKey, err error) error {
	if err != nil && !isBusy(err) {
		a.log().ErrorContext(ctx, "grant: "+what+" failed", "grant", key.String(), "error", err)
	}
	return activityError(err)
}

func (a *Activities) timedMint(ctx context.Context, g access.Grant) (access.Minted, error) {
	ctx, span := a.Signals.start(ctx, tracing.Mint, g)
	done := a.Signals.minting()
	minted, err := a.mint(ctx, g)
	done(err)
	a.Signals.finish(span, tracing.Mint, g.Key, err)
	return minted, err
}

func (a *Activities) mint(ctx context.Context, g access.Grant) (access.Minted, error) {
	if !g.NotAfter.After(a.now()) {
		return access.Minted{}, access.Errorf(access.CodeDenied, "Its time was up before it could be opened.")
	}
	g, err := a.signed(ctx, g)
	if err != nil {
		return access.Minted{}, err
	}
	if err := a.stillApproved(ctx, g); err != nil {
		return access.Minted{}, err
	}
	m, err := a.minter(g.Plan.Target.Kind)
	if err != nil {
		return access.Minted{}, err
	}
	return m.Mint(ctx, g)
}

// signed reads the row again where the ledger can vouch for it: what somebody
// wrote into the database past control is never made at a target.
func (a *Activities) signed(ctx context.Context, g access.Grant) (access.Grant, error) {
	l, ok := a.Ledger.(SignedLedger)
	if !ok {
		return g, nil
	}
	row, err := l.SignedGrant(ctx, g.Key)
	if err != nil {
		return g, fmt.Errorf("verify grant %s: %w", g.Key, err)
	}
	if row.Sequence != g.Sequence {
		return g, access.Errorf(access.CodeConflict, "The grant %s changed meanwhile; read it again.", g.Key.ID)
	}
	return row, nil
}

// stillApproved judges the pull request again, by today's people and policies.
// Grants of one pull request that are minted together share one reading, which
// began after each of them asked.
func (a *Activities) stillApproved(ctx context.Context, g access.Grant) error {
	s, err := a.today.Do(ctx, refOf(g), func(ctx context.Context) (*assessment, error) { return a.assessLanded(ctx, refOf(g)) })
	if err != nil {
		return err
	}
	if s.pull.Head != g.Pull.Head || s.pull.MergedAt.IsZero() {
		return access.Errorf(access.CodeDenied, "The pull request is not what was approved any more: its head is %s, and %s was approved.", s.pull.Head, g.Pull.Head)
	}
	plan, ok := s.plans[g.Key.ID]
	switch {
	case s.refusal != "":
		return access.Errorf(access.CodeDenied, "%s", s.refusal)
	case !ok:
		return access.Errorf(access.CodeDenied, "Today's policies don't allow it: %s", firstError(s.eval.Diagnostics))
	case plan.PolicyDigest != g.Plan.PolicyDigest:
		return access.Errorf(access.CodeDenied, "The policies that it touches changed after it was approved. Ask again under the new ones.")
	case !s.approvals[g.Key.ID].Met:
		return access.Errorf(access.CodeDenied, "It lost an approval that it needs: %s", s.approvals[g.Key.ID].Text)
	}
	return nil
}

func (a *Activities) assessLanded(ctx context.Context, ref Ref) (*assessment, error) {
	pull, err := a.Forge.Pull(ctx, ref)
	if err != nil {
		return nil, fmt.Errorf("read pull request %d: %w", ref.Number, err)
	}
	if !pull.MergedAt.IsZero() {
		dropLate(&pull)
	}
	return a.assess(ctx, pull)
}

// activate opens a minted grant, unless it ended meanwhile: then what was
// minted is taken away again here, because the revocation may have run before
// this mint finished.
func (a *Activities) activate(ctx context.Context, g access.Grant, minted access.Minted) (access.Grant, error) {
	active, err := a.change(ctx, g.Key, func(row *access.Grant) (bool, error) {
		if row.State != access.StateLanded || row.Generation != g.Generation {
			return false, nil
		}
		row.State, row.Backing, row.Why = access.StateActive, made(minted), "It is open."
		return true, nil
	})
	if err != nil {
		return active, err
	}
	if active.State.Ended() {
		return active, a.take(ctx, active)
	}
	if err := a.audit(ctx, entry{"tidegate", "grant.active", g.Key.String(), "until " + active.NotAfter.Format(time.RFC3339)}); err != nil {
		return active, fmt.Errorf("audit grant %s: %w", g.Key, err)
	}
	a.log().InfoContext(ctx, "grant active", "grant", g.Key.String(), "pr", refOf(g).String(), "until", active.NotAfter)
	a.Signals.moved(ctx, tracing.Activate, active)
	a.tell(ctx, Hint{Kind: HintPull, Ref: refOf(active)})
	return active, nil
}

// made is what a mint left. It is never empty: an active grant without it is
// one whose access is to be made again.
func made(m access.Minted) []byte {
	if len(m.Backing) == 0 {
		return []byte("{}")
	}
	return m.Backing
}

func refOf(g access.Grant) Ref { return Ref{Repo: g.Pull.Repo, Number: g.Pull.Number} }

// ending is how a grant ends.
type ending struct {
	key   access.GrantKey
	state access.State
	by    string
	why   string
}

// end writes the end into the ledger: gateways cut at once. Taking the access
// away at the target follows.
func (a *Activities) end(ctx context.Context, e ending) (access.Grant, error) {
	ended := false
	g, err := a.change(ctx, e.key, func(row *access.Grant) (bool, error) {
		ended = !row.State.Ended()
		if ended {
			row.State, row.Why = e.state, e.why
		}
		return ended, nil
	})
	if err != nil || !ended {
		return g, err
	}
	if err := a.audit(ctx, entry{e.by, "grant." + string(e.state), e.key.String(), e.why}); err != nil {
		return g, fmt.Errorf("audit grant %s: %w", e.key, err)
	}
	a.log().InfoContext(ctx, "grant ended", "grant", e.key.String(), "pr", refOf(g).String(), "state", string(g.State), "why", e.why)
	a.Signals.moved(ctx, tracing.End, g)
	return g, nil
}

// EndInput asks for the early end of a grant.
type EndInput struct {
	Key access.GrantKey `json:"key"`
	By  string          `json:"by"`
	Why string          `json:"why"`
}

// EndGrant ends a grant early.
func (a *Activities) EndGrant(ctx context.Context, in EndInput) (GrantView, error) {
	g, err := a.end(ctx, ending{key: in.Key, state: access.StateRevoked, by: in.By, why: in.Why})
	return view(g), a.logged(ctx, "end", in.Key, err)
}

// CloseInput says how a grant that ends now ends.
type CloseInput struct {
	Key access.GrantKey `json:"key"`
	Why string          `json:"why,omitempty"` // empty: its time is up
}

// CloseGrant ends the grant in the ledger, takes its access away, proves that
// nothing is left, and only then marks the row closed. A grant whose end was
// moved meanwhile is left alone.
func (a *Activities) CloseGrant(ctx context.Context, in CloseInput) (GrantView, error) {
	g, err := a.Ledger.Grant(ctx, in.Key)
	if access.CodeOf(err) == access.CodeNotFound {
		// The row comes before the mint, so without a row there is nothing to
		// revoke; what a lost ledger leaves behind is an orphan at the target.
		return GrantView{Closed: true}, nil
	}
	if err != nil {
		return GrantView{}, a.logged(ctx, "close", in.Key, err)
	}
	if !g.Closed.IsZero() {
		return view(g), nil
	}
	if in.Why == "" && !g.State.Ended() && a.now().Before(g.NotAfter) {
		return view(g), nil
	}
	err = a.gate.through(g.Plan.Target.TargetRef, func() (err error) { g, err = a.closeRow(ctx, in, byWorkflow); return err })
	return view(g), a.logged(ctx, "close", in.Key, err)
}

// Who closes a grant.
const (
	byWorkflow = "workflow"
	bySweep    = "sweep"
)

func (a *Activities) closeRow(ctx context.Context, in CloseInput, by string) (access.Grant, error) {
	e := ending{key: in.Key, state: access.StateRevoked, by: "tidegate", why: in.Why}
	if in.Why == "" {
		e.state, e.why = access.StateExpired, "Its time is up."
	}
	g, err := a.end(ctx, e)
	if err != nil {
		return g, err
	}
	ctx, span := a.Signals.start(ctx, tracing.Close, g, tracing.KeyBy.Text(by), tracing.KeyState.Text(string(g.State)))
	g, err = a.proveClosed(ctx, g, by)
	a.Signals.finish(span, tracing.Close, in.Key, err)
	return g, err
}

// proveClosed takes an ended grant's access away and marks the row when
// nothing is left.
func (a *Activities) proveClosed(ctx context.Context, g access.Grant, by string) (access.Grant, error) {
	if err := a.take(ctx, g); err != nil {
		return g, err
	}
	first, key := false, g.Key
	g, err := a.change(ctx, key, func(row *access.Grant) (bool, error) {
		if first = row.Closed.IsZero(); first {
			row.Closed = a.now()
		}
		return first, nil
	})
	if err != nil || !first {
		return g, err
	}
	if err := a.audit(ctx, entry{"tidegate", "grant.closed", key.String(), "nothing is left at " + g.Plan.Target.TargetRef.String()}); err != nil {
		return g, fmt.Errorf("audit grant %s: %w", key, err)
	}
	a.log().InfoContext(ctx, "grant closed", "grant", key.String(), "pr", refOf(g).String(), "target", g.Plan.Target.TargetRef.String(), "by", by)
	a.Signals.closed(g, by)
	a.tell(ctx, Hint{Kind: HintPull, Ref: refOf(g)})
	return g, nil
}

// take takes the access away at the target and asks the target for proof.
func (a *Activities) take(ctx context.Context, g access.Grant) (err error) {
	if !g.State.Ended() {
		return fmt.Errorf("revoke grant %s: its state is %s, and only an ended grant is revoked", g.Key, g.State)
	}
	m, err := a.minter(g.Plan.Target.Kind)
	if err != nil {
		return err
	}
	done := a.Signals.revoking()
	defer func() { done(err) }()
	if err := a.spanned(ctx, tracing.Revoke, g, m.Revoke); err != nil {
		return fmt.Errorf("revoke grant %s: %w", g.Key, err)
	}
	if err := a.spanned(ctx, tracing.Prove, g, m.Prove); err != nil {
		return fmt.Errorf("prove the end of grant %s: %w", g.Key, err)
	}
	return nil
}

func (a *Activities) spanned(ctx context.Context, name tracing.Name, g access.Grant, do func(context.Context, access.Grant) error) error {
	ctx, span := a.Signals.start(ctx, name, g)
	err := do(ctx, g)
	a.Signals.finish(span, name, g.Key, err)
	return err
}

// AlertInput says which revocation is late.
type AlertInput struct {
	Key  access.GrantKey `json:"key"`
	Late time.Duration   `json:"late"`
}

// Alert says that a revocation is late: log, metric and audit.
func (a *Activities) Alert(ctx context.Context, in AlertInput) error {
	a.log().ErrorContext(ctx, "revocation is late", "grant", in.Key.String(), "late", in.Late)
	a.Signals.alert()
	return a.audit(ctx, entry{"tidegate", "grant.alert", in.Key.String(), fmt.Sprintf("not revoked after %s", in.Late)})
}

// ExtendInput asks for a later end.
type ExtendInput struct {
	Key     access.GrantKey `json:"key"`
	By      access.User     `json:"by"`
	Seconds access.Seconds  `json:"seconds"`
	Why     string          `json:"why"`
	Until   time.Time       `json:"until"` // the end that the caller wants: makes a repetition harmless
}

// ExtendGrant moves the end, judged as a request of the total length.
func (a *Activities) ExtendGrant(ctx context.Context, in ExtendInput) (GrantView, error) {
	g, err := a.extend(ctx, in)
	return view(g), a.logged(ctx, "extend", in.Key, err)
}

func (a *Activities) extend(ctx context.Context, in ExtendInput) (access.Grant, error) {
	moved := false
	g, err := a.change(ctx, in.Key, func(row *access.Grant) (bool, error) {
		if moved = row.NotAfter.Before(in.Until); !moved {
			return false, nil
		}
		if err := a.mayExtend(ctx, *row, in); err != nil {
			return false, err
		}
		if err := a.prolong(ctx, *row, in.Until); err != nil {
			return false, err
		}
		row.NotAfter, row.Why = in.Until.UTC(), fmt.Sprintf("Extended by %s: %s", in.By.Login, in.Why)
		return true, nil
	})
	if err != nil || !moved {
		return g, err
	}
	a.Signals.moved(ctx, tracing.Extend, g)
	detail := fmt.Sprintf("until %s: %s", g.NotAfter.Format(time.RFC3339), in.Why)
	if err := a.audit(ctx, entry{in.By.Login, "grant.extended", in.Key.String(), detail}); err != nil {
		return g, fmt.Errorf("audit grant %s: %w", in.Key, err)
	}
	a.tell(ctx, Hint{Kind: HintPull, Ref: refOf(g)})
	return g, nil
}

// prolong lets the credential live as long as the extended grant, before the
// ledger says so: the other order could leave an active grant that the target
// lets nobody use. Revoking takes it away at the ledger's end either way.
func (a *Activities) prolong(ctx context.Context, g access.Grant, until time.Time) error {
	g, err := a.signed(ctx, g)
	if err != nil {
		return err
	}
	m, err := a.minter(g.Plan.Target.Kind)
	if err != nil {
		return err
	}
	g.NotAfter = until.UTC()
	if _, err := m.Mint(ctx, g); err != nil {
		return fmt.Errorf("prolong the credential of %s: %w", g.Key, err)
	}
	return nil
}

func (a *Activities) mayExtend(ctx context.Context, row access.Grant, in ExtendInput) error {
	switch {
	case row.State != access.StateActive || !a.now().Before(row.NotAfter):
		return access.Errorf(access.CodeEnded, "The grant %s is %s; only an active one can be extended. Ask for a new one.", row.Key.ID, row.State)
	case row.Paused != "":
		return access.Errorf(access.CodeDenied, "The grant %s is on hold by %s; it can't be extended meanwhile.", row.Key.ID, row.Paused)
	case in.Until.After(latest(row)):
		return access.Errorf(access.CodeDenied, "The role %s is given for at most %s: until %s, and not until %s.",
			row.Plan.Role.Name, row.Plan.Role.Longest, latest(row).Format(time.RFC3339), in.Until.Format(time.RFC3339))
	}
	return a.approvedFor(ctx, row, in.Until)
}

// approvedFor counts the approvals of a request of the total length. The
// reviews that agreed to the grant as it is count; whatever more the policies
// ask of the longer one must come as further reviews.
func (a *Activities) approvedFor(ctx context.Context, row access.Grant, until time.Time) error {
	planner, ok := a.Policies.(Replanner)
	if !ok {
		return access.Errorf(access.CodeInvalid, "This server can't judge an extension. Ask for a new grant.")
	}
	pull, err := a.Forge.Pull(ctx, refOf(row))
	if err != nil {
		return fmt.Errorf("read pull request %d: %w", row.Pull.Number, err)
	}
	s, err := a.assess(ctx, pull)
	if err != nil {
		return err
	}
	longer := row.Plan.Request
	longer.Lasts, longer.From, longer.Until = access.Seconds(until.Sub(row.NotBefore)/time.Second), time.Time{}, time.Time{}
	plan, diags := planner.Replan(s.adopted, s.directory, longer)
	if diags.HasErrors() {
		return access.Errorf(access.CodeDenied, "The policies refuse the longer grant: %s", firstError(diags))
	}
	reason, err := a.countLonger(ctx, s, plan)
	if err != nil {
		return err
	}
	if !reason.Met {
		return access.Errorf(access.CodeDenied, "A grant of %s in all needs more approvals: %s Approve the pull request, then ask again.", longer.Lasts, reason.Text)
	}
	return nil
}

func (a *Activities) countLonger(ctx context.Context, s *assessment, plan access.Plan) (access.Reason, error) {
	id := plan.Request.ID
	seen, err := a.boundReviews(ctx, s)
	if err != nil {
		return access.Reason{}, err
	}
	reviews := seen.of(id, plan)
	for i, r := range reviews {
		if r.Digest != "" && r.Digest == s.digests[id] {
			reviews[i].Digest = plan.Digest()
		} else {
			reviews[i].Digest = ""
		}
	}
	out, err := a.excluded(ctx, s.pull, plan)
	if err != nil {
		return access.Reason{}, err
	}
	return a.Policies.Count(plan, access.Ballot{Reviews: reviews, Excluded: out}), nil
}
