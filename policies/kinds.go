package policies

import (
	"strings"

	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// kindWords are the attributes that one kind of target, and its roles, have
// besides those of all. What they mean is the business of that kind's room.
type kindWords struct{ target, role []string }

var kinds = map[string]kindWords{
	"ssh": {
		target: []string{"host_key", "host_ca"},
		role: []string{
			"accounts", "shell", "exec", "terminal", "commands", "transfers", "max_file", "forward", "listen",
			"env", "subsystems", "agent", "x11",
		},
	},
}

// settingOf reads true, a text or a list of texts. A list is one text with a
// line for each entry: no text can hold a line's end.
func (b block) settingOf(e hclsyntax.Expression) string {
	if v, ok := literalBool(e); ok {
		if v {
			return "true"
		}
		return ""
	}
	var out []string
	for _, item := range list(e) {
		out = append(out, b.stringOf(item))
	}
	return strings.Join(out, "\n")
}

// kindSettings reads the named attributes; one that gives nothing is left out.
func (b block) kindSettings(names []string, into map[string]string) map[string]string {
	for _, name := range names {
		e := b.attr(name)
		if e == nil {
			continue
		}
		if _, twice := into[name]; twice {
			b.diags.errorf(e.Range(), "A setting is there twice", "Write %s once.", name)
		}
		if s := b.settingOf(e); s != "" {
			if into == nil {
				into = map[string]string{}
			}
			into[name] = s
		}
	}
	return into
}
