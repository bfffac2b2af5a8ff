package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// demo plays the story on a running `dev` and checks each step as it goes.
type demo struct {
	people
	io  stdio
	dir string // the state folder
	num int    // the pull request of the first grant
}

// step is one sentence of the story and the check that it is true. It answers
// with what a person would want to know besides.
type step struct {
	tells string
	play  func(context.Context) (string, error)
}

// demoTimeout bounds the whole story.
const demoTimeout = 4 * time.Minute

// runDemo starts everything in a temporary folder, plays and cleans up.
func runDemo(ctx context.Context, args []string, io stdio) error {
	if err := parse(flag.NewFlagSet("demo", flag.ContinueOnError), args, io); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, demoTimeout)
	defer cancel()
	fmt.Fprintln(io.out, "demo: starting PostgreSQL, Temporal, a pocket GitHub and Tidegate on loopback")
	return inHouse(ctx, func(d *demo) error {
		d.io = io
		return d.play(ctx)
	})
}

// inHouse plays on a dev house in a temporary folder, and leaves nothing of it.
func inHouse(ctx context.Context, play func(*demo) error) (err error) {
	dir, err := os.MkdirTemp("", "tidegate-demo-")
	if err != nil {
		return fmt.Errorf("make temporary folder: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o711); err != nil { // PostgreSQL runs as another user, below it
		return fmt.Errorf("open temporary folder: %w", err)
	}
	state, work := filepath.Join(dir, "state"), filepath.Join(dir, "work")
	if err := os.Mkdir(work, 0o700); err != nil {
		return fmt.Errorf("make temporary folder: %w", err)
	}
	log, closeLog, err := devLog(state)
	if err != nil {
		return err
	}
	defer closeLog()
	house, err := startDev(ctx, devOptions{Dir: state, Log: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, house.Close()) }()
	return play(&demo{people: people{house.ready, work}, dir: state})
}

// play tells and checks each step; the first that is not so ends the story.
func (d *demo) play(ctx context.Context) error {
	steps := d.steps()
	for i, s := range steps {
		fmt.Fprintf(d.io.out, "%2d. %s\n", i+1, s.tells)
		saw, err := s.play(ctx)
		if err != nil {
			fmt.Fprintf(d.io.out, "    not so: %v\ndemo: %d steps, %d ok\n", err, len(steps), i)
			return fmt.Errorf("step %d: %w", i+1, err)
		}
		if saw != "" {
			fmt.Fprintf(d.io.out, "    %s\n", saw)
		}
	}
	fmt.Fprintf(d.io.out, "demo: %d steps, %d ok\n", len(steps), len(steps))
	return nil
}

func (d *demo) steps() []step {
	return []step{
		{"alice pushes grants/alice/inc-1.hcl, first with a mistake, and opens a pull request", d.opens},
		{"one bot comment shows the plan; the mistake was marked on its line", d.planned},
		{"alice approves her own pull request: it does not count", d.selfApproves},
		{"bob, of the data owners, approves and merges: the grant becomes active", d.merges},
		{"alice reads through the gateway with psql: rows come, e-mails masked", d.reads},
		{"the same column by alias, failing cast, COPY, prepared statement, whole row, query_to_xml: never a raw value", d.bypasses},
		{"DROP TABLE is refused with SQLSTATE 42501 and the rule's sentence; the session goes on", d.drops},
		{"DELETE without WHERE is held; bob answers on the pull request; it runs once", d.holds},
		{"mallory, a valid identity without a grant, is refused", d.mallory},
		{"a push to an approved, unmerged pull request takes the approval away", d.pushes},
		{"a grant of 5 s ends: the open session is cut, nothing is left; a revert does not bring it back", d.ends},
		{"tidegate replay shows the session; verify says it is whole, and where one changed byte is", d.proves},
	}
}
