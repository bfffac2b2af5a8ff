package workflows

import (
	"context"
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
		if r.Commit == s.pull.Head {
			reviews[i].Digest, reviews[i].PolicyDigest = plan.Digest(), plan.PolicyDigest
		}
	}
	return a.Policies.Count(plan, access.Ballot{Reviews: reviews, Excluded: out}), nil
}

// adoptionNeeds is what a change of policies needs: the policy owners of the
// server's config, and whoever the policies in force ask for.
func (a *Activities) adoptionNeeds(ctx context.Context, adopted access.Tree) ([]access.Requirement, string, error) {
	adopter, ok := a.Policies.(Adopter)
	if !ok {
		return nil, "This server can't judge a change of policies.", nil
	}
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
	needs, diags := adopter.AdoptionRequirements(adopted, owners, dir)
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

// contains reports whether the user is one of the parties, by id.
func contains(ps []access.Party, u access.User) bool {
	for _, p := range ps {
		if p.Kind == access.KindUser && p.ID == u.ID {
			return true
		}
		for _, m := range p.Members {
			if p.Kind == access.KindTeam && m.ID == u.ID {
				return true
			}
		}
	}
	return false
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

// Adopt brings the policies on main into force if they were agreed to.
// Otherwise the tree in force stays, and that is said once for each commit.
func (a *Activities) Adopt(ctx context.Context, main access.Tree, merged []Ref) error {
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
	for _, ref := range merged {
		ok, err := a.agreed(ctx, ref, adopted, main)
		if err != nil {
			return err
		}
		if ok {
			return a.adopt(ctx, main, fmt.Sprintf("pull request %d was approved by the policy owners", ref.Number))
		}
	}
	return a.keepOld(ctx, main, "no merged pull request that turns the policies in force into these was approved by the policy owners")
}

// agreed reports whether the pull request takes exactly the policies in force
// to exactly those on main, approved.
func (a *Activities) agreed(ctx context.Context, ref Ref, adopted, main access.Tree) (bool, error) {
	pull, err := a.Forge.Pull(ctx, ref)
	if err != nil {
		return false, fmt.Errorf("read pull request %s: %w", ref, err)
	}
	if pull.MergedAt.IsZero() || pull.Fork {
		return false, nil
	}
	base, err := a.Forge.Tree(ctx, pull.Base)
	if err != nil {
		return false, fmt.Errorf("read base %s: %w", pull.Base, err)
	}
	head, err := a.Forge.Tree(ctx, pull.Head)
	if err != nil {
		return false, fmt.Errorf("read head %s: %w", pull.Head, err)
	}
	if policyFiles(base) != policyFiles(adopted) || policyFiles(head) != policyFiles(main) {
		return false, nil
	}
	eval, _, err := a.evaluate(ctx, adopted, pull.Base, head)
	if err != nil || !eval.PolicyOnly || eval.Diagnostics.HasErrors() {
		return false, err
	}
	dropLate(&pull)
	reason, err := a.judgePolicy(ctx, &assessment{pull: pull, head: head, adopted: adopted})
	return reason.Met, err
}

// adoptFirst starts an empty ledger. Grants that are on main already were
// approved before it, or perhaps never: their ids are consumed, unopened.
func (a *Activities) adoptFirst(ctx context.Context, main access.Tree) error {
	if !a.Rules.AdoptFirst {
		return a.keepOld(ctx, main, "nothing was adopted yet, and the first policies must be adopted by a person")
	}
	eval, err := a.onMain(ctx, main, main)
	if err != nil {
		return err
	}
	for _, c := range eval.Changes {
		err := a.refuse(ctx, refusal{key: access.GrantKey{Repo: a.Repo, ID: c.Request.ID}, request: c.Request, why: "It was on the main branch before this ledger began."})
		if err != nil {
			return err
		}
	}
	return a.adopt(ctx, main, "the first policies")
}

func (a *Activities) adopt(ctx context.Context, main access.Tree, why string) error {
	users, teams := a.Policies.Names(main, main, main)
	dir, err := a.Forge.Directory(ctx, users, teams)
	if err != nil {
		return fmt.Errorf("look up people: %w", err)
	}
	rules, diags := a.Policies.Rules(main, dir)
	if diags.HasErrors() {
		return a.keepOld(ctx, main, fmt.Sprintf("they do not load: %s", firstError(diags)))
	}
	if err := a.Ledger.SetAdopted(ctx, main, rules); err != nil {
		return fmt.Errorf("adopt policies of %s: %w", main.Commit, err)
	}
	return a.audit(ctx, entry{"tidegate", "policies.adopted", main.Commit, why})
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
