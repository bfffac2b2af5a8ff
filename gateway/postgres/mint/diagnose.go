package mint

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidegate/tidegate/access"
)

// oldest is the first major version of PostgreSQL that minting was tried on.
const oldest = 15

// narrowCreateRole is the first version in which CREATEROLE reaches only the
// roles that it made.
const narrowCreateRole = 16

// Diagnose says whether access to one target can be made: reach, TLS, the
// minter's login and its rights, and whether the tables of the offers (plans
// of that target) can be handed on. It changes nothing there.
func (m *Minter) Diagnose(ctx context.Context, t access.Target, offers []access.Plan) []access.Finding {
	d := &diagnosis{m: m, t: t, Findings: &access.Findings{Part: "target " + t.TargetRef.String()}}
	if ok := d.static(ctx) || t.Static == "" && d.rights(ctx); !ok {
		return d.List
	}
	for _, plan := range offers {
		d.offer(ctx, plan)
	}
	return d.List
}

// diagnosis is one look at a target.
type diagnosis struct {
	m *Minter
	t access.Target
	*access.Findings
}

// setup is what to do where rights are missing.
func (d *diagnosis) setup() string {
	return fmt.Sprintf("Have a superuser run what `tidegate setup postgres --installation %s --database …` prints.", d.m.cfg.Installation)
}

const surveySQL = `
select current_setting('server_version_num')::int / 10000, clock_timestamp(), current_user::text,
	r.rolcreaterole or r.rolsuper, r.rolsuper,
	has_database_privilege(current_database(), 'CREATE'),
	has_database_privilege(current_database(), 'CONNECT WITH GRANT OPTION'),
	coalesce((select pg_has_role(current_user, oid, 'USAGE') from pg_roles where rolname = $1), false),
	exists (select from pg_namespace where nspname = $2)
from pg_roles r where r.rolname = current_user`

// survey is what a server says of itself and of the minter's login.
type survey struct {
	version                      int
	clock                        time.Time
	login                        string
	createRole, super            bool
	create, connect, masks, lock bool
}

// rights logs in and asks what the login may do.
func (d *diagnosis) rights(ctx context.Context) bool {
	p, err := d.m.pool(d.t)
	if err != nil {
		d.Fail("Correct the target in the policies.", "%v", err)
		return false
	}
	var s survey
	asked := d.m.cfg.Now()
	err = p.QueryRow(ctx, surveySQL, d.m.names.masks(), d.m.names.lock()).
		Scan(&s.version, &s.clock, &s.login, &s.createRole, &s.super, &s.create, &s.connect, &s.masks, &s.lock)
	if err != nil {
		d.Fail(remedy(err), "%s: %v", d.t.Address, err)
		return false
	}
	d.OK("%s answers with verified TLS; the login %s works", d.t.Address, s.login)
	d.Clock(s.clock, asked, d.m.cfg.Now())
	d.version(s)
	if s.super {
		d.Warn(d.setup(), "%s is a superuser, and need not be", s.login)
	}
	return d.lacksNothing(s)
}

func (d *diagnosis) version(s survey) {
	if s.version < oldest {
		d.Fail(fmt.Sprintf("Upgrade the server to %d or later.", oldest), "PostgreSQL %d is older than %d, on which minting was tried", s.version, oldest)
	} else {
		d.OK("it is PostgreSQL %d", s.version)
	}
	if s.version < narrowCreateRole {
		d.Warn("Guard its password as you guard a superuser's, or upgrade the server.",
			"before PostgreSQL %d, %s can take every role that is no superuser (CREATEROLE), and so run programs on the server", narrowCreateRole, s.login)
	}
}

// lacksNothing reports whether the login has all that it mints with.
func (d *diagnosis) lacksNothing(s survey) bool {
	lacks := 0
	for _, one := range []struct {
		ok   bool
		what string
	}{
		{s.createRole, "CREATEROLE"}, {s.create, "CREATE on the database"}, {s.connect, "CONNECT on the database WITH GRANT OPTION"},
		{s.masks, "membership in " + d.m.names.masks()}, {s.lock, "the schema " + d.m.names.lock()},
	} {
		if !one.ok {
			lacks++
			d.Fail(d.setup(), "%s lacks %s", s.login, one.what)
		}
	}
	if lacks == 0 {
		d.OK("%s has the rights that it mints with", s.login)
	}
	return lacks == 0
}

// remedy says what to do about a login that failed.
func remedy(err error) string {
	pg, cert := (*pgconn.PgError)(nil), x509.UnknownAuthorityError{}
	name := x509.HostnameError{}
	switch {
	case errors.As(err, &cert):
		return "Name the CA of the server's certificate in server_ca_file of the secret."
	case errors.As(err, &name):
		return "Name the host of the server's certificate in server_name of the secret."
	case errors.As(err, &pg) && pg.Code == "28P01":
		return "Look at user and password_file of the secret."
	case errors.As(err, &pg):
		return "Look at the login at the server, and at its pg_hba.conf."
	case access.CodeOf(err) == access.CodeUnavailable:
		return "Look at the block secret: does `for` name this target's kind and address?"
	}
	return "Look whether the server runs, whether this machine reaches it, and whether it speaks TLS and SCRAM."
}

// offer expands a role as minting would, and looks whether its tables can be
// handed on.
func (d *diagnosis) offer(ctx context.Context, plan access.Plan) {
	what := "role " + plan.Role.Name
	if plan.Request.ID != "" {
		what = "grant " + plan.Request.ID
	}
	x, err := d.m.Expand(ctx, plan)
	if err != nil {
		d.Fail("Change the role or the mask in the policies, or the tables.", "%s can't be given: %v", what, err)
		return
	}
	b, err := parseBody(x.Body)
	if err != nil {
		d.Fail("This is a mistake in Tidegate.", "%s: %v", what, err)
		return
	}
	short, err := d.notGrantable(ctx, b)
	switch {
	case err != nil:
		d.Fail("Try again.", "%s: its rights can't be read: %v", what, err)
	case len(short) > 0:
		d.Fail("Have their owner grant it: `tidegate setup postgres` prints how, for one schema and the tables to come.",
			"%s: the login may not hand on its rights on %s", what, some(short, maxReports))
	default:
		d.OK("%s can be given: %s", what, summaryOf(b))
	}
	if plan.Request.ID != "" {
		for _, line := range b.viewsSummary() {
			d.OK("%s: %s", what, line)
		}
	}
	for i, l := range b.LeftOut {
		if i == maxReports {
			d.Warn("See the plan of a request for all.", "%s leaves out %d more", what, len(b.LeftOut)-i)
			break
		}
		d.Warn("Name it, or leave it so.", "%s leaves out %s: %s", what, l.Table, l.Why)
	}
}

func summaryOf(b body) string {
	if b.Login != "" {
		return "its sessions log in as " + b.Login
	}
	masked := 0
	for _, t := range b.Tables {
		if t.masked() {
			masked++
		}
	}
	return fmt.Sprintf("%s, %d of them with masks", count(len(b.Tables), "table"), masked)
}

const grantableSQL = `
select n.nspname || '.' || c.relname from unnest($1::text[], $2::text[], $3::bool[], $4::bool[]) as w(schema, name, reads, writes)
join pg_namespace n on n.nspname = w.schema join pg_class c on c.relnamespace = n.oid and c.relname = w.name
where not has_schema_privilege(n.oid, 'USAGE WITH GRANT OPTION')
	or w.reads and not has_table_privilege(c.oid, 'SELECT WITH GRANT OPTION')
	or w.writes and not (has_table_privilege(c.oid, 'INSERT WITH GRANT OPTION')
		and has_table_privilege(c.oid, 'UPDATE WITH GRANT OPTION') and has_table_privilege(c.oid, 'DELETE WITH GRANT OPTION'))
order by 1`

// notGrantable are the tables and functions of which the login can't hand on what is asked.
func (d *diagnosis) notGrantable(ctx context.Context, b body) ([]string, error) {
	p, err := d.m.pool(d.t)
	if err != nil {
		return nil, err
	}
	var schemas, names []string
	var reads, writes []bool
	for _, t := range b.Tables {
		schemas, names = append(schemas, t.Schema), append(names, t.Name)
		reads, writes = append(reads, t.Read), append(writes, t.Write)
	}
	rows, err := p.Query(ctx, grantableSQL, schemas, names, reads, writes)
	if err != nil {
		return nil, err
	}
	short, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	functions, err := notCallable(ctx, p, b.Calls)
	return append(short, functions...), err
}
