package policies

import (
	"strings"
	"testing"

	"github.com/tidegate/tidegate/access"
)

func TestCount(t *testing.T) {
	one := planned(t, basePolicies, grantText("inc-1", `user("alice")`, "30m"))
	two := planned(t, basePolicies, grantText("inc-1", `user("alice")`, "2h"))
	free := planned(t, strings.Replace(basePolicies, `grant.seconds > seconds("1h") ? 2 : 1`, "0", 1), grantText("inc-1", `user("alice")`, "30m"))
	forBob := planned(t, basePolicies, grantText("inc-1", `[user("alice"), user("bob")]`, "30m"))
	uncovered := one
	uncovered.Requirements = nil

	vote := func(u access.User, s access.ReviewState, change ...func(*access.Review)) func(access.Plan) access.Review {
		return func(p access.Plan) access.Review {
			r := access.Review{User: u, State: s, Digest: p.Digest(), PolicyDigest: p.PolicyDigest}
			for _, c := range change {
				c(&r)
			}
			return r
		}
	}
	const yes, no, talk, gone = access.ReviewApproved, access.ReviewChangesRequested, access.ReviewCommented, access.ReviewDismissed
	type votes []func(access.Plan) access.Review
	for _, tt := range []struct {
		name     string
		plan     access.Plan
		votes    votes
		excluded map[int64]string
		met      bool
		says     string
	}{
		{"nobody", one, nil, nil, false, "0 of 1"},
		{"bob", one, votes{vote(bob, yes)}, nil, true, "bob agrees"},
		{"two are needed", two, votes{vote(bob, yes)}, nil, false, "1 of 2"},
		{"two agree", two, votes{vote(bob, yes), vote(carol, yes)}, nil, true, "2 of 2"},
		{"one person twice", two, votes{vote(bob, yes), vote(bob, yes)}, nil, false, "1 of 2"},
		{"requester", one, votes{vote(bob, yes)}, map[int64]string{2: "bob opened this request"}, false, "bob's approval does not count: bob opened this request."},
		{"in to", forBob, votes{vote(bob, yes)}, nil, false, "the access would be theirs"},
		{"carol for bob", forBob, votes{vote(carol, yes)}, nil, true, "carol agrees"},
		{"stranger", one, votes{vote(mallory, yes)}, nil, false, "not one of acme/data-owners"},
		{"bot", one, votes{vote(bot, yes)}, nil, false, "bots do not count"},
		{"a bot with a member's id", one, votes{vote(access.User{ID: 2, Login: "bob", Bot: true}, yes)}, nil, false, "bots do not count"},
		{"same login, other id", one, votes{vote(access.User{ID: 99, Login: "bob"}, yes)}, nil, false, "not one of"},
		{"other bytes", one, votes{vote(bob, yes, func(r *access.Review) { r.Digest = two.Digest() })}, nil, false, "other bytes"},
		{"no digest", one, votes{vote(bob, yes, func(r *access.Review) { r.Digest = "" })}, nil, false, "other bytes"},
		{"other policies", one, votes{vote(bob, yes, func(r *access.Review) { r.PolicyDigest = "x" })}, nil, false, "other policies"},
		{"a comment replaces nothing", one, votes{vote(bob, yes), vote(bob, talk)}, nil, true, "bob agrees"},
		{"dismissed", one, votes{vote(bob, yes), vote(bob, gone)}, nil, false, "0 of 1"},
		{"changes requested", one, votes{vote(bob, yes), vote(carol, no)}, nil, false, "carol asks for changes"},
		{"changes requested on older bytes", one, votes{vote(bob, yes), vote(carol, no, func(r *access.Review) { r.Digest = "" })}, nil, false, "carol asks for changes"},
		{"changes requested, then yes", one, votes{vote(bob, no), vote(bob, yes)}, nil, true, "bob agrees"},
		{"a stranger asks for changes", one, votes{vote(bob, yes), vote(mallory, no)}, nil, true, "bob agrees"},
		{"in advance", free, nil, nil, true, "Approved in advance"},
		{"in advance, yet blocked", free, votes{vote(bob, no)}, nil, false, "bob asks for changes"},
		{"nothing covers", uncovered, votes{vote(bob, yes)}, nil, false, "no approval covers it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := access.Ballot{Excluded: tt.excluded}
			for _, v := range tt.votes {
				b.Reviews = append(b.Reviews, v(tt.plan))
			}
			got := Count(tt.plan, b)
			if got.Met != tt.met || !strings.Contains(texts(got), tt.says) {
				t.Errorf("got met %t:\n%swant met %t, saying %q", got.Met, texts(got), tt.met, tt.says)
			}
		})
	}
}

func texts(r access.Reason) string {
	out := r.Text + "\n"
	for _, c := range r.Children {
		out += texts(c)
	}
	return out
}

func TestPolicyDigest(t *testing.T) {
	grant := grantText("inc-1", `user("alice")`, "30m")
	first := planned(t, basePolicies, grant).PolicyDigest
	edit := func(old, new string) string {
		if !strings.Contains(basePolicies, old) {
			t.Fatalf("the policies do not say %q", old)
		}
		return strings.Replace(basePolicies, old, new, 1)
	}
	for name, text := range map[string]string{
		"comment":   "# hello\n" + edit("statement.kind", "/* here */ statement.kind"),
		"layout":    edit(`statement.kind == "delete" && !statement.has_where`, `(statement.kind=="delete")&&(!statement.has_where)`),
		"unrelated": basePolicies + "\n" + `person "dave" { identity = oidc("dev", "d@acme.test") }`,
	} {
		if got := planned(t, text, grant).PolicyDigest; got != first {
			t.Errorf("%s changed the digest", name)
		}
	}
	for _, change := range [][2]string{
		{"alice@acme.test", "alice@other.test"}, {"db.internal", "db2.internal"}, {`longest = "8h"`, `longest = "7h"`},
		{"public.*", "public.orders"}, {"? 2 : 1", "? 3 : 1"}, {`from = team("acme/data-owners")`, `from = team("acme/dba")`},
		{"A data owner must", "Somebody must"}, {"!statement.has_where", "statement.has_where"},
		{`ask  = [team("acme/dba")]`, `ask  = [user("bob")]`}, {"users.ssn", "users.id"}, {"partial(4)", "partial(5)"},
	} {
		if planned(t, edit(change[0], change[1]), grant).PolicyDigest == first {
			t.Errorf("%q for %q did not change the digest", change[1], change[0])
		}
	}
}

func TestAdoption(t *testing.T) {
	old := tree("policies/a.hcl", basePolicies+`
approval "policy-change" {
  policies = true
  need = 1
  from = team("acme/dba")
  say = "A DBA must agree."
}`)
	owners := []access.Party{{Principal: access.Principal{Kind: access.KindUser, Name: "bob"}, ID: bob.ID}}
	count := func(owners []access.Party, voters ...access.User) bool {
		reqs, ds := AdoptionRequirements(old, owners, directory())
		if ds.HasErrors() {
			t.Fatal(ds)
		}
		plan := access.Plan{Requirements: reqs, PolicyDigest: PoliciesDigest(old)}
		var b access.Ballot
		for _, u := range voters {
			b.Reviews = append(b.Reviews, access.Review{User: u, State: access.ReviewApproved, Digest: plan.Digest(), PolicyDigest: plan.PolicyDigest})
		}
		return Count(plan, b).Met
	}
	if count(owners, bob) || count(owners, carol) || count(nil, bob, carol) {
		t.Error("policies were adopted without the owner, without the tree in force, or without any owner configured")
	}
	if !count(owners, bob, carol) {
		t.Error("owner and DBA agreed, and it was not enough")
	}
	if _, ds := AdoptionRequirements(tree("policies/a.hcl", "nonsense {"), owners, directory()); !ds.HasErrors() {
		t.Error("a tree in force that does not load gave no error")
	}
}
