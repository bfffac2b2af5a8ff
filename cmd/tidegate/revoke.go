package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os/user"
	"path/filepath"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger"
)

// revokeTries bounds how often a row is read again because somebody else
// wrote it meanwhile.
const revokeTries = 8

// runRevoke ends a grant early. It needs nothing but the ledger and control's
// key, so it works with everything else down; gateways cut when they see the
// row, and a running control side takes the access away at the target.
func runRevoke(ctx context.Context, args []string, io stdio) error {
	var w which
	flags := flag.NewFlagSet("revoke", flag.ContinueOnError)
	w.addFlags(flags)
	why := flags.String("why", "Revoked on the command line.", "`text` for the record")
	asJSON := flags.Bool("json", false, "print the grant as JSON")
	id, err := one(flags, args, io, "one grant's id")
	if err != nil {
		return err
	}
	if err := checkWhy(*why); err != nil {
		return err
	}
	i, err := w.find()
	if err != nil {
		return err
	}
	g, err := i.revoke(ctx, revocation{id, localUser(), *why})
	if err != nil {
		return err
	}
	if *asJSON {
		return encodeOne(io.out, g)
	}
	fmt.Fprintf(io.out, "%s is %s\n", g.Key.ID, g.State)
	return nil
}

func (i installation) revoke(ctx context.Context, r revocation) (g access.Grant, err error) {
	err = i.asControl(ctx, "revoke", func(l *ledger.Ledger) error {
		g, err = revoke(ctx, l, r)
		return err
	})
	return g, err
}

// asControl opens the ledger with control's key, which it never makes.
func (i installation) asControl(ctx context.Context, verb string, use func(*ledger.Ledger) error) error {
	path := i.key("control.pem")
	if !isFile(path) {
		return fmt.Errorf("read control's key: there is no %s; %s where control runs, as the user that runs it", path, verb)
	}
	key, err := signingKey(path)
	if err != nil {
		return err
	}
	seen, err := ledger.OpenWatermark(filepath.Join(i.Dir, seenFile))
	if err != nil {
		return err
	}
	return i.openLedger(ctx, ledger.Config{Signer: key, Watermark: seen}, use)
}

// revocation is who ends which grant, and why.
type revocation struct{ id, by, why string }

// revoke writes the end. The ledger refuses a row that changed since it was
// read; then it is read again.
func revoke(ctx context.Context, l *ledger.Ledger, r revocation) (access.Grant, error) {
	for range revokeTries {
		g, err := findGrant(ctx, l, r.id)
		if err != nil || g.State.Ended() {
			return g, err
		}
		g.State, g.Why = access.StateRevoked, r.why
		g, err = l.Update(ctx, g)
		switch {
		case access.CodeOf(err) == access.CodeConflict:
			continue
		case err != nil:
			return g, fmt.Errorf("revoke grant %s: %w", r.id, err)
		}
		return g, l.Audit(ctx, r.by, "grant.revoked", g.Key.String(), r.why)
	}
	return access.Grant{}, access.Errorf(access.CodeConflict, "Grant %s kept changing; try again.", r.id)
}

func findGrant(ctx context.Context, l *ledger.Ledger, id string) (access.Grant, error) {
	open, err := l.Unclosed(ctx)
	if err != nil {
		return access.Grant{}, err
	}
	recent, err := l.ListGrants(ctx)
	if err != nil {
		return access.Grant{}, err
	}
	for _, g := range append(open, recent...) {
		if g.Key.ID == id {
			return g, nil
		}
	}
	return access.Grant{}, access.Errorf(access.CodeNotFound, "There is no grant %q; `tidegate ls` lists them.", id)
}

// localUser is who typed the command, for the audit log.
func localUser() string {
	name := ""
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	return "command line: " + cmp.Or(name, "unknown user")
}
