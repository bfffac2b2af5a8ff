package workflows

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tidegate/tidegate/access"
)

// assessment is a pull request under today's policies: what it would do, and
// who agreed to exactly that.
type assessment struct {
	pull      Pull
	adopted   access.Tree
	head      access.Tree
	directory access.Directory
	eval      Evaluation
	refusal   string
	plans     map[string]access.Plan // complete: with their expansion
	digests   map[string]string
	approvals map[string]access.Reason
	ballots   map[string]access.Ballot // what the approvals were counted from
	policy    *access.Reason           // a change of policies only
	asked     map[string]expanded      // what the targets answered, by what was asked
	landed    map[string]bool          // grants that have a row already, of this pull request
}

// expanded is a target's answer: what a role means there, or its refusal.
type expanded struct {
	expansion access.Expansion
	refusal   error
}

// approved reports whether everything in the pull request may land.
func (s *assessment) approved() bool {
	if s.refusal != "" || s.eval.Diagnostics.HasErrors() {
		return false
	}
	if s.eval.PolicyOnly {
		return s.policy != nil && s.policy.Met
	}
	if len(s.eval.Changes) == 0 {
		return false
	}
	for _, c := range s.eval.Changes {
		if c.Kind != access.ChangeRemoved && !s.approvals[c.Request.ID].Met {
			return false
		}
	}
	return true
}

// assess reads everything again and judges it. Nothing is remembered but the
// first sight of each review.
func (a *Activities) assess(ctx context.Context, pull Pull) (*assessment, error) {
	s := &assessment{pull: pull, plans: map[string]access.Plan{}, digests: map[string]string{}, approvals: map[string]access.Reason{}, ballots: map[string]access.Ballot{}, landed: map[string]bool{}}
	if pull.Fork {
		s.refusal = "The pull request comes from a fork. Push the branch to this repository and open it from there."
		return s, nil
	}
	if n := len(decisive(pull.Reviews)); n > maxReviews {
		s.pull.Unread = fmt.Sprintf("reviews of %d people", n)
	}
	if err := a.learnPushers(ctx, &s.pull); err != nil {
		return nil, err
	}
	if err := a.evaluateHead(ctx, s); err != nil {
		return nil, err
	}
	if s.refusal != "" || s.eval.PolicyOnly {
		return s, a.countPolicy(ctx, s)
	}
	if err := a.complete(ctx, s); err != nil {
		return nil, err
	}
	return s, a.countAll(ctx, s)
}

func (a *Activities) evaluateHead(ctx context.Context, s *assessment) (err error) {
	if s.refusal, err = a.older(ctx); err != nil || s.refusal != "" {
		return err
	}
	adopted, err := a.Ledger.Adopted(ctx)
	if access.CodeOf(err) == access.CodeNotFound {
		s.refusal = "No policies are in force yet. An operator must adopt the policies on the main branch first: `tidegate adopt`."
		return nil
	}
	if err != nil {
		return fmt.Errorf("read adopted policies: %w", err)
	}
	s.adopted = adopted
	if s.head, err = a.Forge.Tree(ctx, s.pull.Head); err == nil {
		s.eval, s.directory, err = a.evaluate(ctx, adopted, s.pull.Base, s.head)
	}
	if unreadable(err) { // shown to whoever pushed it; of one that is on main each grant is refused
		s.refusal = access.Message(err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("read head %s: %w", s.pull.Head, err)
	}
	switch {
	case s.eval.Mixed:
		s.refusal = "The pull request changes policies and grants together. Split it: policies come into force by themselves first."
	case len(s.eval.Changes) > maxGrantsPerPR:
		s.refusal = splitIt(len(s.eval.Changes), "grants", maxGrantsPerPR)
	}
	return nil
}

// evaluate plans what differs between two commits. One that is not read whole,
// or changes too much, is an error that [unreadable] knows; the changes are then
// what the files' names alone say.
func (a *Activities) evaluate(ctx context.Context, adopted access.Tree, baseCommit string, head access.Tree) (Evaluation, access.Directory, error) {
	base, err := a.Forge.Tree(ctx, baseCommit)
	if err != nil {
		return Evaluation{}, access.Directory{}, fmt.Errorf("read base %s: %w", baseCommit, err)
	}
	if why := tooMany(base, head); why != "" {
		return Evaluation{Changes: brought(base, head)}, access.Directory{}, Unreadable(access.CodeTooLarge, "%s", why)
	}
	users, teams := a.Policies.Names(adopted, base, head)
	if why := tooManyNames(users, teams, "The pull request and the policies in force name"); why != "" {
		return Evaluation{Changes: brought(base, head)}, access.Directory{}, Unreadable(access.CodeTooLarge, "%s Split it, or name fewer.", why)
	}
	dir, err := a.Forge.Directory(ctx, users, teams)
	if err != nil {
		return Evaluation{}, access.Directory{}, fmt.Errorf("look up people: %w", err)
	}
	users, teams = a.Policies.Names(adopted, adopted, adopted)
	if err := a.settledNames(ctx, dir, users, teams); err != nil {
		return Evaluation{}, access.Directory{}, err
	}
	return a.Policies.Evaluate(Evaluate{Adopted: adopted, Base: base, Head: head, Directory: dir}), dir, nil
}

// complete adds to each plan what its role means on the target today, and
// refuses ids that were used before.
func (a *Activities) complete(ctx context.Context, s *assessment) error {
	for _, c := range s.eval.Changes {
		plan, ok := s.eval.Plans[c.Request.ID]
		if !ok {
			continue
		}
		if err := a.checkUnused(ctx, s, c); err != nil {
			return err
		}
		full, err := a.expand(ctx, s, plan)
		if isRefusal(err) {
			s.complain(c.Request.File, "The target can't give this role", access.Message(err))
			continue
		}
		if err != nil {
			return err
		}
		s.plans[c.Request.ID], s.digests[c.Request.ID] = full, full.Digest()
	}
	return nil
}

func (s *assessment) complain(file, summary, detail string) {
	s.eval.Diagnostics = append(s.eval.Diagnostics, access.Diagnostic{
		File: file, Line: 1, Column: 1, EndLine: 1, EndCol: 1, Summary: summary, Detail: detail,
	})
}

func (a *Activities) checkUnused(ctx context.Context, s *assessment, c access.Change) error {
	row, err := a.Ledger.Grant(ctx, access.GrantKey{Repo: s.pull.Ref.Repo, ID: c.Request.ID})
	if access.CodeOf(err) == access.CodeNotFound {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read grant %s: %w", c.Request.ID, err)
	}
	if s.landed[c.Request.ID] = row.Pull.Number == s.pull.Ref.Number; !s.landed[c.Request.ID] {
		s.complain(c.Request.File, "The id was used before",
			fmt.Sprintf("Grant ids are one-shot, and %q was used by pull request %d. Choose a new id in a new file.", c.Request.ID, row.Pull.Number))
	}
	return nil
}

// expand adds to a plan what its role means on the target today. Plans that
// ask the same of a target are answered by one question in an assessment: a
// pull request may hold dozens that differ in the person only.
func (a *Activities) expand(ctx context.Context, s *assessment, plan access.Plan) (access.Plan, error) {
	m, err := a.minter(plan.Target.Kind)
	if err != nil {
		return plan, err
	}
	question := access.Plan{Target: plan.Target, Role: plan.Role, Masks: plan.Masks}.Digest()
	answer, ok := s.asked[question]
	if !ok {
		answer.expansion, err = m.Expand(ctx, plan)
		if err != nil && !isRefusal(err) {
			return plan, fmt.Errorf("expand role %s on %s: %w", plan.Role.Name, plan.Target.TargetRef, err)
		}
		answer.refusal = err
		if s.asked == nil {
			s.asked = map[string]expanded{}
		}
		s.asked[question] = answer
	}
	if answer.refusal != nil {
		return plan, fmt.Errorf("expand role %s on %s: %w", plan.Role.Name, plan.Target.TargetRef, answer.refusal)
	}
	plan.Expansion = answer.expansion
	return plan, nil
}

// isRefusal tells "no" from "not now": the first is said, the second is tried
// again.
func isRefusal(err error) bool {
	switch access.CodeOf(err) {
	case access.CodeInvalid, access.CodeDenied, access.CodeTooLarge:
		return err != nil
	}
	return false
}

// countAll counts the approvals of each plan.
func (a *Activities) countAll(ctx context.Context, s *assessment) error {
	seen, err := a.boundReviews(ctx, s)
	if err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(s.plans)) {
		out, err := a.excluded(ctx, s.pull, s.plans[id])
		if err != nil {
			return err
		}
		s.ballots[id] = access.Ballot{Reviews: seen.of(id, s.plans[id], s.landed[id]), Excluded: out}
		s.approvals[id] = a.count(s, s.ballots[id], id)
	}
	return nil
}

func (a *Activities) count(s *assessment, ballot access.Ballot, id string) access.Reason {
	if why := unusable(s.pull); why != "" {
		return access.Reason{Name: id, Text: why}
	}
	return a.Policies.Count(s.plans[id], ballot)
}

func unusable(p Pull) string {
	switch {
	case p.Draft:
		return "The pull request is a draft. Mark it as ready before anybody can approve it."
	case p.Unread != "":
		return fmt.Sprintf("It has %s, and Tidegate reads no more of one pull request, so nobody can tell who else objected. Open a new one.", p.Unread)
	case len(p.Unknown) > 0:
		return fmt.Sprintf("GitHub knows no account for %d of the committers, so nobody can tell whether they approve their own work. Commit with an address that belongs to an account.", len(p.Unknown))
	case len(p.Unpushed) > 0:
		return fmt.Sprintf("GitHub did not tell who pushed %s, so nobody can tell whether they approve their own work. "+
			"Tidegate goes on asking. If this stays: make the commits anew (`git commit --amend --no-edit`, or a rebase) and push them with `--force-with-lease`.", commitNames(p.Unpushed))
	}
	return ""
}

func commitNames(commits []string) string {
	var out []string
	for _, c := range commits[:min(len(commits), 3)] {
		out = append(out, c[:min(len(c), 7)])
	}
	if n := len(commits) - len(out); n > 0 {
		out = append(out, fmt.Sprintf("%d more", n))
	}
	return strings.Join(out, ", ")
}

// sight is what the reviewers of a pull request saw, by commit.
type sight struct {
	reviews []access.Review
	at      map[string]map[string]access.Plan // commit -> grant id -> complete plan
	policy  map[string]string                 // commit -> digest of the policies that its plans read today
	gives   map[string]string                 // commit -> digest of what its plans give at their targets today
	since   time.Time                         // what was said before was said of another difference; zero: nothing was
}

// of binds the reviews to one grant: a review whose reviewer saw something
// else, or saw it under other policies, carries no digest and does not count.
// What a role means at its target may change until it lands, too; a landed
// grant keeps its own list of that.
func (v sight) of(id string, head access.Plan, landed bool) []access.Review {
	out := slices.Clone(v.reviews)
	for i, r := range out {
		first, same := r.PolicyDigest, landed || r.Gives == "" || r.Gives == v.gives[r.Commit]
		out[i].Digest, out[i].PolicyDigest = "", ""
		plan, ok := v.at[r.Commit][id]
		if ok && same && r.Submitted.After(v.since) && first == v.policy[r.Commit] {
			out[i].Digest, out[i].PolicyDigest = plan.Digest(), head.PolicyDigest
		}
	}
	return out
}

func (a *Activities) boundReviews(ctx context.Context, s *assessment) (sight, error) {
	v := sight{at: map[string]map[string]access.Plan{s.pull.Head: s.plans}, policy: map[string]string{s.pull.Head: policyOf(s.plans)}, gives: map[string]string{s.pull.Head: givesOf(s.plans)}, since: s.pull.Retargeted}
	if s.pull.Unread != "" {
		return v, nil // none of them counts
	}
	v.reviews = decisive(s.pull.Reviews)
	for _, r := range slices.Backward(v.reviews) {
		if err := a.look(ctx, s, v, r.Commit); err != nil {
			return v, err
		}
	}
	for i, r := range v.reviews {
		r.PolicyDigest, r.Gives = v.policy[r.Commit], v.gives[r.Commit]
		first, err := a.Ledger.SeeReview(ctx, s.pull.Ref, r)
		if err != nil {
			return v, fmt.Errorf("remember review %d: %w", r.ID, err)
		}
		v.reviews[i].PolicyDigest, v.reviews[i].Gives = first.PolicyDigest, first.Gives
	}
	return v, nil
}

// decisive keeps the last review of each person, comments aside. No bound may
// drop one: with many comments anybody could push an objection out of sight.
func decisive(reviews []access.Review) []access.Review {
	var out []access.Review
	later := map[int64]bool{}
	for _, r := range slices.Backward(reviews) {
		if r.State != access.ReviewCommented && !later[r.User.ID] {
			later[r.User.ID] = true
			out = append(out, r)
		}
	}
	slices.Reverse(out)
	return out
}

// look evaluates a commit that somebody reviewed. Past the bounds, and for
// commits that are gone after a force-push, the review just doesn't count.
func (a *Activities) look(ctx context.Context, s *assessment, v sight, commit string) error {
	if _, done := v.at[commit]; done || len(v.at) > maxCommitsRead {
		return nil
	}
	v.at[commit] = map[string]access.Plan{}
	tree, err := a.Forge.Tree(ctx, commit)
	if access.CodeOf(err) == access.CodeNotFound || unreadable(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read reviewed commit %s: %w", commit, err)
	}
	eval, _, err := a.evaluate(ctx, s.adopted, s.pull.Base, tree)
	if unreadable(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for id, plan := range eval.Plans {
		full, err := a.expandLike(ctx, s, plan)
		if err != nil && !isRefusal(err) {
			return err
		}
		if err == nil {
			v.at[commit][id] = full
		}
	}
	v.policy[commit], v.gives[commit] = policyOf(v.at[commit]), givesOf(v.at[commit])
	return nil
}

// expandLike spares the target a question: equal plans expand equally.
func (a *Activities) expandLike(ctx context.Context, s *assessment, plan access.Plan) (access.Plan, error) {
	head, ok := s.plans[plan.Request.ID]
	if ok {
		same := head
		same.Expansion = access.Expansion{}
		if same.Digest() == plan.Digest() {
			return head, nil
		}
	}
	return a.expand(ctx, s, plan)
}

// policyOf is one digest for all the policy blocks that the plans read, and
// for what the names in them and in the grants meant: a team that grew, or a
// login that is somebody else's by now, is not what the reviewer saw.
func policyOf(plans map[string]access.Plan) string {
	sum := sha256.New()
	for _, id := range slices.Sorted(maps.Keys(plans)) {
		fmt.Fprintf(sum, "%q %q\n", id, plans[id].PolicyDigest)
		for _, p := range plans[id].People {
			fmt.Fprintf(sum, "to %d\n", p.ID)
		}
		for _, r := range plans[id].Requirements {
			for _, p := range r.From { // not its members: they are looked up when counted
				fmt.Fprintf(sum, "from %q %d\n", r.Name, p.ID)
			}
		}
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// givesOf is one digest for what the plans' roles mean at their targets: a
// table that was made after the review is not what the reviewer saw.
func givesOf(plans map[string]access.Plan) string {
	sum := sha256.New()
	for _, id := range slices.Sorted(maps.Keys(plans)) {
		fmt.Fprintf(sum, "%q %s\n", id, access.Plan{Expansion: plans[id].Expansion}.Digest())
	}
	return hex.EncodeToString(sum.Sum(nil))
}
