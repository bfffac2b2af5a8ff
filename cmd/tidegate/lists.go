package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/tidegate/tidegate/access/ledger"
)

// withLedger reads the state folder's ledger.
func withLedger(ctx context.Context, dir string, read func(*ledger.Ledger) error) error {
	path := filepath.Join(dir, ledgerFile)
	if !isFile(path) {
		return fmt.Errorf("open ledger: there is none in %s; --dir names the folder of a `tidegate dev`", dir)
	}
	l, err := ledger.Open(ctx, ledger.Config{URL: "sqlite:" + path})
	if err != nil {
		return err
	}
	return errors.Join(read(l), l.Close())
}

// runLs lists grants.
func runLs(ctx context.Context, args []string, io stdio) error {
	flags := flag.NewFlagSet("ls", flag.ContinueOnError)
	dir, asJSON := dirFlag(flags), flags.Bool("json", false, "print JSON lines")
	if err := parse(flags, args, io, 0); err != nil {
		return err
	}
	return withLedger(ctx, *dir, func(l *ledger.Ledger) error {
		grants, err := l.ListGrants(ctx)
		if err != nil {
			return err
		}
		if *asJSON {
			return encodeAll(io.out, grants)
		}
		t := table(io.out, "GRANT", "STATE", "TARGET", "ROLE", "UNTIL", "WHY")
		for _, g := range grants {
			row(t, g.Key.ID, string(g.State), g.Plan.Target.TargetRef.String(), g.Plan.Role.Name, stamp(g.NotAfter), g.Why)
		}
		return t.Flush()
	})
}

// runSessions lists recorded sessions.
func runSessions(ctx context.Context, args []string, io stdio) error {
	flags := flag.NewFlagSet("sessions", flag.ContinueOnError)
	dir, asJSON := dirFlag(flags), flags.Bool("json", false, "print JSON lines")
	if err := parse(flags, args, io, 0); err != nil {
		return err
	}
	return withLedger(ctx, *dir, func(l *ledger.Ledger) error {
		sessions, err := l.ListSessions(ctx)
		if err != nil {
			return err
		}
		if *asJSON {
			return encodeAll(io.out, sessions)
		}
		t := table(io.out, "SESSION", "PERSON", "TARGET", "GRANT", "STARTED", "ENDED")
		for _, s := range sessions {
			row(t, s.ID, s.Person.Login, s.Target.String(), s.Grant.ID, stamp(s.Started), stamp(s.Ended))
		}
		return t.Flush()
	})
}

func encodeAll[T any](w io.Writer, all []T) error {
	enc := json.NewEncoder(w)
	for _, one := range all {
		if err := enc.Encode(one); err != nil {
			return fmt.Errorf("write list: %w", err)
		}
	}
	return nil
}

func table(w io.Writer, head ...string) *tabwriter.Writer {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	row(t, head...)
	return t
}

func row(t *tabwriter.Writer, cells ...string) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(t, "\t")
		}
		fmt.Fprint(t, c)
	}
	fmt.Fprintln(t)
}

// stamp is a moment for people: UTC, to the second, or a dash.
func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.DateTime)
}
