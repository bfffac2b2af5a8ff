package postgres

import (
	"testing"

	"github.com/tidegate/tidegate/gateway/postgres/backing"
)

var plan = backing.Backing{
	Role: "r", Database: "d", SearchPath: []string{"m", "public"},
	Masked: []backing.MaskedTable{{Schema: "public", Table: "users", MaskSchema: "m"}, {Schema: "public", Table: "parcels", MaskSchema: "m", Limited: true}},
}

func edited(text string, stmts []statement) ([]edit, error) {
	r, err := rewrite(text, stmts, plan)
	if err != nil {
		return nil, err
	}
	return r.sorted(), nil
}

func TestRewrite(t *testing.T) {
	for in, want := range map[string]string{
		"SELECT * FROM users":                                      "SELECT * FROM users",
		"SELECT * FROM public.users WHERE id = $1":                 `SELECT * FROM "m".users WHERE id = $1`,
		`SELECT * FROM "public" . "users" u`:                       `SELECT * FROM "m" . "users" u`,
		"SELECT public.users.* FROM PUBLIC.users":                  `SELECT "m".users.* FROM "m".users`,
		"SELECT 'é', public.users.id FROM public.users":            `SELECT 'é', "m".users.id FROM "m".users`,
		"DELETE FROM users WHERE id = 1":                           `DELETE FROM "public".users WHERE id = 1`,
		"UPDATE public.users SET id = 1 WHERE public.users.id = 2": "UPDATE public.users SET id = 1 WHERE public.users.id = 2",
		"INSERT INTO users SELECT * FROM public.users":             `INSERT INTO "public".users SELECT * FROM "m".users`,
		"SELECT 1; SELECT 2 FROM public.users":                     `SELECT 1; SELECT 2 FROM "m".users`,
		"SELECT * FROM parcels JOIN public.parcels p USING (id)":   `SELECT * FROM parcels JOIN "m".parcels p USING (id)`,
		"DELETE FROM parcels WHERE id = 1":                         "DELETE FROM parcels WHERE id = 1",
		"DELETE FROM public.parcels WHERE public.parcels.id = 1":   `DELETE FROM "m".parcels WHERE "m".parcels.id = 1`,
		"INSERT INTO public.parcels SELECT * FROM public.users":    `INSERT INTO "m".parcels SELECT * FROM "m".users`,
		"UPDATE public.parcels p SET id = 1 RETURNING *":           `UPDATE "m".parcels p SET id = 1 RETURNING *`,
		"LOCK TABLE public.parcels":                                `LOCK TABLE "m".parcels`,
		"LOCK TABLE public.users, users":                           `LOCK TABLE public.users, "public".users`,
		"LOCK TABLE public.users IN ACCESS SHARE MODE NOWAIT":      `LOCK TABLE "m".users IN ACCESS SHARE MODE NOWAIT`,
		"TRUNCATE public.users, users, public.parcels, orders":     `TRUNCATE public.users, "public".users, public.parcels, orders`,
		"VACUUM public.users, parcels":                             `VACUUM public.users, "public".parcels`,
		"ANALYZE users (id)":                                       `ANALYZE "public".users (id)`,
	} {
		stmts, err := classify(in, &catalog{})
		if err != nil {
			t.Fatal(err)
		}
		edits, err := edited(in, stmts)
		if got := apply(in, edits); err != nil || got != want {
			t.Errorf("%s:\ngot  %s, %v\nwant %s", in, got, err, want)
		}
	}
	for _, in := range []string{`SELECT * FROM U&"public".users`, "SELECT * FROM d.public.users"} {
		stmts, err := classify(in, &catalog{})
		if err != nil {
			t.Fatal(err)
		}
		if edits, err := edited(in, stmts); err == nil {
			t.Errorf("%s: became %s, want a refusal", in, apply(in, edits))
		}
	}
}

func FuzzRewrite(f *testing.F) {
	f.Add("SELECT * FROM public.users; DELETE FROM users")
	f.Fuzz(func(t *testing.T, in string) {
		stmts, err := classify(in, &catalog{})
		if err != nil {
			return
		}
		edits, err := edited(in, stmts)
		if err != nil {
			return
		}
		out := apply(in, edits)
		if again, err := classify(out, &catalog{}); err != nil || len(again) != len(stmts) {
			t.Errorf("%q became %q: %d statements, %v; want %d", in, out, len(again), err, len(stmts))
		}
	})
}

func TestMaskedNotice(t *testing.T) {
	masked := plan
	masked.Masked = []backing.MaskedTable{{Schema: "public", Table: "users", MaskSchema: "m", Columns: []backing.MaskedColumn{{Name: "email"}}}}
	for sql, want := range map[string]bool{
		"select email from users":                                               false,
		"select email from users where id = 1":                                  false,
		"select * from users where email = 'x'":                                 true,
		"select * from public.users u where lower(u.email) like 'x%'":           true,
		"select * from users where email in ('a')":                              true,
		"select * from users where email in (select 'a')":                       true,
		"select * from users join other using (email)":                          true,
		"select * from users u join o on o.mail = u.email":                      true,
		"select * from other where email = 'x'":                                 false,
		"select email || 'x' from users":                                        false,
		"select email, count(*) from users group by email":                      true,
		"select id from users order by email":                                   true,
		"select distinct email from users":                                      true,
		"select * from users natural join users u2":                             true,
		"select id, row_number() over (order by email) from users":              true,
		"prepare p(text) as select id from users where email = $1":              true,
		"with users as (select 1 as email) select * from users where email = 2": false,
	} {
		stmts, err := classify(sql, newCatalog(masked))
		if err != nil {
			t.Fatal(err)
		}
		if got := maskedNotice(stmts, newCatalog(masked)); (got != "") != want {
			t.Errorf("%s: notice %q, want one: %v", sql, got, want)
		}
	}
}
