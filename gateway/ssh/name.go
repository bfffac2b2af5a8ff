package ssh

import (
	"regexp"
	"strings"

	"github.com/tidegate/tidegate/access"
)

// address is what the user part of an SSH address names.
type address struct {
	account string // at the host; empty: the role's first
	target  string
	choice  string // a grant or a role
}

var addressPattern = regexp.MustCompile(`\A(?:([a-z_][a-z0-9_.-]{0,31})%)?([A-Za-z0-9_][A-Za-z0-9_-]{0,47})(?:\+([A-Za-z0-9_][A-Za-z0-9_-]{0,47}))?\z`)

// parseAddress reads [account%]target[+grant].
func parseAddress(user string) (address, error) {
	m := addressPattern.FindStringSubmatch(user)
	if m == nil {
		return address{}, access.Errorf(access.CodeInvalid,
			"The user %.64q names no target: connect as target@gate, account%%target@gate or target+grant@gate.", strings.ToValidUTF8(user, "?"))
	}
	return address{account: m[1], target: m[2], choice: m[3]}, nil
}

var innerPattern = regexp.MustCompile(`\A([a-z_][a-z0-9_.-]{0,31})(?:\+([A-Za-z0-9_][A-Za-z0-9_-]{0,47}))?\z`)

// parseInner reads the user part on the way through to a target that is named
// by its address already: an account there, or the whole form.
func parseInner(user, target string) (address, error) {
	if a, err := parseAddress(user); err == nil && a.target == target {
		return a, nil
	}
	m := innerPattern.FindStringSubmatch(user)
	if m == nil {
		return address{}, access.Errorf(access.CodeInvalid, "The user %.64q is no account: connect as account@%s or account+grant@%s.", strings.ToValidUTF8(user, "?"), target, target)
	}
	return address{account: m[1], target: target, choice: m[2]}, nil
}
