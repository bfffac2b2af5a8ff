package gateway

import (
	"testing"

	"github.com/tidegate/tidegate/access"
)

// peopleCompiler denies where the grant names one person only.
type peopleCompiler struct{}

func (peopleCompiler) Compile(_ []access.Rule, g access.Grant, _ access.Identity) (access.Judge, error) {
	return access.JudgeFunc(func(access.Operation) access.Decision {
		if len(g.Plan.People) == 1 {
			return access.Decision{Verdict: access.Deny}
		}
		return access.Decision{Verdict: access.Allow}
	}), nil
}

// TestJudgesAreOfTheGeneration: a grant that was made narrower keeps the
// digest that was approved, and is judged as what it is now.
func TestJudgesAreOfTheGeneration(t *testing.T) {
	s := &Server{cfg: Config{Compiler: peopleCompiler{}}}
	g := access.Grant{Key: access.GrantKey{Repo: 1, ID: "inc-1"}, Generation: 1, Digest: "approved", Plan: access.Plan{People: make([]access.Person, 2)}}
	verdict := func() access.Verdict {
		t.Helper()
		c, err := s.compiledFor(g, access.Identity{Subject: "alice"}, &view{key: "rules"})
		if err != nil {
			t.Fatal(err)
		}
		return c.judge(access.Operation{}).Verdict
	}
	if got := verdict(); got != access.Allow {
		t.Errorf("got %s, want allow", got)
	}
	g.Generation, g.Plan.People = 2, g.Plan.People[:1]
	if got := verdict(); got != access.Deny {
		t.Errorf("narrowed: got %s, want deny", got)
	}
}
