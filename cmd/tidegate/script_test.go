package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger"
)

// The scripts in testdata/script are the manual by example: each is a story of
// alice, bob, mallory and ci on one running `tidegate dev`, told with the
// command line, psql, git and GitHub's REST interface. They run at the same
// time, so each has grants of its own.
//
// Besides testscript's own commands there are
//
//	as WHO asks FILE                 pushes FILE as grants/WHO/FILE and opens a pull request
//	as WHO pushes FILE               pushes it again, to the same branch
//	as WHO approves|merges ID        reviews or merges the pull request of grant ID
//	as WHO says ID TEXT              comments there
//	as WHO edits ID TEXT             edits the last comment that a script wrote there
//	as WHO edits-bot ID TEXT         edits the bot's comment
//	as WHO reverts ID                removes the grant's file from main and brings it back
//	as WHO pushes-to-main FILE       pushes FILE to main, without a pull request
//	check ID NAME CONCLUSION         waits until a check run concludes so
//	comment ID WORDS…                waits until the bot's comment holds all of them
//	grant ID STATE                   waits until the ledger says so; "gone": proved that nothing is left
//	held ID                          waits for a held statement; sets $HELD and $DIGEST
//	session ID                       waits for an open session; sets $SESSION
//	ended                            waits until $SESSION is over, which is a moment after its psql is

// scriptsTimeout bounds all scripts together: a command that waits when it
// should not is ended, and says so.
const scriptsTimeout = 2 * time.Minute

func TestScripts(t *testing.T) {
	ctx, p := playHouse(t)
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"), RequireExplicitExec: true, RequireUniqueNames: true,
		Deadline: time.Now().Add(scriptsTimeout),
		Setup: func(env *testscript.Env) error {
			env.Setenv("TIDEGATE_DIR", p.dir)
			env.Setenv("HOUSE", p.dir)
			work := filepath.Join(env.WorkDir, ".people")
			if err := os.Mkdir(work, 0o700); err != nil {
				return err
			}
			env.Values[storyKey{}] = &scriptStory{demo: &demo{people: people{p.house, work}, dir: p.dir}, ctx: ctx, pulls: map[string]int{}, said: map[string]int64{}}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"as": inStory((*scriptStory).as), "check": inStory((*scriptStory).waitCheck), "comment": inStory((*scriptStory).waitComment),
			"grant": inStory((*scriptStory).waitGrant), "held": inStory((*scriptStory).waitHeld), "session": inStory((*scriptStory).waitSession),
			"ended": inStory((*scriptStory).waitEnded),
		},
	})
}

type storyKey struct{}

// scriptStory is what one script knows of its pull requests.
type scriptStory struct {
	*demo
	ctx   context.Context
	pulls map[string]int   // by grant
	said  map[string]int64 // the last comment, by grant
}

// inStory makes a command of a step: it fails the script when the step does,
// or, behind !, when it does not.
func inStory(do func(*scriptStory, *testscript.TestScript, []string) error) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		err := do(ts.Value(storyKey{}).(*scriptStory), ts, args)
		switch {
		case neg && err == nil:
			ts.Fatalf("want it to fail")
		case neg:
			fmt.Fprintln(ts.Stderr(), err)
		default:
			ts.Check(err)
		}
	}
}

// want refuses a line that has too few words.
func want(args []string, n int, like string) error {
	if len(args) < n {
		return fmt.Errorf("got %q, want %s", args, like)
	}
	return nil
}

func (s *scriptStory) as(ts *testscript.TestScript, args []string) error {
	if err := want(args, 3, "as WHO VERB …"); err != nil {
		return err
	}
	who, verb, about, rest := args[0], args[1], args[2], args[3:]
	switch verb {
	case "asks", "pushes", "pushes-to-main":
		return s.pushFile(ts, who, verb, about)
	case "reverts":
		return s.reverts(who, about)
	}
	n, ok := s.pulls[about]
	if !ok {
		return fmt.Errorf("no pull request of %q was opened in this script", about)
	}
	switch verb {
	case "approves":
		if _, err := s.check(s.ctx, n, "tidegate/plan", "success"); err != nil {
			return err
		}
		return s.approve(s.ctx, who, n)
	case "merges":
		return s.merge(s.ctx, who, n)
	}
	if err := want(rest, 1, "as WHO "+verb+" ID TEXT"); err != nil {
		return err
	}
	return s.talks(who, verb, about, n, strings.Join(rest, " "))
}

func (s *scriptStory) pushFile(ts *testscript.TestScript, who, verb, file string) error {
	id, text := strings.TrimSuffix(filepath.Base(file), ".hcl"), ts.ReadFile(file)
	branch, path := id, "grants/"+who+"/"+id+".hcl"
	if verb == "pushes-to-main" {
		branch = "main"
	}
	if err := s.push(s.ctx, who, branch, path, text); err != nil || verb != "asks" {
		return err
	}
	n, err := s.pullRequest(s.ctx, who, branch, "Grant "+id)
	s.pulls[id] = n
	return err
}

func (s *scriptStory) talks(who, verb, id string, n int, text string) error {
	var made struct {
		ID int64 `json:"id"`
	}
	body := map[string]string{"body": text}
	switch verb {
	case "says":
		err := s.api(s.ctx, who, "POST", fmt.Sprintf("/issues/%d/comments", n), body, &made)
		s.said[id] = made.ID
		return err
	case "edits":
		return s.api(s.ctx, who, "PATCH", fmt.Sprintf("/issues/comments/%d", s.said[id]), body, nil)
	case "edits-bot":
		return s.editBot(who, n, body)
	}
	return fmt.Errorf("nobody %s here", verb)
}

// editBot does what every writer of a repository can do to others' comments.
func (s *scriptStory) editBot(who string, n int, body map[string]string) error {
	var all []struct {
		ID   int64 `json:"id"`
		User struct {
			Login string `json:"login"`
		} `json:"user"`
	}
	if err := s.api(s.ctx, who, "GET", fmt.Sprintf("/issues/%d/comments?per_page=100", n), nil, &all); err != nil {
		return err
	}
	for _, c := range all {
		if c.User.Login == devBot {
			return s.api(s.ctx, who, "PATCH", fmt.Sprintf("/issues/comments/%d", c.ID), body, nil)
		}
	}
	return fmt.Errorf("the bot has no comment on #%d", n)
}

// reverts removes the file from main and brings it back, as a revert of a
// revert would.
func (s *scriptStory) reverts(who, id string) error {
	if err := s.clone(s.ctx, who); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"fetch", "-q", "origin"}, {"checkout", "-q", "-B", "main", "origin/main"},
		{"rm", "-q", "grants/alice/" + id + ".hcl"}, {"commit", "-q", "-m", "Tidy"}, {"revert", "--no-edit", "HEAD"}, {"push", "-q", "origin", "main"},
	} {
		if _, err := s.git(s.ctx, who, args...); err != nil {
			return err
		}
	}
	return nil
}

func (s *scriptStory) waitCheck(_ *testscript.TestScript, args []string) error {
	if err := want(args, 3, "check ID NAME CONCLUSION"); err != nil {
		return err
	}
	_, err := s.check(s.ctx, s.pulls[args[0]], args[1], args[2])
	return err
}

func (s *scriptStory) waitComment(_ *testscript.TestScript, args []string) error {
	if err := want(args, 2, "comment ID WORDS…"); err != nil {
		return err
	}
	_, err := s.comment(s.ctx, s.pulls[args[0]], args[1:]...)
	return err
}

func (s *scriptStory) waitGrant(_ *testscript.TestScript, args []string) error {
	if err := want(args, 2, "grant ID STATE"); err != nil {
		return err
	}
	if args[1] == "gone" {
		_, err := s.nothingLeft(s.ctx, args[0])
		return err
	}
	return s.waitState(s.ctx, args[0], access.State(args[1]))
}

var heldLine = regexp.MustCompile(`/tidegate approve (H\d+) ([0-9a-f]{8})`)

func (s *scriptStory) waitHeld(ts *testscript.TestScript, args []string) error {
	if err := want(args, 1, "held ID"); err != nil {
		return err
	}
	return eventually(s.ctx, 20*time.Second, func() (bool, error) {
		all, err := s.comments(s.ctx, s.pulls[args[0]])
		m := heldLine.FindStringSubmatch(strings.Join(all, "\n"))
		if m != nil {
			ts.Setenv("HELD", m[1])
			ts.Setenv("DIGEST", m[2])
		}
		return m != nil, err
	})
}

func (s *scriptStory) waitSession(ts *testscript.TestScript, args []string) error {
	if err := want(args, 1, "session ID"); err != nil {
		return err
	}
	return eventually(s.ctx, 20*time.Second, func() (bool, error) {
		out := new(strings.Builder)
		if code := run(s.ctx, []string{"sessions", "--json", "--dir", s.dir, "--grant", args[0]}, stdio{out: out, err: out}); code != exitOK {
			return false, fmt.Errorf("tidegate sessions: %s", out)
		}
		m := openSession.FindStringSubmatch(out.String())
		if m == nil || strings.Contains(strings.SplitN(out.String(), "\n", 2)[0], `"ended"`) {
			return false, nil
		}
		id, err := strconv.Unquote(m[1])
		ts.Setenv("SESSION", id)
		return true, err
	})
}

func (s *scriptStory) waitEnded(ts *testscript.TestScript, _ []string) error {
	return withLedger(s.ctx, s.dir, func(l *ledger.Ledger) error {
		return eventually(s.ctx, 20*time.Second, func() (bool, error) {
			info, _, err := l.Session(s.ctx, ts.Getenv("SESSION"))
			return !info.Ended.IsZero(), err
		})
	})
}

var openSession = regexp.MustCompile(`\A\{"id":("[^"]+")`)
