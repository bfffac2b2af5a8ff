package policies

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tidegate/tidegate/access"
)

// Count counts a ballot for a complete plan: Met means approved. A plan without
// any requirement is not approved.
func Count(plan access.Plan, ballot access.Ballot) access.Reason {
	c := counter{plan: plan, digest: plan.Digest(), excluded: ballot.Excluded, reviews: latest(ballot.Reviews)}
	out := access.Reason{Name: "approval", Met: len(plan.Requirements) > 0}
	for _, r := range plan.Requirements {
		child := c.requirement(r)
		out.Met = out.Met && child.Met
		out.Children = append(out.Children, child)
	}
	for _, r := range c.reviews {
		if r.State == access.ReviewChangesRequested && c.mayBlock(r.User) {
			out.Met = false
			out.Children = append(out.Children, access.Reason{
				Name: "changes requested", Text: fmt.Sprintf("%s asks for changes; that must be settled first.", r.User.Login)})
		}
	}
	out.Text = headline(out, len(plan.Requirements))
	return out
}

func headline(r access.Reason, requirements int) string {
	switch {
	case requirements == 0:
		return "Nobody can agree to this: no approval covers it."
	case r.Met:
		return "Approved."
	}
	return "Not approved yet."
}

// counter is what reviews are counted for, and the reviews.
type counter struct {
	plan     access.Plan
	digest   string           // the plan's
	excluded map[int64]string // who never counts, and why
	reviews  []access.Review  // the latest of each person
}

// latest keeps each person's last review. A comment replaces nothing; a
// dismissal does, and is then no review. The order is that of first sight.
func latest(reviews []access.Review) (out []access.Review) {
	at := map[int64]int{}
	for _, r := range reviews {
		if r.State == access.ReviewCommented {
			continue
		}
		if i, ok := at[r.User.ID]; ok {
			out[i] = r
			continue
		}
		at[r.User.ID] = len(out)
		out = append(out, r)
	}
	return out
}

// whyNever says why a person's word never counts, or nothing.
func (c counter) whyNever(u access.User) string {
	if u.ID == 0 {
		return "the forge does not say who that is"
	}
	if u.Bot {
		return "bots do not count"
	}
	if why, ok := c.excluded[u.ID]; ok {
		if why == "" {
			why = "this person took part in the request"
		}
		return why
	}
	if c.plan.Receives(u.ID) {
		return "the access would be theirs"
	}
	return ""
}

func (c counter) mayBlock(u access.User) bool {
	if c.whyNever(u) != "" {
		return false
	}
	return slices.ContainsFunc(c.plan.Requirements, func(r access.Requirement) bool { return access.Includes(r.From, u.ID) })
}

func (c counter) requirement(r access.Requirement) access.Reason {
	out := access.Reason{Name: r.Name}
	counted := 0
	for _, review := range c.reviews {
		if review.State != access.ReviewApproved {
			continue
		}
		child := c.review(review, r)
		if child.Met {
			counted++
		}
		out.Children = append(out.Children, child)
	}
	out.Met = r.Need >= 0 && r.Need <= maxNeed && counted >= r.Need
	out.Text = fmt.Sprintf("%d of %d needed from %s. %s", counted, r.Need, partyNames(r.From), r.Say)
	if r.Need == 0 {
		out.Text = "Approved in advance. " + r.Say
	}
	return out
}

func partyNames(from []access.Party) string {
	names := make([]string, len(from))
	for i, p := range from {
		names[i] = p.Name
	}
	if len(names) == 0 {
		return "nobody"
	}
	return strings.Join(names, " or ")
}

// review judges one approval: bound to these bytes, under these policies, by
// somebody who may.
func (c counter) review(r access.Review, req access.Requirement) access.Reason {
	why := c.whyNever(r.User)
	switch {
	case why != "":
	case !access.Includes(req.From, r.User.ID):
		why = fmt.Sprintf("not one of %s", partyNames(req.From))
	case c.digest == "" || r.Digest != c.digest:
		why = "it was given for something else: other bytes, another branch to go to, or a role that means something else at its target by now; a new review is needed"
	case c.plan.PolicyDigest == "" || r.PolicyDigest != c.plan.PolicyDigest:
		why = "it was given under other policies; a new review is needed"
	}
	if why != "" {
		return access.Reason{Name: r.User.Login, Text: fmt.Sprintf("%s's approval does not count: %s.", r.User.Login, why)}
	}
	return access.Reason{Name: r.User.Login, Met: true, Text: fmt.Sprintf("%s agrees.", r.User.Login)}
}
