package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger"
	"github.com/tidegate/tidegate/gateway/postgres/mint"
)

// Bounds of what stands around the command.
const (
	yieldDefault = 15 * time.Minute
	yieldKill    = 10 * time.Second // from the polite end of the command to the other
	yieldRestore = 2 * time.Minute  // to let access come back; then it comes back by itself
	yieldLook    = 200 * time.Millisecond
)

// runYield takes the views of a target's grants away, runs a command (a
// migration), and lets them be made again. That they come back hangs on
// nothing here: until when the target yields is kept at the target and in the
// grants' rows.
func runYield(ctx context.Context, args []string, io stdio) error {
	var w which
	flags := flag.NewFlagSet("yield", flag.ContinueOnError)
	w.addFlags(flags)
	most := flags.Duration("at-most", yieldDefault, "how `long` at most; then the command is ended and access comes back")
	why := flags.String("why", "A migration.", "`text` for the record")
	var command []string
	if i := slices.Index(args, "--"); i >= 0 {
		args, command = args[:i], args[i+1:]
	}
	target, err := one(flags, args, io, "one target, and behind -- the command to run")
	if err != nil {
		return err
	}
	if len(command) == 0 {
		return fmt.Errorf("%w: got no command, want one behind --", errUsage)
	}
	if *most < time.Second || *most > mint.MaxYield {
		return fmt.Errorf("%w: got --at-most %s, want 1s to %s", errUsage, *most, mint.MaxYield)
	}
	if err := checkWhy(*why); err != nil {
		return err
	}
	if _, err := exec.LookPath(command[0]); err != nil { // before a session ends for it
		return fmt.Errorf("find the command: %w", err)
	}
	p, err := newPatient(w)
	if err != nil {
		return err
	}
	if !p.parts.Control {
		return fmt.Errorf("yield: %s is a gateway's; run this where control runs, with its configuration", p.Config)
	}
	return p.asControl(ctx, "yield", func(l *ledger.Ledger) error {
		y, err := p.yielding(ctx, l, target)
		if err != nil {
			return err
		}
		defer y.minter.Close()
		y.most, y.until, y.why = *most, time.Now().Add(*most), *why
		return y.around(ctx, command, io)
	})
}

// yielding is a target that makes room.
type yielding struct {
	ledger *ledger.Ledger
	minter *mint.Minter
	target access.Target
	most   time.Duration
	until  time.Time
	why    string
}

func (p *patient) yielding(ctx context.Context, l *ledger.Ledger, name string) (*yielding, error) {
	tree, err := l.Adopted(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the policies in force: %w", err)
	}
	all, err := policy{}.Targets(tree)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(t access.Target) bool { return t.Kind == mint.Kind && (t.Name == name || t.String() == name) })
	if i < 0 {
		return nil, access.Errorf(access.CodeNotFound, "The policies in force have no PostgreSQL target %q; want one such as postgres.orders-prod.", name)
	}
	key := make([]byte, 32) // nothing is minted here: no password is derived from it
	m, err := mint.New(mint.Config{Installation: p.Name, Key: key, Admin: p.admin})
	return &yielding{ledger: l, minter: m, target: all[i]}, err
}

// around runs the command between taking the views away and letting them come
// back, which happens whatever became of the command.
func (y *yielding) around(ctx context.Context, command []string, io stdio) error {
	err := y.withdraw(ctx, io)
	if err == nil {
		bounded, cancel := context.WithDeadlineCause(ctx, y.until, fmt.Errorf("%s ran for longer than %s and was ended", command[0], y.most))
		err = runBetween(bounded, command, io)
		cancel()
	}
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), yieldRestore)
	defer cancel()
	if lost := y.restore(back, io); lost != nil {
		fmt.Fprintf(io.err, "tidegate yield: %v\naccess comes back by itself, after %s at the latest\n", lost, stamp(y.until))
		return errors.Join(err, lost)
	}
	return err
}

func runBetween(ctx context.Context, command []string, io stdio) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = io.in, io.out, io.err
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = yieldKill
	err := cmd.Run()
	if ctx.Err() != nil {
		return fmt.Errorf("run %s: %w", command[0], context.Cause(ctx))
	}
	return clientEnded(command[0], err)
}

// concerned are the active grants at the same database whose access is by views.
func (y *yielding) concerned(ctx context.Context) ([]access.Grant, error) {
	open, err := y.ledger.Unclosed(ctx)
	if err != nil {
		return nil, fmt.Errorf("list grants: %w", err)
	}
	return slices.DeleteFunc(open, func(g access.Grant) bool {
		t := g.Plan.Target
		return t.Kind != mint.Kind || t.Address != y.target.Address || g.State != access.StateActive || !mint.HasViews(g) && g.Yields.IsZero()
	}), nil
}

func (y *yielding) withdraw(ctx context.Context, io stdio) error {
	if err := y.minter.Yield(ctx, y.target, y.most); err != nil {
		return err
	}
	grants, err := y.concerned(ctx)
	if err != nil {
		return err
	}
	for _, g := range grants {
		g, err := y.mark(ctx, g.Key, y.until)
		if err != nil {
			return err
		}
		if err := y.minter.Revoke(ctx, g); err != nil {
			return fmt.Errorf("take the views of grant %s away: %w", g.Key.ID, err)
		}
		fmt.Fprintf(io.err, "%s makes room until %s at most\n", g.Key.ID, stamp(y.until))
	}
	return y.ledger.Audit(ctx, localUser(), "target.yielded", y.target.String(), fmt.Sprintf("%d grants, until %s at most: %s", len(grants), stamp(y.until), y.why))
}

// mark has a grant's access made anew, not before the moment: gateways end its
// sessions when they see the row.
func (y *yielding) mark(ctx context.Context, key access.GrantKey, until time.Time) (access.Grant, error) {
	for range revokeTries {
		g, err := y.ledger.Grant(ctx, key)
		if err != nil || g.State != access.StateActive {
			return g, err
		}
		if len(g.Backing) > 0 {
			g.Generation, g.Backing = g.Generation+1, nil
		}
		g.Yields, g.Why = until.UTC().Truncate(time.Second), "Its target made room for a migration."
		if until.IsZero() {
			g.Yields = time.Time{}
		}
		g, err = y.ledger.Update(ctx, g)
		if access.CodeOf(err) != access.CodeConflict || err == nil {
			return g, err
		}
	}
	return access.Grant{}, access.Errorf(access.CodeConflict, "Grant %s kept changing; try again.", key.ID)
}

// restore lets control make the access again, and waits until it has. Grants
// that became active meanwhile are made again as well: their views may have
// been made before the target yielded, and be gone.
func (y *yielding) restore(ctx context.Context, io stdio) error {
	if err := y.minter.Yield(ctx, y.target, 0); err != nil {
		return err
	}
	grants, err := y.concerned(ctx)
	if err != nil {
		return err
	}
	for _, g := range grants {
		if _, err := y.mark(ctx, g.Key, time.Time{}); err != nil {
			return err
		}
	}
	for _, g := range grants {
		now, err := y.waitBack(ctx, g.Key)
		if err != nil {
			return err
		}
		said := "is open again"
		if now.State.Ended() {
			said = "is " + string(now.State) + ": " + strings.TrimSpace(now.Why)
		}
		fmt.Fprintf(io.err, "%s %s\n", g.Key.ID, said)
	}
	return y.ledger.Audit(ctx, localUser(), "target.back", y.target.String(), fmt.Sprintf("%d grants", len(grants)))
}

func (y *yielding) waitBack(ctx context.Context, key access.GrantKey) (access.Grant, error) {
	tick := time.NewTicker(yieldLook)
	defer tick.Stop()
	for {
		g, err := y.ledger.Grant(ctx, key)
		if err == nil && (len(g.Backing) > 0 || g.State != access.StateActive) {
			return g, nil
		}
		select {
		case <-ctx.Done():
			return g, fmt.Errorf("grant %s is not open again after %s: does control run? %w", key.ID, yieldRestore, err)
		case <-tick.C:
		}
	}
}
