package ssh

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
)

// The kinds of operation: command.kind to rules.
const (
	kindShell     = "shell"
	kindExec      = "exec"
	kindSubsystem = "subsystem"
	kindSession   = "sftp"    // an sftp session; each file in it is an operation of its own
	kindFile      = "file"    // one file or folder, by sftp
	kindForward   = "forward" // a connection from the client's side to an address
	kindListen    = "listen"  // a port at the host, for the client
	kindArrival   = "arrival" // a connection that came to that port
	kindAgent     = "agent"
	kindX11       = "x11"
)

// maxCommand bounds a command: an approver must be able to read it.
const maxCommand = 64 << 10

// facts are what rules read of an operation. Every word has a value for every
// kind, so that a rule about commands says nothing of a forward; only name and
// words are unknown for a command that is not simple, and unknown bites.
func (s *stay) facts(kind string) access.Facts {
	return access.Facts{
		"kind": kind, "account": s.b.account, "name": "", "words": []string{}, "simple": false,
		"pty": s.pty != nil, "writes": true, "path": "", "address": "",
	}
}

// operation is what a request asks for, with the room's own word on it.
func (s *stay) operation(req *gossh.Request) (access.Operation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if req.Type == "shell" {
		op := s.shellOperation()
		op.Context = s.context()
		return op, nil
	}
	var p commandPayload
	if err := gossh.Unmarshal(req.Payload, &p); err != nil {
		return access.Operation{}, access.Errorf(access.CodeInvalid, "The request is not understood.")
	}
	if len(p.Command) > maxCommand || !utf8.ValidString(p.Command) || strings.IndexByte(p.Command, 0) >= 0 {
		return access.Operation{}, access.Errorf(access.CodeInvalid, "The command has more than %d bytes, or is not UTF-8 without zero bytes; only that is understood here.", maxCommand)
	}
	var op access.Operation
	if req.Type == "subsystem" {
		op = s.subsystemOperation(p.Command)
	} else {
		op = s.execOperation(p.Command)
	}
	op.Context = s.context()
	if op.Guard == nil {
		op.Guard = s.guardTerminal()
	}
	return op, nil
}

// again is an operation as it would be asked for now: whether there is a shell,
// or a terminal, depends on the rules.
func (s *stay) again(op access.Operation) access.Operation {
	s.mu.Lock()
	defer s.mu.Unlock()
	if op.Kind == kindShell {
		op.Guard = s.shellOperation().Guard
	} else if op.Kind != kindSession {
		op.Guard = s.guardTerminal() // no other one was there, or it had not begun
	}
	return op
}

// guardTerminal lets a program have a terminal where the role says so, or
// where a shell would open as well. A program was judged by its words, and on a
// terminal many take orders from the keyboard, which nobody judges: a pager
// opens a shell.
func (s *stay) guardTerminal() *access.Decision {
	if s.pty == nil || s.b.plan.Terminal || s.b.session.Judge(s.shellOperation()).Verdict == access.Allow {
		return nil
	}
	return deny("no-terminal", "Your grant gives commands no terminal here: run it without -t.")
}

func (s *stay) describe(kind, text string) access.Operation {
	return access.Operation{
		Kind: kind, Subject: "command", Text: text, Facts: s.facts(kind), Context: []string{"as " + s.b.account},
	}
}

// context is what else a program is started with.
func (s *stay) context() []string {
	out := []string{"as " + s.b.account}
	for _, e := range s.env {
		out = append(out, fmt.Sprintf("with %s=%q", e.Name, e.Value))
	}
	if s.pty != nil {
		out = append(out, fmt.Sprintf("on a terminal %q", s.pty.Term))
	}
	if s.agent {
		out = append(out, "with the client's agent")
	}
	if s.x11 != nil {
		out = append(out, "with the client's display")
	}
	return out
}

// shellOperation is at least as strict as the strictest rule on commands:
// what is typed in a shell can't be judged, so where a rule would deny or hold
// some command, there is no shell.
func (s *stay) shellOperation() access.Operation {
	op := s.describe(kindShell, "a shell")
	switch {
	case !s.b.plan.Shell:
		op.Guard = deny("no-shell", "Your grant gives no shell here.")
	case s.b.session.Judge(s.anyCommand()).Verdict != access.Allow:
		op.Guard = deny("command-rules", "Rules on commands apply here, and in a shell they could not be enforced; run commands one by one: ssh target@gate command.")
	}
	return op
}

// anyCommand stands for every command at once: nothing is known of it.
func (s *stay) anyCommand() access.Operation {
	op := s.describe(kindExec, "")
	delete(op.Facts, "name")
	delete(op.Facts, "words")
	delete(op.Facts, "simple")
	return op
}

func (s *stay) execOperation(command string) access.Operation {
	words, simple := literalWords(command)
	kind := kindExec
	if t := transferOf(words); t != "" {
		kind = t
	}
	op := s.describe(kind, command)
	op.Facts["simple"] = simple
	if simple {
		op.Facts["name"], op.Facts["words"] = path.Base(words[0]), words
	} else {
		delete(op.Facts, "name")
		delete(op.Facts, "words")
	}
	op.Guard = s.guardExec(kind, words)
	return op
}

func (s *stay) guardExec(kind string, words []string) *access.Decision {
	plan := s.b.plan
	switch {
	case kind != kindExec && !slices.Contains(plan.Transfers, kind):
		return deny("no-"+kind, fmt.Sprintf("Your grant does not give %s here.", kind))
	case kind != kindExec, plan.Exec:
		return nil
	case slices.Contains(plan.Transfers, "rsync") && len(words) > 1 && programOf(words[0]) == "rsync" && hidesArguments(words[1:]):
		return deny("no-exec", "Your grant does not give rsync with -s (--secluded-args) here: what it would do is said where nobody judges it.")
	case len(plan.Commands) == 0:
		return deny("no-exec", "Your grant runs no commands here.")
	case !matchesAny(plan.Commands, words):
		return deny("commands", "Your grant runs only these, as plain words without expansion, list or redirection: "+strings.Join(plan.Commands, ", ")+".")
	}
	return nil
}

func (s *stay) subsystemOperation(name string) access.Operation {
	if name == "sftp" {
		s.pty = nil // packets on a terminal would not arrive as they are, and what waits in them is no keys
		op := s.describe(kindSession, "sftp")
		op.Facts["name"], op.Facts["words"], op.Facts["simple"] = "sftp", []string{"sftp"}, true
		op.Facts["writes"] = len(s.b.plan.Write) > 0
		if !s.b.plan.MovesFiles() {
			op.Guard = deny("no-sftp", "Your grant moves no files here.")
		}
		return op
	}
	op := s.describe(kindSubsystem, name)
	op.Facts["name"], op.Facts["words"] = name, []string{name}
	if !slices.Contains(s.b.plan.Subsystems, name) {
		op.Guard = deny("no-subsystem", fmt.Sprintf("Your grant does not give the subsystem %q here.", name))
	}
	return op
}

func deny(rule, say string) *access.Decision {
	return &access.Decision{Verdict: access.Deny, Rule: rule, Say: say}
}
