package forge

import (
	"context"
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
		return workflows.Command{Verb: "help"}, true
	}
	verb := strings.ToLower(words[0])
	if len(verb) > maxVerb || len(words) > maxArgs || strings.Trim(verb, "abcdefghijklmnopqrstuvwxyz-") != "" {
		return workflows.Command{}, false
	}
	return workflows.Command{Verb: verb, Args: words[1:]}, true
}

// Commands lists the commands of people in comments that were never edited: an
// edited comment may have been written by anybody with write access.
func (f *Forge) Commands(ctx context.Context, ref workflows.Ref) ([]workflows.Command, error) {
	if err := f.serve(ctx, ref.Repo); err != nil {
		return nil, err
	}
	all, err := f.comments(ctx, ref.Number)
	if err != nil {
		return nil, err
	}
	var out []workflows.Command
	for _, c := range all {
		by := user(c.User)
		if by.ID == 0 || by.Bot || !isNew(c) {
			continue
		}
		for _, cmd := range ParseCommands(c.GetBody()) {
			cmd.Comment, cmd.By, cmd.At = c.GetID(), by, c.GetCreatedAt().UTC()
			out = append(out, cmd)
		}
	}
	return out, nil
}
