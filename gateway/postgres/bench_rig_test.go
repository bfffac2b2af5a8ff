package postgres

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger/pgtest"
	"github.com/tidegate/tidegate/gateway"
	"github.com/tidegate/tidegate/gateway/gatewaytest"
	"github.com/tidegate/tidegate/gateway/postgres/backing"
	"github.com/tidegate/tidegate/gateway/record"
	"github.com/tidegate/tidegate/policies"
)

// benchSessions is how many sessions are held open at once.
const benchSessions = 1000

// benchRig is one PostgreSQL with three ways to it: direct, through pgbouncer
// and through a gateway that judges, masks and records.
type benchRig struct {
	t    *testing.T
	pg   *pgtest.Server
	db   string
	gate *gatewaytest.Gate
	ca   string

	tls  bool
	ways []benchWay
}

// benchWay is one road to the database.
type benchWay struct {
	name, dsn, password string
}

// newBenchRig makes the data and the grant: the role reads pgbench's tables,
// and of the wide one a view in which the e-mail is masked.
func newBenchRig(t *testing.T) *benchRig {
	pg := pgtest.Start(t, pgtest.Options{SSL: true, Config: map[string]string{
		"max_connections": fmt.Sprint(benchSessions + 100), "shared_buffers": "256MB", "max_wal_size": "4GB", "autovacuum": "off",
	}})
	dsn := pg.NewDatabase(t)
	admin, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(context.Background())
	b := &benchRig{t: t, pg: pg, db: admin.Config().Database, ca: filepath.Join(t.TempDir(), "ca.pem")}
	b.command(nil, "pgbench", "-i", "-q", "-n", "-s", "5", dsn)
	for _, sql := range []string{
		`create role bench login password 'secret'`,
		`grant select on all tables in schema public to bench`,
		`create table wide (id int, name text, email text, city text, amount numeric(10,2), made timestamptz)`,
		`insert into wide select i, 'name '||i, 'user'||i||'@acme.test', 'city '||(i%100), i/7.0, now() from generate_series(1, 1000000) i`,
		`create schema masked`,
		`create view masked.wide with (security_barrier) as select id, name, '****'||right(email, 4) as email, city, amount, made from wide`,
		`grant usage on schema masked to bench`, `grant select on masked.wide to bench`,
		`alter role bench set search_path = masked, public`,
		`vacuum analyze`, `checkpoint`,
	} {
		if _, err := admin.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	syscall.Sync() // or writing the data out is measured with what comes first
	b.makeGate()
	return b
}

// benchRules are ordinary ones; none of them bites.
var benchRules = []access.Rule{
	{Name: "no-drop", On: []access.TargetRef{{Kind: "postgres", Name: "orders-prod"}}, Deny: `statement.ddl`, Say: "No."},
	{Name: "where", On: []access.TargetRef{{Kind: "postgres", Name: "orders-prod"}}, Deny: `statement.kind == "delete" && !statement.has_where`, Say: "No."},
	{Name: "big", On: []access.TargetRef{{Kind: "postgres", Name: "orders-prod"}}, Hold: `statement.writes && touches("wide")`, Say: "Ask."},
}

type policyCompiler struct{}

func (policyCompiler) Compile(rules []access.Rule, g access.Grant, id access.Identity) (access.Judge, error) {
	return policies.Compile(rules, g, id)
}

type spool struct{ *record.Store }

func (s spool) Record(i access.SessionInfo, anchor func(access.Head)) (gateway.Recorder, error) {
	return s.Store.Record(i, anchor)
}

func (b *benchRig) makeGate() {
	plan, err := backing.Backing{Role: "bench", Database: b.db, SearchPath: []string{"masked", "public"},
		Masked: []backing.MaskedTable{{Schema: "public", Table: "wide", MaskSchema: "masked", Columns: []backing.MaskedColumn{{Name: "email"}}}}}.Encode()
	if err != nil {
		b.t.Fatal(err)
	}
	store, err := record.Open(record.Config{Dir: b.t.TempDir(), Key: testKey(b.t)})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = store.Close() })
	b.gate = gatewaytest.New(b.t, gatewaytest.Options{
		Target:   access.Target{TargetRef: access.TargetRef{Kind: "postgres", Name: "orders-prod"}, Address: fmt.Sprintf("127.0.0.1:%d/%s", b.pg.Port, b.db)},
		Compiler: policyCompiler{}, Recorders: spool{store},
		Lease: func(_ access.Grant, l *access.Lease) error {
			l.User, l.Password, l.ServerCA, l.Backing = "bench", access.NewSecret("secret"), b.pg.CAPEM, plan
			return nil
		},
		Tune: func(c *gateway.Config) { c.MaxSessionsPerPerson, c.MaxPendingPerRemote = 2*benchSessions, 512 },
	})
	b.gate.Rules(benchRules...)
}

// open starts the three ways, with TLS on every leg or on none.
func (b *benchRig) open(tls bool) {
	b.tls = tls
	mode := "sslmode=disable"
	if tls {
		mode = "sslmode=require"
	}
	dsn := func(port int, db string) string {
		return fmt.Sprintf("host=127.0.0.1 port=%d dbname=%s user=bench %s", port, db, mode)
	}
	b.ways = []benchWay{
		{"direct", dsn(b.pg.Port, b.db), "secret"},
		{"pgbouncer", dsn(b.startBouncer(), b.db), "secret"},
		{"gateway", dsn(b.startRoom(), "orders-prod"), b.gate.Token("alice")},
	}
}

func (b *benchRig) startRoom() int {
	cert := (&rig{t: b.t}).certificate()
	room, err := New(Config{TLS: cert, AllowPlainLoopback: !b.tls})
	if err != nil {
		b.t.Fatal(err)
	}
	room.plainTarget = !b.tls
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() {
		if err := b.gate.Server.Serve(ctx, ln, room); err != nil {
			b.t.Error(err)
		}
	})
	b.t.Cleanup(func() { cancel(); work.Wait() })
	return ln.Addr().(*net.TCPAddr).Port
}

// startBouncer runs pgbouncer with session pooling, and TLS as the others.
func (b *benchRig) startBouncer() int {
	dir, err := os.MkdirTemp("", "tidegate-bench-")
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	port := freePort(b.t)
	ini := fmt.Sprintf(`[databases]
* = host=127.0.0.1 port=%d
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = scram-sha-256
auth_file = %s/users
pool_mode = session
max_client_conn = 2000
default_pool_size = 1000
logfile = %s/log
log_connections = 0
log_disconnections = 0
`, b.pg.Port, port, dir, dir)
	if b.tls {
		ini += fmt.Sprintf("client_tls_sslmode = require\nclient_tls_cert_file = %[1]s/server.pem\nclient_tls_key_file = %[1]s/server.key\nserver_tls_sslmode = require\n", dir)
		for _, f := range []string{"server.pem", "server.key"} {
			data, err := os.ReadFile(filepath.Join(b.pg.Dir, f))
			if err != nil {
				b.t.Fatal(err)
			}
			b.write(filepath.Join(dir, f), data)
		}
	}
	b.write(filepath.Join(dir, "users"), []byte(`"bench" "secret"`+"\n"))
	b.write(filepath.Join(dir, "ini"), []byte(ini))
	args := []string{"pgbouncer", filepath.Join(dir, "ini")}
	if os.Geteuid() == 0 { // it refuses root
		b.command(nil, "chown", "-R", "nobody", dir)
		args = append([]string{"setpriv", "--reuid=nobody", "--clear-groups"}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	b.await(port)
	return port
}

func (b *benchRig) write(path string, data []byte) {
	if err := os.WriteFile(path, data, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (b *benchRig) await(port int) {
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		if c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			_ = c.Close()
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	b.t.Fatal("pgbouncer does not listen")
}

func freePort(t *testing.T) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// command runs a program and answers with what it printed.
func (b *benchRig) command(env []string, name string, args ...string) string {
	b.t.Helper()
	cmd := exec.CommandContext(b.t.Context(), name, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}
