package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger"
	"github.com/tidegate/tidegate/gateway/archive"
	"github.com/tidegate/tidegate/gateway/record"
)

// runLs lists grants.
func runLs(ctx context.Context, args []string, io stdio) error {
	var w which
	flags := flag.NewFlagSet("ls", flag.ContinueOnError)
	w.addFlags(flags)
	asJSON := flags.Bool("json", false, "print JSON lines")
	if err := parse(flags, args, io); err != nil {
		return err
	}
	i, err := w.find()
	if err != nil {
		return err
	}
	return i.withLedger(ctx, func(l *ledger.Ledger) error {
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
	var w which
	flags := flag.NewFlagSet("sessions", flag.ContinueOnError)
	w.addFlags(flags)
	asJSON := flags.Bool("json", false, "print JSON lines")
	filter := addFilter(flags, time.Now())
	if err := parse(flags, args, io); err != nil {
		return err
	}
	i, err := w.find()
	if err != nil {
		return err
	}
	return i.withLedger(ctx, func(l *ledger.Ledger) error {
		sessions, err := l.FindSessions(ctx, *filter)
		if err != nil {
			return err
		}
		if *asJSON {
			return encodeAll(io.out, i.located(sessions))
		}
		t := table(io.out, "SESSION", "PERSON", "TARGET", "GRANT", "STARTED", "ENDED")
		for _, s := range sessions {
			row(t, s.ID, s.Person.Login, s.Target.String(), s.Grant.ID, stamp(s.Started), stamp(s.Ended))
		}
		return t.Flush()
	})
}

// located is a session and where its recording lies.
type located struct {
	access.SessionInfo
	Recording string `json:"recording,omitempty"` // its file here
	Copy      string `json:"copy,omitempty"`      // its object in the bucket, once it was sent or where there is no file
}

func (i installation) located(sessions []access.SessionInfo) []located {
	all := make([]located, len(sessions))
	for n, s := range sessions {
		all[n] = located{SessionInfo: s, Recording: record.Locate(i.Recordings, s)}
		if path := all[n].Recording; i.Bucket != "" && (path == "" || archive.Sent(path)) {
			all[n].Copy = archive.ObjectURL(i.Bucket, s.ID)
		}
	}
	return all
}

// addFilter adds the flags that say which sessions are wanted.
func addFilter(flags *flag.FlagSet, now time.Time) *ledger.SessionFilter {
	var f ledger.SessionFilter
	flags.StringVar(&f.Person, "person", "", "only those of this `login`")
	flags.StringVar(&f.Target, "target", "", "only those on this `target`")
	flags.StringVar(&f.Grant, "grant", "", "only those under the grant with this `id`")
	for name, to := range map[string]*time.Time{"since": &f.Since, "until": &f.Until} {
		flags.Func(name, `only those open at or `+map[string]string{"since": "after", "until": "before"}[name]+` this `+
			"`time`"+`: "2026-11-28", "2026-11-28 14:10", RFC 3339, or "2h" ago (UTC)`,
			func(s string) (err error) {
				*to, err = moment(s, now)
				return err
			})
	}
	return &f
}

// moment reads a time as people write it: in UTC, to the day, the minute, the
// second, or so long ago.
func moment(s string, now time.Time) (time.Time, error) {
	if ago, err := time.ParseDuration(s); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateTime, "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf(`got %q, want a time such as "2026-11-28", "2026-11-28 14:10" (UTC), "2026-11-28T14:10:00Z", or "2h" for so long ago`, s)
}

func encodeAll[T any](w io.Writer, all []T) error {
	for _, one := range all {
		if err := encodeOne(w, one); err != nil {
			return err
		}
	}
	return nil
}

// encodeOne writes one line of JSON, with <, > and & as they are.
func encodeOne(w io.Writer, v any) error {
	if err := record.EncodeVisible(w, v); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	return nil
}

func table(w io.Writer, head ...string) *tabwriter.Writer {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	row(t, head...)
	return t
}

// row writes one line. What a cell holds may come from others: it can't drive
// the terminal, nor break the table.
func row(t *tabwriter.Writer, cells ...string) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(t, "\t")
		}
		fmt.Fprint(t, record.Visible(c))
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
