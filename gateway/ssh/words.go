package ssh

import (
	"path"
	"runtime"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// maxParsed bounds the text that is parsed: the parser is recursive. A longer
// command is not simple.
const maxParsed = 32 << 10

// A command of maxParsed can take 64 MB of stack, for "((((" nests. So the longer
// ones of all connections take turns.
const longCommand = 256

var longTurns = make(chan struct{}, max(2, runtime.GOMAXPROCS(0)))

// literalWords reads a command that is one simple command whose words are all
// literal: it means the same to every shell that an account may have. ok is
// false for everything else: expansions, lists, redirections, assignments,
// substitutions, escapes, whatever does not parse.
func literalWords(command string) (words []string, ok bool) {
	// The parser takes \ with CR and LF behind it for one line that goes on, and
	// drops CR; a shell escapes the CR and begins another command after LF.
	if len(command) > maxParsed || strings.ContainsAny(command, "\\\r\n`$!") { // the last three are in no word, nor in quotes
		return nil, false
	}
	if len(command) > longCommand {
		longTurns <- struct{}{}
		defer func() { <-longTurns }()
	}
	// The parser keeps comments only where it is told to, and none is a word.
	file, err := syntax.NewParser(syntax.Variant(syntax.LangPOSIX), syntax.KeepComments(true)).Parse(strings.NewReader(command), "")
	if err != nil || len(file.Stmts) != 1 || len(file.Last) > 0 {
		return nil, false
	}
	stmt := file.Stmts[0]
	call, isCall := stmt.Cmd.(*syntax.CallExpr)
	if !isCall || stmt.Negated || stmt.Background || stmt.Coprocess || len(stmt.Redirs)+len(stmt.Comments)+len(call.Assigns) > 0 {
		return nil, false
	}
	for _, w := range call.Args {
		text, literal := literalWord(w)
		if !literal {
			return nil, false
		}
		words = append(words, text)
	}
	// bash and zsh take a+=b in the first place for an assignment, and run what
	// stands behind it; the parser, which reads as sh does, takes it for the program.
	// In that place %1 is a job, to some even in quotes.
	return words, len(words) > 0 && !strings.Contains(words[0], "=") && !strings.HasPrefix(words[0], "%")
}

func literalWord(w *syntax.Word) (string, bool) {
	var text strings.Builder
	for _, part := range w.Parts {
		switch p := part.(type) {
		case *syntax.Lit:
			// zsh takes =name for the path of a program, fish %self for a number,
			// and before its version 3 %name for those of processes; not in quotes.
			if !plain(p.Value, isBare) || text.Len() == 0 && strings.IndexAny(p.Value, "=%") == 0 {
				return "", false
			}
			text.WriteString(p.Value)
		case *syntax.SglQuoted:
			if p.Dollar || !plain(p.Value, isQuoted) {
				return "", false
			}
			text.WriteString(p.Value)
		case *syntax.DblQuoted:
			for _, in := range p.Parts {
				lit, isLit := in.(*syntax.Lit)
				if p.Dollar || !isLit || !plain(lit.Value, isQuoted) {
					return "", false
				}
				text.WriteString(lit.Value)
			}
		default:
			return "", false
		}
	}
	return text.String(), true
}

func plain(s string, ok func(rune) bool) bool {
	return strings.IndexFunc(s, func(r rune) bool { return !ok(r) }) < 0
}

// isBare are the characters that no shell treats specially without quotes.
func isBare(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_@%+=:,./-", r)
}

// isQuoted are those that none treats specially inside quotes: fish reads
// backslashes in single quotes, and csh exclamation marks and line ends.
func isQuoted(r rune) bool {
	return r >= ' ' && r != 0x7f && !strings.ContainsRune("\\!`$", r) && r != 0xfffd
}

// matchesAny reports whether the words are one of the allowed commands.
func matchesAny(allowed []string, words []string) bool {
	for _, a := range allowed {
		if matchesCommand(strings.Split(a, " "), words) {
			return true
		}
	}
	return false
}

// matchesCommand compares word by word. A star stands for any characters of a
// word, but never lets in an option that the pattern does not begin as one, nor
// a path that leads upwards; ** at the end stands for any more words.
func matchesCommand(pattern, words []string) bool {
	for i, p := range pattern {
		if p == "**" && i == len(pattern)-1 {
			return true
		}
		if i >= len(words) || !matchesWord(p, words[i]) {
			return false
		}
	}
	return len(words) == len(pattern)
}

// climbs reports whether a path leads upwards: /var/log/* means what is below.
func climbs(path string) bool {
	return slices.Contains(strings.Split(path, "/"), "..")
}

func matchesWord(pattern, word string) bool {
	if strings.HasPrefix(word, "-") && !strings.HasPrefix(pattern, "-") {
		return false
	}
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == word
	}
	if climbs(word) && !climbs(pattern) {
		return false
	}
	rest, ok := strings.CutPrefix(word, parts[0])
	if !ok {
		return false
	}
	for _, part := range parts[1 : len(parts)-1] {
		i := strings.Index(rest, part)
		if i < 0 {
			return false
		}
		rest = rest[i+len(part):]
	}
	return strings.HasSuffix(rest, parts[len(parts)-1])
}

// transferOf names the file transfer that a command is, as its client starts
// it at the host; empty for any other command. These programs can start others,
// too: whatever their clients do not say to their other half is no transfer.
func transferOf(words []string) string {
	if len(words) < 2 {
		return ""
	}
	name, args := programOf(words[0]), words[1:]
	if name == "git" {
		name, args = "git-"+args[0], args[1:]
	}
	switch name {
	case "scp":
		if isFarSCP(args) {
			return "scp"
		}
	case "rsync":
		if args[0] == "--server" && !slices.Contains(args, "--daemon") && !hidesArguments(args) { // a daemon's configuration names programs
			return "rsync"
		}
	case "git-upload-pack", "git-receive-pack", "git-upload-archive":
		if len(args) == 1 && !strings.HasPrefix(args[0], "-") { // --help shows a pager
			return "git"
		}
	}
	return ""
}

// systemFolders are where programs lie that an account does not bring along.
var systemFolders = []string{"", "/bin/", "/usr/bin/", "/usr/local/bin/", "/usr/lib/git-core/", "/usr/libexec/git-core/"}

// programOf is the name of a program of the system's; empty for any other path.
func programOf(word string) string {
	dir, name := path.Split(word)
	if !slices.Contains(systemFolders, dir) {
		return ""
	}
	return name
}

// hidesArguments reports whether rsync is to read more arguments where its files
// come from (-s), which nobody judges: --daemon may be among them. What stands
// behind e in a word is that option's own.
func hidesArguments(words []string) bool {
	return slices.ContainsFunc(words, func(w string) bool {
		letters, isOption := strings.CutPrefix(w, "-")
		if strings.HasPrefix(letters, "-") {
			return strings.HasPrefix(w, "--secluded-args") || strings.HasPrefix(w, "--protect-args")
		}
		letters, _, _ = strings.Cut(letters, "e")
		return isOption && strings.Contains(letters, "s")
	})
}

// isFarSCP reports whether scp is to be the half at the host: it sends or takes
// and starts nothing. With any other option, or with -t behind a file's name,
// it is a client, which runs a program that -S or -o names.
func isFarSCP(words []string) bool {
	far := false
	for _, w := range words {
		letters, isOption := strings.CutPrefix(w, "-")
		if !isOption || letters == "-" {
			break
		}
		if letters == "" || strings.Trim(letters, "dfprtv") != "" {
			return false
		}
		far = far || strings.ContainsAny(letters, "ft")
	}
	return far
}
