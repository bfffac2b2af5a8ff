package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/tidegate/tidegate/access"
)

// Exit codes, the same for every verb.
const (
	exitOK      = 0
	exitFailed  = 1 // it was tried and did not work, or what was checked is not right
	exitUsage   = 2 // the command line was not understood
	exitRefused = 3 // understood, and not allowed
)

// verb is one subcommand.
type verb struct {
	name, args, about string
	run               func(ctx context.Context, args []string, io stdio) error
}

// verbs in the order of the help text.
func verbs() []verb {
	return []verb{
		{"dev", "[--json] | pr …", "runs everything on loopback, to try it out or to develop", runDev},
		{"demo", "", "plays the story from pull request to proven end, and checks each step", runDemo},
		{"serve", "--config FILE [--check]", "runs control, gateway or both, as the configuration says", runServe},
		{"check", "[--json] [DIR]", "loads an access repository and runs its check blocks", runCheck},
		{"plan", "[--base REF] [--dir REPO] [--json]", "plans the working tree of an access repository, as a pull request would", runPlan},
		{"connect", "TARGET [--gateway …] [-- CMD…]", "runs psql, ssh or a command with a connection through the gateway", runConnect},
		{"login", "[--device] …", "logs in and gets a short SSH certificate", runLogin},
		{"ssh-config", "TARGET…", "prints the ssh_config by which ssh, scp, rsync and git reach targets", runSSHConfig},
		{"ls", "[--json]", "lists grants", runLs},
		{"sessions", "[--person LOGIN] [--grant ID] …", "lists recorded sessions", runSessions},
		{"replay", "[--speed N] [--from TIME] … ID|FILE", "shows a session, or plays it", runReplay},
		{"verify", "[--keys FILE] [--json] ID|FILE", "proves that a recording is whole, or says where it is not", runVerify},
		{"revoke", "ID [--why TEXT]", "ends a grant at once", runRevoke},
		{"adopt", "[--why TEXT]", "accepts a new or restored ledger as the truth", runAdopt},
		{"yield", "TARGET [--at-most 15m] -- CMD…", "removes a target's views while a migration runs, then makes them again", runYield},
		{"gateway", "close --grant ID | …", "ends open sessions, with everything else down", runGateway},
		{"keys", "[list | print [NAME] | rotate NAME] [--json]", "lists, prints and rotates the installation's keys", runKeys},
		{"doctor", "[--config FILE | --dir DIR] [--json]", "checks every part, and says what to do", runDoctor},
		{"setup", "postgres|ledger|gateway …", "prints the SQL for a target or a ledger; enrols a gateway", runSetup},
		{"version", "[--json]", "prints the version", runVersion},
		{"bench", "[--grants N] [--due M]", "", runBench}, // for `make bench`: no about, so help leaves it out
	}
}

// errUsage marks a command line that was not understood.
var errUsage = errors.New("usage")

// run carries out one command line and answers with the exit code.
func run(ctx context.Context, args []string, io stdio) int {
	switch args = plainWords(args); {
	case len(args) == 0:
		help(io.err)
		return exitUsage
	case args[0] == "help" && len(args) == 1:
		help(io.out)
		return exitOK
	case args[0] == "help": // of one verb
		args = append(args[1:len(args):len(args)], "-h")
	}
	if v, ok := findVerb(args[0]); ok {
		return exit(v, v.run(ctx, args[1:], io), io)
	}
	fmt.Fprintf(io.err, "tidegate: there is no %q; `tidegate help` lists what there is\n", args[0])
	return exitUsage
}

// plainWords takes what people write as flags everywhere for the verbs that
// they are here.
func plainWords(args []string) []string {
	if len(args) > 0 {
		switch args[0] {
		case "-h", "-help", "--help":
			return append([]string{"help"}, args[1:]...)
		case "-version", "--version":
			return append([]string{"version"}, args[1:]...)
		}
	}
	return args
}

func findVerb(name string) (verb, bool) {
	all := verbs()
	i := slices.IndexFunc(all, func(v verb) bool { return v.name == name })
	if i < 0 {
		return verb{}, false
	}
	return all[i], true
}

func (v verb) usage() string { return strings.TrimSpace("usage: tidegate " + v.name + " " + v.args) }

func exit(v verb, err error, io stdio) int {
	var code exitCode
	switch {
	case errors.As(err, &code):
		return int(code)
	case err == nil, errors.Is(err, flag.ErrHelp):
		return exitOK
	case errors.Is(err, errUsage):
		said := strings.TrimPrefix(err.Error(), errUsage.Error()+": ")
		fmt.Fprintf(io.err, "tidegate %s: %s\n%s\n", v.name, said, v.usage())
		if strings.Contains(v.args, "…") {
			fmt.Fprintf(io.err, "`tidegate help %s` says what else there is\n", v.name)
		}
		return exitUsage
	}
	fmt.Fprintf(io.err, "tidegate %s: %v\n", v.name, err)
	if access.CodeOf(err) == access.CodeDenied {
		return exitRefused
	}
	return exitFailed
}

func help(w io.Writer) {
	fmt.Fprint(w, "Access opens by pull request and closes by itself.\n\n")
	for _, v := range verbs() {
		if v.about == "" {
			continue
		}
		fmt.Fprintf(w, "  tidegate %-10s %-38s %s\n", v.name, v.args, v.about)
	}
	fmt.Fprint(w, "\n`tidegate help VERB` lists a verb's flags.\nls, sessions, replay, verify, revoke, adopt, yield, gateway, keys and doctor take --dir (a tidegate dev) or --config (a tidegate serve).\n")
	fmt.Fprint(w, "Exit codes: 0 done, 1 failed, 2 not understood, 3 refused.\n")
}
