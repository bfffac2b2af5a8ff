package main

import (
	"context"
	"flag"
	"fmt"
	"strings"

	"github.com/tidegate/tidegate/gateway/record"
)

func equalLogin(a, b string) bool { return strings.EqualFold(a, b) }

// runGateway is `tidegate gateway close`: it ends sessions over the running
// gateway's own socket, with ledger, Temporal and GitHub down.
func runGateway(ctx context.Context, args []string, io stdio) error {
	var w which
	c := closing{}
	flags := flag.NewFlagSet("gateway close", flag.ContinueOnError)
	w.addFlags(flags)
	flags.StringVar(&c.Grant, "grant", "", "`id` of the grant whose sessions end")
	flags.StringVar(&c.Person, "person", "", "`login` of the person whose sessions end")
	flags.StringVar(&c.Session, "session", "", "`id` of the one session that ends")
	flags.BoolVar(&c.All, "all", false, "every session ends")
	flags.StringVar(&c.Why, "why", "no reason was given", "`text` for the person, the log and the recording")
	asJSON := flags.Bool("json", false, "print the closed sessions as JSON lines")
	words, err := mixed(flags, args, io)
	if err != nil {
		return err
	}
	if len(words) != 1 || words[0] != "close" {
		return fmt.Errorf("%w: got %s, want gateway close", errUsage, listed(words))
	}
	if err := c.check(); err != nil {
		return fmt.Errorf("%w: %v", errUsage, err)
	}
	i, err := w.find()
	if err != nil {
		return err
	}
	var done closed
	if err := askGateway(ctx, i.Dir, "POST", "/close", c, &done); err != nil {
		return err
	}
	if *asJSON {
		return encodeAll(io.out, done.Sessions)
	}
	done.tell(io)
	return nil
}

// tell says that closing is not revoking.
func (c closed) tell(io stdio) {
	seen, grants := map[string]bool{}, []string(nil)
	for _, s := range c.Sessions {
		fmt.Fprintf(io.out, "closed %s of %s on %s, grant %s\n", s.ID, record.Visible(s.Person.Login), record.Visible(s.Target.String()), record.Visible(s.Grant.ID))
		if !seen[s.Grant.ID] {
			seen[s.Grant.ID] = true
			grants = append(grants, s.Grant.ID)
		}
	}
	if len(c.Sessions) == 0 {
		fmt.Fprintln(io.err, "no open session fits; `tidegate sessions` lists them")
		return
	}
	for _, id := range grants {
		fmt.Fprintf(io.err, "while %s is active, new sessions open under it; to end it: tidegate revoke %s\n", id, id)
	}
}
