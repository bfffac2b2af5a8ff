package ssh

import (
	"errors"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/tidegate/tidegate/access"
)

// A client must not learn what is outside of the role's folders, not even
// whether something is there. So the host is not asked about a path that is
// written outside of them: it would answer otherwise, or later, for what is
// missing, and might mount something. Where a link in a folder leads out, the
// client hears the same of whatever is behind it.

// outside is a path that the role's folders do not reach.
type outside struct {
	named string // as the client wrote it, from the root
	at    string // where it leads, for the recording; empty if that is not known
}

func (outside) Error() string { return "the path is outside of the role's folders" }

// maxSteps bounds the folders on the way of a path that is followed.
const maxSteps = 128

// readable reports whether a path can be judged and shown to a person.
func readable(name string) bool {
	return len(name) <= maxPath && utf8.ValidString(name) && strings.IndexByte(name, 0) < 0
}

var errPath = access.Errorf(access.CodeInvalid, "A path has more than %d bytes, or is not UTF-8 without zero bytes; only that is understood here.", maxPath)

// resolve answers with where a path leads, over no link. Not every sftp server
// follows links where it is asked for that, as OpenSSH's does (Windows' has one
// that doesn't): so what it answers is looked at, unless its kernel will be asked.
func (c *courier) resolve(name string, follow bool) (string, error) {
	at, err := c.lookUp(name, follow)
	if err != nil || c.proves {
		return at, err
	}
	return c.withoutLinks(at, follow)
}

// withoutLinks looks for links on a path's way below the role's folders, and at
// its end if the host would follow one there.
func (c *courier) withoutLinks(at string, follow bool) (string, error) {
	steps := c.steps(at)
	if !follow && len(steps) > 0 {
		steps = steps[:len(steps)-1]
	}
	if len(steps) > maxSteps {
		return "", outside{named: at}
	}
	var asks []message
	for _, step := range steps {
		asks = append(asks, newMessage(fxLstat, 0).text(step))
	}
	answers, err := c.callAll(asks)
	if err != nil {
		return "", err
	}
	for _, p := range answers {
		if is, stands := attributesOf(p); stands && is.mode&modeType == modeLink {
			return "", outside{named: at}
		}
	}
	return at, nil
}

// lookUp answers with where the host says that a path leads: below the role's
// folders, or on the way to them. Everything else is outside; what the host says of a path, which
// is a hostSays, is about those folders alone. Where the host would not follow
// a link at the path's end, only its folder is resolved.
func (c *courier) lookUp(name string, follow bool) (string, error) {
	if !readable(name) {
		return "", errPath
	}
	if !path.IsAbs(name) {
		name = c.home + "/" + name
	}
	out := outside{named: path.Clean(name)}
	if !c.isWritten(out.named) {
		return "", out
	}
	dir, base := path.Split(strings.TrimRight(name, "/"))
	if follow || base == "" || base == "." || base == ".." {
		dir, base = name, ""
	}
	folder, err := c.real(dir)
	at := path.Join(folder, base)
	switch {
	case errors.Is(err, errPath):
		return "", out // only a link can lead there
	case err != nil && !errors.As(err, new(hostSays)):
		return "", err
	case err == nil && c.reaches(at) && !climbs(name):
		return at, nil
	}
	stays, traced := c.trace(dir)
	switch {
	case traced != nil:
		return "", traced
	case stays && err != nil:
		return "", err
	case stays && c.reaches(at):
		return at, nil
	}
	out.at = at
	return "", out
}

// isWritten reports whether a path is written below one of the role's folders,
// or above one, by the names of the policies or those that they really have.
func (c *courier) isWritten(named string) bool {
	return within(c.written, named) || onTheWay(c.written, named)
}

// reaches reports whether a path without links is below one of the role's
// folders, or above one.
func (c *courier) reaches(at string) bool { return c.may(at, judged{meta: true}) }

// trace follows a path step by step. It stays where each step is in reach, or
// where the first that fails is no link: a link may fail for what is behind it.
// The host is asked the same for every path of as many steps.
func (c *courier) trace(name string) (stays bool, err error) {
	var asks []message
	steps := c.steps(name)
	if len(steps) > maxSteps {
		return false, nil
	}
	for _, step := range steps {
		asks = append(asks, newMessage(fxRealpath, 0).text(step), newMessage(fxLstat, 0).text(step))
	}
	answers, err := c.callAll(asks)
	if err != nil {
		return false, err
	}
	for i := 0; i < len(answers); i += 2 {
		at, err := realOf(answers[i])
		is, stands := attributesOf(answers[i+1])
		switch {
		case errors.As(err, new(hostSays)):
			return !stands || is.mode&modeType != modeLink, nil
		case err != nil && !errors.Is(err, errPath):
			return false, err
		case err != nil, !c.reaches(at):
			return false, nil
		}
	}
	return true, nil
}

// steps are the folders on a path's way, and its end, as it is written; those
// that lead to the role's own folders need no look.
func (c *courier) steps(name string) (out []string) {
	at, straight := "", true
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part == "." {
			continue
		}
		at, straight = at+"/"+part, straight && part != ".."
		if !straight || !onTheWay(c.written, at) && !slices.Contains(c.written, at) {
			out = append(out, at)
		}
	}
	return out
}
