package ledger

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tidegate/tidegate/access"
)

// Diagnose says how the ledger is: its schema is current, or Open would have
// refused. With control's public key it looks at the grants' signatures too.
func (l *Ledger) Diagnose(ctx context.Context, control ed25519.PublicKey) []access.Finding {
	f := &access.Findings{Part: "ledger"}
	var have int64
	if err := l.db.QueryRowContext(ctx, "select max(version_id) from goose_db_version").Scan(&have); err != nil {
		f.Fail("Look whether its database runs, and whether this login may read it.", "%v", err)
		return f.List
	}
	f.OK("it answers; its schema is version %d", have)
	if l.config.ForGateway {
		f.OK("this login has a gateway's rights and no others")
	} else if err := l.VerifyAudit(ctx); err != nil {
		f.Fail("Somebody changed the ledger behind Tidegate's back: keep a copy and find out who.", "%v", err)
	} else {
		f.OK("its audit log is an unbroken chain")
	}
	if why, err := l.Older(ctx); why != "" || err != nil {
		f.Fail("Read the guide on restoring a backup, then run `tidegate adopt`; until then what is open is only taken away.", "it is empty or older than what control has seen of it (%s)", cmp.Or(why, fmt.Sprint(err)))
	}
	l.diagnoseClock(ctx, f)
	l.diagnoseGrants(ctx, f, control)
	if !l.config.ForGateway {
		l.diagnoseCommands(ctx, f)
	}
	return f.List
}

// diagnoseClock asks a server for its time. SQLite has only ours.
func (l *Ledger) diagnoseClock(ctx context.Context, f *access.Findings) {
	if l.dialect.lock == "" {
		return
	}
	var theirs time.Time
	asked := l.config.Now()
	if err := l.db.QueryRowContext(ctx, "select clock_timestamp()").Scan(&theirs); err != nil {
		f.Fail("Try again.", "its clock could not be read: %v", err)
		return
	}
	f.Clock(theirs, asked, l.config.Now())
}

// diagnoseGrants looks for what is past its end and not closed, and for rows
// that control never signed.
func (l *Ledger) diagnoseGrants(ctx context.Context, f *access.Findings, control ed25519.PublicKey) {
	rows, _, err := l.Snapshot(ctx)
	if err != nil {
		f.Fail("Try again.", "its grants could not be read: %v", err)
		return
	}
	open, now := 0, l.config.Now()
	for _, r := range rows {
		var g access.Grant
		if err := decode(r.Payload, &g); err != nil {
			f.Fail("Find out who wrote it.", "it holds a grant that can't be read")
			continue
		}
		if len(control) > 0 && !VerifyGrant(control, r.Payload, r.Signature) {
			f.Fail("Find out who wrote it; no gateway believes it.", "grant %s is not signed by this installation's control", g.Key)
		}
		switch over := g.State.Ended() || !now.Before(g.Drained()); {
		case !g.Closed.IsZero():
		case !over:
			open++
		case now.Sub(g.Drained()) > lateClose:
			f.Fail("See the log of control, and the target: the role may still be there.", "grant %s is %s since %s and not proved closed",
				g.Key.ID, g.State, g.NotAfter.UTC().Format(time.DateTime))
		default:
			f.Warn("It should be proved closed within minutes.", "grant %s is %s and being closed", g.Key.ID, g.State)
		}
	}
	f.OK("%d grants are open", open)
}

// lateClose is how long after its end a grant may take to be proved closed.
const lateClose = 5 * time.Minute

// diagnoseCommands looks for commands that end access and were not carried out,
// on pull requests with grants that are not closed.
func (l *Ledger) diagnoseCommands(ctx context.Context, f *access.Findings) {
	waiting, err := l.waitingCommands(ctx)
	if err != nil {
		f.Fail("Try again.", "whether commands wait could not be read: %v", err)
		return
	}
	for _, pull := range slices.Sorted(maps.Keys(waiting)) {
		f.Warn("See what github says above, and command.waits in the audit log for the cause; `tidegate revoke` ends the grant without GitHub.",
			"on pull request %s %d commands that end access wait to be carried out", pull, waiting[pull])
	}
}

// waitingCommands counts them by pull request. Control stores one that waits as
// "command.waits" with its own id and the pull request's, and one that was
// answered as "command" with its own.
func (l *Ledger) waitingCommands(ctx context.Context) (map[string]int, error) {
	open, err := l.Unclosed(ctx)
	if err != nil {
		return nil, err
	}
	pulls := map[string]bool{}
	for _, g := range open {
		pulls[fmt.Sprintf("%d-%d", g.Pull.Repo, g.Pull.Number)] = true
	}
	waits, err := l.doneOf(ctx, "command.waits")
	if err != nil {
		return nil, err
	}
	out := map[string]int{}
	for _, w := range waits {
		id, pull, _ := strings.Cut(w, " ")
		if !pulls[pull] {
			continue
		}
		answered, err := l.Done(ctx, "command", id)
		if err != nil {
			return nil, err
		}
		if !answered {
			out[pull]++
		}
	}
	return out, nil
}
