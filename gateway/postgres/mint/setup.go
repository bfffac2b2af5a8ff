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

// SetupSQL is what a superuser runs in the target's database, and again for
// more schemas or another database of that server. It makes the minter's
// login, which is no superuser, without a password: set one with psql's
// \password, which sends a verifier only. In another database it changes
// nothing. Neither Database nor Admin may hold a $.
func SetupSQL(o Options) string {
	if len(o.Schemas) == 0 {
		o.Schemas = []string{"public"}
	}
	n := names{o.Installation}
	admin := ident(o.Admin)
	lines := []string{
		"-- Up to PostgreSQL 15 CREATEROLE can take every role that is no superuser, pg_execute_server_program\n-- among them, and so run programs on the server: guard this login's password as a superuser's.",
		"begin",
		rightPlace(o, n.masks()),
		fmt.Sprintf("alter role %s with login createrole inherit nosuperuser nocreatedb noreplication", admin),
		fmt.Sprintf("grant connect on database %s to %s with grant option", ident(o.Database), admin),
		fmt.Sprintf("grant create on database %s to %s", ident(o.Database), admin),
		fmt.Sprintf("grant %s to %s with admin option", ident(n.masks()), admin),
		fmt.Sprintf("create schema if not exists %s authorization %s", ident(n.lock()), admin),
		fmt.Sprintf("create table if not exists %s.lock (only_row boolean primary key default true check (only_row))", ident(n.lock())),
		fmt.Sprintf("insert into %s.lock default values on conflict do nothing", ident(n.lock())),
		fmt.Sprintf("alter table %s.lock owner to %s", ident(n.lock()), admin),
		fmt.Sprintf("revoke all on schema %[1]s from public; revoke all on table %[1]s.lock from public", ident(n.lock())),
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
	lines = append(lines, "commit")
	return lines[0] + "\n" + strings.Join(lines[1:], ";\n") + ";\n" +
		fmt.Sprintf("-- Then give the login its password, in psql: \\password %s\n", admin) + hba(n, o.Database)
}

// rightPlace makes the roles that are missing. In another database than the
// one that is meant, and for a superuser, it fails, and so does all that
// follows in its transaction.
func rightPlace(o Options, masks string) string {
	return fmt.Sprintf(`do $setup$ begin
  if current_database() <> %[1]s then raise exception 'got database %%, want %%: nothing was changed', current_database(), %[1]s; end if;
  if exists (select from pg_roles where rolname = %[2]s and rolsuper) then raise exception '%% is a superuser, want a login of the minter alone: nothing was changed', %[2]s; end if;
  if not exists (select from pg_roles where rolname = %[2]s) then create role %[3]s; end if;
  if not exists (select from pg_roles where rolname = %[4]s) then create role %[5]s; end if;
end $setup$`, literal(o.Database), literal(o.Admin), ident(o.Admin), literal(masks), ident(masks))
}

// hba is what pg_hba.conf should say, as a comment: with it a minted role is
// good for nothing but the gateway's way to this database, whatever becomes of
// its password.
func hba(n names, database string) string {
	return fmt.Sprintf(`-- In pg_hba.conf, before all other lines, with the gateway's address in place of GATEWAY (PostgreSQL 16 and later):
-- hostssl %[1]s /^%[2]s[0-9a-f]+_g[0-9]+$ GATEWAY/32 scram-sha-256
-- host    all /^%[2]s[0-9a-f]+_g[0-9]+$ all reject
`, hbaName(database), n.all())
}

func hbaName(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }
