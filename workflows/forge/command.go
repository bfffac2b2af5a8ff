package forge

import (
	"strings"

	"github.com/tidegate/tidegate/workflows"
)

const (
	maxCommands    = 10
	maxCommandLine = 1000
	maxArgs        = 64
	maxVerb        = 16
)

// ParseCommands finds the commands in a comment: lines that begin with
// "/tidegate", outside of code blocks. A line with characters that can't be seen
// is none: what people read is what counts. The result has no Comment, By and At.
func ParseCommands(body string) []workflows.Command {
	var out []workflows.Command
	fence := ""
	for l := range strings.SplitSeq(strings.ReplaceAll(body, "\r\n", "\n"), "\n") {
		if run := fenceOf(l); run != "" {
			switch {
			case fence == "":
				fence = run
			case run[0] == fence[0] && len(run) >= len(fence) && strings.Trim(strings.TrimSpace(l), run[:1]) == "":
				fence = ""
			}
			continue
		}
		if c, ok := parseCommand(l); ok && fence == "" && len(out) < maxCommands {
			out = append(out, c)
		}
	}
	return out
}

// fenceOf is the run of backticks or tildes that opens or closes a code block.
func fenceOf(l string) string {
	trimmed := strings.TrimLeft(l, " ")
	if len(l)-len(trimmed) > 3 {
		return ""
	}
	for _, c := range []byte{'`', '~'} {
		n := 0
		for n < len(trimmed) && trimmed[n] == c {
			n++
		}
		if n >= 3 {
			return trimmed[:n]
		}
	}
	return ""
}

func parseCommand(l string) (workflows.Command, bool) {
	rest, ok := strings.CutPrefix(l, "/tidegate")
	if !ok || len(l) > maxCommandLine || l != visible(l) {
		return workflows.Command{}, false
	}
	if rest != "" && rest[0] != ' ' && rest[0] != '\t' {
		return workflows.Command{}, false
	}
	words := strings.FieldsFunc(rest, func(r rune) bool { return r == ' ' || r == '\t' })
	if len(words) == 0 {
		return workflows.Command{Verb: workflows.VerbHelp}, true
	}
	verb := strings.ToLower(words[0])
	if len(verb) > maxVerb || len(words) > maxArgs || strings.Trim(verb, "abcdefghijklmnopqrstuvwxyz-") != "" {
		return workflows.Command{}, false
	}
	return workflows.Command{Verb: verb, Args: words[1:]}, true
}
