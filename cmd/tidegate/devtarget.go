package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/access/ledger/pgtest"
	"github.com/tidegate/tidegate/gateway/postgres/mint"
)

// devAdmin is the minter's login at dev's own target.
const devAdmin = "tidegate_admin"

// devTarget is the throwaway PostgreSQL that `tidegate dev` gives access to.
type devTarget struct {
	*pgtest.Server
	address string // host:port/database
}

// startTarget starts the cluster and fills it on its first start.
func startTarget(ctx context.Context, dir string, s *devState) (*devTarget, error) {
	pg, err := pgtest.Run(ctx, pgtest.Options{
		SSL: true, Dir: filepath.Join(dir, "postgres"), Port: s.Ports["postgres"],
		Config: map[string]string{"log_statement": "all", "max_connections": "300"}, // one for each session
	})
	if err != nil {
		return nil, fmt.Errorf("start target: %w", err)
	}
	t := &devTarget{Server: pg, address: s.target()}
	if err := t.fill(ctx, s); err != nil {
		return nil, errors.Join(err, pg.Close())
	}
	return t, nil
}

// fill makes the database, its data, and the minter's login by the same SQL
// that `tidegate setup postgres` prints.
func (t *devTarget) fill(ctx context.Context, s *devState) error {
	conn, err := pgx.Connect(ctx, t.DSN)
	if err != nil {
		return fmt.Errorf("fill target: %w", err)
	}
	defer conn.Close(ctx)
	var there bool
	if err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = 'orders')`).Scan(&there); err != nil {
		return fmt.Errorf("fill target: %w", err)
	}
	if there {
		return nil
	}
	for _, sql := range []string{
		`CREATE ROLE app_owner NOLOGIN`,
		`CREATE DATABASE orders OWNER app_owner`,
		`REVOKE ALL ON DATABASE orders FROM PUBLIC`,
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("fill target: %w", err)
		}
	}
	return t.fillOrders(ctx, s)
}

func (t *devTarget) fillOrders(ctx context.Context, s *devState) error {
	conn, err := pgx.Connect(ctx, t.orders())
	if err != nil {
		return fmt.Errorf("fill orders: %w", err)
	}
	defer conn.Close(ctx)
	setup := mint.SetupSQL(mint.Options{
		Installation: s.Installation, Admin: devAdmin, Database: "orders", Owners: []string{"app_owner"},
	})
	for _, sql := range []string{
		devData, setup,
		`SET log_statement = 'none'`, // the next one carries a password
		`ALTER ROLE ` + devAdmin + ` PASSWORD '` + s.AdminSecret + `'`,
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("fill orders: %w", err)
		}
	}
	return nil
}

// orders is the superuser's DSN of the database with the data.
func (t *devTarget) orders() string {
	return strings.Replace(t.DSN, "/postgres?", "/orders?", 1)
}

// devData is the play's data. The e-mails are the canaries: their local parts
// may reach no client.
const devData = `
ALTER SCHEMA public OWNER TO app_owner;
SET ROLE app_owner;
CREATE TABLE public.users (id int PRIMARY KEY, name text NOT NULL, email text NOT NULL, ssn text);
CREATE TABLE public.orders (id int PRIMARY KEY, user_id int REFERENCES public.users, status text NOT NULL, total numeric(10,2), note text);
CREATE TABLE public.jobs (id int PRIMARY KEY, kind text NOT NULL, state text NOT NULL);
INSERT INTO public.users
  SELECT n, 'Customer ' || n, 'canary' || n || '.secret@customers.test', '900-00-' || lpad(n::text, 4, '0') FROM generate_series(1, 20) n;
INSERT INTO public.orders SELECT n, 1 + n % 20, CASE n % 3 WHEN 0 THEN 'stuck' ELSE 'paid' END, n * 1.5, NULL FROM generate_series(1, 100) n;
INSERT INTO public.jobs SELECT n, 'refund', 'stuck' FROM generate_series(1, 12) n;
RESET ROLE;
`
