package workflows

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.temporal.io/sdk/temporal"
	"golang.org/x/sync/errgroup"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/tracing"
)

// Land turns what a merged pull request brought to main into rows of the
// ledger: landed where the bytes on main are the bytes that were approved,
// refused otherwise. It is idempotent: an id that has a row keeps it. waits
// says that nothing was decided yet, because who pushed or objected is not known.
func (a *Activities) Land(ctx context.Context, pull Pull) (waits bool, err error) {
	if pull.MergedAt.IsZero() {
		return false, nil
	}
	dropLate(&pull)
	s, err := a.assess(ctx, pull)
	if err != nil {
		return false, err
	}
	return a.land(ctx, s)
}

// landAtOnce bounds how many grants of one pull request land side by side:
// each waits for the ledger's disk and for Temporal.
const landAtOnce = 8

func (a *Activities) land(ctx context.Context, s *assessment) (waits bool, err error) {
	if s.pull.MergedAt.IsZero() || s.eval.PolicyOnly || len(s.eval.Changes) == 0 {
		return false, nil
	}
	unknown := len(s.pull.Unpushed) > 0 || s.pull.Unread != ""
	if unknown && a.now().Sub(s.pull.MergedAt) < unclaimedForbid {
		return true, nil // a refusal is for ever, and GitHub's list of pushes may only be late
	}
	return false, a.landAll(ctx, s)
}

func (a *Activities) landAll(ctx context.Context, s *assessment) error {
	merged, err := a.landedTree(ctx, s.pull)
	if err != nil {
		return err
	}
	l := landing{assessment: s, merged: merged}
	if l.lost, err = a.beforeLedger(ctx, s.pull); err != nil {
		return err
	}
	var each errgroup.Group
	each.SetLimit(landAtOnce)
	errs := make([]error, len(s.eval.Changes)) // one that fails leaves the others their way
	for i, c := range s.eval.Changes {
		if c.Kind != access.ChangeRemoved {
			each.Go(func() error { errs[i] = a.landOne(ctx, l, c); return nil })
		}
	}
	_ = each.Wait()
	return errors.Join(errs...)
}

// landing is a merged pull request on its way into the ledger.
type landing struct {
	*assessment
	merged access.Tree // what it put on main
	lost   string      // why it is none of this ledger's, or ""
}

// landedTree is what the merge put on main. A merge that is found late is
// compared with today's main instead: what left it meanwhile opens nothing.
func (a *Activities) landedTree(ctx context.Context, pull Pull) (access.Tree, error) {
	commit := pull.Merge
	if a.now().Sub(pull.MergedAt) > propagation {
		main, err := a.Forge.Main(ctx)
		if err != nil {
			return access.Tree{}, fmt.Errorf("read main: %w", err)
		}
		commit = main
	}
	t, err := a.Forge.Tree(ctx, commit)
	if err != nil {
		return t, fmt.Errorf("read what landed at %s: %w", commit, err)
	}
	return t, nil
}

// dropLate removes approvals that came after the merge: they were no part of
// what let the bytes land. A late objection stays.
func dropLate(pull *Pull) {
	pull.Reviews = slices.DeleteFunc(slices.Clone(pull.Reviews), func(r access.Review) bool {
		return r.State == access.ReviewApproved && r.Submitted.After(pull.MergedAt)
	})
}

func (a *Activities) landOne(ctx context.Context, s landing, c access.Change) error {
	key := access.GrantKey{Repo: s.pull.Ref.Repo, ID: c.Request.ID}
	row, err := a.Ledger.Grant(ctx, key)
	if err == nil {
		return a.startIfOpen(ctx, row)
	}
	if access.CodeOf(err) != access.CodeNotFound {
		return fmt.Errorf("read grant %s: %w", key, err)
	}
	if why := a.whyNot(s, c); why != "" {
		return a.refuse(ctx, refusal{key: key, request: c.Request, plan: s.plans[c.Request.ID], pull: pullOf(s.pull), why: why})
	}
	return a.create(ctx, s.assessment, key)
}

// whyNot says why a landed file opens nothing, or "".
func (a *Activities) whyNot(s landing, c access.Change) string {
	id := c.Request.ID
	blob := blobOf(s.merged, c.Request.File)
	_, until := c.Request.Window(s.pull.MergedAt)
	switch {
	case s.lost != "":
		return s.lost
	case s.refusal != "":
		return s.refusal
	case s.eval.Diagnostics.HasErrors():
		return "It landed with errors: " + firstError(s.eval.Diagnostics)
	case c.Kind != access.ChangeAdded:
		return "It changes a grant that was on main before. Ask for a new grant with a new id."
	case blob != c.Blob:
		return fmt.Sprintf("What landed is not what was approved: blob %s of %s was approved, and %q is on main.", c.Blob, c.Request.File, blob)
	case !s.approvals[id].Met:
		return "It landed without the approvals it needs: " + s.approvals[id].Text
	case !until.After(a.now()):
		return "Its time was up before it could be opened."
	}
	return ""
}

func blobOf(t access.Tree, path string) string {
	for _, f := range t.Files {
		if f.Path == path {
			return f.Blob
		}
	}
	return ""
}

func pullOf(p Pull) access.Pull {
	return access.Pull{Repo: p.Ref.Repo, Number: p.Ref.Number, URL: p.URL, Head: p.Head, Author: p.Author, Merge: p.Merge}
}

func (a *Activities) create(ctx context.Context, s *assessment, key access.GrantKey) error {
	plan := s.plans[key.ID]
	from, until := plan.Request.Window(s.pull.MergedAt)
	row, err := a.Ledger.Create(ctx, access.Grant{
		Key: key, Generation: 1, State: access.StateLanded, Plan: plan, Digest: s.digests[key.ID],
		NotBefore: from.UTC(), NotAfter: until.UTC(), Pull: pullOf(s.pull), Why: "It landed as approved.",
	})
	if access.CodeOf(err) == access.CodeConflict {
		return nil // another reading landed it
	}
	if err != nil {
		return fmt.Errorf("store grant %s: %w", key, err)
	}
	if err := a.audit(ctx, entry{"tidegate", "grant.landed", key.String(), "digest " + row.Digest}); err != nil {
		return fmt.Errorf("audit grant %s: %w", key, err)
	}
	a.log().InfoContext(ctx, "grant landed", "grant", key.String(), "pr", s.pull.Ref.String(), "target", row.Plan.Target.TargetRef.String())
	a.Signals.moved(ctx, tracing.Land, row)
	return a.startIfOpen(ctx, row)
}

// startIfOpen starts the workflow that mints and revokes. Starting one that
// runs does nothing.
func (a *Activities) startIfOpen(ctx context.Context, row access.Grant) error {
	if !row.Closed.IsZero() || row.State == access.StateRefused || a.starter == nil {
		return nil
	}
	return a.starter.startGrant(ctx, row.Key)
}

// refusal is a grant that opens nothing and whose id is consumed.
type refusal struct {
	key     access.GrantKey
	request access.Request
	plan    access.Plan
	pull    access.Pull
	why     string
}

func (a *Activities) refuse(ctx context.Context, r refusal) error {
	now := a.now()
	plan := r.plan
	plan.Request = r.request
	row, err := a.Ledger.Create(ctx, access.Grant{
		Key: r.key, Generation: 1, State: access.StateRefused, Plan: plan, Digest: plan.Digest(),
		NotBefore: now, NotAfter: now, Pull: r.pull, Why: r.why, Closed: now,
	})
	if access.CodeOf(err) == access.CodeConflict {
		return nil // the id has a row already, and keeps it
	}
	if err != nil {
		return fmt.Errorf("store refused grant %s: %w", r.key, err)
	}
	a.log().WarnContext(ctx, "grant refused", "grant", r.key.String(), "pr", refOf(row).String(), "why", r.why)
	a.Signals.refused("grant")
	a.Signals.moved(ctx, tracing.Land, row)
	return a.audit(ctx, entry{"tidegate", "grant.refused", r.key.String(), r.why})
}

// report is everything that the pull request shows.
func (a *Activities) report(ctx context.Context, s *assessment, replies []string) (Report, error) {
	rows, err := a.Ledger.GrantsOf(ctx, s.pull.Ref)
	if err != nil {
		return Report{}, fmt.Errorf("read grants of %s: %w", s.pull.Ref, err)
	}
	r := Report{Head: s.pull.Head, Diagnostics: s.eval.Diagnostics, Refusal: s.refusal, Policy: s.policy, Replies: replies}
	known := map[string]bool{}
	for _, row := range rows {
		known[row.Key.ID] = true
		g, err := a.landedReport(ctx, row, s.approvals[row.Key.ID])
		if err != nil {
			return Report{}, err
		}
		r.Grants = append(r.Grants, g)
	}
	for _, c := range s.eval.Changes {
		if plan, ok := s.plans[c.Request.ID]; ok && !known[c.Request.ID] {
			r.Grants = append(r.Grants, s.plannedReport(plan))
		}
	}
	return r, nil
}

func (s *assessment) plannedReport(plan access.Plan) GrantReport {
	id := plan.Request.ID
	g := GrantReport{Plan: plan, Digest: s.digests[id], Approval: s.approvals[id], State: access.StatePlanned}
	if g.Approval.Met && !s.eval.Diagnostics.HasErrors() {
		g.State = access.StateApproved
	}
	return g
}

func (a *Activities) landedReport(ctx context.Context, row access.Grant, approval access.Reason) (GrantReport, error) {
	sessions, err := a.Ledger.Sessions(ctx, row.Key)
	if err != nil {
		return GrantReport{}, fmt.Errorf("read sessions of %s: %w", row.Key, err)
	}
	g := GrantReport{Plan: row.Plan, Digest: row.Digest, Approval: approval, State: row.State, Until: row.NotAfter, Paused: row.Paused != "", Why: row.Why}
	for _, s := range sessions {
		g.Sessions = append(g.Sessions, SessionLine{ID: s.ID, Person: s.Person, Started: s.Started, Ended: s.Ended})
	}
	return g, nil
}

// Follow is one reading of a pull request: land it if it was merged, say how
// it stands, merge it if that is wanted. What is most urgent comes first.
func (a *Activities) Follow(ctx context.Context, in FollowInput) (FollowResult, error) {
	ctx, end := a.Signals.reading(ctx, in.Ref)
	out, err := a.follow(ctx, in)
	end(err)
	return out, a.again(ctx, "follow", in.Ref, err)
}

// again logs the cause, which a history must not hold, and answers with an
// error that is tried again: a forge that says "not found" may only be late.
// What goes on failing is neither logged again, by us or the SDK, nor counted.
func (a *Activities) again(ctx context.Context, what string, ref Ref, err error) error {
	news := a.failing.note(what+" "+ref.String(), err)
	if err == nil {
		if news {
			a.log().InfoContext(ctx, "pull request: "+what+" works again", "pr", ref.String())
		}
		return nil
	}
	opts := temporal.ApplicationErrorOptions{Category: temporal.ApplicationErrorCategoryBenign}
	if news {
		a.log().WarnContext(ctx, "pull request: "+what+" failed, and is tried until it works", "pr", ref.String(), "error", err)
		opts.Category = temporal.ApplicationErrorCategoryUnspecified
	}
	return temporal.NewApplicationErrorWithOptions(access.Message(err), string(access.CodeOf(err)), opts)
}

func (a *Activities) follow(ctx context.Context, in FollowInput) (FollowResult, error) {
	pull, err := a.Forge.Pull(ctx, in.Ref)
	if err != nil {
		return FollowResult{}, fmt.Errorf("read pull request %s: %w", in.Ref, err)
	}
	if !pull.MergedAt.IsZero() {
		dropLate(&pull)
	}
	s, err := a.assess(ctx, pull)
	if err != nil {
		return FollowResult{}, err
	}
	waits, err := a.land(ctx, s)
	if unreadable(err) { // main is, by somebody else's doing: it lands when that is mended
		a.log().WarnContext(ctx, "pull request does not land", "pr", in.Ref.String(), "error", err)
		s.refusal, waits, err = access.Message(err), true, nil
	}
	if err != nil {
		return FollowResult{}, err
	}
	if err := a.publish(ctx, s, in.Replies); err != nil {
		return FollowResult{}, err
	}
	if pull.Open && a.Rules.AutoMerge && s.approved() {
		only, err := a.agreedAlone(ctx, s)
		if err != nil {
			return FollowResult{}, err
		}
		if only {
			return a.merge(ctx, s)
		}
	}
	if waits {
		return FollowResult{}, nil
	}
	return a.standing(ctx, pull)
}

func (a *Activities) publish(ctx context.Context, s *assessment, replies []string) error {
	r, err := a.report(ctx, s, replies)
	if err != nil {
		return err
	}
	if err := a.auditPlans(ctx, s); err != nil {
		return err
	}
	a.Signals.counted(ctx, s)
	if err := a.Forge.Publish(ctx, s.pull.Ref, r); err != nil {
		return fmt.Errorf("publish to %s: %w", s.pull.Ref, err)
	}
	return nil
}

// auditPlans keeps the ledger's own copy of what was shown: a pull request
// can be edited by whoever can write.
func (a *Activities) auditPlans(ctx context.Context, s *assessment) error {
	for _, c := range s.eval.Changes {
		digest, ok := s.digests[c.Request.ID]
		if !ok {
			continue
		}
		subject := access.GrantKey{Repo: s.pull.Ref.Repo, ID: c.Request.ID}.String()
		state := fmt.Sprintf("digest %s, approved %t", digest, s.approvals[c.Request.ID].Met)
		first, err := a.Ledger.Once(ctx, "plan", subject+" "+state)
		if err != nil {
			return fmt.Errorf("remember plan %s: %w", subject, err)
		}
		if !first {
			continue
		}
		if err := a.audit(ctx, entry{"tidegate", "grant.planned", subject, state + ", head " + s.pull.Head}); err != nil {
			return fmt.Errorf("audit plan %s: %w", subject, err)
		}
		a.Signals.planned(ctx, s.pull.Ref, s.plans[c.Request.ID], digest, s.approvals[c.Request.ID].Met)
	}
	return nil
}

// agreedAlone reports whether the pull request brings nothing but what was
// agreed to. Approvals are bound to grants and policies; a workflow file beside
// them, or the removal of a file whose grant is open, which ends it, is for a
// person to merge.
func (a *Activities) agreedAlone(ctx context.Context, s *assessment) (bool, error) {
	outside, err := a.Forge.Outside(ctx, s.pull.Base, s.pull.Head)
	if err != nil {
		return false, fmt.Errorf("compare %s with %s: %w", s.pull.Head, s.pull.Base, err)
	}
	why := ""
	if outside {
		why = "it changes files outside of grants/ and policies/"
	}
	for _, c := range s.eval.Changes {
		if c.Kind != access.ChangeRemoved {
			continue
		}
		row, err := a.Ledger.Grant(ctx, access.GrantKey{Repo: s.pull.Ref.Repo, ID: c.Request.ID})
		if err != nil && access.CodeOf(err) != access.CodeNotFound {
			return false, fmt.Errorf("read grant %s: %w", c.Request.ID, err)
		}
		if err != nil || row.Closed.IsZero() {
			why = "it removes the file of grant " + c.Request.ID + ", which is not over"
		}
	}
	if why != "" {
		a.log().InfoContext(ctx, "pull request is left to a person to merge", "pr", s.pull.Ref.String(), "why", why)
	}
	return why == "", nil
}

// merge merges exactly the head that was judged. A head that moved is no
// failure: the next reading judges it.
func (a *Activities) merge(ctx context.Context, s *assessment) (FollowResult, error) {
	err := a.Forge.Merge(ctx, s.pull.Ref, s.pull.Head)
	if access.CodeOf(err) == access.CodeConflict {
		return FollowResult{}, nil
	}
	if err != nil {
		return FollowResult{}, fmt.Errorf("merge %s at %s: %w", s.pull.Ref, s.pull.Head, err)
	}
	return FollowResult{Again: true}, a.audit(ctx, entry{"tidegate", "pull.merged", s.pull.Ref.String(), "head " + s.pull.Head})
}

// standing says whether anything is left to follow.
func (a *Activities) standing(ctx context.Context, pull Pull) (FollowResult, error) {
	if pull.Open {
		return FollowResult{}, nil
	}
	rows, err := a.Ledger.GrantsOf(ctx, pull.Ref)
	if err != nil {
		return FollowResult{}, fmt.Errorf("read grants of %s: %w", pull.Ref, err)
	}
	for _, row := range rows {
		if row.Closed.IsZero() {
			return FollowResult{Landed: true}, nil
		}
	}
	return FollowResult{Done: true}, nil
}

// FollowInput is what one reading of a pull request needs.
type FollowInput struct {
	Ref     Ref      `json:"ref"`
	Replies []string `json:"replies,omitempty"`
}

// FollowResult is what the Request workflow does next.
type FollowResult struct {
	Again  bool `json:"again,omitempty"`  // read at once again
	Done   bool `json:"done,omitempty"`   // closed, and so are its grants
	Landed bool `json:"landed,omitempty"` // closed, and grants of it are not
}
