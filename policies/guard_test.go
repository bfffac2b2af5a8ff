package policies

import (
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
)

func loadText(policy string) access.Diagnostics {
	return Load(tree("policies/a.hcl", policy))
}

func TestGuardRefuses(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"brackets", `x = ` + strings.Repeat("[", 4000), "nesting is too deep"},
		{"100,000 brackets", `x = ` + strings.Repeat("[", 100000), "too large"},
		{"parentheses", `x = ` + strings.Repeat("(", 4000), "nesting is too deep"},
		{"blocks", strings.Repeat("a {\n", 2000), "nesting is too deep"},
		{"not not not", `x = ` + strings.Repeat("!", 60000) + "true", "too many tokens"},
		{"nested for", `x = ` + strings.Repeat("[for a in ", 12) + "[]", "for expression"},
		{"for after a comment", "x = [ /* c */\n for a in b : a]", "for expression"},
		{"for object", `x = { for k, v in b : k => v }`, "for expression"},
		{"template", `x = "a${b}"`, "Templates"},
		{"control", `x = "%{ if true }a%{ endif }"`, "Templates"},
		{"heredoc", "x = <<E\na\nE\n", "Templates"},
		{"bidi", "# \u202e evil\n", "U+202E"},
		{"zero width", "person \"ali\u200bce\" {}", "U+200B"},
		{"byte order mark", "\ufeffx = 1", "U+FEFF"},
		{"control character", "x = \"\x01\"", "control character"},
		{"not UTF-8", "x = \"\xff\"", "not UTF-8"},
		{"look-alike name", "r\u043ele = 1", "not ASCII"},
		{"look-alike label", "person \"\u0430lice\" { identity = oidc(\"dev\", \"a@b.c\") }", "label is not allowed"},
		{"escaped bidi", `person "alice" { identity = oidc("dev", "a\u202e@b.c") }`, "not understood"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			start := time.Now()
			wantDiagnostic(t, loadText(tt.text), tt.want)
			if d := time.Since(start); d > 2*time.Second {
				t.Errorf("took %s", d)
			}
		})
	}
}

func wantDiagnostic(t *testing.T, ds access.Diagnostics, want string) {
	t.Helper()
	for _, d := range ds {
		if strings.Contains(d.String(), want) && d.Line > 0 && d.Column > 0 && d.Detail != "" {
			return
		}
	}
	t.Errorf("got %v, want a diagnostic that says %q", ds, want)
}

func TestPolicyMistakes(t *testing.T) {
	const target = `target "postgres" "db" {
  address = "h:1/d"
  role "r" { longest = "1h" }
}
`
	rule := func(cond string) string {
		return target + `rule "r" { 
  on = postgres.db
  deny = ` + cond + `
  say = "No."
}`
	}
	for _, tt := range []struct{ name, text, want string }{
		{"undefined behind true", rule(`true || undefined.x`), `called "undefined"`},
		{"undefined attribute", rule(`statement.kin == "x"`), `statement has no "kin"`},
		{"null", rule(`statement.kind == null`), "null is none of them"},
		{"kinds differ", rule(`statement.kind == 1`), "Wanted a string"},
		{"condition is no bool", rule(`statement.kind`), "Wanted a bool"},
		{"index", rule(`statement.tables[0] == "x"`), "indexes"},
		{"splat", rule(`statement.tables[*] == "x"`), "not allowed"},
		{"call unknown", rule(`file("/etc/passwd") == "x"`), "call is not understood"},
		{"pattern", rule(`matches(statement.text, "(")`), "argument is not understood"},
		{"pattern that closes the anchors", rule(`matches(statement.text, "a)|(?:b")`), "argument is not understood"},
		{"pattern not literal", rule(`matches(statement.text, statement.kind)`), "plain string as its last"},
		{"statement in an approval", `approval "a" { 
  when = statement.ddl
  need = 1
  from = user("bob")
  say = "x"
}`, `called "statement"`},
		{"rule on nothing", `rule "r" { 
  on = postgres.nope
  deny = true
  say = "x"
}`, `target "postgres" "nope"`},
		{"mask on nothing", `mask "m" { 
  on = postgres.nope
  columns = ["*.email"]
  with = null()
}`, `target "postgres" "nope"`},
		{"no say", target + `rule "r" { 
  on = postgres.db
  deny = true
}`, `needs "say"`},
		{"hold without ask", target + `rule "r" { 
  on = postgres.db
  hold = true
  say = "x"
}`, `needs "ask"`},
		{"twice", target + target, "A name is taken"},
		{"two people, one identity", `person "a" { identity = oidc("dev", "x@y.z") }
person "b" { identity = oidc("dev", "X@y.z") }`, "an identity is one person's"},
		{"unknown attribute", `person "a" { 
  identity = oidc("dev", "x@y.z")
  admin = true
}`, `no "admin"`},
		{"unknown block", `backdoor "x" {}`, "block is unknown"},
		{"top attribute", `x = 1`, "blocks only"},
		{"mask way", target + `mask "m" { 
  on = postgres.db
  columns = ["*.email"]
  with = shuffle()
}`, "partial(1 to 64)"},
		{"expectation", `check "c" { 
  given = { to = user("a"), on = postgres.db, role = "r", lasts = "1h" }
  expect = "maybe"
}`, "expectation is not understood"},
	} {
		t.Run(tt.name, func(t *testing.T) { wantDiagnostic(t, loadText(tt.text), tt.want) })
	}
}

func TestPlaceholders(t *testing.T) {
	ok := tree("policies/a.hcl", basePolicies, "grants/README.md", "hello", "grants/.gitkeep", "")
	if ds := Load(ok); len(ds) > 0 {
		t.Error(ds)
	}
	if e := Evaluate(Input{Adopted: ok, Head: tree("grants/README.md", "hello")}); len(e.Diagnostics) > 0 || len(e.Changes) > 0 {
		t.Errorf("a README gave %+v", e)
	}
	wantDiagnostic(t, Load(tree("policies/a.hcl", basePolicies, "grants/alice/inc-1.HCL", "")), "place is wrong")
}

func TestNames(t *testing.T) {
	head := tree("grants/alice/inc-1.hcl", grantText("inc-1", `[user("Alice"), team("Acme/x")]`, "1h"))
	users, teams := Names(tree("policies/a.hcl", basePolicies), tree(), head)
	if got := strings.Join(users, " ") + "; " + strings.Join(teams, " "); got != "alice; acme/data-owners acme/dba acme/x" {
		t.Errorf("got %s", got)
	}
}

func TestRules(t *testing.T) {
	rules, ds := Rules(tree("policies/a.hcl", basePolicies), directory())
	if len(ds) > 0 || len(rules) != 1 || len(rules[0].Ask) != 1 || rules[0].Ask[0].ID != 11 || len(rules[0].Ask[0].Members) != 1 {
		t.Errorf("got %+v, %v", rules, ds)
	}
	if _, ds := Rules(tree("policies/a.hcl", basePolicies), access.Directory{}); !ds.HasErrors() {
		t.Error("a team that the forge does not know gave no error")
	}
}

func TestDiagnosticsHideSecrets(t *testing.T) {
	ds := loadText(`target "postgres" "db" {
  address = "admin:hunter2@h:1/d"
  admin   = "hunter2"
  role "r" { longest = "1h" }
}`)
	if len(ds) != 2 {
		t.Errorf("got %d diagnostics, want 2: %v", len(ds), ds)
	}
	for _, d := range ds {
		if strings.Contains(d.String(), "hunter2") {
			t.Errorf("a diagnostic says the secret: %s", d)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(basePolicies)
	f.Add(grantText("inc-1", `user("alice")`, "2h"))
	f.Add(`x = ` + strings.Repeat("[", 100000)) // too many bytes
	f.Add(`x = ` + strings.Repeat("{a=", 3000)) // too many tokens
	f.Add(`x = ` + strings.Repeat("{a=", 2000)) // too deep
	f.Add(`rule "r" { deny = a.b[*].c }`)
	f.Fuzz(func(t *testing.T, text string) {
		in := tree("policies/a.hcl", text, "grants/alice/inc-1.hcl", text)
		read := func() time.Duration {
			start := time.Now()
			Load(in)
			e := Evaluate(Input{Adopted: in, Head: in, Directory: directory()})
			if e.Diagnostics.HasErrors() && len(loadText(text)) > 0 && len(e.Plans) > 0 {
				t.Error("a plan was made under policies that do not load")
			}
			return time.Since(start)
		}
		// A machine that stands still does so once; a text that is slow is so again.
		if took := read(); took > 10*time.Second {
			if again := read(); again > 10*time.Second {
				t.Errorf("took %s, and %s the second time", took, again)
			}
		}
	})
}
