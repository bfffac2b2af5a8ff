package backing

import (
	"fmt"
	"net"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/tidegate/tidegate/access"
)

// What a list in a role may hold.
var (
	accountPattern   = regexp.MustCompile(`\A[a-z_][a-z0-9_.-]{0,31}\z`)
	envPattern       = regexp.MustCompile(`\A[A-Za-z_][A-Za-z0-9_]{0,63}\*?\z`)
	subsystemPattern = regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9@._-]{0,63}\z`)
	sizePattern      = regexp.MustCompile(`\A([1-9][0-9]{0,8})(KiB|MiB|GiB|TiB)\z`)
)

// transfers are programs that move files over exec.
var transfers = []string{"git", "rsync", "scp"}

// maxList bounds each list of a role.
const maxList = 200

// FromRole reads what a role of an SSH target gives. All mistakes come at
// once, in one *access.Error with CodeInvalid.
func FromRole(t access.Target, role access.Role) (Backing, error) {
	r := reader{left: map[string]bool{}, settings: role.Settings}
	for name := range role.Settings {
		r.left[name] = true
	}
	b := Backing{
		Accounts: r.list("accounts", accountPattern.MatchString, `an account such as "deploy"`),
		Shell:    r.flag("shell"), Exec: r.flag("exec"), Terminal: r.flag("terminal"), Agent: r.flag("agent"), X11: r.flag("x11"),
		Commands:   r.list("commands", isCommand, `a command such as "systemctl restart app" or "journalctl -u app *"`),
		Transfers:  r.list("transfers", func(s string) bool { return slices.Contains(transfers, s) }, "git, rsync or scp"),
		Forward:    r.list("forward", isAddress, `an address such as "db.internal:5432" or "10.0.0.0/8:*"`),
		Listen:     r.list("listen", isAddress, `an address such as "localhost:8080"`),
		Env:        r.list("env", envPattern.MatchString, `a name such as "LANG" or "LC_*"`),
		Subsystems: r.list("subsystems", isSubsystem, `a subsystem such as "netconf"; sftp is given by read and write`),
		MaxFile:    r.size("max_file"),
		Read:       r.folders("read", role.Read), Write: r.folders("write", role.Write),
	}
	b.HostKeys = r.keys(t, "host_key")
	b.HostCAs = r.keys(t, "host_ca")
	r.whole(b)
	for name := range r.left {
		r.wrong("the setting %q is unknown", name)
	}
	if len(r.problems) > 0 {
		slices.Sort(r.problems)
		return Backing{}, access.Errorf(access.CodeInvalid, "Role %q of %s: %s.", role.Name, t.TargetRef, strings.Join(r.problems, "; "))
	}
	return b, nil
}

type reader struct {
	settings map[string]string
	left     map[string]bool // settings that nobody has read
	problems []string
}

func (r *reader) wrong(format string, args ...any) {
	r.problems = append(r.problems, fmt.Sprintf(format, args...))
}

func (r *reader) text(name string) string {
	delete(r.left, name)
	return r.settings[name]
}

func (r *reader) flag(name string) bool {
	switch s := r.text(name); s {
	case "", "false":
		return false
	case "true":
		return true
	default:
		r.wrong("%s is %q, want true or false", name, s)
		return false
	}
}

// list splits a setting into its lines.
func (r *reader) list(name string, ok func(string) bool, want string) []string {
	text := r.text(name)
	if text == "" {
		return nil
	}
	return r.each(name, strings.Split(text, "\n"), ok, want)
}

func (r *reader) each(name string, items []string, ok func(string) bool, want string) []string {
	if len(items) > maxList {
		r.wrong("%s has %d entries, at most %d are allowed", name, len(items), maxList)
		return nil
	}
	for _, item := range items {
		if !ok(item) {
			r.wrong("%s has %q, want %s", name, item, want)
		}
	}
	return items
}

func (r *reader) folders(name string, items []string) []string {
	clean := func(s string) bool { return path.IsAbs(s) && path.Clean(s) == s && !strings.ContainsAny(s, "*?\x00") }
	return r.each(name, items, clean, `an absolute folder without wildcards such as "/srv/app"`)
}

func (r *reader) size(name string) int64 {
	s := r.text(name)
	if s == "" {
		return 0
	}
	m := sizePattern.FindStringSubmatch(s)
	if m == nil {
		r.wrong(`%s is %q, want a size such as "512MiB"`, name, s)
		return 0
	}
	n, _ := strconv.ParseInt(m[1], 10, 64) // digits, and few
	return n << map[string]int{"KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}[m[2]]
}

func (r *reader) keys(t access.Target, name string) []string {
	text := t.Settings[name]
	if text == "" {
		return nil
	}
	keys := strings.Split(text, "\n")
	for _, k := range keys {
		if _, err := PublicKey(k); err != nil {
			r.wrong("the target's %s: %v", name, err)
		}
	}
	return keys
}

// whole looks at what one right says of another.
func (r *reader) whole(b Backing) {
	if len(b.Accounts) == 0 {
		r.wrong(`no account; write accounts = ["deploy"]`)
	}
	if len(b.HostKeys)+len(b.HostCAs) == 0 {
		r.wrong("the target has neither host_key nor host_ca, so it could not prove itself")
	}
	if len(b.Commands) > 0 && (b.Shell || b.Exec) {
		r.wrong("commands beside shell or exec: in a shell a list of commands can't be enforced, and exec is any command")
	}
	if b.Terminal && !b.Exec && len(b.Commands)+len(b.Transfers)+len(b.Subsystems) == 0 {
		r.wrong("terminal without anything to run on one; write exec or commands, too (a shell has its terminal anyway)")
	}
	if !b.RunsPrograms() && !b.MovesFiles() && len(b.Forward)+len(b.Listen) == 0 {
		r.wrong("it gives nothing; write shell, exec, commands, transfers, read, write, forward, listen or subsystems")
	}
}

// isCommand wants plain words: they are compared one by one, not parsed.
func isCommand(s string) bool {
	return strings.TrimSpace(s) == s && s != "" && !strings.Contains(s, "  ") && !strings.ContainsAny(s, "\t\"'`\\$;&|<>()")
}

func isSubsystem(s string) bool { return s != "sftp" && subsystemPattern.MatchString(s) }

// isAddress takes host:port, where the host may be a prefix such as
// 10.0.0.0/8 and either may be a star.
func isAddress(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" {
		return false
	}
	if strings.Contains(host, "/") {
		if _, _, err := net.ParseCIDR(host); err != nil {
			return false
		}
	}
	n, err := strconv.Atoi(port)
	return port == "*" || err == nil && n >= 1 && n <= 65535
}

// Summary says what the plan gives, for people.
func (b Backing) Summary() []string {
	out := []string{"logs in as " + strings.Join(b.Accounts, " or ")}
	add := func(given bool, text string) {
		if given {
			out = append(out, text)
		}
	}
	add(b.Static, "with a credential that is not made for this grant: the gateway alone holds what is not given, and the end closes sessions and takes the credential from nobody who has it")
	list := func(text string, items []string) { add(len(items) > 0, text+strings.Join(items, ", ")) }
	add(b.Shell, "opens shells: what is typed there is recorded, not judged")
	add(b.Exec, "runs any command, subject to rules")
	list("runs only: ", b.Commands)
	add(b.Terminal, "gives commands a terminal: what is typed to a program that runs is not judged")
	list("moves files by the programs ", b.Transfers)
	list("reads by sftp below ", b.Read)
	list("writes by sftp below ", b.Write)
	list("opens connections to ", b.Forward)
	list("lets the host listen on ", b.Listen)
	list("sets the variables ", b.Env)
	list("uses the subsystems ", b.Subsystems)
	add(b.Agent, "lends its SSH agent to the host")
	add(b.X11, "lends its X11 display to the host")
	return out
}
