package policies

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/access"
)

var db = access.TargetRef{Kind: "postgres", Name: "orders-prod"}

func granted() access.Grant {
	return access.Grant{Plan: access.Plan{
		Request: access.Request{ID: "inc-1", Role: "readonly", Lasts: 60},
		Target:  access.Target{TargetRef: db, Labels: map[string]string{"env": "prod"}},
	}}
}

func facts() access.Facts {
	return access.Facts{
		"kind": "select", "writes": false, "ddl": false, "has_where": true,
		"tables": []string{"public.users"}, "columns": []string{"public.users.ssn", "public.users.name"},
		"functions": []string{},
	}
}

func TestConditions(t *testing.T) {
	id := access.Identity{Provider: "dev", Email: "a@b.c", Groups: []string{"eng"}, Claims: map[string]string{"repo": "7"}}
	for _, tt := range []struct {
		cond  string
		bites bool
	}{
		{`statement.kind == "select"`, true},
		{`statement.kind != "select"`, false},
		{`statement.kind == "select" && statement.has_where && !statement.writes`, true},
		{`touches("users.ssn")`, true},
		{`touches("USERS.ssn")`, true},
		{`touches("users.email")`, false},
		{`touches("public.users")`, true},
		{`touches("orders")`, false},
		{`touches("private.users.ssn")`, false},
		{`touches("users.*")`, true},
		{`contains(identity.groups, "eng")`, true},
		{`contains(["a", "b"], statement.kind)`, false},
		{`startswith(statement.text, "select")`, true},
		{`endswith(lower(statement.text), "= 1")`, true},
		{`matches(statement.text, "select .*")`, true},
		{`matches(statement.text, "select")`, false}, // the whole text, not a part
		{`any(statement.tables, "public\\..*")`, true},
		{`all(statement.columns, ".*ssn")`, false},
		{`length(statement.columns) > 1 + 1`, false},
		{`grant.seconds < seconds("2m") ? target.labels.env == "prod" : false`, true},
		{`identity.claims.repo == "7"`, true},
		{`statement.text == "$${x}"`, false},

		// What nobody knows bites, unless the other side settles it.
		{`identity.email == "x@y.z"`, true}, // not verified
		{`identity.claims.nope == "7"`, true},
		{`!(identity.claims.nope == "7")`, true},
		{`target.labels.nope != "x"`, true},
		{`target.labels.nope == "x" && statement.writes`, false},
		{`statement.writes && target.labels.nope == "x"`, false},
		{`target.labels.nope == "x" || statement.writes`, true},
		{`grant.seconds / (length(statement.tables) - 1) > 3`, true},
		{`grant.seconds * 2000000000 * 2 > 0 && false`, false},
		{`grant.seconds * 2000000000 < 0`, true}, // too large to be known
	} {
		t.Run(tt.cond, func(t *testing.T) {
			j, err := Compile([]access.Rule{{Name: "r", On: []access.TargetRef{db}, Deny: tt.cond, Say: "No."}}, granted(), id)
			if err != nil {
				t.Fatal(err)
			}
			got := j.Judge(access.Operation{Subject: "statement", Text: "select ssn, name from users where id = 1", Facts: facts()})
			if (got.Verdict == access.Deny) != tt.bites {
				t.Errorf("got %v, want it to bite: %t", got, tt.bites)
			}
		})
	}
}

func TestMissingFactsBite(t *testing.T) {
	for name := range judgeWords["statement"] {
		cond := map[kind]string{
			kindBool: "statement." + name, kindString: `statement.` + name + ` == "x"`,
			kindList: `contains(statement.` + name + `, "x")`, kindInt: "statement." + name + " > 3",
		}[judgeWords["statement"][name]]
		j, err := Compile([]access.Rule{{Name: "r", On: []access.TargetRef{db}, Hold: cond}}, granted(), access.Identity{})
		if err != nil {
			t.Fatal(err)
		}
		for what, value := range map[string]any{"missing": nil, "of another kind": 3.5, "an int": 7} {
			f := facts()
			f[name] = value
			if got := j.Judge(access.Operation{Subject: "statement", Facts: f}); got.Verdict != access.Hold {
				t.Errorf("%s %s: got %s, want hold", name, what, got.Verdict)
			}
		}
		if got := j.Judge(access.Operation{Subject: "command"}); got.Verdict != access.Hold {
			t.Errorf("%s of another subject: got %s, want hold", name, got.Verdict)
		}
	}
}

func TestFactsCannotPose(t *testing.T) {
	j, err := Compile([]access.Rule{{Name: "r", On: []access.TargetRef{db}, Deny: `target.labels.env == "prod"`}}, granted(), access.Identity{})
	if err != nil {
		t.Fatal(err)
	}
	op := access.Operation{Subject: "target", Facts: access.Facts{"labels": map[string]string{"env": "dev"}}}
	if got := j.Judge(op); got.Verdict != access.Deny {
		t.Errorf("an operation that calls itself target got %s", got.Verdict)
	}
}

func TestCompileRefuses(t *testing.T) {
	for _, cond := range []string{"", "(", "true ||", "undefined.x", "null", `"x"`, "true || undefined.x",
		strings.Repeat("(", 100000), "[for a in [] : a]", "statement.kind == \"\u202e\"", "1 +"} {
		rule := access.Rule{Name: "bad", On: []access.TargetRef{db}, Deny: cond}
		if _, err := Compile([]access.Rule{rule}, granted(), access.Identity{}); access.CodeOf(err) != access.CodeInvalid || err == nil {
			t.Errorf("%.40q: got %v, want an invalid error", cond, err)
		}
	}
}

func TestStrictestRuleWins(t *testing.T) {
	ask := []access.Party{{ID: 10}}
	on := []access.TargetRef{db}
	rules := []access.Rule{
		{Name: "elsewhere", On: []access.TargetRef{{Kind: "ssh", Name: "web-1"}}, Deny: "this does not compile"},
		{Name: "hold", On: on, Hold: "true", Ask: ask, Say: "Wait."},
		{Name: "deny", On: on, Deny: "statement.writes", Hold: "true", Say: "No.", Sync: true},
	}
	j, err := Compile(rules, granted(), access.Identity{})
	if err != nil {
		t.Fatal(err)
	}
	f := facts()
	got := j.Judge(access.Operation{Subject: "statement", Facts: f})
	if got.Verdict != access.Hold || got.Rule != "hold" || len(got.Ask) != 1 || !got.Sync {
		t.Errorf("got %+v, want the first hold, synced", got)
	}
	f["writes"] = true
	if got := j.Judge(access.Operation{Subject: "statement", Facts: f}); got.Verdict != access.Deny || got.Say != "No." {
		t.Errorf("got %+v, want deny", got)
	}
}

func TestJudgeConcurrently(t *testing.T) {
	j, err := Compile([]access.Rule{{Name: "r", On: []access.TargetRef{db}, Hold: `touches("users.ssn")`}}, granted(), access.Identity{})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				if got := j.Judge(access.Operation{Subject: "statement", Facts: facts()}); got.Verdict != access.Hold {
					t.Errorf("got %s", got.Verdict)
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkJudge(b *testing.B) {
	j, err := Compile([]access.Rule{
		{Name: "a", On: []access.TargetRef{db}, Deny: "statement.ddl"},
		{Name: "b", On: []access.TargetRef{db}, Hold: `statement.kind == "delete" && !statement.has_where`},
	}, granted(), access.Identity{})
	if err != nil {
		b.Fatal(err)
	}
	op := access.Operation{Subject: "statement", Facts: facts()}
	for b.Loop() {
		j.Judge(op)
	}
}

func TestJudgesClassesUnlessARuleReadsTheText(t *testing.T) {
	on := access.TargetRef{Kind: "postgres", Name: "orders-prod"}
	g := access.Grant{Plan: access.Plan{Target: access.Target{TargetRef: on}}}
	for deny, want := range map[string]bool{
		`statement.writes`: true,
		`statement.kind == "select" && contains(statement.tables, "users")`: true,
		`matches(statement.text, ".*secret.*")`:                             false,
		`!(statement.writes || startswith(lower(statement.text), "x"))`:     false,
	} {
		j, err := Compile([]access.Rule{{Name: "r", On: []access.TargetRef{on}, Deny: deny, Say: "No."}}, g, access.Identity{})
		if err != nil {
			t.Fatal(err)
		}
		if got := j.(access.ClassJudge).JudgesClasses(); got != want {
			t.Errorf("%s: JudgesClasses is %v, want %v", deny, got, want)
		}
	}
}

func TestLimits(t *testing.T) {
	rules := []access.Rule{
		{Name: "few", On: []access.TargetRef{db}, LimitRows: 1000, Say: "Few."},
		{Name: "fewer", On: []access.TargetRef{db}, When: `touches("users")`, LimitRows: 10, LimitTime: 30, Record: "results", Say: "Fewer."},
		{Name: "unknown", On: []access.TargetRef{db}, When: "statement.rows > 5", LimitTime: 20, Say: "Quick."},
		{Name: "other", On: []access.TargetRef{db}, When: `touches("orders")`, LimitRows: 1, Say: "One."},
		{Name: "no", On: []access.TargetRef{db}, Deny: "statement.writes", Say: "No."},
	}
	j, err := Compile(rules, granted(), access.Identity{})
	if err != nil {
		t.Fatal(err)
	}
	got := j.Judge(access.Operation{Subject: "statement", Facts: facts()})
	want := access.Limits{Rows: 10, Time: 20, Results: true, Rule: "fewer", Say: "Fewer."}
	if got.Verdict != access.Allow || got.Limits != want {
		t.Errorf("got %+v, want allow with %+v", got, want)
	}
	f := facts()
	f["tables"], f["columns"], f["rows"] = []string{}, []string{}, int64(3)
	if got := j.Judge(access.Operation{Subject: "statement", Facts: f}).Limits; got != (access.Limits{Rows: 1000, Rule: "few", Say: "Few."}) {
		t.Errorf("of another table: got %+v, want the first rule's alone", got)
	}
	r := j.(access.FactJudge)
	if !r.Reads("rows") || r.Reads("text") || j.(access.ClassJudge).JudgesClasses() {
		t.Error("it must say that it reads an estimate and no text, and not be kept for a class")
	}
}

func TestLimitsAreReadAndChecked(t *testing.T) {
	var diags diagnostics
	set := loadPolicies(access.Tree{Files: []access.File{{Path: "policies/x.hcl", Content: []byte(`
target "postgres" "orders-prod" {
  address = "db:5432/o"
  role "r" { longest = "1h" }
}
rule "good" {
  on         = [postgres.orders-prod]
  when       = touches("users") && statement.rows > 5
  limit_rows = 1000
  limit_time = "30s"
  record     = "results"
  say        = "Look at few people."
}
rule "bad" {
  on         = [postgres.orders-prod]
  limit_rows = 0
  limit_time = "2d"
  record     = "everything"
  say        = "x"
}
rule "empty" {
  on   = [postgres.orders-prod]
  when = true
  say  = "x"
}
`)}}}, &diags)
	var said []string
	for _, d := range diags.sorted() {
		said = append(said, fmt.Sprintf("%d %s", d.Line, d.Summary))
	}
	want := []string{"16 The value is not understood", "17 The value is not understood", "18 The value is not understood", "21 A rule does nothing", "23 A condition has no effect"}
	if diff := cmp.Diff(want, said); diff != "" {
		t.Errorf("diagnostics (-want +got):\n%s", diff)
	}
	good := set.rules[slices.IndexFunc(set.rules, func(r rule) bool { return r.Name == "good" })].Rule
	if good.LimitRows != 1000 || good.LimitTime != 30 || good.Record != "results" || good.When != `touches("users") && (statement.rows > 5)` {
		t.Errorf("read %+v", good)
	}
}
