package mint

import (
	"fmt"
	"strings"
)

// Options say for what SetupSQL writes.
type Options struct {
	Installation string
	Admin        string   // the minter's login, to be made
	Database     string   // the target's
	Schemas      []string // whose tables grants may name; empty is public
	Acting       []string // as whom grants may act: `owner` of a role
	Owners       []string // who will make tables there later: their new tables are the minter's to hand on, too
}

// SetupSQL is what a superuser runs once in the target's database. It makes
// the minter's login, which is no superuser, without a password: set one with
// psql's \password, which sends a verifier only.
func SetupSQL(o Options) string {
	if len(o.Schemas) == 0 {
		o.Schemas = []string{"public"}
	}
	n := names{o.Installation}
	admin := ident(o.Admin)
	lines := []string{
		"-- Up to PostgreSQL 15 CREATEROLE reaches every role that is no superuser: guard this login like one.",
		fmt.Sprintf("create role %s with login createrole inherit nosuperuser nocreatedb noreplication", admin),
		fmt.Sprintf("grant connect on database %s to %s with grant option", ident(o.Database), admin),
		fmt.Sprintf("grant create on database %s to %s", ident(o.Database), admin),
		fmt.Sprintf("create role %s with nologin", ident(n.masks())),
		fmt.Sprintf("grant %s to %s with admin option", ident(n.masks()), admin),
		fmt.Sprintf("create schema %s authorization %s", ident(n.lock()), admin),
		fmt.Sprintf("create table %s.lock (only_row boolean primary key default true check (only_row))", ident(n.lock())),
		fmt.Sprintf("insert into %s.lock default values", ident(n.lock())),
		fmt.Sprintf("alter table %s.lock owner to %s", ident(n.lock()), admin),
	}
	for _, owner := range o.Acting {
		lines = append(lines, fmt.Sprintf("grant %s to %s with admin option", ident(owner), admin))
	}
	for _, s := range o.Schemas {
		lines = append(lines,
			fmt.Sprintf("grant usage on schema %s to %s with grant option", ident(s), admin),
			fmt.Sprintf("grant select, insert, update, delete on all tables in schema %s to %s with grant option", ident(s), admin),
			fmt.Sprintf("grant usage on all sequences in schema %s to %s with grant option", ident(s), admin),
			fmt.Sprintf("grant execute on all routines in schema %s to %s with grant option", ident(s), admin))
		for _, owner := range o.Owners {
			lines = append(lines,
				fmt.Sprintf("alter default privileges for role %s in schema %s grant select, insert, update, delete on tables to %s with grant option", ident(owner), ident(s), admin),
				fmt.Sprintf("alter default privileges for role %s in schema %s grant usage on sequences to %s with grant option", ident(owner), ident(s), admin),
				fmt.Sprintf("alter default privileges for role %s in schema %s grant execute on routines to %s with grant option", ident(owner), ident(s), admin))
		}
	}
	return lines[0] + "\n" + strings.Join(lines[1:], ";\n") + ";\n"
}
