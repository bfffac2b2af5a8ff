package mint

import (
	"context"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/access"
)

// finds diagnoses the bench's target and looks for lines.
func (b *bench) finds(t *testing.T, offers []access.Plan, want ...string) {
	t.Helper()
	var all strings.Builder
	for _, f := range b.Diagnose(t.Context(), b.target, offers) {
		all.WriteString(string(f.Level) + " " + f.Say + " → " + f.Do + "\n")
	}
	for _, w := range want {
		if !strings.Contains(all.String(), w) {
			t.Errorf("want %q in\n%s", w, all.String())
		}
	}
	for _, secret := range []string{b.admin, canary} {
		if strings.Contains(all.String(), secret) {
			t.Errorf("%q is told:\n%s", secret, all.String())
		}
	}
}

func TestDiagnose(t *testing.T) {
	b := newBench(t, shop)
	reader := access.Plan{Target: b.target, Role: access.Role{Name: "reader", Read: []string{"public.users", "public.orders"}},
		Masks: []access.Mask{{Name: "m", On: []access.TargetRef{b.target.TargetRef}, Columns: []string{"users.email"}, With: access.MaskWith{Kind: access.MaskNull}}}}
	sales := access.Plan{Target: b.target, Role: access.Role{Name: "sales", Read: []string{"sales.*"}}}
	gone := access.Plan{Target: b.target, Role: access.Role{Name: "gone", Read: []string{"public.gone"}}}
	gone.Request.ID = "inc-1"
	t.Run("as setup makes it", func(t *testing.T) {
		b.finds(t, []access.Plan{reader, sales, gone}, "answers with verified TLS; the login minter_", "ok its clock agrees", "ok it is PostgreSQL",
			"has the rights that it mints with", "ok role reader can be given: 2 tables, 1 of them with masks",
			"fail role sales: the login may not hand on its rights on sales.users", "fail grant inc-1 can't be given: Pattern")
	})
	t.Run("without a right", func(t *testing.T) {
		b.must(t, "alter role minter_"+b.cfg.Installation+" nocreaterole")
		b.finds(t, nil, "lacks CREATEROLE → Have a superuser run what `tidegate setup postgres --installation "+b.cfg.Installation)
		b.must(t, "alter role minter_"+b.cfg.Installation+" createrole")
	})
	t.Run("another password", func(t *testing.T) {
		b.must(t, "alter role minter_"+b.cfg.Installation+" password 'another'")
		b.Close()
		b.finds(t, nil, "→ Look at user and password_file of the secret.")
	})
	t.Run("nobody there", func(t *testing.T) {
		b.target.Address = "127.0.0.1:1/x"
		b.finds(t, nil, "fail 127.0.0.1:1/x: ", "→ Look whether the server runs")
	})
}

func TestDiagnoseUnknownCA(t *testing.T) {
	b := newBench(t, shop)
	find := b.cfg.Admin
	b.cfg.Admin = func(ctx context.Context, t access.Target) (AdminLogin, error) {
		login, err := find(ctx, t)
		login.ServerCA = nil
		return login, err
	}
	b.finds(t, nil, "→ Name the CA of the server's certificate in server_ca_file")
}

// TestSetupInPlace: what setup prints can be run again, for a second database
// of the server too; in another database than the one that is meant, or for a
// superuser, it changes nothing.
func TestSetupInPlace(t *testing.T) {
	b := newBench(t, shop)
	_, database, _ := strings.Cut(b.target.Address, "/")
	o := Options{Installation: b.cfg.Installation, Admin: "minter_" + b.cfg.Installation, Database: database}
	b.must(t, SetupSQL(o))
	b.finds(t, nil, "has the rights that it mints with")

	other := connect(t, server.NewDatabase(t))
	refused := func(o Options, want string) {
		t.Helper()
		_, err := other.Exec(t.Context(), SetupSQL(o))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
		if _, err := other.Exec(t.Context(), "rollback"); err != nil {
			t.Fatal(err)
		}
		if there, err := say(t, other, "select count(*) from pg_namespace where nspname like 'tidegate%'"); err != nil || strings.TrimSpace(there) != "0" {
			t.Errorf("it left %s schemas, %v", there, err)
		}
	}
	refused(o, "got database "+other.Config().Database+", want "+database)
	o.Database = other.Config().Database
	super := o
	super.Admin = other.Config().User
	refused(super, "is a superuser")
	if _, err := other.Exec(t.Context(), SetupSQL(o)); err != nil {
		t.Errorf("a second database: %v", err)
	}
}
