package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/record"
)

// partTimeout bounds what one part may take to answer. The parts are asked at
// the same time, so it is the bound of the whole, but for lateness: the words
// of a part about what took so long. Parts of a part have that much less.
const (
	partTimeout = 15 * time.Second
	lateness    = 5 * time.Second
)

// examination asks one part.
type examination struct {
	part string
	look func(context.Context) []access.Finding
}

// runDoctor asks every part how it is. It changes nothing.
func runDoctor(ctx context.Context, args []string, io stdio) error {
	var w which
	flags := flag.NewFlagSet("doctor", flag.ContinueOnError)
	w.addFlags(flags)
	asJSON := flags.Bool("json", false, "print the findings as JSON lines")
	if err := parse(flags, args, io); err != nil {
		return err
	}
	p, err := newPatient(w)
	if err != nil {
		return err
	}
	failed := 0
	for f := range examine(ctx, p.examinations()) {
		if f.Level == access.LevelFail {
			failed++
		}
		if *asJSON {
			err = encodeOne(io.out, f)
		} else {
			err = tellFinding(io.out, f)
		}
		if err != nil {
			return err
		}
	}
	if failed > 0 {
		return errors.New(several(failed, "failure"))
	}
	return nil
}

// tellFinding is one line, and one more for what to do. What it tells may
// come from a server: it can't drive the terminal.
func tellFinding(w io.Writer, f access.Finding) error {
	mark := map[access.Level]string{access.LevelOK: "ok   ", access.LevelWarn: "warn ", access.LevelFail: "FAIL "}[f.Level]
	line := mark + f.Part + ": " + record.Visible(f.Say)
	if f.Do != "" {
		line += " → " + record.Visible(f.Do)
	}
	_, err := fmt.Fprintln(w, line)
	return err
}

// examine asks all parts at once and yields what they say in the order of the
// list: one that is down, or silent, hides no other, and however many hang are
// waited for once. A part that hangs in the kernel, on a dead file system, can't
// be stopped.
func examine(ctx context.Context, all []examination) iter.Seq[access.Finding] {
	return func(yield func(access.Finding) bool) {
		bound := partTimeout
		if end, ok := ctx.Deadline(); ok {
			bound = min(bound, time.Until(end)-lateness)
		}
		ctx, cancel := context.WithTimeout(ctx, bound)
		defer cancel()
		late, stop := context.WithTimeout(context.WithoutCancel(ctx), bound+lateness)
		defer stop()
		answers := make([]chan []access.Finding, len(all))
		for i, e := range all {
			answers[i] = make(chan []access.Finding, 1)
			go func() { answers[i] <- e.look(ctx) }()
		}
		for i, e := range all {
			for _, f := range answer(late, e.part, answers[i]) {
				if !yield(f) {
					return
				}
			}
		}
	}
}

// answer is what the part says, if it does before it is too late.
func answer(late context.Context, part string, from <-chan []access.Finding) []access.Finding {
	select {
	case found := <-from:
		return found
	default:
	}
	select {
	case found := <-from:
		return found
	case <-late.Done():
	}
	f := access.Findings{Part: part}
	f.Fail("Look whether it hangs.", "no answer within %s", partTimeout)
	return f.List
}
