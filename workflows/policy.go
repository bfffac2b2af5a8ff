package workflows

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tidegate/tidegate/access"
)

// countPolicy counts who agreed to a change of policies: the policy owners of
// the server's own config, by the same counting as for grants.
func (a *Activities) countPolicy(ctx context.Context, s *assessment) error {
	if s.refusal != "" || !s.eval.PolicyOnly {
		return nil
	}
	reason, err := a.judgePolicy(ctx, s)
	s.policy = &reason
	return err
}

func (a *Activities) judgePolicy(ctx context.Context, s *assessment) (access.Reason, error) {
	if why := unusable(s.pull); why != "" {
		return access.Reason{Name: "policies", Text: why}, nil
	}
	needs, why, err := a.adoptionNeeds(ctx, s.adopted)
	if err != nil || why != "" {
		return access.Reason{Name: "policies", Text: why}, err
	}
	// The digest of the whole tree stands where a grant's plan digest would,
	// and the tree in force where its policies would.
	plan := access.Plan{PolicyDigest: policyFiles(s.adopted) + policyFiles(s.head), Requirements: needs}
	out, err := a.excluded(ctx, s.pull, plan)
	if err != nil {
		return access.Reason{}, err
	}
	reviews := slices.Clone(s.pull.Reviews)
	for i, r := range reviews {
		if r.Commit == s.pull.Head && r.Submitted.After(s.pull.Retargeted) {
			reviews[i].Digest, reviews[i].PolicyDigest = plan.Digest(), plan.PolicyDigest
		}
	}
	return a.Policies.Count(plan, access.Ballot{Reviews: reviews, Excluded: out}), nil
}

// adoptionNeeds is what a change of policies needs: the policy owners of the
// server's config, and whoever the policies in force ask for.
func (a *Activities) adoptionNeeds(ctx context.Context, adopted access.Tree) ([]access.Requirement, string, error) {
	owners, err := a.parties(ctx, a.Rules.PolicyOwners)
	if err != nil {
		return nil, "", err
	}
	if len(owners) == 0 {
		return nil, "Nobody may change policies: the server's config names no policy_owners.", nil
	}
	users, teams := a.Policies.Names(adopted, adopted, adopted)
	dir, err := a.Forge.Directory(ctx, users, teams)
	if err != nil {
		return nil, "", fmt.Errorf("look up people: %w", err)
	}
	if err := a.settledNames(ctx, dir, users, teams); err != nil {
		return nil, "", err
	}
	needs, diags := a.Policies.AdoptionRequirements(adopted, owners, dir)
	if diags.HasErrors() {
		return nil, "The policies in force don't say who must agree: " + firstError(diags), nil
	}
	return needs, "", nil
}

// parties looks principals up today. A name that the forge doesn't know is
// nobody.
func (a *Activities) parties(ctx context.Context, ps []access.Principal) ([]access.Party, error) {
	var users, teams []string
	for _, p := range ps {
		if p.Kind == access.KindTeam {
			teams = append(teams, p.Name)
		} else {
			users = append(users, p.Name)
		}
	}
	dir, err := a.Forge.Directory(ctx, users, teams)
	if err != nil {
		return nil, fmt.Errorf("look up people: %w", err)
	}
	if err := a.settledNames(ctx, dir, users, teams); err != nil {
		return nil, err
	}
	var out []access.Party
	for _, p := range ps {
		if team, ok := dir.Team(p.Name); ok && p.Kind == access.KindTeam {
			out = append(out, access.Party{Principal: p, ID: team.ID, Members: team.Members})
		}
		if user, ok := dir.User(p.Name); ok && p.Kind == access.KindUser {
			out = append(out, access.Party{Principal: p, ID: user.ID})
		}
	}
	return out, nil
}

// policyFiles identifies the policies of a tree.
func policyFiles(t access.Tree) string {
	var b strings.Builder
	for _, f := range t.Files {
		if strings.HasPrefix(f.Path, "policies/") {
			fmt.Fprintf(&b, "%q %s\n", f.Path, f.Blob)
		}
	}
	return b.String()
}

// maxAdopted bounds how many changes of policies come into force at once.
const maxAdopted = 20

// Adopt brings the policies on main into force if they were agreed to: step by
// step, by the pull requests that turned the policies in force into them,
// however long ago those were merged. Each counts once. Otherwise the tree in
// force stays, and that is said once for each commit.
func (a *Activities) Adopt(ctx context.Context, main access.Tree) error {
	adopted, err := a.Ledger.Adopted(ctx)
	if access.CodeOf(err) == access.CodeNotFound {
		return a.adoptFirst(ctx, main)
	}
	if err != nil {
		return fmt.Errorf("read adopted policies: %w", err)
	}
	if policyFiles(adopted) == policyFiles(main) {
		return nil
	}
	steps, err := a.steps(ctx, adopted, main)
	if err != nil {
		return err
	}
	for _, step := range steps {
		reason, err := a.agreed(ctx, step, adopted)
		if err != nil {
			return err
		}
		if !reason.Met {
			return a.keepOld(ctx, main, fmt.Sprintf("pull request %d was not approved: %s", step.pull.Ref.Number, flat(reason)))
		}
		done, err := a.adopt(ctx, step.after, adoption{pull: step.pull.Ref, why: fmt.Sprintf("pull request %d was approved by the policy owners", step.pull.Ref.Number)})
		if err != nil || !done {
			return err
		}
		adopted = step.after
	}
	if policyFiles(adopted) == policyFiles(main) {
		return nil
	}
	return a.keepOld(ctx, main, "no merged pull requests turn the policies in force into these, or one of them counted before")
}

// step is a merged pull request that takes one policy tree to the next.
type step struct {
	pull  Pull
	after access.Tree // as it landed
}

// steps are the pull requests that lead from the policies in force to those on
// main, the oldest first; none if there is a gap or one of them counted before.
func (a *Activities) steps(ctx context.Context, adopted, main access.Tree) ([]step, error) {
	pulls, err := a.Forge.PolicyPulls(ctx)
	if err != nil {
		return nil, fmt.Errorf("find who changed policies: %w", err)
	}
	var out []step
	want := policyFiles(main)
	for _, number := range pulls[:min(len(pulls), maxAdopted)] {
		s, before, err := a.stepOf(ctx, Ref{Repo: a.Repo, Number: number}, want)
		if err != nil || s == nil {
			return nil, err
		}
		out = append([]step{*s}, out...)
		if before == policyFiles(adopted) {
			return out, nil
		}
		want = before
	}
	return nil, nil
}

// stepOf reads one merged pull request; nil if it did not bring just what is
// wanted, or counted before. before is what it changed.
func (a *Activities) stepOf(ctx context.Context, ref Ref, want string) (s *step, before string, err error) {
	known, err := a.Ledger.Done(ctx, "policies", ref.String())
	if err != nil {
		return nil, "", fmt.Errorf("look up adoption of %s: %w", ref, err)
	}
	pull, err := a.Forge.Pull(ctx, ref)
	if err != nil {
		return nil, "", fmt.Errorf("read pull request %s: %w", ref, err)
	}
	if known || pull.MergedAt.IsZero() || pull.Fork {
		return nil, "", nil
	}
	var trees [3]access.Tree
	for i, commit := range []string{pull.Base, pull.Head, pull.Merge} {
		if trees[i], err = a.Forge.Tree(ctx, commit); err != nil {
			return nil, "", fmt.Errorf("read %s of pull request %s: %w", commit, ref, err)
		}
	}
	if policyFiles(trees[1]) != want || policyFiles(trees[2]) != want {
		return nil, "", nil
	}
	return &step{pull: pull, after: trees[2]}, policyFiles(trees[0]), nil
}

// agreed counts who agreed to a step, under the policies in force before it.
func (a *Activities) agreed(ctx context.Context, s step, adopted access.Tree) (access.Reason, error) {
	head, err := a.Forge.Tree(ctx, s.pull.Head)
	if err != nil {
		return access.Reason{}, fmt.Errorf("read head %s: %w", s.pull.Head, err)
	}
	eval, _, err := a.evaluate(ctx, adopted, s.pull.Base, head)
	if unreadable(err) {
		return access.Reason{Text: access.Message(err)}, nil
	}
	if err != nil {
		return access.Reason{}, err
	}
	if !eval.PolicyOnly || eval.Diagnostics.HasErrors() {
		return access.Reason{Text: orText(firstError(eval.Diagnostics), "It changes more than policies.")}, nil
	}
	pull := s.pull
	if err := a.learnPushers(ctx, &pull); err != nil {
		return access.Reason{}, err
	}
	dropLate(&pull)
	return a.judgePolicy(ctx, &assessment{pull: pull, head: head, adopted: adopted})
}

// adoptFirst starts an empty ledger. Grants that are on main already were
// approved before it, or perhaps never: their ids are consumed, unopened.
func (a *Activities) adoptFirst(ctx context.Context, main access.Tree) error {
	if !a.Rules.AdoptFirst {
		return a.keepOld(ctx, main, "nothing was adopted yet, and a person must adopt the first policies: `tidegate adopt`")
	}
	if _, err := a.refuseOnMain(ctx, main); err != nil {
		return err
	}
	_, err := a.adopt(ctx, main, adoption{why: "the first policies"})
	return err
}

// adoption is why policies come into force; the pull request, if any, counts
// for it once and never again.
type adoption struct {
	pull Ref
	why  string
}

// adopt brings policies into force; false if they don't load, which is said.
func (a *Activities) adopt(ctx context.Context, main access.Tree, by adoption) (bool, error) {
	users, teams := a.Policies.Names(main, main, main)
	if why := tooManyNames(users, teams, "they name"); why != "" {
		return false, a.keepOld(ctx, main, why)
	}
	dir, err := a.Forge.Directory(ctx, users, teams)
	if err != nil {
		return false, fmt.Errorf("look up people: %w", err)
	}
	old, err := a.Ledger.Adopted(ctx)
	if err != nil && access.CodeOf(err) != access.CodeNotFound {
		return false, fmt.Errorf("read adopted policies: %w", err)
	}
	if err := errors.Join(a.meanAnew(ctx, dir, main, old), a.settledNames(ctx, dir, users, teams)); err != nil {
		return false, err
	}
	rules, diags := a.Policies.Rules(main, dir)
	if diags.HasErrors() {
		return false, a.keepOld(ctx, main, fmt.Sprintf("they do not load: %s", firstError(diags)))
	}
	once := ""
	if by.pull.Number != 0 {
		once = by.pull.String()
	}
	if err := a.Ledger.SetAdopted(ctx, main, rules, once); err != nil {
		return false, fmt.Errorf("adopt policies of %s: %w", main.Commit, err)
	}
	return true, a.audit(ctx, entry{"tidegate", "policies.adopted", main.Commit, by.why})
}

func firstError(ds access.Diagnostics) string {
	for _, d := range ds {
		if d.Severity == access.SeverityError {
			return d.String()
		}
	}
	return ""
}

func (a *Activities) keepOld(ctx context.Context, main access.Tree, why string) error {
	first, err := a.Ledger.Once(ctx, "policies.kept", main.Commit)
	if err != nil || !first {
		return err
	}
	a.Signals.refused("policies")
	a.log().ErrorContext(ctx, "policies on main are not in force", "commit", main.Commit, "why", why)
	return a.audit(ctx, entry{"tidegate", "policies.refused", main.Commit, why})
}
