package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/tidegate/tidegate/policies"
)

// prVerbs are what one person can play as another on the pocket GitHub.
var prVerbs = map[string]struct {
	args int // how many, at least
	run  func(ctx context.Context, p *people, who string, args []string) (string, error)
}{
	"open":    {1, prOpen},
	"approve": {1, prApprove},
	"comment": {2, prComment},
	"merge":   {1, prMerge},
}

// runDevPR is `tidegate dev pr VERB … --as WHO`.
func runDevPR(ctx context.Context, args []string, io stdio) error {
	flags := flag.NewFlagSet("dev pr", flag.ContinueOnError)
	dir, who := dirFlag(flags), flags.String("as", "", "`login` of who acts: "+strings.Join(devPeople, ", ")+" or admin")
	words, err := mixed(flags, args, io)
	if err != nil {
		return err
	}
	verb, ok := prVerbs[strings.Join(words[:min(len(words), 1)], "")]
	if !ok || len(words)-1 < verb.args {
		return fmt.Errorf("%w: got %s, want open FILE, approve N, comment N TEXT or merge N, and --as WHO", errUsage, listed(words))
	}
	if *who != "admin" && !slices.Contains(devPeople, *who) {
		return fmt.Errorf("%w: got --as %q, want one of %s and admin", errUsage, *who, strings.Join(devPeople, ", "))
	}
	said, err := asPeople(*dir, func(p *people) (string, error) { return verb.run(ctx, p, *who, words[1:]) })
	if err != nil {
		return err
	}
	fmt.Fprintln(io.out, said)
	return nil
}

// asPeople acts on the pocket GitHub of a running dev.
func asPeople(dir string, act func(*people) (string, error)) (string, error) {
	if !isFile(filepath.Join(dir, "dev.json")) {
		return "", fmt.Errorf("find the pocket GitHub: no dev.json in %s; is `tidegate dev` running there?", dir)
	}
	state, err := openDevState(dir)
	if err != nil {
		return "", err
	}
	work, err := os.MkdirTemp("", "tidegate-pr-")
	if err != nil {
		return "", fmt.Errorf("make scratch folder: %w", err)
	}
	defer os.RemoveAll(work)
	return act(&people{work: work, house: devReady{
		Hub: state.url("hub"), Repo: devOwner + "/" + devRepo, HubTokens: state.HubTokens,
		CloneURL: state.url("hub") + "/" + devOwner + "/" + devRepo + ".git",
	}})
}

// prOpen pushes one grant file on a branch of its own and opens a pull request,
// or brings the one that is open up to date.
func prOpen(ctx context.Context, p *people, who string, args []string) (string, error) {
	text, err := readBounded(args[0], policies.MaxFileBytes)
	if err != nil {
		return "", fmt.Errorf("read grant: %w", err)
	}
	id := strings.TrimSuffix(filepath.Base(args[0]), ".hcl")
	if err := p.push(ctx, who, id, "grants/"+who+"/"+id+".hcl", string(text)); err != nil {
		return "", err
	}
	n, err := p.openPull(ctx, who, id)
	if err == nil && n == 0 {
		n, err = p.pullRequest(ctx, who, id, "Grant "+id)
	}
	return fmt.Sprintf("%s/%s/pull/%d", p.house.Hub, p.house.Repo, n), err
}

func prNumber(arg string) (int, error) {
	n, err := strconv.Atoi(arg)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%w: got %q, want the number of a pull request", errUsage, arg)
	}
	return n, nil
}

func prApprove(ctx context.Context, p *people, who string, args []string) (string, error) {
	n, err := prNumber(args[0])
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s approved #%d", who, n), p.approve(ctx, who, n)
}

func prMerge(ctx context.Context, p *people, who string, args []string) (string, error) {
	n, err := prNumber(args[0])
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s merged #%d", who, n), p.merge(ctx, who, n)
}

func prComment(ctx context.Context, p *people, who string, args []string) (string, error) {
	n, err := prNumber(args[0])
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s commented on #%d", who, n), p.say(ctx, who, n, strings.Join(args[1:], " "))
}
