package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/tidegate/tidegate/access/ledger"
	"github.com/tidegate/tidegate/workflows"
	"github.com/tidegate/tidegate/workflows/forge"
)

// runAdopt takes the ledger for the truth, where it is new, was restored or
// emptied. Control may run meanwhile or not.
func runAdopt(ctx context.Context, args []string, io stdio) error {
	var w which
	flags := flag.NewFlagSet("adopt", flag.ContinueOnError)
	w.addFlags(flags)
	in := workflows.AdoptInput{By: localUser()}
	flags.StringVar(&in.Why, "why", "Adopted on the command line.", "`text` for the record")
	flags.BoolVar(&in.Restored, "restored", false, "the ledger was restored, although control does not notice: its state folder was restored with it")
	asJSON := flags.Bool("json", false, "print what was done as JSON")
	if err := parse(flags, args, io); err != nil {
		return err
	}
	if err := checkWhy(in.Why); err != nil {
		return err
	}
	p, err := newPatient(w)
	if err != nil {
		return err
	}
	if !p.parts.Control {
		return fmt.Errorf("adopt the ledger: %s is a gateway's; run this where control runs, with its configuration", p.Config)
	}
	var done workflows.Adoption
	err = p.asControl(ctx, "adopt", func(l *ledger.Ledger) (err error) {
		done, err = p.adopt(ctx, l, in)
		return err
	})
	if err != nil {
		return err
	}
	if *asJSON {
		return encodeOne(io.out, done)
	}
	tellAdoption(io.out, done)
	return nil
}

func (p *patient) adopt(ctx context.Context, l *ledger.Ledger, in workflows.AdoptInput) (workflows.Adoption, error) {
	gh, err := forge.New(p.forge)
	if err != nil {
		return workflows.Adoption{}, err
	}
	repo, err := gh.Repo(ctx)
	if err != nil {
		return workflows.Adoption{}, fmt.Errorf("find repository %s/%s: %w", p.forge.Owner, p.forge.Repo, err)
	}
	acts := workflows.Activities{Repo: repo, Forge: gh, Policies: policy{}, Ledger: controlLedger{l}, Rules: p.rules}
	return acts.AdoptLedger(ctx, in)
}

func tellAdoption(w io.Writer, a workflows.Adoption) {
	for _, one := range []struct {
		what string
		ids  []string
	}{{"revoked", a.Revoked}, {"refused", a.Refused}, {"taken for who they are today, and were others:", a.Names}} {
		if len(one.ids) > 0 {
			fmt.Fprintf(w, "%s %s\n", one.what, strings.Join(one.ids, ", "))
		}
	}
	switch {
	case a.Policies != "":
		fmt.Fprintf(w, "the policies of commit %.12s are in force\n", a.Policies)
	case a.Began:
		fmt.Fprintln(w, "the ledger is adopted; its policies stay in force")
	default:
		fmt.Fprintln(w, "the ledger holds all that was seen of it and has policies in force: both stay as they are")
	}
}
