package forge

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/workflows"
)

func TestParseCommands(t *testing.T) {
	one := func(verb string, args ...string) []workflows.Command {
		return []workflows.Command{{Verb: verb, Args: append([]string{}, args...)}}
	}
	for body, want := range map[string][]workflows.Command{
		"/tidegate approve H7 3fa9c2d1":                    one("approve", "H7", "3fa9c2d1"),
		"thanks\r\n/tidegate  extend\t30m why not \r\nbye": one("extend", "30m", "why", "not"),
		"/tidegate":                  {{Verb: "help"}},
		"/tidegate Revoke":           one("revoke"),
		" /tidegate revoke":          nil,
		"> /tidegate revoke":         nil,
		"see /tidegate revoke":       nil,
		"/tidegates revoke":          nil,
		"/tidegate revoke!":          nil,
		"/tidegate rev\u200boke":     nil,
		"/tidegate deny H7\u202e":    nil,
		"/tidegate\u00a0revoke":      nil,
		"```\n/tidegate revoke\n```": nil,
		"````\n```\n/tidegate revoke\n````\n/tidegate hold":       one("hold"),
		"~~~ text\n```\n/tidegate revoke\n~~~\n/tidegate hold":    one("hold"),
		"```\ncode\n``` not closed by this\n/tidegate revoke\n":   nil,
		"/tidegate " + strings.Repeat("x ", maxArgs+1):            nil,
		"/tidegate extend " + strings.Repeat("x", maxCommandLine): nil,
		"/tidegate " + strings.Repeat("x", maxVerb+1):             nil,
		"/tidegate hold\n/tidegate retry":                         append(one("hold"), one("retry")...),
	} {
		if diff := cmp.Diff(want, ParseCommands(body)); diff != "" {
			t.Errorf("%q: %s", clip(body, 80), diff)
		}
	}
	if n := len(ParseCommands(strings.Repeat("/tidegate help\n", 100))); n != maxCommands {
		t.Errorf("got %d commands of one comment, want %d", n, maxCommands)
	}
}

func FuzzParseCommands(f *testing.F) {
	for _, seed := range []string{"/tidegate approve H7 3fa9c2d1", "```\n/tidegate x\n```", "/tidegate\x00x", "\r\n/tidegate\r", "~~~~/tidegate"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		got := ParseCommands(body)
		if len(got) > maxCommands {
			t.Fatalf("got %d commands", len(got))
		}
		for _, c := range got {
			if c.Verb == "" || len(c.Verb) > maxVerb || len(c.Args) >= maxArgs {
				t.Fatalf("got %+v", c)
			}
			rest := body
			for _, word := range append([]string{"/tidegate"}, c.Args...) { // nothing is made up, nothing is hidden
				i := strings.Index(rest, word)
				if i < 0 || word != visible(word) || strings.ContainsAny(word, " \t\n") {
					t.Fatalf("got %q, which the comment does not show", word)
				}
			}
		}
	})
}
