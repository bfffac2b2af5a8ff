package ledger

import (
	"context"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger/pgtest"
)

const gatewayLogin = "tidegate_gateway"

// shared is a ledger of control's, and a gateway's login to it.
type shared struct {
	*rig
	admin   *pgx.Conn // superuser in the ledger's database
	control string    // URL of the login that owns the tables
	gateway string    // URL of the gateway's login
}

func newShared(t *testing.T) *shared {
	t.Helper()
	server := pgtest.Start(t, pgtest.Options{})
	s := &shared{}
	dsn := server.NewDatabase(t)
	s.admin = connectTo(t, dsn)
	s.exec(t, "create role tidegate login password 'control'", "grant create on schema public to tidegate")
	s.control, s.gateway = as(t, dsn, "tidegate", "control"), as(t, dsn, gatewayLogin, "gateway")
	return s
}

// start is control's first start.
func (s *shared) start(t *testing.T) {
	t.Helper()
	s.rig = newRig(t, s.control)
}

// setUp runs what setup ledger prints.
func (s *shared) setUp(t *testing.T) {
	t.Helper()
	s.exec(t, SetupSQL(SetupOptions{Database: s.admin.Config().Database, Gateway: gatewayLogin}), "alter role "+gatewayLogin+" password 'gateway'")
}

func (s *shared) exec(t *testing.T, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		if _, err := s.admin.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%v in:\n%s", err, sql)
		}
	}
}

// open opens the ledger as a gateway alone does.
func (s *shared) open(t *testing.T) (*Ledger, error) {
	t.Helper()
	c := Config{URL: s.gateway, ForGateway: true}
	if s.rig != nil {
		c.Now = s.Now
	}
	l, err := Open(t.Context(), c)
	if err == nil {
		t.Cleanup(func() { l.Close() })
	}
	return l, err
}

func connectTo(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func as(t *testing.T, dsn, user, password string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(user, password)
	return u.String()
}

func wantSaid(t *testing.T, err error, code access.Code, words string) {
	t.Helper()
	if access.CodeOf(err) != code || !strings.Contains(access.Message(err), words) {
		t.Errorf("got %v (%s), want %s with %q", err, access.CodeOf(err), code, words)
	}
}

// TestGatewayLogin: with the rights that setup ledger prints a gateway can do
// all that it must, and nothing that opens access.
func TestGatewayLogin(t *testing.T) {
	s := newShared(t)
	s.start(t)
	s.setUp(t)
	s.setUp(t) // again does no harm
	check(t, s.SetAdopted(t.Context(), access.Tree{Commit: "c1"}, []access.Rule{{Name: "r"}}, ""))
	g := s.active(t, "a")
	l, err := s.open(t)
	check(t, err)
	t.Run("does its work", func(t *testing.T) { gatewayWorks(t, s, l, g) })
	t.Run("may not", func(t *testing.T) { gatewayMayNot(t, s) })
	t.Run("hides nothing", func(t *testing.T) { gatewayHidesNothing(t, s, g) })
	check(t, s.VerifyAudit(t.Context()))
}

func gatewayWorks(t *testing.T, s *shared, l *Ledger, g access.Grant) {
	ctx := t.Context()
	heard, err := l.Changed(ctx)
	check(t, err)
	grants, rules, err := l.Snapshot(ctx)
	check(t, err)
	if len(grants) != 1 || len(rules) != 1 || !VerifyGrant(s.pub, grants[0].Payload, grants[0].Signature) {
		t.Errorf("got %d grants and %d rules, want one of each, signed", len(grants), len(rules))
	}
	id := access.Identity{Provider: "okta", Email: "alice@acme.test", EmailVerified: true, Issuer: "i", Subject: "s"}
	check(t, l.Pin(ctx, id))
	check(t, l.Pin(ctx, id))
	session := access.SessionInfo{ID: "s1", Grant: g.Key, Gateway: "gateway-1", Started: s.Now(), NotAfter: g.NotAfter}
	check(t, l.OpenSession(ctx, session))
	check(t, l.Anchor(ctx, access.Head{Session: "s1", Segment: 1, Hash: "h"}))
	for _, id := range []string{"h1", "h2", "h3"} {
		_, err := l.OpenHeld(ctx, s.signed(access.Held{ID: id, Grant: g.Key, Session: "s1", Digest: "d", Opened: s.Now(), Expires: s.Now().Add(time.Minute)}))
		check(t, err)
	}
	for len(heard) > 0 {
		<-heard
	}
	check(t, s.AnswerHeld(ctx, access.Answer{Held: "h1", Digest: "d", Approve: true, By: access.User{ID: 2, Login: "bob"}}))
	hears(t, "control's answer", heard)
	h, err := l.Held(ctx, "h1")
	check(t, err)
	if h.Answer == nil || h.State != access.HeldAnswered {
		t.Errorf("got %+v, want bob's answer", h)
	}
	_, err = l.ConsumeHeld(ctx, "h1")
	check(t, err)
	check(t, l.CancelHeld(ctx, "h2", access.HeldTimedOut))
	check(t, l.Abandon(ctx, "gateway-2"))
	if open, err := s.OpenHelds(ctx); err != nil || len(open) != 1 {
		t.Errorf("got %d open holds, %v, want the one of gateway-1", len(open), err)
	}
	check(t, l.Abandon(ctx, "gateway-1"))
	all, err := s.ListSessions(ctx)
	check(t, err)
	if open, err := s.OpenHelds(ctx); err != nil || len(open) != 0 || all[0].Ended.IsZero() {
		t.Errorf("got %d open holds and a session ended at %s, %v, want nothing of gateway-1 left", len(open), all[0].Ended, err)
	}
	_, err = l.Update(ctx, g)
	wantCode(t, "write a grant", err, access.CodeDenied)
	wantCode(t, "answer", l.AnswerHeld(ctx, access.Answer{Held: "h3", Digest: "d"}), access.CodeDenied)
}

// gatewayMayNot speaks SQL with the gateway's login, as who stole it would.
func gatewayMayNot(t *testing.T, s *shared) {
	conn := connectTo(t, s.gateway)
	for _, sql := range []string{
		"insert into grants select * from grants",
		"update grants set state='active'",
		"delete from grants",
		"truncate held",
		"delete from held",
		"update held set pull=8",
		"update held set number=8",
		"insert into adopted values (1, '', '')",
		"update adopted set rules=''",
		"insert into reviews values (1, 1, 1, '')",
		"select * from reviews",
		"insert into pushers values (1, '', 1, '')",
		"insert into done values ('a', 'b')",
		"update counters set value=0",
		"update pins set subject='mallory'",
		"delete from pins",
		"update heads set payload=''",
		"delete from heads",
		"delete from sessions",
		"update sessions set id='other'",
		"update sessions set payload=''", // whose session it was
		"update audit set entry=''",
		"delete from audit",
		"select entry from audit",
		"update goose_db_version set version_id=9",
		"create table x (y int)",
		"create temporary table audit (y int)",
		"alter table audit disable trigger audit_append",
		"drop trigger audit_append on audit",
		"do $$ begin lock table held in access exclusive mode; end $$",
		"do $$ begin lock table audit in share mode; end $$",
		"insert into audit values (9223372036854775807, 'h', '{}')",
		auditSQL("seq + 1", "grant.active", "hash"),
		auditSQL("seq + 1", "hold.answer", "hash"),
		auditSQL("seq + 2", "session.open", "hash"),
		auditSQL("seq + 1", "session.open", "'another'"),
		"set session_replication_role = replica",
	} {
		if _, err := conn.Exec(t.Context(), sql); sqlState(err) != denied && sqlState(err) != "23514" {
			t.Errorf("got %v, want it refused: %s", err, sql)
		}
	}
	if _, err := conn.Exec(t.Context(), auditSQL("seq + 1", "session.open", "hash")); err != nil {
		t.Errorf("a row that follows: %v", err)
	}
}

// gatewayHidesNothing: rows that nobody can read keep nobody from reading the
// others, nor a gateway from starting.
func gatewayHidesNothing(t *testing.T, s *shared, g access.Grant) {
	ctx, conn := t.Context(), connectTo(t, s.gateway)
	for _, sql := range []string{
		"insert into sessions (id, repo, grant_id, started, reason, payload) select 'junk', repo, grant_id, started, '', 'junk' from sessions where id='s1'",
		"insert into held (id, repo, pull, number, state, expires, payload) select 'junk', repo, pull, 99, 'open', expires, 'junk' from held where id='h1'",
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	all, err := s.ListSessions(ctx)
	check(t, err)
	of, err := s.Sessions(ctx, g.Key)
	check(t, err)
	if len(all) != 2 || len(of) != 2 || all[0].ID == all[1].ID {
		t.Errorf("got %+v and %+v, want the session and the junk", all, of)
	}
	check(t, s.Abandon(ctx, "gateway-1"))
}

// auditSQL appends a row to the audit log as ours would be, but for what is
// said: its number, its action, and the hash of the row before.
func auditSQL(seq, action, prev string) string {
	return `with last as (select seq, hash from audit order by seq desc limit 1),
		row as (select ` + seq + ` as n, convert_to(json_build_object('seq', ` + seq + `, 'prev', ` + prev + `, 'action', '` + action + `')::text, 'UTF8') as e from last)
		insert into audit select n, encode(sha256(e), 'hex'), e from row`
}

// TestGatewayLedgerRefused: what is not ready, and what may too much, is said.
func TestGatewayLedgerRefused(t *testing.T) {
	s := newShared(t)
	s.exec(t, "create role "+gatewayLogin+" login password 'gateway'")
	_, err := s.open(t)
	wantSaid(t, err, access.CodeUnavailable, "start the control side first")
	s.start(t)
	_, err = s.open(t)
	wantSaid(t, err, access.CodeDenied, "setup ledger")
	s.setUp(t)
	_, err = s.open(t)
	check(t, err)

	for name, c := range map[string]struct{ give, take, words string }{
		"a table's right":   {"grant update on grants to %s", "revoke update on grants from %s", "may write grants"},
		"a column's right":  {"grant update (tree) on adopted to %s", "revoke update (tree) on adopted from %s", "may write adopted"},
		"through everybody": {"grant insert on reviews to public", "revoke insert on reviews from public", "may write reviews"},
		"control's own":     {"grant tidegate to %s", "revoke tidegate from %s", "may write grants"},
		"a superuser":       {"alter role %s superuser", "alter role %s nosuperuser", "what it likes"},
		"a maker of roles":  {"alter role %s createrole", "alter role %s nocreaterole", "what it likes"},
		"too little":        {"revoke insert on sessions from %s", "grant insert on sessions to %s", "may not insert in sessions"},
	} {
		s.exec(t, strings.ReplaceAll(c.give, "%s", gatewayLogin))
		_, err := s.open(t)
		t.Log(name)
		wantSaid(t, err, access.CodeDenied, c.words)
		s.exec(t, strings.ReplaceAll(c.take, "%s", gatewayLogin))
	}
	s.exec(t, "delete from goose_db_version where version_id > 1")
	_, err = s.open(t)
	wantSaid(t, err, access.CodeUnavailable, "start the control side of this version first")
	_, err = Open(t.Context(), Config{URL: s.gateway})
	wantSaid(t, err, access.CodeUnavailable, "start the control side of this version first")
	s.exec(t, "insert into goose_db_version (version_id, is_applied) values (99, true)")
	_, err = s.open(t)
	wantSaid(t, err, access.CodeInvalid, "newer program")
	_, err = Open(t.Context(), Config{URL: "sqlite:" + t.TempDir() + "/l.db", ForGateway: true})
	wantSaid(t, err, access.CodeInvalid, "PostgreSQL")
}

// TestReaderLogin: a login that can't change the schema opens one that is up
// to date.
func TestReaderLogin(t *testing.T) {
	s := newShared(t)
	s.start(t)
	s.active(t, "a")
	s.exec(t, "create role reader login password 'reader'", "grant select on all tables in schema public to reader")
	l, err := Open(t.Context(), Config{URL: as(t, s.control, "reader", "reader")})
	check(t, err)
	defer l.Close()
	if all, err := l.ListGrants(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("got %d grants, %v, want one", len(all), err)
	}
}
