package main

import (
	"context"
	"flag"
	"fmt"
	"strings"

	"github.com/tidegate/tidegate/access/ledger"
	"github.com/tidegate/tidegate/gateway/postgres/mint"
)

// runSetup prints what an administrator of a target runs, for reading before
// running.
func runSetup(ctx context.Context, args []string, io stdio) error {
	if len(args) > 0 {
		switch args[0] {
		case "-h", "-help", "--help":
			v, _ := findVerb("setup")
			fmt.Fprintf(io.out, "%s\n%s\n\n`tidegate setup postgres -h`, `setup ledger -h` and `setup gateway -h` list their flags.\n", v.usage(), v.about)
			return flag.ErrHelp
		case "gateway":
			return runSetupGateway(ctx, args[1:], io)
		case "ledger":
			return runSetupLedger(args[1:], io)
		}
	}
	flags := flag.NewFlagSet("setup postgres", flag.ContinueOnError)
	var o mint.Options
	flags.StringVar(&o.Installation, "installation", "", "this installation's `id`: 4 to 12 of a-z and 0-9")
	flags.StringVar(&o.Admin, "admin", "tidegate_admin", "`name` of the minter's login, to be made")
	flags.StringVar(&o.Database, "database", "", "the target's `database`")
	schemas := flags.String("schemas", "public", "`schemas` whose tables grants may name, by commas")
	owners := flags.String("owners", "", "`roles` that will make tables there later, by commas")
	acting := flags.String("acting", "", "`roles` as which grants may act (owner in a role block), by commas")
	words, err := mixed(flags, args, io)
	if err != nil {
		return err
	}
	if len(words) != 1 || words[0] != "postgres" {
		return fmt.Errorf("%w: got %s, want setup postgres, setup ledger or setup gateway", errUsage, listed(words))
	}
	if !mint.ValidInstallation(o.Installation) || o.Database == "" {
		return fmt.Errorf("%w: got --installation %q and --database %q, want an installation of 4 to 12 of a-z and 0-9, as the configuration has it, and the target's database", errUsage, o.Installation, o.Database)
	}
	if strings.Contains(o.Database+o.Admin, "$") {
		return fmt.Errorf("%w: got --database %q and --admin %q, want names without a $", errUsage, o.Database, o.Admin)
	}
	o.Schemas, o.Owners, o.Acting = list(*schemas), list(*owners), list(*acting)
	_, err = fmt.Fprint(io.out, mint.SetupSQL(o))
	return err
}

// runSetupLedger prints what a superuser of the ledger's server runs, once the
// control side has made the tables, for a gateway that runs alone.
func runSetupLedger(args []string, io stdio) error {
	flags := flag.NewFlagSet("setup ledger", flag.ContinueOnError)
	var o ledger.SetupOptions
	flags.StringVar(&o.Database, "database", "", "the ledger's `database`")
	flags.StringVar(&o.Schema, "schema", "public", "`schema` of the ledger's tables")
	flags.StringVar(&o.Gateway, "gateway", "", "`name` of the gateway's login, to be made")
	if err := parse(flags, args, io); err != nil {
		return err
	}
	if o.Database == "" || o.Gateway == "" || strings.Contains(o.Gateway, "$") {
		return fmt.Errorf("%w: got --database %q and --gateway %q, want the ledger's database, and the name of a login to make, without a $", errUsage, o.Database, o.Gateway)
	}
	_, err := fmt.Fprint(io.out, ledger.SetupSQL(o))
	return err
}

// list splits a flag's value at its commas.
func list(s string) []string {
	var out []string
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}
