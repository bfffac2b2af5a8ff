package postgres

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger/pgtest"
	"github.com/tidegate/tidegate/gateway"
	"github.com/tidegate/tidegate/gateway/postgres/backing"
)

const goodToken = "the-good-token"

// fakeDoor opens fakeSessions; the tests are of the room, whose joint this is.
type fakeDoor struct {
	lease access.Lease
	judge func(access.Operation) access.Verdict
	reads string // the fact that the judge reads, if it costs something
	limit access.Limits
	later atomic.Pointer[access.Limits] // in place of limit, from when it is set

	draining chan struct{}        // nil: it never drains
	certs    gateway.Certificates // who certificates stand for

	mu       sync.Mutex
	sessions []*fakeSession
	knocks   []gateway.Knock
	held     chan *heldOp
}

type heldOp struct {
	op     access.Operation
	answer chan access.Verdict
	gone   chan struct{} // closed when Admit gave up
}

func (d *fakeDoor) Open(_ context.Context, k gateway.Knock) (gateway.Session, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.knocks = append(d.knocks, k)
	if len(k.Certificate) > 0 && d.certs != nil {
		if _, err := d.certs.IdentifyCertificate(k.Certificate); err != nil {
			return nil, err
		}
	} else if k.Token.Reveal() != goodToken {
		return nil, access.Errorf(access.CodeUnauthenticated, "Your token was not accepted. Log in again.")
	}
	s := &fakeSession{door: d, warn: make(chan string, 4), closed: make(chan string, 1)}
	s.ctx, s.cut = context.WithCancelCause(context.Background())
	d.sessions = append(d.sessions, s)
	return s, nil
}

func (d *fakeDoor) Linger(time.Duration) {}

func (d *fakeDoor) Vouch(context.Context, gateway.Knock) error { return nil }

func (d *fakeDoor) Targets(string) []access.Target { return nil }

func (d *fakeDoor) Certify(context.Context, gateway.Knock, []byte) ([]byte, error) {
	return nil, access.Errorf(access.CodeUnauthenticated, "no certificates")
}

func (d *fakeDoor) Named(context.Context, gateway.Knock, string) ([]string, error) { return nil, nil }

func (d *fakeDoor) last() *fakeSession {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sessions[len(d.sessions)-1]
}

type fakeSession struct {
	door   *fakeDoor
	ctx    context.Context
	cut    context.CancelCauseFunc
	warn   chan string
	closed chan string

	mu    sync.Mutex
	opens []*fakeOpen
}

func (s *fakeSession) Info() access.SessionInfo  { return access.SessionInfo{ID: "test"} }
func (s *fakeSession) Lease() access.Lease       { return s.door.lease }
func (s *fakeSession) Context() context.Context  { return s.ctx }
func (s *fakeSession) Generation() uint64        { return 1 }
func (s *fakeSession) Withhold(v []byte) string  { return fmt.Sprintf("[withheld: %d bytes]", len(v)) }
func (s *fakeSession) Masker() gateway.Masker    { return nil }
func (s *fakeSession) Reads(fact string) bool    { return fact == s.door.reads }
func (s *fakeSession) Draining() <-chan struct{} { return s.door.draining }
func (s *fakeSession) Drained()                  { s.cut(access.Errorf(access.CodeEnded, "The grant ended.")) }
func (s *fakeSession) Warnings() <-chan string   { return s.warn }

func (s *fakeSession) Judge(op access.Operation) access.Decision {
	d := access.Decision{Verdict: s.door.judge(op), Rule: "test-rule", Say: "The test's rule refuses this.", Limits: s.door.limit}
	if l := s.door.later.Load(); l != nil {
		d.Limits = *l
	}
	if op.Guard != nil {
		return access.Strictest(*op.Guard, d)
	}
	return d
}

func (s *fakeSession) Admit(ctx context.Context, op access.Operation) (gateway.Open, error) {
	o := &fakeOpen{op: op}
	s.mu.Lock()
	s.opens = append(s.opens, o)
	s.mu.Unlock()
	d := s.Judge(op)
	if d.Verdict == access.Hold {
		h := &heldOp{op: op, answer: make(chan access.Verdict, 1), gone: make(chan struct{})}
		s.door.held <- h
		select {
		case d.Verdict = <-h.answer:
		case <-ctx.Done():
			close(h.gone)
			_ = o.Close(access.Outcome{Status: "cancelled"})
			return nil, access.Errorf(access.CodeCancelled, "You gave up waiting.")
		}
	}
	if d.Verdict != access.Allow {
		_ = o.Close(access.Outcome{Status: "refused"})
		return nil, &access.Error{Code: access.CodeDenied, Message: d.Say, Rule: d.Rule}
	}
	o.decision = d
	return o, nil
}

func (s *fakeSession) Close(reason string) error {
	s.cut(access.Errorf(access.CodeEnded, "The session was closed."))
	select {
	case s.closed <- reason:
	default:
	}
	return nil
}

// outcomes are how the operations with the text ended; "open" for one that runs.
func (s *fakeSession) outcomes(text string) []access.Outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []access.Outcome
	for _, o := range s.opens {
		if strings.Contains(o.op.Text, text) {
			out = append(out, o.result())
		}
	}
	return out
}

type fakeOpen struct {
	op       access.Operation
	decision access.Decision

	mu          sync.Mutex
	rows, bytes int64
	tapped      []byte
	outcome     access.Outcome
	closed      bool
}

func (o *fakeOpen) ID() uint64                { return 1 }
func (o *fakeOpen) Decision() access.Decision { return o.decision }
func (o *fakeOpen) Tap(_ access.Direction, b []byte) ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tapped = append(o.tapped, b...)
	return b, nil
}
func (o *fakeOpen) Output() gateway.Output { return nil }
func (o *fakeOpen) Resize(int, int) error  { return nil }
func (o *fakeOpen) Count(rows, bytes int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.rows, o.bytes = o.rows+rows, o.bytes+bytes
}

func (o *fakeOpen) Close(out access.Outcome) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closed {
		o.closed, o.outcome = true, out
	}
	return nil
}

func (o *fakeOpen) result() access.Outcome {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closed {
		return access.Outcome{Status: "open"}
	}
	out := o.outcome
	out.Rows, out.Bytes = out.Rows+o.rows, out.Bytes+o.bytes
	return out
}

// rig is a real PostgreSQL, a room before it, and a door.
type rig struct {
	t     *testing.T
	pg    *pgtest.Server
	admin *pgx.Conn
	door  *fakeDoor
	addr  *net.TCPAddr
	ca    string // path of the gateway's certificate
	port  string
	kept  map[string]*keptConn
}

// rules of the tests: drop is denied, delete waits, the rest may run.
func testJudge(op access.Operation) access.Verdict {
	switch op.Facts["kind"] {
	case "drop":
		return access.Deny
	case "delete":
		return access.Hold
	}
	return access.Allow
}

func newRig(t *testing.T, cfg Config) *rig {
	t.Helper()
	return newRigOn(t, cfg, "")
}

// newRigOn is a rig on a major version of PostgreSQL.
func newRigOn(t *testing.T, cfg Config, version string) *rig {
	t.Helper()
	s := pgtest.Start(t, pgtest.Options{SSL: true, Version: version, Config: map[string]string{"log_statement": "all"}})
	r := &rig{t: t, pg: s}
	var err error
	if r.admin, err = pgx.Connect(t.Context(), s.NewDatabase(t)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.admin.Close(context.Background()) })
	db := r.admin.Config().Database
	r.exec(`create role dev login password 'secret'; create table public.t (id int, v text);
		grant all on public.t to dev; grant create on schema public to dev; insert into public.t select i, 'v'||i from generate_series(1,3) i`)
	plan, err := backing.Backing{Role: "dev", Database: db, SearchPath: []string{"public"}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	r.door = &fakeDoor{judge: testJudge, held: make(chan *heldOp, 8), lease: access.Lease{
		Address: fmt.Sprintf("127.0.0.1:%d/%s", s.Port, db), User: "dev", Password: access.NewSecret("secret"), ServerCA: s.CAPEM, Backing: plan,
	}}
	cfg.TLS = r.certificate()
	room, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.serve(room)
	return r
}

func (r *rig) exec(sql string) {
	r.t.Helper()
	if _, err := r.admin.Exec(r.t.Context(), sql); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) certificate() *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		r.t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "gate"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		r.t.Fatal(err)
	}
	r.ca = filepath.Join(r.t.TempDir(), "gate.pem")
	if err := os.WriteFile(r.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		r.t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

func (r *rig) serve(room *Room) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	r.addr = l.Addr().(*net.TCPAddr)
	r.port = fmt.Sprint(r.addr.Port)
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer r.takeTestPanic()
				if err := room.Serve(ctx, c, r.door); err != nil {
					r.t.Logf("serve: %v", err)
				}
			})
		}
	})
	r.t.Cleanup(func() { _ = l.Close(); cancel(); work.Wait() })
}

func (r *rig) dsn() string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword("me", goodToken), Host: "127.0.0.1:" + r.port, Path: "orders"}
	u.RawQuery = url.Values{"sslmode": {"verify-full"}, "sslrootcert": {r.ca}, "connect_timeout": {"10"}}.Encode()
	return u.String()
}

func (r *rig) config() *pgx.ConnConfig {
	r.t.Helper()
	cfg, err := pgx.ParseConfig(r.dsn())
	if err != nil {
		r.t.Fatal(err)
	}
	return cfg
}

func (r *rig) connect() *pgx.Conn {
	r.t.Helper()
	c, err := pgx.Connect(r.t.Context(), r.dsn())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// psql runs the real client and answers with all that it prints.
func (r *rig) psql(dsn, input string, args ...string) (string, error) {
	r.t.Helper()
	path, err := exec.LookPath("psql")
	if err != nil {
		if os.Getenv("TIDEGATE_REQUIRE_PARTS") == "1" {
			r.t.Fatal(err)
		}
		r.t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, append([]string{"-X", "-At", "-v", "VERBOSITY=verbose", dsn}, args...)...)
	cmd.Stdin = strings.NewReader(input)
	cmd.Env = append(os.Environ(), "PGCLIENTENCODING=UTF8")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// count reads how many rows the table has, past the room.
func (r *rig) count() int {
	r.t.Helper()
	var n int
	if err := r.admin.QueryRow(r.t.Context(), "select count(*) from public.t").Scan(&n); err != nil {
		r.t.Fatal(err)
	}
	return n
}

func (r *rig) takeHeld() *heldOp {
	r.t.Helper()
	select {
	case h := <-r.door.held:
		return h
	case <-time.After(10 * time.Second):
		r.t.Fatal("nothing was held")
		return nil
	}
}
